"""The model card: README.md of a bundle, for people, and readable by model hubs. Made from the manifest alone."""

from __future__ import annotations

from typing import Any

from edgewren.bundle import Manifest
from edgewren_export.parity import table

_RECIPES = {
    "ridge": "ridge classifier on standardised sentence embeddings, folded into one affine map",
    "lora": "LoRA fine-tune of the encoder (adapters merged) with a classification head",
    "static": "one number per word piece and label, averaged: a ridge classifier on mean word vectors, folded",
    "ensemble": "mean of the calibrated logits of several models",
}


def model_card(manifest: Manifest, name: str, notes: str | None = None) -> str:
    """Return README.md for a bundle called `name`; `notes` is its publisher's own Markdown passage."""
    labels = ", ".join(f"`{label}`" for label in manifest.labels)
    training = manifest.training
    data = training.get("data", {})
    rows_per_label = ", ".join(f"{label} {count:,}" for label, count in training.get("rows_per_label", {}).items())
    return f"""---
library_name: edgewren
pipeline_tag: text-classification
tags:
- onnx
- text-classification
- edgewren
---

# {name}

A text classifier with the labels {labels}: {_RECIPES[manifest.kind]}.

```python
from edgewren import Classifier

clf = Classifier.load("{name}")
clf.predict(["The library opens at nine tomorrow."])
```

It also opens in `optimum.onnxruntime.ORTModelForSequenceClassification` (subfolder `onnx`), and in any server that
reads Hugging Face's file names.

## Training

- Encoder: `{manifest.encoder.get("id", "unknown")}` (weights SHA-256 `{str(manifest.encoder.get("sha256", ""))[:16]}…`)
- Data: {data.get("rows", 0):,} rows of `{data.get("file", "unknown")}` ({rows_per_label})
- Max length: {manifest.max_length} tokens; normaliser: {manifest.normaliser}; seed: {training.get("seed", "unknown")}
- Settings: {_settings(training)}

## Evaluation

Each figure with its 95 % bootstrap interval.

{_evaluation(manifest.evaluation)}

## Parity of the export

{table(manifest.parity.get("stages", []))}

{_parity_notes(manifest.parity)}

## Limits

- Scores say how the labels were given in the training data, nothing about the persons who wrote the texts.
- Texts of another time, language, platform or topic than the training data are outside what was measured.
- Tokens beyond {manifest.max_length} are cut; `edgewren score` marks such rows `truncated`.
- Scores are {_calibration(manifest.temperature)}.

{_from_the_publisher(notes)}
"""


def _from_the_publisher(notes: str | None) -> str:
    if notes is None:
        return (
            "## Licence\n\nThe publisher of this bundle states its licence; the encoder's and the data's bind it too."
        )
    return f"## From the publisher\n\n{notes.strip()}"


def _calibration(temperature: float) -> str:
    return "not calibrated" if temperature == 1.0 else f"calibrated with temperature {temperature:g}"


def _settings(training: Any) -> str:
    shown = ("alpha", "rank", "dropout", "target_modules", "epochs", "learning_rate", "batch_size", "precision")
    return ", ".join(f"{name} {training[name]}" for name in shown if name in training)


def _evaluation(evaluations: Any) -> str:
    if not evaluations:
        return "No evaluation was made."
    lines = ["| on | rows | accuracy | balanced accuracy | macro-F1 |", "|---|---|---|---|---|"]
    for name, result in evaluations.items():
        cells = [_interval(result[key]) for key in ("accuracy", "balanced_accuracy", "macro_f1")]
        lines.append(f"| {name} | {result['rows']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(estimate: Any) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _parity_notes(parity: Any) -> str:
    notes = []
    if "alone_or_in_batch" in parity:
        notes.append(f"Logits of a text alone and in a batch: {parity['alone_or_in_batch']}.")
    if "skl2onnx_difference" in parity:
        notes.append(
            f"The folded head differs from skl2onnx's conversion of the fitted head by at most "
            f"{parity['skl2onnx_difference']:.1e}."
        )
    return " ".join(notes)
