"""transformers.pipeline("text-classification") on torch."""

from __future__ import annotations

from typing import Any

from transformers import pipeline

from stacks.material import BATCH_SIZES, Labeller, Material, Stack, tuned
from stacks.ridge_classifier import load_classifier, load_tokenizer


def fp32(material: Material) -> Stack:
    return from_pipeline(
        pipeline(
            "text-classification", model=load_classifier(material), tokenizer=load_tokenizer(material), device="cpu"
        ),
        material,
    )


def from_pipeline(classify: Any, material: Material) -> Stack:
    def make(batch_size: int) -> Labeller:
        return lambda texts: [row["label"] for row in classify(texts, batch_size=batch_size, truncation=True)]

    throughput, settings = tuned(make, material, batch_size=BATCH_SIZES)
    return Stack(throughput, make(1), settings)
