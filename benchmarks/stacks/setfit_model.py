"""SetFit's inference: SetFitModel.predict over a sentence-transformers body and a scikit-learn head."""

from __future__ import annotations

from sentence_transformers import SentenceTransformer
from setfit import SetFitModel

from stacks.material import BATCH_SIZES, Labeller, Material, Stack, tuned


def fp32(material: Material) -> Stack:
    model = SetFitModel(
        model_body=SentenceTransformer(str(material.encoder), device="cpu"),
        model_head=material.head.scikit_learn(material.data.classes),
        labels=list(material.data.classes),
    )

    def make(batch_size: int) -> Labeller:
        return lambda texts: list(map(str, model.predict(texts, batch_size=batch_size, show_progress_bar=False)))

    throughput, settings = tuned(make, material, batch_size=BATCH_SIZES)
    return Stack(throughput, make(1), settings)
