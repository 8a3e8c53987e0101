"""Does the temperature hold on the precision that is shipped? It was fitted on fp32 logits of held-out rows.

No variant exists of the models that were trained on folds, so their logits get the rounding of the shipped variant:
what a variant adds to the final model's logits of a row is added to that row's held-out logits. On these, the
temperature is fitted again and scores are judged again. Knows logits, nothing of graphs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.calibration import MINIMUM_ROWS, fit_temperature, judge
from edgewren.errors import ParityError
from edgewren_export.trained_model import TrainedModel

MOST_LOG_LOSS = 0.01
"""Log loss, in nats, that a variant's rounding may cost on held-out rows."""

_RESAMPLES = 200


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows among the gate's texts.

    Attributes:
        places: int64 [n], of each among the gate's texts.
        true: int64 [n], class index.
        logits: float64 [n, classes], calibrated: times the model's temperature.
    """

    places: NDArray[np.int64]
    true: NDArray[np.int64]
    logits: NDArray[np.float64]


@dataclass(frozen=True)
class TemperatureCheck:
    """One variant's calibration on held-out rows.

    Attributes:
        precision: name of the variant.
        rows: held-out rows.
        refitted: the factor that would be best on this variant's logits, relative to the one built in: 1 is perfect.
        ece_fp32, log_loss_fp32, brier_fp32: of fp32's scores on these rows.
        ece, log_loss, brier: of this variant's.
        labels_changed: held-out labels that the variant's rounding changes.
    """

    precision: str
    rows: int
    refitted: float
    ece_fp32: float
    log_loss_fp32: float
    brier_fp32: float
    ece: float
    log_loss: float
    brier: float
    labels_changed: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        return (
            f"{self.rows:,} held-out rows, ECE {self.ece_fp32:.3f} -> {self.ece:.3f}, log loss "
            f"{self.log_loss_fp32:.4f} -> {self.log_loss:.4f}; the best temperature would be {self.refitted:.3f} times "
            f"the one built in"
        )


def held_out_rows(model: TrainedModel, step: int) -> HeldOut | None:
    """Return the held-out rows among every `step`-th training row; None where the model is not calibrated or has too
    few of them.
    """
    rows = [row for row in range(0, len(model.texts), step) if row in model.held_out]
    if not model.training.get("calibration") or len(rows) < MINIMUM_ROWS:
        return None
    index_of = {label: index for index, label in enumerate(model.labels)}
    return HeldOut(
        places=np.array(rows) // step,
        true=np.array([index_of[model.text_labels[row]] for row in rows]),
        logits=model.temperature * np.array([model.held_out[row] for row in rows], dtype=np.float64),
    )


def check_temperature(
    precision: str, held_out: HeldOut, reference: NDArray[Any], variant: NDArray[Any]
) -> TemperatureCheck:
    """Judge a variant's calibration.

    Args:
        reference, variant: logits [gate texts, classes] of fp32 and of the variant, by the final model.

    Raises:
        ParityError: its rounding costs more than 0.01 nats of log loss.
    """
    rounding = np.asarray(variant, np.float64)[held_out.places] - np.asarray(reference, np.float64)[held_out.places]
    logits = held_out.logits + rounding
    before = judge(held_out.logits, held_out.true, resamples=_RESAMPLES)
    after = judge(logits, held_out.true, resamples=_RESAMPLES)
    lost = after.log_loss.value - before.log_loss.value
    if not lost <= MOST_LOG_LOSS:
        raise ParityError(
            f"fp32 -> {precision} costs {lost:.3f} nats of log loss on {len(held_out.true):,} held-out rows (from "
            f"{before.log_loss.value:.3f} to {after.log_loss.value:.3f}), more than {MOST_LOG_LOSS}: its scores would "
            "no longer mean what they say. Nothing was written. Export with --precision fp32."
        )
    return TemperatureCheck(
        precision=precision,
        rows=len(held_out.true),
        refitted=fit_temperature(logits, held_out.true),
        ece_fp32=before.ece.value,
        log_loss_fp32=before.log_loss.value,
        brier_fp32=before.brier.value,
        ece=after.ece.value,
        log_loss=after.log_loss.value,
        brier=after.brier.value,
        labels_changed=int((logits.argmax(axis=1) != held_out.logits.argmax(axis=1)).sum()),
    )
