"""A search over LoRA's settings: Optuna proposes, prunes and remembers; each setting is trained once per seed.

Every seed has its own validation part, head and order, the same for all settings: so settings can be compared pair by
pair, and the spread over seeds is the noise to judge them by. Held-out rows choose the epoch (by log loss) and give the
score (balanced accuracy), so scores are a little optimistic; comparisons between settings are hardly touched by that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgewren.archive.labelled import LabelledTexts
from edgewren.errors import EdgewrenError, InputError, UsageError
from edgewren_train import lora
from edgewren_train.epoch_watch import EpochScore, EpochWatch
from edgewren_train.folds import one_split
from edgewren_train.lora_model import LoraBase, load_base
from edgewren_train.progress import Progress, unseen
from edgewren_train.run_log import RunLog
from edgewren_train.search_space import grid, recipe_of
from edgewren_train.sweep_plan import Run, SweepPlan
from edgewren_train.sweep_study import next_trial, open_study, restore_killed, suggest, tell_failed
from edgewren_train.together import among

logger = logging.getLogger(__name__)


class _SettingFailedError(Exception):
    """A training of this setting failed; others may not."""


def run_sweep(
    data: LabelledTexts,
    folder: Path,
    plan: SweepPlan,
    *,
    groups: Sequence[str] | None = None,
    jobs: int = 1,
    device: str = "cpu",
    force: bool = False,
    on_run: Callable[[Run], None] | None = None,
    progress: Progress = unseen,
) -> list[Run]:
    """Try all settings of the plan that the folder does not hold yet; return all finished runs, old and new.

    A setting that is refused, runs away or needs too much memory is noted as failed, and not tried again.

    Args:
        groups: of each row; rows of one group are never in both parts.
        jobs: processes that train at once, each with its share of the cores.
        on_run: told of each finished training; only with one job.
        progress: of each training; only with one job.

    Raises:
        ResumeError: the folder holds a sweep of another plan.
        MissingDependencyError: Optuna is not installed.
    """
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}, expected at least 1.")
    log = RunLog(folder, plan.as_dict(data), force=force)
    with log.locked():
        try:
            study = open_study(folder, prune=plan.prune)
            restore_killed(study)
            if plan.is_grid:
                for settings in grid(plan.axes):
                    study.enqueue_trial(settings, skip_if_exists=True)
            if jobs == 1:
                _work(data, folder, plan, groups, device, on_run=on_run, progress=progress)
            else:
                _work_in_processes(jobs, data, folder, plan, groups, device)
        except EdgewrenError:
            if not any(log):  # a plan that was refused should not refuse the corrected one
                log.discard()
            raise
    return [Run.from_dict(record) for record in log]


def _work(
    data: LabelledTexts,
    folder: Path,
    plan: SweepPlan,
    groups: Sequence[str] | None,
    device: str,
    *,
    worker: int = 0,
    on_run: Callable[[Run], None] | None = None,
    progress: Progress = unseen,
) -> None:
    """Take trials until none is left: of a grid those waiting in the queue, else until the plan's number is reached."""
    import optuna

    study = open_study(folder, prune=plan.prune)
    # Neither two workers nor a sweep that goes on may propose the same settings again.
    study.sampler = optuna.samplers.TPESampler(seed=(plan.base.seed + 1000 * worker + len(study.trials)) % 2**32)
    log = RunLog(folder, plan.as_dict(data))
    trainer = _Trainer(data, plan, groups, device, progress)
    while (trial := next_trial(study, folder, None if plan.is_grid else plan.trials)) is not None:
        settings = {axis.name: suggest(trial, axis) for axis in plan.axes}
        try:
            value = _objective(trial, settings, plan, log, trainer, on_run)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except _SettingFailedError as error:
            tell_failed(study, trial, str(error))
        else:
            study.tell(trial, value)


def _objective(
    trial: Any,
    settings: dict[str, Any],
    plan: SweepPlan,
    log: RunLog,
    trainer: _Trainer,
    on_run: Callable[[Run], None] | None,
) -> float:
    """Return the mean balanced accuracy over the seeds; trainings that the log holds are not repeated."""
    import optuna

    known = {(json.dumps(run["settings"], sort_keys=True), run["seed"]): run for run in log if not run["pruned"]}
    values = []
    epochs = recipe_of(settings, plan.base).epochs
    for index, seed in enumerate(plan.seeds):
        # Log loss is what pruning looks at: the accuracy of few rows jumps.
        def report(score: EpochScore, start: int = index * epochs) -> bool:
            trial.report(-score.loss, start + score.epoch)
            return bool(trial.should_prune())

        record = known.get((json.dumps(settings, sort_keys=True), seed))
        if record is not None:
            run = Run.from_dict(record)
        else:
            run = trainer.run(settings, seed, report)
            log.append(run.as_dict())
            if on_run:
                on_run(run)
        if run.pruned:
            raise optuna.TrialPruned
        if run.failed:
            raise _SettingFailedError(run.failed)
        values.append(run.best.balanced_accuracy)
    return sum(values) / len(values)


