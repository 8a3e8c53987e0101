"""edgewren: score short texts with a classifier trained on your own labels.

The runtime needs numpy, tokenizers and onnxruntime, nothing else. Read its modules in the order in which a text meets
them: `classifier` (the only public class), `bundle` (the folder on disk), `text` (tokens), `batching` (scheduling),
`session` and `device` (ONNX Runtime), `metrics` (scores of scores), `errors`. `archive` and `cli` sit on top.

Importing this package imports none of them: names resolve on first use, so that an import costs a host process
nothing and `edgewren --help` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewren.classifier import Classifier, Prediction, Scores
    from edgewren.errors import (
        BundleError,
        DeviceError,
        EdgewrenError,
        InputError,
        MissingDependencyError,
        OutputError,
        UsageError,
    )

__version__ = "0.1.0"

__all__ = [
    "BundleError",
    "Classifier",
    "DeviceError",
    "EdgewrenError",
    "InputError",
    "MissingDependencyError",
    "OutputError",
    "Prediction",
    "Scores",
    "UsageError",
    "__version__",
]

_CLASSIFIER_NAMES = frozenset({"Classifier", "Prediction", "Scores"})


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'edgewren' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("edgewren.classifier" if name in _CLASSIFIER_NAMES else "edgewren.errors"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
