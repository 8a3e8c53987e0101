"""A whole training run of the static recipe: labelled texts, perhaps a teacher, in; a trained model's folder out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.labelled import LabelledTexts
from edgewren.classifier import Classifier
from edgewren.errors import UsageError
from edgewren.evaluations import BEFORE_DISTILLATION, TEST, TRAINING
from edgewren.metrics import Evaluation, evaluate
from edgewren_train import ridge, static
from edgewren_train.calibration import calibrate
from edgewren_train.distillation import Distilled, distil
from edgewren_train.duplicates import copies
from edgewren_train.encoders import Encoder, load_encoder
from edgewren_train.model import save_static
from edgewren_train.ridge_run import alpha_report
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.run_summary import (
    Say,
    Summary,
    data_facts,
    evaluate_held_out,
    library_versions,
    warn_of_one_label,
)
from edgewren_train.together import belonging

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Teaching:
    """A bundle to learn from, unlabelled texts to learn on, and the name of their file."""

    teacher: Classifier
    texts: Sequence[str]
    source: str


def run_static(
    data: LabelledTexts,
    output: Path,
    settings: RidgeSettings,
    *,
    test: LabelledTexts | None = None,
    teaching: Teaching | None = None,
    say: Say = logger.info,
) -> Summary:
    """Average, cross-validate, fit on all rows, distil if there is a teacher, evaluate, save. Returns the summary.

    The cross-validated figure is that of the undistilled table: the teacher has seen all rows. A distilled model is
    judged on `test`, or on the training rows, and says so.

    Raises:
        UsageError: the teacher has other labels than the data.
    """
    if teaching is not None and set(teaching.teacher.labels) != set(data.classes):
        raise UsageError(
            f"The teacher's labels are {', '.join(teaching.teacher.labels)}; the training file's are "
            f"{', '.join(data.classes)}. Distil from a bundle with the same labels."
        )
    normaliser, seed = settings.normaliser, settings.seed
    encoder = load_encoder(settings.encoder_spec, max_length=settings.max_length, normaliser=normaliser)
    vectors = static.token_vectors(encoder)
    say(
        f"encoder {encoder.id} (max length {encoder.max_length}, normaliser {normaliser}), {len(data.texts):,} texts, "
        f"{len(vectors):,} vocabulary entries"
    )
    if test is not None:
        test.warn_of_copies(data, say)

    def averaged(texts: Sequence[str]) -> NDArray[np.float32]:
        return static.mean_vectors(encoder.tokenizer.encode(texts).ids, vectors)

    together = belonging(data, settings.group_column)
    features = averaged(data.texts)
    evaluations: dict[str, Evaluation] = {}
    temperature, account = 1.0, dict[str, Any]()
    held_out = settings.cross_validate(features, data, say, together=together)
    if held_out is not None:
        name = held_out.name + (BEFORE_DISTILLATION if teaching else "")
        evaluations[name] = evaluate_held_out(held_out, data, seed)
        if settings.calibrated and teaching is None:
            temperature, account = calibrate(held_out, data.labels, data.classes, seed=seed, say=say)
    head = settings.fit(features, data.labels, together=together)
    say(alpha_report(head))
    warn_of_one_label(head.predict(features, data.classes), data.classes, say, ridge.NO_SIGNAL)
    training: dict[str, Any] = {
        **data_facts(data, test, settings.group_column),
        "recipe": "static",
        "seed": seed,
        "alpha": head.alpha,
        "alpha_grid_extended": head.extended,
        "folds": settings.folds,
        "vocabulary": len(vectors),
        "calibration": account,
        "libraries": library_versions(),
    }
    distilled = None
    if teaching is not None:
        distilled, training["distillation"] = _distil(teaching, encoder, vectors, head, data.classes, seed, say)
        # The teacher's: no rows are left that it has not seen.
        temperature = teaching.teacher.bundle.manifest.temperature

    def labels_of(texts: Sequence[str]) -> list[str]:
        return _labels(_decision(encoder, vectors, head, distilled, texts), data.classes)

    if test is not None:
        evaluations[TEST] = evaluate(test.labels, labels_of(test.texts), data.classes, seed=seed)
    elif teaching is not None or not evaluations:
        on_training = evaluate(data.labels, labels_of(data.texts), data.classes, seed=seed)
        evaluations[TRAINING] = on_training
    headline = next(iter(evaluations)) if test is None else TEST
    summary = Summary(str(output), "static", data.classes, headline, evaluations, training)
    description = summary.describe(encoder, normaliser=normaliser, temperature=temperature)
    rows = list(zip(data.texts, data.labels, strict=True))
    config = encoder.model[0].auto_model.config.to_json_string(use_diff=False)
    save_static(
        output, description, encoder.files, config, vectors, head, distilled, rows, None if teaching else held_out
    )
    return summary


def _distil(
    teaching: Teaching,
    encoder: Encoder,
    vectors: NDArray[np.float32],
    head: ridge.RidgeHead,
    classes: Sequence[str],
    seed: int,
    say: Say,
) -> tuple[Distilled, dict[str, Any]]:
    """Return the fitted change and what to tell of it. Equal token rows count once: archives are full of retweets."""
    ids = encoder.tokenizer.encode(teaching.texts).ids
    first: dict[tuple[int, ...], int] = {}
    for index, row in enumerate(ids):
        first.setdefault(tuple(row), index)
    kept = list(first.values())
    say(f"asking the teacher about {len(kept):,} distinct texts of {len(ids):,}")
    answered = teaching.teacher.decision_function([teaching.texts[index] for index in kept]).astype(np.float64)
    order = [teaching.teacher.labels.index(name) for name in classes]
    wanted = answered[:, order] if answered.ndim == 2 else answered[:, None] * (1 if order == [0, 1] else -1)
    shares = static.shares([ids[index] for index in kept], len(vectors))
    undistilled = _columns(head.decision(shares @ vectors.astype(np.float64)))
    # Those that differ in links alone have other token rows where the normaliser keeps links.
    same = copies([teaching.texts[index] for index in kept])
    distilled = distil(shares, undistilled, wanted, copies=same, seed=seed)
    taught = _labels(wanted, classes)
    agreement, before = (
        evaluate(taught, _labels(decision, classes), classes, seed=seed).accuracy
        for decision in (distilled.held_out, undistilled)
    )
    say(
        f"agreement with the teacher on texts held out: {agreement.value:.3f} [{agreement.low:.3f}, "
        f"{agreement.high:.3f}], {before.value:.3f} [{before.low:.3f}, {before.high:.3f}] without distillation; "
        f"strength {distilled.strength:g}, mean squared error {min(distilled.losses):.4g} instead of "
        f"{distilled.undistilled_loss:.4g}"
    )
    return distilled, {
        "texts": {"file": Path(teaching.source).name, "rows": len(ids), "distinct": len(kept)},
        "teacher": {"kind": teaching.teacher.bundle.manifest.kind, "manifest_sha256": teaching.teacher.bundle.sha256},
        "strength": distilled.strength,
        "strengths": list(distilled.strengths),
        "held_out_losses": list(distilled.losses),
        "undistilled_loss": distilled.undistilled_loss,
        "scale": distilled.scale,
        "agreement": {"value": agreement.value, "low": agreement.low, "high": agreement.high},
        "undistilled_agreement": {"value": before.value, "low": before.low, "high": before.high},
    }


def _decision(
    encoder: Encoder,
    vectors: NDArray[np.float32],
    head: ridge.RidgeHead,
    distilled: Distilled | None,
    texts: Sequence[str],
) -> NDArray[np.float64]:
    shares = static.shares(encoder.tokenizer.encode(texts).ids, len(vectors))
    decision = _columns(head.decision(shares @ vectors.astype(np.float64)))
    if distilled is None:
        return decision
    changed: NDArray[np.float64] = distilled.scale * decision + shares @ distilled.coef.T + distilled.intercept
    return changed


def _columns(decision: NDArray[np.float64]) -> NDArray[np.float64]:
    return decision[:, None] if decision.ndim == 1 else decision


def _labels(decision: NDArray[np.float64], classes: Sequence[str]) -> list[str]:
    chosen = (decision[:, 0] > 0).astype(int) if decision.shape[1] == 1 else decision.argmax(axis=1)
    return [classes[index] for index in chosen]
