"""optimum's ORTModelForSequenceClassification in its pipeline: fp32, and ORTQuantizer's dynamic int8."""

from __future__ import annotations

from pathlib import Path

from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer, pipeline
from optimum.onnxruntime.configuration import AutoQuantizationConfig

from stacks.material import Material, Stack
from stacks.ridge_classifier import load_tokenizer, onnx_folder
from stacks.sentence_transformers_onnx import session_options
from stacks.transformers_pipeline import from_pipeline


def fp32(material: Material) -> Stack:
    return _stack(onnx_folder(material), "model.onnx", material)


def int8(material: Material) -> Stack:
    folder = material.folder / "optimum-int8"
    quantizer = ORTQuantizer.from_pretrained(onnx_folder(material), file_name="model.onnx")
    settings = AutoQuantizationConfig.avx512_vnni(is_static=False)
    quantizer.quantize(save_dir=folder, quantization_config=settings)
    return _stack(folder, "model_quantized.onnx", material)


def _stack(folder: Path, file: str, material: Material) -> Stack:
    model = ORTModelForSequenceClassification.from_pretrained(
        folder, file_name=file, provider="CPUExecutionProvider", session_options=session_options(material.cores)
    )
    classify = pipeline("text-classification", model=model, tokenizer=load_tokenizer(material))
    return from_pipeline(classify, material)
