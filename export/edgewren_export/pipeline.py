"""The export: trained model in, bundle out. Runs the stages and their gates in order, and writes only at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewren.errors import UsageError
from edgewren.folders import check_replaceable
from edgewren.manifest import MANIFEST, Manifest
from edgewren_export import encoder_export, parity, static_export
from edgewren_export.bundle_writer import write_bundle
from edgewren_export.gate_texts import gate_texts
from edgewren_export.proof import Proof, Say
from edgewren_export.trained_model import read_trained_model

logger = logging.getLogger(__name__)

PRECISIONS = ("fp32", "int8", "fp16")


@dataclass(frozen=True)
class Export:
    """The result: where the bundle lies, and its manifest."""

    folder: Path
    manifest: Manifest


def export(
    model_folder: str | Path,
    output: str | Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    texts: Sequence[str] | None = None,
    notes: str | None = None,
    force: bool = False,
    say: Say = logger.info,
) -> Export:
    """Export a trained model to a bundle.

    Args:
        model_folder: written by `edgewren train`.
        output: the bundle's folder; appears complete or not at all.
        precisions: variants to write: "fp32", "int8" (CPU), "fp16" (CUDA). fp32 is always built, being what the others
            are compared with, and its logits are the golden ones.
        texts: real texts for the parity gates; default: the training texts.
        notes: a Markdown passage for the model card: where the data comes from, licence, limits.
        force: overwrite an existing bundle.
        say: told what was done, line by line.

    Raises:
        BundleError: not a trained model, or one that cannot be exported.
        ParityError: two stages disagree; nothing was written.
        UsageError: the output exists, or an unknown precision.
    """
    unknown = [name for name in precisions if name not in PRECISIONS]
    if unknown or not precisions:
        raise UsageError(f"precision {', '.join(unknown) or '(none)'} is unknown. Expected: {', '.join(PRECISIONS)}.")
    target = Path(output).absolute()
    check_replaceable(target, what="a bundle", marked_by=MANIFEST, force=force)
    model = read_trained_model(model_folder)
    checked_on = gate_texts(model, texts, say)
    if "int8" in precisions:
        parity.check_enough_texts("fp32 -> int8", len(checked_on.ids))
    proof = Proof(say, {"gate_texts": len(checked_on.ids)})
    kind = static_export if model.kind == "static" else encoder_export
    built = kind.build(model, checked_on, precisions, proof)
    return Export(target, write_bundle(model, built, target, parity=proof.found, notes=notes))
