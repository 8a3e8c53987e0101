"""FastAPI around optimum's ONNX Runtime pipeline, as tutorials have it. BUNDLE_DIR names an exported bundle."""

from __future__ import annotations

import os

from fastapi import FastAPI
from optimum.onnxruntime import ORTModelForSequenceClassification
from pydantic import BaseModel
from transformers import AutoTokenizer, pipeline

_FOLDER = os.environ["BUNDLE_DIR"]
_FILE = os.environ.get("BUNDLE_FILE", "model.onnx")

app = FastAPI()
classify = pipeline(
    "text-classification",
    model=ORTModelForSequenceClassification.from_pretrained(_FOLDER, subfolder="onnx", file_name=_FILE),
    tokenizer=AutoTokenizer.from_pretrained(_FOLDER),
    top_k=None,
    truncation=True,
)


class Ask(BaseModel):
    inputs: str | list[str]


@app.get("/health")
def health() -> dict[str, bool]:
    return {"ready": True}


@app.post("/predict")
def predict(ask: Ask) -> list[object]:  # a plain def: FastAPI runs it in a thread
    out: list[object] = classify(ask.inputs)
    return out
