"""sentence-transformers' ONNX backend, quantised as its page "Speeding up Inference" says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
from sentence_transformers import SentenceTransformer
from sentence_transformers.backend import export_dynamic_quantized_onnx_model

from stacks.material import Material, Stack
from stacks.sentence_transformers_torch import with_head

FP32_FILE = "onnx/model.onnx"
INT8_FILE = "onnx/model_qint8_avx512_vnni.onnx"


def int8(material: Material) -> Stack:
    return with_head(_load(exported(material), INT8_FILE, material.cores), material)


def exported(material: Material) -> Path:
    """Return the encoder's folder with FP32_FILE and INT8_FILE, made on first use."""
    folder = material.folder / "sentence-transformers-onnx"
    if not folder.exists():
        model = SentenceTransformer(str(material.encoder), device="cpu", backend="onnx", model_kwargs={"export": True})
        model.save_pretrained(str(folder))
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))
    return folder


def session_options(cores: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    return options


def _load(folder: Path, file: str, cores: int) -> Any:
    return SentenceTransformer(
        str(folder),
        device="cpu",
        backend="onnx",
        model_kwargs={
            "file_name": file,
            "provider": "CPUExecutionProvider",
            "session_options": session_options(cores),
        },
    )
