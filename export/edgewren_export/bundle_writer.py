"""Writes a bundle: card and manifest about what was built, and the folder, complete or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import edgewren
from edgewren.bundle import Bundle, check_content
from edgewren.folders import written_whole
from edgewren.manifest import MANIFEST, File, Manifest, StageFile, Variant
from edgewren_export.built import Built
from edgewren_export.card import model_card
from edgewren_export.trained_model import TrainedModel

_PLACES = {
    "fp32": ("onnx/model.onnx", "any"),
    "int8": ("onnx/model_int8.onnx", "cpu"),
    "fp16": ("onnx/model_fp16.onnx", "cuda"),
}
"""File and device of each precision."""

_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "onnxscript", "skl2onnx", "scikit-learn", "tokenizers")


def write_bundle(
    model: TrainedModel, built: Built, target: Path, *, parity: Mapping[str, Any], notes: str | None
) -> Manifest:
    """Write the bundle and open it once, as its users will. Returns its manifest.

    Args:
        parity: what was proved.
        notes: a Markdown passage for the card.

    Raises:
        BundleError: the bundle would be refused when loaded; nothing was written.
        OutputError: it cannot be written.
    """
    files = dict(built.files)
    models: dict[str, bytes] = {}
    variants: dict[str, Variant] = {}
    for precision, data in built.variants.items():
        file, device = _PLACES[precision]
        models[file] = data
        variants[precision] = Variant(file, len(data), _sha256(data), precision, device)
    for name, staged in built.staged.items():
        stages = tuple(StageFile(f"onnx/model_{name}_{s.layer}.onnx", s.layer, s.threshold) for s in staged.stages)
        first, *others = (stage.model for stage in staged.stages)
        files.update(zip((stage.file for stage in stages[1:]), others, strict=True))
        models[stages[0].file] = first
        precision = name.removesuffix("_exit")
        variants[name] = Variant(stages[0].file, len(first), _sha256(first), precision, "cpu", stages)
    files["README.md"] = model_card(_manifest(model, files, variants, parity), target.name, notes).encode()
    manifest = _manifest(model, files, variants, parity)
    for name, data in {**files, **models}.items():  # never write what loading would refuse
        check_content(name, data, manifest.labels, f"{name} of this export")
    _write(target, {**files, **models, MANIFEST: manifest.to_json()})
    Bundle.open(target)
    return manifest


def _manifest(
    model: TrainedModel, files: Mapping[str, bytes], variants: Mapping[str, Variant], parity: Mapping[str, Any]
) -> Manifest:
    return Manifest(
        labels=model.labels,
        kind=model.kind,
        max_length=model.max_length,
        normaliser=model.normaliser,
        temperature=model.temperature,
        variants=variants,
        files={name: File(len(data), _sha256(data)) for name, data in sorted(files.items())},
        encoder=model.encoder,
        training=model.training,
        parity=parity,
        evaluation=model.evaluation,
        created={
            "by": f"edgewren {edgewren.__version__}",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": {name: metadata.version(name) for name in _LIBRARIES},
        },
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(target: Path, files: dict[str, bytes]) -> None:
    with written_whole(target, what="a bundle", marked_by=MANIFEST) as scratch:
        (scratch / "onnx").mkdir()
        for name, data in files.items():
            (scratch / name).write_bytes(data)