class _Trainer:
    """Holds the pretrained model of each seed and the token rows, loaded once for all settings."""

    def __init__(
        self, data: LabelledTexts, plan: SweepPlan, groups: Sequence[str] | None, device: str, progress: Progress
    ) -> None:
        self._data, self._plan, self._device = data, plan, device
        self._progress = progress
        self._bases: dict[int, LoraBase] = {}
        self._together = among(data.texts, groups)
        self._ids: list[list[int]] = []
        self._labels = [data.classes.index(label) for label in data.labels]

    def _base(self, seed: int) -> LoraBase:
        if seed not in self._bases:
            self._bases[seed] = load_base(
                self._plan.encoder,
                self._data.classes,
                max_length=self._plan.base.max_length,
                normaliser=self._plan.normaliser,
                seed=seed,
            )
            if not self._ids:
                self._ids = [list(row) for row in self._bases[seed].tokenizer.encode(self._data.texts).ids]
        return self._bases[seed]

    def run(self, settings: dict[str, Any], seed: int, report: Callable[[EpochScore], bool]) -> Run:
        base = self._base(seed)
        train, held_out = one_split(
            self._data.labels,
            share=self._plan.validation,
            seed=seed,
            together=self._together,
        )
        pruned = False

        def on_epoch(score: EpochScore) -> bool:
            nonlocal pruned
            pruned = report(score)
            return pruned

        watch = EpochWatch(
            [self._ids[row] for row in held_out],
            [self._labels[row] for row in held_out],
            patience=self._plan.patience,
            on_epoch=on_epoch,
        )
        start = time.perf_counter()
        failed = ""
        try:
            lora.fit(
                base,
                [self._ids[row] for row in train],
                [self._labels[row] for row in train],
                dataclasses.replace(recipe_of(settings, self._plan.base), seed=seed),
                device=self._device,
                progress=self._progress,
                watch=watch,
            )
        except Exception as error:
            failed = _reason(error)
            if not failed:
                raise
        best = watch.best if watch.scores else EpochScore(0, math.nan, math.nan)
        if best.ran_away and not failed and not pruned:
            failed = "training ran away: after no epoch was the loss finite, the learning rate is too high"
        return Run(
            settings=settings,
            seed=seed,
            scores=tuple(watch.scores),
            best=best,
            seconds=round(time.perf_counter() - start, 3),
            rows_trained=len(train),
            rows_held_out=len(held_out),
            pruned=pruned,
            failed=failed,
        )


def _reason(error: Exception) -> str:
    """Return why a training failed, where that may be its setting's fault: it was refused, or took too much memory."""
    import torch

    # On a CPU, torch has no class of its own for that.
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error):
        return "out of memory: fewer --jobs or a smaller --batch-size need less"
    return " ".join(str(error).split()) if isinstance(error, EdgewrenError) else ""


def _work_in_processes(
    jobs: int, data: LabelledTexts, folder: Path, plan: SweepPlan, groups: Sequence[str] | None, device: str
) -> None:
    import multiprocessing

    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    workers = [
        context.Process(target=_work_with_few_threads, args=(jobs, worker, data, folder, plan, groups, device))
        for worker in range(jobs)
    ]
    try:
        with _safe_path():
            for worker in workers:
                worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed:
        raise InputError(
            f"{len(failed)} of {jobs} training processes ended early (exit code {failed[0]}); their reason stands "
            "above. What they finished is kept: run the same command again, perhaps with fewer --jobs."
        )


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Have processes that start meanwhile import nothing from the working directory, where they would look first."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _work_with_few_threads(jobs: int, worker: int, *args: Any) -> None:
    import multiprocessing
    import threading
    from multiprocessing.connection import wait

    import torch

    from edgewren.device import granted_cores

    def end_with_parent() -> None:  # a killed one cannot end us, and the sweep that goes on would train beside us
        parent = multiprocessing.parent_process()
        assert parent is not None, "we were started by one"
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, granted_cores() // jobs))
    _work(*args, worker=worker)
