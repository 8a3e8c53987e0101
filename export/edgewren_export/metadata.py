"""The model card's front matter, in the form that model hubs read: tags, datasets' names, and results (model-index).

Made by huggingface_hub's own classes, so that what hubs check is what is written.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from edgewren.evaluations import TEST, of_new_texts
from edgewren.manifest import Manifest

_METRICS = (("accuracy", "Accuracy"), ("balanced_accuracy", "Balanced accuracy"), ("macro_f1", "Macro-F1"))


def front_matter(manifest: Manifest, name: str) -> str:
    """Return the YAML between the card's `---` lines, without them."""
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=_dataset(manifest, evaluated_on),
            dataset_name=_dataset(manifest, evaluated_on),
            dataset_split=evaluated_on,
            metric_type="f1" if key == "macro_f1" else key,
            metric_name=title,
            metric_value=round(float(figures[key]["value"]), 4),
            metric_args={"interval_95": [round(float(figures[key][end]), 4) for end in ("low", "high")]},
        )
        for evaluated_on, figures in manifest.evaluation.items()
        if of_new_texts(evaluated_on)
        for key, title in _METRICS
    ]
    options: dict[str, Any] = {"model_name": name, "eval_results": results} if results else {}
    matter: str = ModelCardData(
        library_name="edgewren",
        pipeline_tag="text-classification",
        tags=["onnx", "text-classification", "edgewren"],
        **options,
    ).to_yaml()
    return matter


def _dataset(manifest: Manifest, evaluated_on: str) -> str:
    key = "test_data" if evaluated_on == TEST else "data"
    return str(manifest.training.get(key, {}).get("file", "unknown"))
