"""edgewren itself, as a user loads it."""

from __future__ import annotations

from pathlib import Path

from edgewren import Classifier
from edgewren.errors import BundleError
from stacks.material import REPOSITORY, Labeller, Material, Stack, UnavailableError


def fp32(material: Material) -> Stack:
    return _stack(material.bundle, "fp32")


def int8(material: Material) -> Stack:
    return _stack(material.bundle, "int8")


def int8_exit(material: Material) -> Stack:
    """The same tokens and weights; texts that are sure leave early. What `Classifier.load` takes by itself."""
    return _stack(material.bundle, "int8_exit")


def int8_http(material: Material) -> Stack:
    if material.trained is not None:
        raise UnavailableError("the given model has its own normaliser")
    return _stack(material.http_bundle, "int8", fp32=_predict(material.http_bundle, "fp32"))


def default_static(_: Material) -> Stack:
    """Return what `Classifier.load()` loads: the bundle inside the package."""
    predict = Classifier.load(device="cpu").predict
    return Stack(predict, predict, comparable=False)


def default_ridge(_: Material) -> Stack:
    return _shipped("ridge")


def default_lora(_: Material) -> Stack:
    return _shipped("lora")


def _shipped(recipe: str) -> Stack:
    """Return a default bundle, as it loads. It has no fp32 to compare with: its card says how far it is."""
    bundle = REPOSITORY / "artifacts" / f"media-bias-{recipe}"
    if not bundle.exists():
        raise UnavailableError(f"{bundle.relative_to(REPOSITORY)} is not there; 'make artifacts' builds it")
    predict = _predict(bundle, None)
    return Stack(predict, predict, comparable=False)


def _stack(bundle: Path, variant: str, fp32: Labeller | None = None) -> Stack:
    predict = _predict(bundle, variant)
    return Stack(predict, predict, fp32=fp32)


def _predict(bundle: Path, variant: str | None) -> Labeller:
    try:
        return Classifier.load(bundle, device="cpu", variant=variant).predict
    except BundleError as error:
        raise UnavailableError(
            f"{error} (int8 is proved on 1,000 texts or more, exits are asked for in training)"
        ) from error
