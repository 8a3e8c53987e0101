"""A labelled file, wholly in memory and checked: what training and evaluation start from. Knows no models."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewren.archive.inputs import check_column
from edgewren.archive.labels import doubtful, label_text, look_alike
from edgewren.archive.readers import Number, json_text, open_table
from edgewren.archive.results import added_names
from edgewren.copies import leaked
from edgewren.errors import InputError, UsageError
from edgewren.manifest import is_formula

MAXIMUM_CLASSES = 100
MAXIMUM_LABEL_CHARACTERS = 128
_PROBLEMS_SHOWN = 5


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels, in the file's order.

    Attributes:
        texts: as in the file; none is empty.
        labels: one per text, as `label_text` has it.
        rows: 1-based number of each text's row in the file, header and blank lines at the end not counted.
        columns: all columns of the file.
        path: as given.
        sha256: of the file's bytes, hexadecimal.
        contradictions: texts that occur with more than one label, each with its rows.
        others: values of further columns that were asked for, as text, one per text; "" where there is none.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    rows: tuple[int, ...]
    columns: tuple[str, ...]
    path: str
    sha256: str
    contradictions: tuple[tuple[str, tuple[int, ...]], ...]
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted, as scikit-learn's `classes_`."""
        return tuple(sorted(set(self.labels)))

    @cached_property
    def class_indices(self) -> NDArray[np.int64]:
        """The place of each text's label among `classes`, int64 [n]."""
        place = {name: index for index, name in enumerate(self.classes)}
        return np.array([place[name] for name in self.labels], dtype=np.int64)

    @cached_property
    def texts_sha256(self) -> str:
        """The hash of texts and labels, whatever file they come from."""
        return hashlib.sha256(json.dumps([self.texts, self.labels]).encode()).hexdigest()

    def check_known(self, labels: Sequence[str], whose: object, *, phrase: str = "does not know. It knows") -> None:
        """Check that somebody knows all labels of the file.

        Raises:
            InputError: one is not among `labels`; its row is named.
        """
        known = frozenset(labels)
        unknown = [place for place, label in enumerate(self.labels) if label not in known]
        if not unknown:
            return
        row, label, count, total = self.rows[unknown[0]], self.labels[unknown[0]], len(unknown), len(self.labels)
        hint = f" {count:,} of {total:,} rows have a label that is none of these." if count > 1 else ""
        hint = " None of the rows has one of these: is it the right column?" if 1 < count == total else hint
        hint += "".join(f" Did you mean {other!r}?" for other in look_alike(label, sorted(known))[:1])
        raise InputError(
            f"{self.path}, row {row} has the label {label!r}, which {whose} {phrase}: "
            f"{', '.join(sorted(known))}.{hint} Correct it, or leave such rows out."
        )

    def warn_if_doubtful(self, say: Callable[[str], None]) -> None:
        """Warn of labels that are probably mistakes: missing values, and spellings of one class."""
        for told in doubtful(Counter(self.labels)):
            say(f"warning: {self.path}: {told}")

    def warn_if_scored(self, label_column: str, say: Callable[[str], None]) -> None:
        """Warn where the label column is one that scoring wrote: its labels are a model's own."""
        prefix = label_column.removesuffix("label")
        if prefix != label_column and set(added_names(self.classes, prefix)) <= set(self.columns):
            say(
                f"warning: {self.path} was scored by edgewren, and {label_column!r} holds the labels that a model "
                "gave. Unless people have corrected them, name the column of your own with --label-column."
            )

    def warn_if_seen(self, training: Mapping[str, Any], model: object, say: Callable[[str], None]) -> None:
        """Warn where a manifest's facts of the training name this file, or one with the same rows."""
        file = training.get("data")
        known = [training.get("texts_sha256"), file.get("sha256") if isinstance(file, Mapping) else None]
        if self.texts_sha256 in known or self.sha256 in known:
            say(
                f"warning: {model} was trained on the rows of {self.path}: they say nothing of other texts, and scores "
                "on them are far too good. Name a file that it was not trained on."
            )

    def warn_of_copies(self, training: LabelledTexts, say: Callable[[str], None]) -> int:
        """Return how many texts are copies of a training row's (`copies.leaked`), and warn if any is."""
        found = leaked(training.texts, self.texts)
        if found:
            say(
                f"warning: {found:,} of {len(self.texts):,} rows of {self.path} have the text of a training row (links "
                "apart): scores on this file are too good. Leave such rows out of one of the files."
            )
        return found


