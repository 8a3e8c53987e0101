"""The sweep's study in Optuna: which settings wait, which are taken, which come next. Knows settings, no trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgewren.errors import MissingDependencyError
from edgewren_train.search_space import Axis

_STUDY = "lora"
_REASON = "failed"
_STARTUP_TRIALS, _WARM_UP_EPOCHS = 4, 3


def open_study(folder: Path, *, prune: bool) -> Any:
    """Open the folder's study, a new one where there is none.

    Args:
        prune: give up settings that are worse than the median of the others at the same epoch.

    Raises:
        MissingDependencyError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            f"A sweep needs Optuna, which cannot be imported ({error}). Run: pip install 'edgewren[sweep]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        study_name=_STUDY,
        storage=f"sqlite:///{(folder / 'sweep.db').absolute()}",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARM_UP_EPOCHS)
        if prune
        else optuna.pruners.NopPruner(),
    )


def restore_killed(study: Any) -> None:
    """Put trials that a killed process left running back into the queue: there first, since we may be killed, too."""
    from optuna.trial import TrialState

    queued = [_fixed(trial) for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))]
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        params = trial.params or _fixed(trial)
        if params and params not in queued:
            study.enqueue_trial(params)
        study.tell(trial.number, state=TrialState.FAIL)


def next_trial(study: Any, folder: Path, limit: int | None) -> Any:
    """Return a trial to train, None where none is left. Optuna on SQLite gives a queued one to two who ask at once.

    Args:
        limit: trials in all; None: those that are queued.
    """
    from filelock import FileLock
    from optuna.trial import TrialState

    with FileLock(folder / "sweep.db.lock"):  # the system frees it where its holder is killed
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            taken = [
                trial
                for trial in study.get_trials(deepcopy=False)
                if trial.state is not TrialState.FAIL or _REASON in trial.user_attrs  # a killed one is queued again
            ]
            if limit is None or len(taken) >= limit:
                return None
        return study.ask()


def tell_failed(study: Any, trial: Any, reason: str) -> None:
    """Mark a trial as one whose setting failed: it counts as tried, and is not queued again."""
    from optuna.trial import TrialState

    trial.set_user_attr(_REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def suggest(trial: Any, axis: Axis) -> Any:
    if axis.values:
        return trial.suggest_categorical(axis.name, list(axis.values))
    if isinstance(axis.low, int):
        return trial.suggest_int(axis.name, axis.low, int(axis.high), log=axis.log)
    return trial.suggest_float(axis.name, axis.low, axis.high, log=axis.log)


def _fixed(trial: Any) -> dict[str, Any]:
    """Return the settings that a trial was queued with, none if a sampler proposed it."""
    return dict(trial.system_attrs.get("fixed_params", {}))
