"""A whole training run of the ridge recipe: labelled texts in, a trained model's folder and a summary out.

Prints nothing: what people should see on the way goes to `say`, progress to `progress`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgewren.archive.labelled import LabelledTexts
from edgewren.evaluations import TEST, TRAINING
from edgewren.metrics import Evaluation, evaluate
from edgewren_train import depth as depths
from edgewren_train import embedding, ridge
from edgewren_train.calibration import calibrate
from edgewren_train.depth_run import Depth, choose_depth
from edgewren_train.encoders import load_encoder
from edgewren_train.exit_heads import ExitHeads, check_exits, hold_out_ridge
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.exits import Exits
from edgewren_train.model import save_ridge
from edgewren_train.progress import Progress, unseen
from edgewren_train.ridge_settings import RidgeSettings
from edgewren_train.run_summary import (
    Say,
    Summary,
    data_facts,
    evaluate_held_out,
    library_versions,
    tell_prompts,
    warn_of_one_label,
)
from edgewren_train.together import belonging

logger = logging.getLogger(__name__)


def run_ridge(
    data: LabelledTexts,
    output: Path,
    settings: RidgeSettings,
    *,
    depth: Depth = None,
    exits: ExitPlan | None = None,
    test: LabelledTexts | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    say: Say = logger.info,
    progress: Progress = unseen,
) -> Summary:
    """Embed, cross-validate, calibrate on the folds, fit on all rows, evaluate on `test` if given, save.

    Args:
        depth: layers of the encoder to keep; "auto": the shallowest that is as good as the best (`depths.choose`).
        exits: after which layers texts may leave early; needs folds.
    """
    normaliser, seed = settings.normaliser, settings.seed
    if exits is not None:
        check_exits(exits, settings.folds, len(data.texts), remedy="--folds 2 or more")
    encoder = load_encoder(settings.encoder_spec, max_length=settings.max_length, normaliser=normaliser)
    say(f"encoder {encoder.id} (max length {encoder.max_length}, normaliser {normaliser}), {len(data.texts):,} texts")
    tell_prompts(encoder.prompts, say)
    if test is not None:
        test.warn_of_copies(data, say)

    def embedded(texts: Sequence[str], title: str) -> Any:
        with progress(len(texts), title) as advance:
            return embedding.embed(encoder, texts, device=device, cache=cache, progress=advance)

    def embedded_at(layers: int, texts: Sequence[str] = data.texts) -> Any:
        with progress(len(texts), f"embedding, {layers} layers") as advance:
            return embedding.embed(depths.cut(encoder, layers), texts, device=device, cache=cache, progress=advance)

    together = belonging(data, settings.group_column)
    chosen: dict[str, Any] = {}
    if depth is not None:
        kept, chosen = choose_depth(
            encoder, depth, embedded_at, settings.folded(data), data, together, settings.folds, say
        )
        encoder = depths.cut(encoder, kept)
    heads = ExitHeads(exits, encoder.model[0].auto_model, data, together) if exits is not None else None
    asked = [*data.texts, *(heads.halves if heads else ())]
    start = time.perf_counter()
    whole = embedded(asked, "embedding")
    features = whole[: len(data.texts)]
    embedding_s = time.perf_counter() - start
    evaluations: dict[str, Evaluation] = {}
    temperature, account = 1.0, dict[str, Any]()
    held_out = settings.cross_validate(features, data, say, together=together)
    if held_out is not None:
        evaluations[held_out.name] = evaluate_held_out(held_out, data, seed)
        if settings.calibrated:
            temperature, account = calibrate(held_out, data.labels, data.classes, seed=seed, say=say)
    start = time.perf_counter()
    head = settings.fit(features, data.labels, together=together)
    fit_s = time.perf_counter() - start
    left: Exits | None = None
    if heads is not None and held_out is not None:
        earlier = {layer: embedded_at(layer, asked) for layer in heads.layers}
        hold_out_ridge(heads, earlier, whole, settings.fit, held_out, data.labels)
        left = heads.finish(earlier, head.logits(whole), held_out, calibrated=settings.calibrated, say=say)
    say(alpha_report(head))
    warn_of_one_label(head.predict(features, data.classes), data.classes, say, ridge.NO_SIGNAL)
    if test is not None:
        predicted = head.predict(embedded(test.texts, "embedding test file"), data.classes)
        evaluations[TEST] = evaluate(test.labels, predicted, data.classes, seed=seed)
    if not evaluations:
        predicted = head.predict(features, data.classes)
        evaluations[TRAINING] = evaluate(data.labels, predicted, data.classes, seed=seed)
    training = {
        **data_facts(data, test, settings.group_column),
        **_head_facts(head, settings),
        "depth": chosen,
        "exits": left.as_dict() if left else {},
        "embedding_seconds": round(embedding_s, 3),
        "fit_seconds": round(fit_s, 3),
        "calibration": account,
        "libraries": library_versions(),
    }
    headline = next(iter(evaluations)) if test is None else TEST
    summary = Summary(str(output), "ridge", data.classes, headline, evaluations, training)
    description = summary.describe(encoder, normaliser=normaliser, temperature=temperature)
    rows = list(zip(data.texts, data.labels, strict=True))
    save_ridge(
        output, description, encoder.files, encoder.model.to("cpu"), head, rows, held_out, left.heads if left else None
    )
    return summary


def _head_facts(head: ridge.RidgeHead, settings: RidgeSettings) -> dict[str, Any]:
    return {
        "recipe": "ridge",
        "seed": settings.seed,
        "alpha": head.alpha,
        "alphas": list(head.alphas),
        "alpha_scores": list(head.scores),
        "alpha_grid_extended": head.extended,
        "folds": settings.folds,
    }


def alpha_report(head: ridge.RidgeHead) -> str:
    """Return the alphas tried and the one chosen, for people."""
    cells = [f"{alpha:>9.4g} {score:.4f}" for alpha, score in zip(head.alphas, head.scores, strict=True)]
    rows = ["  " + "  ".join(cells[start : start + 6]) for start in range(0, len(cells), 6)]
    note = ""
    if head.extended:
        note = " (grid extended: the best lay on its edge)"
    elif head.on_edge:
        note = " (on the edge of its grid: a wider one is likely better)"
    title = "alphas tried, each with its score (minus the mean squared error on rows left out):"
    return "\n".join([title, *rows, f"chosen alpha: {head.alpha:g}{note}"])
