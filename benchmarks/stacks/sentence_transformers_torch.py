"""The notebook's stack: sentence-transformers on torch, and a scikit-learn head on its embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer

from stacks.material import BATCH_SIZES, Labeller, Material, Stack, tuned


def fp32(material: Material) -> Stack:
    return with_head(SentenceTransformer(str(material.encoder), device="cpu"), material)


def with_head(encoder: Any, material: Material, batch_sizes: Sequence[int] = BATCH_SIZES) -> Stack:
    """Return SentenceTransformer.encode (which sorts by length itself), then scikit-learn's predict."""
    head = material.head.scikit_learn(material.data.classes)

    def make(batch_size: int) -> Labeller:
        return lambda texts: head.predict(
            encoder.encode(texts, batch_size=batch_size, show_progress_bar=False)
        ).tolist()

    throughput, settings = tuned(make, material, batch_size=batch_sizes)
    return Stack(throughput, make(1), settings)
