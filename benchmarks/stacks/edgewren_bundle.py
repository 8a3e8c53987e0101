"""edgewren itself, as a user loads it."""

from __future__ import annotations

from pathlib import Path

from edgewren import Classifier
from stacks.material import Labeller, Material, Stack


def fp32(material: Material) -> Stack:
    return _stack(material.bundle, "fp32")


def int8(material: Material) -> Stack:
    return _stack(material.bundle, "int8")


def int8_http(material: Material) -> Stack:
    return _stack(material.http_bundle, "int8", fp32=Classifier.load(material.http_bundle, variant="fp32").predict)


def _stack(bundle: Path, variant: str, fp32: Labeller | None = None) -> Stack:
    predict = Classifier.load(bundle, device="cpu", variant=variant).predict
    return Stack(predict, predict, fp32=fp32)
