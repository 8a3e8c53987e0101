"""A whole training run per recipe: labelled texts in, a trained model's folder and a summary out.

Prints nothing: what people should see on the way goes to `say`, progress to `progress`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import edgewren
from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import UsageError
from edgewren.metrics import Evaluation, evaluate
from edgewren_train import depth as depths
from edgewren_train import embedding, lora, ridge
from edgewren_train.calibration import calibrate
from edgewren_train.depth_run import Depth, ExitPlan, choose_depth, choose_depth_with_ridge, fit_exit_plan
from edgewren_train.encoders import load_encoder
from edgewren_train.epoch_choice import Choosing, EpochChoice, choose_epochs
from edgewren_train.exits import Exits
from edgewren_train.model import Description, save_lora, save_ridge
from edgewren_train.out_of_fold import OutOfFold, Split, hold_out

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
ProgressBar = Callable[[int, str], Callable[[int], None]]
"""Given a total and a title, returns the function to call with each finished number of texts."""

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "scikit-learn", "peft", "tokenizers", "numpy")


@dataclass(frozen=True)
class Summary:
    """What a run did. `headline` is the evaluation to quote, `evaluations` all of them by name."""

    folder: str
    kind: str
    labels: tuple[str, ...]
    headline: str
    evaluations: dict[str, Evaluation]
    training: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "kind": self.kind,
            "labels": list(self.labels),
            "headline": self.headline,
            "evaluations": {name: value.as_dict() for name, value in self.evaluations.items()},
            "training": self.training,
        }


def run_ridge(
    data: LabelledTexts,
    output: Path,
    *,
    encoder_spec: str,
    max_length: int | None = None,
    normaliser: str = "http",
    alphas: Sequence[float] = ridge.WIDE_GRID,
    extend: bool = True,
    folds: int = 10,
    calibrated: bool = True,
    depth: Depth = None,
    exits: ExitPlan | None = None,
    test: LabelledTexts | None = None,
    seed: int = 0,
    device: str = "cpu",
    cache: Path | None = None,
    say: Say = logger.info,
    progress: ProgressBar | None = None,
) -> Summary:
    """Embed, cross-validate, calibrate on the folds, fit on all rows, evaluate on `test` if given, save.

    Args:
        depth: layers of the encoder to keep; "auto": the shallowest that is as good as the best (`depths.choose`).
        exits: after which layers texts may leave early; needs folds.
    """
    if exits is not None and folds < 2:
        raise UsageError("early exits are proved on rows out of fold: give --folds 2 or more, or leave --exits out.")
    encoder = load_encoder(encoder_spec, max_length=max_length, normaliser=normaliser)
    say(f"encoder {encoder.id} (max length {encoder.max_length}, normaliser {normaliser}), {len(data.texts):,} texts")

    def embedded(texts: Sequence[str], title: str) -> Any:
        bar = progress(len(texts), title) if progress else None
        return embedding.embed(encoder, texts, device=device, cache=cache, progress=bar)

    def embedded_at(layers: int) -> Any:
        return embedding.embed(depths.cut(encoder, layers), data.texts, device=device, cache=cache)

    folded = partial(ridge.cross_validate, labels=data.labels, seed=seed, alphas=alphas, extend=extend)
    chosen: dict[str, Any] = {}
    if depth is not None:
        kept, chosen = choose_depth(encoder, depth, embedded_at, folded, data, folds, say)
        encoder = depths.cut(encoder, kept)
    start = time.perf_counter()
    features = embedded(data.texts, "embedding")
    embedding_s = time.perf_counter() - start
    evaluations: dict[str, Evaluation] = {}
    held_out: OutOfFold | None = None
    temperature, account = 1.0, dict[str, Any]()
    if folds >= 2:
        counted = min(folds, *(data.labels.count(name) for name in data.classes))
        if counted < folds:
            say(f"cross-validation with {counted} folds instead of {folds}: the rarest class has {counted} rows")
        if counted >= 2:
            held_out = folded(features, folds=counted)
            evaluations[held_out.name] = _evaluate_held_out(held_out, data, seed)
            if calibrated:
                temperature, account = calibrate(held_out, data.labels, data.classes, seed=seed, say=say)
    start = time.perf_counter()
    head = ridge.fit(features, data.labels, alphas=alphas, extend=extend)
    fit_s = time.perf_counter() - start
    left: Exits | None = None
    if exits is not None and held_out is not None:
        refit = partial(ridge.fit, labels=data.labels, alphas=alphas, extend=extend)
        left = fit_exit_plan(encoder, exits, embedded_at, folded, refit, held_out, data, calibrated=calibrated, say=say)
    say(alpha_report(head))
    if test is not None:
        predicted = head.predict(embedded(test.texts, "embedding test file"), data.classes)
        evaluations["test file"] = evaluate(test.labels, predicted, data.classes, seed=seed)
    if not evaluations:
        predicted = head.predict(features, data.classes)
        evaluations["training rows (optimistic)"] = evaluate(data.labels, predicted, data.classes, seed=seed)
    training = {
        **data_facts(data, test),
        "recipe": "ridge",
        "seed": seed,
        "alpha": head.alpha,
        "alphas": list(head.alphas),
        "alpha_scores": list(head.scores),
        "alpha_grid_extended": head.extended,
        "folds": folds,
        "depth": chosen,
        "exits": left.as_dict() if left else {},
        "embedding_seconds": round(embedding_s, 3),
        "fit_seconds": round(fit_s, 3),
        "calibration": account,
        "libraries": library_versions(),
    }
    description = Description(
        kind="ridge",
        labels=data.classes,
        max_length=encoder.max_length,
        normaliser=normaliser,
        encoder={"id": encoder.id, "sha256": encoder.sha256},
        training=training,
        evaluation={name: value.as_dict() for name, value in evaluations.items()},
        temperature=temperature,
    )
    rows = list(zip(data.texts, data.labels, strict=True))
    heads = {entry.layer: entry.head for entry in left.exits} if left else {}
    save_ridge(output, description, encoder.files, encoder.model.to("cpu"), head, rows, held_out, heads)
    headline = next(iter(evaluations)) if test is None else "test file"
    return Summary(str(output), "ridge", data.classes, headline, evaluations, training)


def run_lora(
    data: LabelledTexts,
    output: Path,
    *,
    encoder_spec: str,
    recipe: lora.LoraRecipe,
    choosing: Choosing | None = None,
    normaliser: str = "http",
    split: Split | None = None,
    depth: Depth = None,
    test: LabelledTexts | None = None,
    device: str = "cpu",
    say: Say = logger.info,
    show_progress: bool = False,
) -> Summary:
    """Evaluate, train, merge, evaluate again, save. Returns the summary.

    With `choosing`, the number of epochs is first chosen on a held-out part of the rows. With `split`, rows are then
    held out part by part, each time with a model trained on the others, for an honest evaluation and the temperature;
    the model that is saved is trained on all rows.

    Args:
        depth: layers of the encoder to keep; "auto" chooses with a ridge head, in seconds.
    """
    depth_kept, chosen = None, dict[str, Any]()
    if depth is not None:
        depth_kept, chosen = choose_depth_with_ridge(
            encoder_spec, depth, data, max_length=recipe.max_length, normaliser=normaliser, device=device, say=say
        )

    def base_of(seed: int) -> lora.LoraBase:
        return lora.load_base(
            encoder_spec,
            data.classes,
            max_length=recipe.max_length,
            normaliser=normaliser,
            seed=seed,
            depth=depth_kept,
        )

    base = base_of(recipe.seed)
    say(f"encoder {base.id} (max length {base.max_length}, normaliser {normaliser}), {len(data.texts):,} texts")
    judged, where = (test, "test file") if test is not None else (data, "training rows (optimistic)")
    judged_ids = base.tokenizer.encode(judged.texts).ids

    def predicted(model: Any) -> list[str]:
        return [data.classes[index] for index in lora.predict_logits(model, judged_ids).argmax(axis=1)]

    def evaluated(labels: Sequence[str]) -> Evaluation:
        return evaluate(judged.labels, labels, data.classes, seed=recipe.seed)

    index_of = {name: index for index, name in enumerate(data.classes)}
    evaluations: dict[str, Evaluation] = {}
    choice: EpochChoice | None = None
    if choosing is not None:
        choice, kept = choose_epochs(base_of, data, recipe, choosing, device=device, progress=show_progress, say=say)
        recipe = replace(recipe, stop_after=choice.epochs)

    def fitted(texts: Sequence[str], labels: Sequence[str], announce: Say) -> lora.LoraResult:
        indices = [index_of[name] for name in labels]
        return lora.train(base, texts, indices, recipe, device=device, progress=show_progress, announce=announce)

    temperature, account = 1.0, dict[str, Any]()
    held_out = _lora_out_of_fold(base, data, split, recipe.seed, fitted, say) if split is not None else None
    if held_out is not None:
        evaluations[held_out.name] = _evaluate_held_out(held_out, data, recipe.seed)
        temperature, account = calibrate(held_out, data.labels, data.classes, seed=recipe.seed, say=say)
    if choice is not None:
        name, chosen_on = _evaluate_validation(choice, data)
        evaluations[name] = chosen_on
    evaluations[f"{where}, before training"] = evaluated(predicted(base.model))
    if choosing is not None and not choosing.refit:
        result = lora.merge(base, kept, base.tokenizer.encode(data.texts).ids)
    else:
        result = fitted(data.texts, data.labels, say)
    say(
        f"trained {result.steps} steps in {result.seconds:.1f} s ({result.precision}); merged: logits differ by at "
        f"most {result.merge_difference:.1e}, and the head is the trained one"
    )
    after = predicted(result.model)
    evaluations[where] = evaluated(after)
    _warn_of_one_label(after, data.classes, say, "Train longer: --epochs 40 or --learning-rate 1e-3.")
    training = {
        **data_facts(data, test),
        **{key: value for key, value in asdict(recipe).items() if value is not None},
        "recipe": "lora",
        "depth": chosen,
        "target_modules": list(result.target_modules),
        "precision": result.precision,
        "trainable_parameters": result.trainable,
        "total_parameters": result.total,
        "steps": result.steps,
        **({} if choice is None else {"epoch_choice": choice.as_dict()}),
        "seconds": round(result.seconds, 3),
        "loss_per_epoch": [round(value, 6) for value in result.loss],
        "merge_difference": result.merge_difference,
        "calibration": account,
        "libraries": library_versions(),
    }
    description = Description(
        kind="lora",
        labels=data.classes,
        max_length=base.max_length,
        normaliser=normaliser,
        encoder={"id": base.id, "sha256": base.sha256},
        training=training,
        evaluation={name: value.as_dict() for name, value in evaluations.items()},
        temperature=temperature,
    )
    rows = list(zip(data.texts, data.labels, strict=True))
    save_lora(output, description, base.files, result.model, rows, held_out)
    headline = held_out.name if test is None and held_out is not None else where
    return Summary(str(output), "lora", data.classes, headline, evaluations, training)


def _evaluate_held_out(held_out: OutOfFold, data: LabelledTexts, seed: int) -> Evaluation:
    true = [data.labels[row] for row in held_out.rows]
    return evaluate(true, held_out.predicted(data.classes), data.classes, seed=seed)


def _lora_out_of_fold(
    base: lora.LoraBase,
    data: LabelledTexts,
    split: Split,
    seed: int,
    fitted: Callable[[Sequence[str], Sequence[str], Say], lora.LoraResult],
    say: Say,
) -> OutOfFold:
    """Train once per part on the rows outside it, and return the logits of those inside."""
    ids = base.tokenizer.encode(data.texts).ids

    def logits_of(training: Any, rows: Any) -> Any:
        say(f"{split.name}: training on {len(training):,} rows, {len(rows):,} held out")
        result = fitted([data.texts[row] for row in training], [data.labels[row] for row in training], logger.info)
        return lora.predict_logits(result.model, [ids[row] for row in rows])

    return hold_out(data.labels, split, seed, logits_of)


def _evaluate_validation(choice: EpochChoice, data: LabelledTexts) -> tuple[str, Evaluation]:
    """Return name and evaluation of the rows that chose the epochs, of all seeds together."""
    true = [data.labels[row] for one in choice.tried for row in one.held_out]
    predicted = [data.classes[index] for one in choice.tried for index in one.predicted]
    seeds = f" of {len(choice.tried)} seeds" if len(choice.tried) > 1 else ""
    name = f"validation part{seeds} (chose the epochs: a little optimistic)"
    return name, evaluate(true, predicted, data.classes, seed=choice.tried[0].seed)


def _warn_of_one_label(predicted: Sequence[str], classes: Sequence[str], say: Say, remedy: str) -> None:
    if len(set(predicted)) == 1 and len(predicted) > len(classes):
        say(f"warning: the model answers {predicted[0]!r} to every text. {remedy}")


def alpha_report(head: ridge.RidgeHead) -> str:
    cells = [f"{alpha:>9.4g} {score:.4f}" for alpha, score in zip(head.alphas, head.scores, strict=True)]
    rows = ["  " + "  ".join(cells[start : start + 6]) for start in range(0, len(cells), 6)]
    note = ""
    if head.extended:
        note = " (grid extended: the best lay on its edge)"
    elif head.on_edge:
        note = " (on the edge of its grid: a wider one is likely better)"
    title = "alphas tried, each with its score (minus the mean squared leave-one-out error):"
    return "\n".join([title, *rows, f"chosen alpha: {head.alpha:g}{note}"])


def data_facts(data: LabelledTexts, test: LabelledTexts | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "data": {"file": Path(data.path).name, "sha256": data.sha256, "rows": len(data.texts)},
        "texts_sha256": hashlib.sha256(json.dumps([data.texts, data.labels]).encode()).hexdigest(),
        "rows_per_label": {name: data.labels.count(name) for name in data.classes},
    }
    if test is not None:
        facts["test_data"] = {"file": Path(test.path).name, "sha256": test.sha256, "rows": len(test.texts)}
    return facts


def library_versions() -> dict[str, str]:
    versions = {"edgewren": edgewren.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