def read_labelled(
    path: str | Path,
    *,
    text_column: str = "text",
    label_column: str = "label",
    format: str | None = None,  # noqa: A002  the word that every caller uses
    encoding: str = "utf-8",
    minimum_per_class: int = 1,
    other_columns: Sequence[str] = (),
) -> LabelledTexts:
    """Read texts and labels of a CSV, TSV, JSONL (plain or .gz) or Parquet file.

    Args:
        path: the file.
        text_column: column with the texts.
        label_column: column with the labels; numbers and true/false stand for their text (`label_text`).
        format: one of `format_names.TABLES`; None: by suffix.
        encoding: of the file's text.
        minimum_per_class: rows that each class must have.
        other_columns: further columns to keep, such as the author.

    Raises:
        InputError: the file cannot be read; it lacks one of the columns; a row has no text or no usable label; there
            are no rows, fewer than two classes, more than 100, or a class with too few rows.
        UsageError: the format cannot be told, the encoding is unknown, or one column is to be both.
        MissingDependencyError: Parquet without pyarrow.
    """
    if text_column == label_column:
        raise UsageError(f"{text_column!r} is both --text-column and --label-column. Name the column of the labels.")
    texts: list[str] = []
    labels: list[str] = []
    rows: list[int] = []
    others: dict[str, list[str]] = {name: [] for name in other_columns}
    problems: list[str] = []
    count = 0
    with open_table(path, format=format, encoding=encoding, tweets=False) as table:
        for column in (text_column, label_column):
            check_column(table, column, "--text-column" if column == text_column else "--label-column")
        for column in others:
            check_column(table, column, "--group-column")
        for row in table:
            count += 1
            if row.error is not None:
                problems.append(f"row {row.number}: {row.error}")
                continue
            text = row.get(text_column)
            label, label_problem = _label(row.get(label_column))
            text_problem = _text_problem(text)
            if text_problem is not None or label_problem is not None:
                problems.append(
                    f"row {row.number}: the {'text' if text_problem else 'label'} is {text_problem or label_problem}"
                )
            texts.append(text if isinstance(text, str) else "")
            labels.append(label)
            rows.append(row.number)
            for name, values in others.items():
                values.append(_plain(row.get(name)))
        digest = table.sha256()
        columns = tuple(table.columns)
    if not count:
        raise InputError(f"{path} has no rows, only columns: {', '.join(columns)}. Expected labelled texts.")
    counts = Counter(label for label in labels if label)
    _check_free_text(path, label_column, counts, columns)
    if problems:
        shown = "; ".join(problems[:_PROBLEMS_SHOWN])
        more = f"; and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
        raise InputError(
            f"{path}: {len(problems)} of {count} rows cannot be used: {shown}{more}. Correct or remove these rows."
        )
    _check_classes(path, label_column, counts, minimum_per_class, columns)
    return LabelledTexts(
        texts=tuple(texts),
        labels=tuple(labels),
        rows=tuple(rows),
        columns=columns,
        path=str(path),
        sha256=digest,
        contradictions=_contradictions(texts, labels, rows),
        others={name: tuple(values) for name, values in others.items()},
    )


def _label(value: object) -> tuple[str, str | None]:
    """Return the label's text, and why it cannot be used."""
    if isinstance(value, (dict, list)):
        return "", f"{json_text(value)[:60]}, expected text, a number or true/false"
    text = label_text(value)
    if not text:
        return "", "empty" if isinstance(value, str) else "missing"
    if len(text) > MAXIMUM_LABEL_CHARACTERS:
        return text, f"{len(text)} characters long, at most {MAXIMUM_LABEL_CHARACTERS} are possible"
    if not text.isprintable():
        return text, f"{text[:60]!r}, which has characters that cannot be printed"
    if is_formula(text):
        return text, f"{text[:60]!r}, which a spreadsheet takes for a formula"
    return text, None


def _plain(value: object) -> str:
    if value is None:
        return ""
    return str(value).strip() if isinstance(value, (str, Number)) else json_text(value)


def _text_problem(value: object) -> str | None:
    if value is None:
        return "missing"
    if not isinstance(value, str) or isinstance(value, Number):
        return f"{json_text(value)[:60]}, expected text"
    return None if value.strip() else "empty"


def _check_free_text(path: str | Path, column: str, counts: Counter[str], columns: Sequence[str]) -> None:
    if len(counts) <= MAXIMUM_CLASSES:
        return
    examples = ", ".join(repr(label[:40]) for label in list(counts)[:3])
    raise InputError(
        f"{path}: the column {column!r} has {len(counts):,} different values (for example {examples}), at most "
        f"{MAXIMUM_CLASSES} classes are possible. {_no_classes(columns)}"
    )


def _check_classes(path: str | Path, column: str, counts: Counter[str], minimum: int, columns: Sequence[str]) -> None:
    if len(counts) == 1:
        (label,) = counts
        raise InputError(f"{path}: every row has the label {label!r} in {column!r}. Expected at least two classes.")
    few = sum(rows < minimum for rows in counts.values())
    if not few:
        return
    label, rows = min(counts.items(), key=lambda item: (item[1], item[0]))
    found = f"{path}: the class {label!r} has {rows} row{'s' * (rows != 1)}"
    if few > len(counts) / 2 and few > 2:
        raise InputError(
            f"{found}, as have {few - 1} of the other {len(counts) - 1} in the column {column!r}, and at least "
            f"{minimum} are needed. {_no_classes(columns)}"
        )
    alike = look_alike(label, counts)
    hint = f" It differs only by case or blanks from {alike[0]!r} ({counts[alike[0]]:,} rows)." if alike else ""
    raise InputError(
        f"{found}, at least {minimum} are needed.{hint} Label more texts of this class, join it with another class, or "
        "leave it out."
    )


def _no_classes(columns: Sequence[str]) -> str:
    return (
        "It looks like free text or ids. Name the column that holds the classes with --label-column; there are: "
        f"{', '.join(columns[:50])}."
    )


def _contradictions(
    texts: Sequence[str], labels: Sequence[str], rows: Sequence[int]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    places: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        places.setdefault(text, []).append(index)
    return tuple(
        (text, tuple(rows[index] for index in indices))
        for text, indices in places.items()
        if len({labels[index] for index in indices}) > 1
    )
