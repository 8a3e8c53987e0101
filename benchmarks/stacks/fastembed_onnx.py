"""fastembed with MiniLM as a custom model from a local folder, and a scikit-learn head on its embeddings.

`parallel` stays off: it starts new processes at each call.
"""

from __future__ import annotations

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

from stacks.material import BATCH_SIZES, Labeller, Material, Stack, tuned
from stacks.sentence_transformers_onnx import FP32_FILE, INT8_FILE, exported


def fp32(material: Material) -> Stack:
    return _stack("edgewren-benchmark/minilm", FP32_FILE, material)


def int8(material: Material) -> Stack:
    return _stack("edgewren-benchmark/minilm-int8", INT8_FILE, material)


def _stack(name: str, file: str, material: Material) -> Stack:
    folder = exported(material)
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),  # never asked: the files lie in specific_model_path
        dim=len(material.head.mean),
        model_file=file,
    )
    encoder = TextEmbedding(name, threads=material.cores, specific_model_path=str(folder), cuda=False)
    head = material.head.scikit_learn(material.data.classes)

    def make(batch_size: int) -> Labeller:
        return lambda texts: head.predict(np.stack(list(encoder.embed(texts, batch_size=batch_size)))).tolist()

    throughput, settings = tuned(make, material, batch_size=BATCH_SIZES)
    return Stack(throughput, make(1), settings)
