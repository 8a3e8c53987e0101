"""What the log of a comparison holds of one candidate: scores by fold, size and speed. Trains nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from edgewren_train.candidate import Candidate
from edgewren_train.folds import Fold
from edgewren_train.run_log import RunLog


class Records:
    """What the log holds of one candidate: scores by (repeat, fold), and its size and speed."""

    def __init__(self, log: RunLog, candidate: Candidate) -> None:
        self._log = log
        self._key = json.loads(json.dumps(candidate.as_dict()))
        if self._key["depth"] is None:  # logs of whole encoders that are older than depths go on, too
            del self._key["depth"]
        self.scores: dict[tuple[int, int], dict[str, float]] = {}
        self.cost: dict[str, float] = {}
        for record in log:
            if record.get("candidate") == self._key:
                if "cost" in record:
                    self.cost = record["cost"]
                else:
                    self.scores[record["repeat"], record["fold"]] = record

    def add_cost(self, texts_per_s: float, parameters: int, parameter_bytes: int) -> None:
        self.cost = {
            "texts_per_s": round(texts_per_s, 2),
            "parameters": parameters,
            "megabytes": round(parameter_bytes / 1e6, 2),
        }
        self._log.append({"candidate": self._key, "cost": self.cost})

    def add_score(
        self, fold: Fold, true: Sequence[str], predicted: Sequence[str], train_s: float, **further: int
    ) -> None:
        from sklearn.metrics import balanced_accuracy_score, f1_score

        record = {
            "candidate": self._key,
            "repeat": fold.repeat,
            "fold": fold.number,
            "rows_trained": len(fold.train),
            "rows_held_out": len(fold.held_out),
            "balanced_accuracy": float(balanced_accuracy_score(true, predicted)),
            "macro_f1": float(f1_score(true, predicted, average="macro", zero_division=0.0)),
            "train_s": round(train_s, 4),
            **further,
        }
        self.scores[fold.repeat, fold.number] = record
        self._log.append(record)

    def missing(self, folds: Iterable[Fold]) -> list[Fold]:
        return [fold for fold in folds if (fold.repeat, fold.number) not in self.scores]
