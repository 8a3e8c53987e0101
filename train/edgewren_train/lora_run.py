"""A whole training run of the LoRA recipe: labelled texts in, a trained model's folder and a summary out.

Prints nothing: what people should see on the way goes to `say`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgewren.archive.labelled import LabelledTexts
from edgewren.evaluations import BEFORE_TRAINING, BY_GROUP, CHOSE_EPOCHS, TEST, TRAINING
from edgewren.metrics import Evaluation, evaluate
from edgewren_train import lora
from edgewren_train.calibration import calibrate
from edgewren_train.depth_run import Depth, choose_depth_with_ridge
from edgewren_train.epoch_choice import Choosing, EpochChoice, choose_epochs
from edgewren_train.exit_heads import ExitHeads, check_exits
from edgewren_train.exit_plan import ExitPlan
from edgewren_train.exits import Exits
from edgewren_train.lora_model import LoraBase, LoraResult, load_base
from edgewren_train.merging import merge
from edgewren_train.model import save_lora
from edgewren_train.out_of_fold import OutOfFold, Split, hold_out
from edgewren_train.prediction import predict_layers, predict_logits
from edgewren_train.progress import Progress, unseen
from edgewren_train.run_summary import (
    Say,
    Summary,
    data_facts,
    evaluate_held_out,
    library_versions,
    tell_copies,
    warn_of_one_label,
)
from edgewren_train.together import Together, belonging

logger = logging.getLogger(__name__)


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
    exits: ExitPlan | None = None,
    group_column: str | None = None,
    test: LabelledTexts | None = None,
    device: str = "cpu",
    say: Say = logger.info,
    progress: Progress = unseen,
) -> Summary:
    """Evaluate, train, merge, evaluate again, save. Returns the summary.

    With `choosing`, the number of epochs is first chosen on a held-out part of the rows. With `split`, rows are then
    held out part by part, each time with a model trained on the others, for an honest evaluation and the temperature;
    the model that is saved is trained on all rows.

    Args:
        depth: layers of the encoder to keep; "auto" chooses with a ridge head, in seconds.
        exits: after which layers texts may leave early; needs a split into folds.
        group_column: column whose equal values are held out together, wherever rows are.

    Raises:
        InputError: a label is in too few groups.
        UsageError: exits without folds, or an option out of range.
    """
    if exits is not None:
        check_exits(exits, split.folds if split else None, len(data.texts), remedy="--calibrate folds:5")
    together = belonging(data, group_column)
    depth_kept, chosen = None, dict[str, Any]()
    if depth is not None:
        depth_kept, chosen = choose_depth_with_ridge(
            encoder_spec,
            depth,
            data,
            together,
            max_length=recipe.max_length,
            normaliser=normaliser,
            device=device,
            say=say,
            progress=progress,
        )

    def base_of(seed: int) -> LoraBase:
        return load_base(
            encoder_spec, data.classes, max_length=recipe.max_length, normaliser=normaliser, seed=seed, depth=depth_kept
        )

    base = base_of(recipe.seed)
    say(f"encoder {base.id} (max length {base.max_length}, normaliser {normaliser}), {len(data.texts):,} texts")
    if test is not None:
        test.warn_of_copies(data, say)
    ids = base.tokenizer.encode(data.texts).ids
    leaving = ExitHeads(exits, base.model, data, together) if exits is not None else None
    asked = ids if leaving is None else ids + base.tokenizer.encode(leaving.halves).ids
    judge = _Judge.of(base, data, test, recipe.seed, progress)
    evaluations: dict[str, Evaluation] = {}
    choice: EpochChoice | None = None
    if choosing is not None:
        choice, kept = choose_epochs(
            base_of, data, recipe, choosing, together=together, device=device, progress=progress, say=say
        )
        recipe = replace(recipe, stop_after=choice.epochs)
    trainer = _Trainer(base, data, together, recipe, device, progress)
    temperature, account = 1.0, dict[str, Any]()
    held_out = trainer.out_of_fold(asked, split, leaving, say) if split is not None else None
    if held_out is not None:
        evaluations[held_out.name] = evaluate_held_out(held_out, data, recipe.seed)
        temperature, account = calibrate(
            held_out, data.labels, data.classes, together=together, seed=recipe.seed, say=say
        )
    if choice is not None:
        name, evaluation = _evaluate_validation(choice, data)
        evaluations[name + (BY_GROUP if group_column else "")] = evaluation
    evaluations[judge.where + BEFORE_TRAINING] = judge.evaluate(judge.predict(base.model))
    if choosing is not None and not choosing.refit:
        result = merge(base, kept, ids, progress=progress)
    else:
        result = trainer.train(range(len(data.texts)), say)
    say(_as_text(result))
    left: Exits | None = None
    if leaving is not None and held_out is not None:
        full, means = predict_layers(result.model, asked, leaving.layers, progress=progress)
        left = leaving.finish(means, full, held_out, say=say)
    after = judge.predict(result.model)
    evaluations[judge.where] = judge.evaluate(after)
    warn_of_one_label(after, data.classes, say, "Train longer: --epochs 40 or --learning-rate 1e-3.")
    training = {
        **data_facts(data, test, group_column),
        **{key: value for key, value in asdict(recipe).items() if value is not None},
        "recipe": "lora",
        "depth": chosen,
        "exits": left.as_dict() if left else {},
        **_training_facts(result, choice),
        "calibration": account,
        "libraries": library_versions(),
    }
    headline = held_out.name if test is None and held_out is not None else judge.where
    summary = Summary(str(output), "lora", data.classes, headline, evaluations, training)
    description = summary.describe(base, normaliser=normaliser, temperature=temperature)
    rows = list(zip(data.texts, data.labels, strict=True))
    save_lora(output, description, base.files, result.model, rows, held_out, left.heads if left else None)
    return summary


def _as_text(result: LoraResult) -> str:
    return (
        f"trained {result.steps} steps in {result.seconds:.1f} s ({result.precision}); merged: logits differ by at "
        f"most {result.merge_difference:.1e}, and the head is the trained one"
    )


def _training_facts(result: LoraResult, choice: EpochChoice | None) -> dict[str, Any]:
    return {
        "target_modules": list(result.target_modules),
        "precision": result.precision,
        "trainable_parameters": result.trainable,
        "total_parameters": result.total,
        "steps": result.steps,
        **({} if choice is None else {"epoch_choice": choice.as_dict()}),
        "seconds": round(result.seconds, 3),
        "loss_per_epoch": [round(value, 6) for value in result.loss],
        "merge_difference": result.merge_difference,
    }


@dataclass(frozen=True)
class _Trainer:
    """Trains one recipe on one encoder, on all rows or on some."""

    base: LoraBase
    data: LabelledTexts
    together: Together
    recipe: lora.LoraRecipe
    device: str
    progress: Progress

    def train(self, rows: Iterable[int], announce: Say) -> LoraResult:
        rows = list(rows)
        true = self.data.class_indices
        return lora.train(
            self.base,
            [self.data.texts[row] for row in rows],
            [int(true[row]) for row in rows],
            self.recipe,
            device=self.device,
            progress=self.progress,
            announce=announce,
        )

    def out_of_fold(self, ids: Sequence[Sequence[int]], split: Split, leaving: ExitHeads | None, say: Say) -> OutOfFold:
        """Train once per part on the rows outside it, and return the logits of those inside.

        Args:
            ids: of the rows, then of the halves that heads of exits learn from.
        """

        def logits_of(training: Any, rows: Any) -> Any:
            say(f"{split.name}: training on {len(training):,} rows, {len(rows):,} held out")
            result = self.train(training, logger.info)
            if leaving is None:
                return predict_logits(result.model, [ids[row] for row in rows], progress=self.progress)
            full, means = predict_layers(result.model, ids, leaving.layers, progress=self.progress)
            leaving.hold_out(means, full, training, rows)
            return full[rows]

        tell_copies(self.together, say)
        return hold_out(self.data.labels, split, self.recipe.seed, logits_of, self.together)


@dataclass(frozen=True)
class _Judge:
    """Judges a model before and after training, on the test file or, for want of one, on the training rows."""

    rows: LabelledTexts
    where: str
    ids: list[list[int]]
    classes: tuple[str, ...]
    seed: int
    progress: Progress

    @classmethod
    def of(
        cls, base: LoraBase, data: LabelledTexts, test: LabelledTexts | None, seed: int, progress: Progress
    ) -> _Judge:
        rows, where = (test, TEST) if test is not None else (data, TRAINING)
        return cls(rows, where, base.tokenizer.encode(rows.texts).ids, data.classes, seed, progress)

    def predict(self, model: Any) -> list[str]:
        logits = predict_logits(model, self.ids, progress=self.progress)
        return [self.classes[index] for index in logits.argmax(axis=1)]

    def evaluate(self, predicted: Sequence[str]) -> Evaluation:
        return evaluate(self.rows.labels, predicted, self.classes, seed=self.seed)


def _evaluate_validation(choice: EpochChoice, data: LabelledTexts) -> tuple[str, Evaluation]:
    """Return name and evaluation of the rows that chose the epochs, of all seeds together."""
    true = [data.labels[row] for one in choice.tried for row in one.held_out]
    predicted = [data.classes[index] for one in choice.tried for index in one.predicted]
    seeds = f" of {len(choice.tried)} seeds" if len(choice.tried) > 1 else ""
    return f"validation part{seeds}{CHOSE_EPOCHS}", evaluate(true, predicted, data.classes, seed=choice.tried[0].seed)
