"""The model card: README.md of a bundle, for people, and readable by model hubs. Made from the manifest alone."""

from __future__ import annotations

from typing import Any

from edgewren.evaluations import held_out_by
from edgewren.manifest import Manifest
from edgewren_export.metadata import front_matter
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
{front_matter(manifest, name)}
---

# {name}

A text classifier with the labels {labels}: {_RECIPES[manifest.kind]}.

```python
from edgewren import Classifier

clf = Classifier.load("{name}")
clf.predict(["The library opens at nine tomorrow."])
```

It also opens in `optimum.onnxruntime.ORTModelForSequenceClassification` (subfolder `onnx`; name the file with
`file_name`, since it takes the first of several), and in any server that reads Hugging Face's file names.

## Training

- Encoder: `{manifest.encoder.get("id", "unknown")}` (weights SHA-256 `{str(manifest.encoder.get("sha256", ""))[:16]}…`)
- Data: {data.get("rows", 0):,} rows of `{data.get("file", "unknown")}` ({rows_per_label})
- Max length: {manifest.max_length} tokens; normaliser: {manifest.normaliser}; seed: {training.get("seed", "unknown")}
- Settings: {_settings(training)}

## Evaluation

Each figure with its 95 % bootstrap interval.{_grouped(held_out_by(training.get("group_column"), manifest.evaluation))}

{_evaluation(manifest.evaluation)}
{_ensemble(training.get("ensemble"))}
## Calibration

{_calibration(training.get("calibration"), manifest)}
{_early_exit(training.get("exits"), manifest)}
## Parity of the export

{table(manifest.parity.get("stages", []))}

{_parity_notes(manifest.parity)}

## Limits

- Scores say how the labels were given in the training data, nothing about the persons who wrote the texts.
- Texts of another time, language, platform or topic than the training data are outside what was measured.
- Tokens beyond {manifest.max_length} are cut; `edgewren score` marks such rows `truncated`.
- {_trust(manifest)}

{_from_the_publisher(notes)}
"""


def _from_the_publisher(notes: str | None) -> str:
    if notes is None:
        return (
            "## Licence\n\nThe publisher of this bundle states its licence; the encoder's and the data's bind it too."
        )
    return f"## From the publisher\n\n{notes.strip()}"


def _trust(manifest: Manifest) -> str:
    if manifest.temperature == 1.0:
        return "Scores are not calibrated: read them as a ranking, not as probabilities."
    return (
        f"Scores are calibrated (temperature {manifest.temperature:.4g}) on texts like the training data; elsewhere "
        "they may be too sure."
    )


def _calibration(account: Any, manifest: Manifest) -> str:
    """Return what the temperature does to scores, and what leaving out unsure texts brings."""
    if not account:
        return "None: no rows were held out for it, or it was switched off."
    how = (
        f"Logits are multiplied by {account['temperature']:.4g}, fitted on {account['rows']:,} held-out rows "
        f"({account['on']}); each row is judged with a factor that other rows gave. No label changes "
        f"({account['labels_changed']} of {account['rows']:,})."
    )
    lines = [how, "", "| | before | after | difference |", "|---|---|---|---|"]
    for key, title in (("ece", "ECE (15 bins)"), ("log_loss", "log loss"), ("brier", "Brier score")):
        cells = [_interval(account[when][key]) for when in ("before", "after", "difference")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    for precision, check in manifest.parity.get("calibration", {}).items():
        rounded = (
            f"With {precision}'s rounding added to the held-out logits: ECE {check['ece']:.3f} (fp32 "
            f"{check['ece_fp32']:.3f}), log loss {check['log_loss']:.4f} ({check['log_loss_fp32']:.4f}); the best "
            f"temperature would be {check['refitted']:.3f} times the one built in."
        )
        lines += ["", rounded]
    lines += [
        "",
        "Leaving out what the model is unsure of (`edgewren score --abstain-below P`), on the same rows:",
        "",
        "| P | texts kept | right among them |",
        "|---|---|---|",
    ]
    for band in account["coverage"]:
        if round(100 * band["threshold"]) % 10 == 0 or (
            band["threshold"] > 0.9 and round(100 * band["threshold"]) == 95
        ):
            named = f"{band['threshold']:.2f}" if band["threshold"] else "none"
            lines.append(f"| {named} | {band['coverage']:.1%} | {_interval(band['accuracy'])} |")
    return "\n".join(lines)


def _early_exit(promise: Any, manifest: Manifest) -> str:
    """Return a section on the variants in stages, where there are any."""
    staged = [name for name, variant in manifest.variants.items() if variant.stages]
    if not promise or not staged:
        return ""
    left = ", ".join(f"{stage['share']:.1%} after layer {stage['layer']}" for stage in promise["stages"])
    whole = ", ".join(f"`{name}`" for name in manifest.variants if name not in staged and f"{name}_exit" in staged)
    return (
        f"\n## Early exit\n\nIn {', '.join(f'`{name}`' for name in staged)}, which a CPU takes by default, a text that "
        f"is sure leaves early: of {promise['rows']:,} rows out of fold {left} of {promise['layers']}. "
        f"Labels of these that differ from the full model's: {promise['differing']}; for texts like the training texts "
        f"at most {promise['bound']:.2%} do, with {promise['confidence']:.0%} confidence. Other texts, such as those "
        f"of another language or no language at all, may differ more. {_from_fp32(manifest, staged)}Every text goes "
        f"through the whole model in {whole} (`variant=`, `--variant`).\n"
    )


def _from_fp32(manifest: Manifest, staged: list[str]) -> str:
    """Return a sentence on what quantising and leaving early change together, where both do."""
    proved = {name: manifest.parity["exits"][name] for name in staged if manifest.variants[name].precision != "fp32"}
    if not proved:
        return ""
    counted = ", ".join(
        f"{found['labels_differing_from_fp32']} of {found['texts']:,} in `{name}`" for name, found in proved.items()
    )
    return f"Rounding and leaving early together change the labels of {counted} (the texts of the gates). "


def _ensemble(verdict: Any) -> str:
    if not verdict:
        return ""
    gain = verdict["comparison"]
    members = ", ".join(
        f"{name} {_interval(figures)}"
        for name, figures in zip(verdict["members"], verdict["balanced_accuracy"], strict=False)
    )
    return (
        f"\nMembers alone, balanced accuracy out of fold: {members}. The ensemble minus the best "
        f"({verdict['best_member']}), paired: {_interval(gain['balanced_accuracy'])}, p = "
        f"{gain['p_balanced_accuracy']:.3f}{'' if verdict['wins'] else ': no proven gain, built on demand'}.\n"
    )


def _settings(training: Any) -> str:
    shown = ("alpha", "rank", "dropout", "target_modules", "epochs", "learning_rate", "batch_size", "precision")
    if "members" in training:
        return "; ".join(f"{member['kind']}: {_settings(member['training'])}" for member in training["members"])
    return ", ".join(f"{name} {training[name]}" for name in shown if name in training)


def _grouped(column: Any) -> str:
    """Return a sentence on what "by group" means, where rows were held out so."""
    if column is None:
        return ""
    return f" By group: rows with the same {column!r} were held out together, so nobody was trained on and judged."


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
