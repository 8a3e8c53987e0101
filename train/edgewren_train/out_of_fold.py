"""What models say of training rows that they were not trained on: how such rows are chosen, and how they are kept.

Kept in the trained model's folder as out_of_fold.jsonl: one line per held-out row with its place in train.jsonl, its
fold, and its logits before any temperature. Calibration, error analysis, ensembles and reports start from it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.errors import InputError, UsageError
from edgewren.evaluations import BY_GROUP
from edgewren_train.together import Together, apart

FILE = "out_of_fold.jsonl"
_EXPECTED = "expected none, folds:N (N at least 2) or validation:F (F between 0 and 1), for example folds:5"


@dataclass(frozen=True)
class Split:
    """How rows are held out: `folds` parts in turn, or one part of `share`; exactly one of the two is set."""

    folds: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, spec: str) -> Split | None:
        """Read "none" (None), "folds:N" or "validation:F".

        Raises:
            UsageError: it is none of these, or out of range.
        """
        kind, _, number = spec.partition(":")
        try:
            if spec == "none":
                return None
            if kind == "folds" and int(number) >= 2:
                return cls(folds=int(number))
            if kind == "validation" and 0 < float(number) < 1:
                return cls(share=float(number))
        except ValueError as error:
            raise UsageError(f"--calibrate is {spec!r}, {_EXPECTED}.") from error
        raise UsageError(f"--calibrate is {spec!r}, {_EXPECTED}.")

    @property
    def name(self) -> str:
        """What an evaluation on these rows is called."""
        return f"{self.folds}-fold cross-validation" if self.folds else f"validation part ({self.share:.0%} held out)"

    def parts(
        self,
        labels: Sequence[str],
        seed: int,
        together: Together | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Yield (training rows, held-out rows), stratified by label and shuffled by `seed`.

        Args:
            together: rows that are held out together; None: none are. Copies count as one row with the rarest of their
                labels. Groups are held out whole (scikit-learn's StratifiedGroupKFold); one part of a share is then
                that of so many folds.

        Raises:
            InputError: a class has too few rows, or too few groups.
        """
        from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

        together = together or apart(len(labels))
        if together.groups is not None:
            yield from self._by_group(labels, seed, together)
            return
        distinct, texts = np.unique(together.copies, return_inverse=True)
        counts = Counter(labels)
        ordered = sorted(counts, key=lambda name: (counts[name], name))
        place = {name: index for index, name in enumerate(ordered)}
        rarest_of = np.full(len(distinct), len(ordered))
        np.minimum.at(rarest_of, texts, [place[name] for name in labels])
        names = np.array(ordered)[rarest_of]
        if self.folds:
            rarest, units = together.rarest(labels)
            if units < self.folds:
                raise InputError(
                    f"{self.folds} folds need {self.folds} {together.what} of each class; {rarest!r} has {units}. "
                    "Use fewer folds, or --calibrate none."
                )
            splitter = StratifiedKFold(self.folds, shuffle=True, random_state=seed)
        else:
            splitter = StratifiedShuffleSplit(1, test_size=self.share, random_state=seed)
        try:
            for training, held_out in splitter.split(np.zeros(len(names)), names):
                if len(names) == len(labels):
                    yield training, held_out
                else:
                    inside = np.isin(texts, held_out)
                    yield np.flatnonzero(~inside), np.flatnonzero(inside)
        except ValueError as error:
            raise InputError(
                f"{self.name} cannot be made of {len(names)} rows: {error} Use --calibrate none."
            ) from error

    def _by_group(
        self, labels: Sequence[str], seed: int, together: Together
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        from sklearn.model_selection import StratifiedGroupKFold

        folds = self.folds or max(2, round(1 / (self.share or 1)))
        rarest, units = together.rarest(labels)
        if units < folds:
            raise InputError(
                f"{folds} folds by group need {folds} groups of each class; {rarest!r} is in {units}. Take "
                "fewer folds (or a larger share), or leave out --group-column."
            )
        names = np.asarray(labels)
        splitter: Any = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        parts = list(splitter.split(np.zeros(len(names)), names, together.groups))
        for training, held_out in parts if self.folds else parts[:1]:
            there = set(names[training])
            if not self.folds or not len(held_out):  # a lone part is judged alone, and with nothing in it nothing is
                there &= set(names[held_out])
            missing = sorted(set(labels) - there)
            if missing:
                raise InputError(
                    f"With {folds} folds by group, one part has no row of {missing[0]!r}: its rows are in few groups. "
                    "Take fewer folds, or leave out --group-column."
                )
            yield training, held_out


@dataclass(frozen=True)
class OutOfFold:
    """Logits of held-out rows.

    Attributes:
        rows: int64 [n], each row's place among the training rows, ascending.
        folds: int64 [n], the part in which it was held out.
        logits: float64 [n, classes], before any temperature.
        name: what an evaluation on these rows is called, for example "10-fold cross-validation".
        seed: of the split.
    """

    rows: NDArray[np.int64]
    folds: NDArray[np.int64]
    logits: NDArray[np.float64]
    name: str
    seed: int

    def predicted(self, classes: Sequence[str]) -> list[str]:
        return [classes[index] for index in self.logits.argmax(axis=1)]

    def write(self, folder: Path) -> None:
        with (folder / FILE).open("w", encoding="utf-8", newline="\n") as stream:
            stream.write(json.dumps({"name": self.name, "seed": self.seed, "rows": len(self.rows)}) + "\n")
            for row, fold, logits in zip(self.rows.tolist(), self.folds.tolist(), self.logits.tolist(), strict=True):
                stream.write(json.dumps({"row": row, "fold": fold, "logits": logits}) + "\n")


def read_out_of_fold(folder: Path) -> OutOfFold | None:
    """Read what `write` left in a trained model's folder; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with path.open(encoding="utf-8", newline="\n") as stream:
            head = json.loads(stream.readline())
            lines = [json.loads(line) for line in stream]
        found = OutOfFold(
            rows=np.array([line["row"] for line in lines], dtype=np.int64),
            folds=np.array([line["fold"] for line in lines], dtype=np.int64),
            logits=np.array([line["logits"] for line in lines], dtype=np.float64),
            name=str(head["name"]),
            seed=int(head["seed"]),
        )
        complete = head["rows"] == len(lines) > 0 and found.logits.ndim == 2
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}). Train again.") from error
    if not complete:
        raise InputError(f"{path} is incomplete ({len(lines)} rows). Train again.")
    return found


def hold_out(
    labels: Sequence[str],
    split: Split,
    seed: int,
    logits_of: Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.floating]],
    together: Together | None = None,
) -> OutOfFold:
    """Hold rows out part by part and ask for their logits.

    Args:
        labels: of all rows.
        logits_of: trains on the first rows and returns logits [n, classes] of the second.
        together: as of `Split.parts`.
    """
    rows: list[NDArray[np.intp]] = []
    folds: list[NDArray[np.int64]] = []
    logits: list[NDArray[np.float64]] = []
    for number, (training, held_out) in enumerate(split.parts(labels, seed, together)):
        rows.append(held_out)
        folds.append(np.full(len(held_out), number, dtype=np.int64))
        logits.append(np.asarray(logits_of(training, held_out), dtype=np.float64))
    joined = np.concatenate(rows)
    order = np.argsort(joined)
    return OutOfFold(
        rows=joined[order].astype(np.int64),
        folds=np.concatenate(folds)[order],
        logits=np.concatenate(logits)[order],
        name=split.name + (BY_GROUP if together is not None and together.groups is not None else ""),
        seed=seed,
    )
