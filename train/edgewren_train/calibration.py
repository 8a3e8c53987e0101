"""Calibration of a trained model: the temperature from its out-of-fold logits, and an honest account of its effect.

The account is what reports and model cards show; it is stored in model.json under training.calibration and travels
with the bundle. Knows out-of-fold logits and labels, nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.calibration import MINIMUM_ROWS, coverage, cross_fitted, fit_temperature, judge, reliability, says_nothing
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.together import Together


def calibrate(
    held_out: OutOfFold,
    labels: Sequence[str],
    classes: Sequence[str],
    *,
    together: Together | None = None,
    finished: NDArray[np.float64] | None = None,
    after: NDArray[np.float64] | None = None,
    seed: int = 0,
    say: Callable[[str], None],
) -> tuple[float, dict[str, Any]]:
    """Return the temperature and the account of it; (1.0, {}) with a word to `say` where there are too few rows.

    Args:
        labels: the true label of each training row (of all, not only those held out).
        together: which of the training rows belong together; None: none do. Folds know it; a lone part does not.
        finished: logits of the held-out rows to fit the temperature to, where the model that is kept has factors
            inside that were fitted on all of them (an ensemble); None: those of `held_out`.
        after: calibrated logits by factors of the other folds alone; None: `cross_fitted` makes them.
    """
    if len(held_out.rows) < MINIMUM_ROWS:
        say(f"note: not calibrated: {len(held_out.rows)} rows were held out, {MINIMUM_ROWS} or more are needed")
        return 1.0, {}
    index_of = {name: index for index, name in enumerate(classes)}
    true = np.array([index_of[labels[row]] for row in held_out.rows])
    temperature = fit_temperature(held_out.logits if finished is None else finished, true)
    if after is None:
        units = None if together is None else together.units[held_out.rows]
        after = cross_fitted(held_out.logits, true, held_out.folds, units)
    account = describe(held_out.logits, after, true, seed=seed, final=temperature)
    account = {"temperature": temperature, "on": held_out.name, "rows": len(true), **account}
    raw, calibrated = account["before"], account["after"]
    say(
        f"calibrated on {held_out.name} ({len(true):,} rows): temperature {temperature:.3g}, "
        f"ECE {raw['ece']['value']:.3f} -> {calibrated['ece']['value']:.3f}, log loss "
        f"{raw['log_loss']['value']:.3f} -> {calibrated['log_loss']['value']:.3f}; labels changed: "
        f"{account['labels_changed']}"
    )
    if says_nothing(temperature):
        say(
            "warning: on these rows the model's logits are no higher for right labels than for wrong ones, so all "
            "labels get about the same probability: it has learned nothing that holds for other texts"
        )
    return temperature, account


def describe(before: Any, after: Any, true: Any, *, seed: int, final: float) -> dict[str, Any]:
    """Return figures of logits before and after calibration, the reliability of both, and the coverage curve.

    Args:
        before, after: float [n, C], uncalibrated and cross-fitted logits of the same rows.
        true: class index of each row.
        final: the temperature that the model gets, for counting labels that it would change (none).
    """
    raw = np.asarray(before)
    scaled = (final * raw).astype(np.float32)
    # A label that is still among the highest has not changed: float32 makes equal what differed in the eighth digit.
    chosen = np.take_along_axis(scaled, raw.argmax(axis=1)[:, None], axis=1)[:, 0]
    return {
        "before": judge(before, true, seed=seed).as_dict(),
        "after": judge(after, true, seed=seed).as_dict(),
        "difference": judge(after, true, against=before, seed=seed).as_dict(),
        "labels_changed": int((chosen < scaled.max(axis=1)).sum()),
        "reliability_before": [asdict(entry) for entry in reliability(before, true)],
        "reliability_after": [asdict(entry) for entry in reliability(after, true)],
        "coverage": [asdict(entry) for entry in coverage(after, true)],
    }
