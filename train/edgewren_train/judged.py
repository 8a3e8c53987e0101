"""Labelled rows with held-out scores, for error analysis: from a trained model's folds, or from a bundle and a file."""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgewren.archive.inputs import check_column
from edgewren.archive.labelled import LabelledTexts
from edgewren.archive.readers import open_table
from edgewren.calibration import cross_fitted
from edgewren.classifier import Classifier
from edgewren.errors import InputError, UsageError
from edgewren.probabilities import softmax
from edgewren.text import TextTokenizer
from edgewren_train.analysis import Judged
from edgewren_train.duplicates import copies
from edgewren_train.run_summary import Say
from edgewren_train.trained import Trained, read_trained

logger = logging.getLogger(__name__)


def judge_training_rows(
    model: Trained,
    data: LabelledTexts | None = None,
    columns: Sequence[str] = (),
    *,
    format: str | None = None,  # noqa: A002
    encoding: str = "utf-8",
) -> Judged:
    """Return a trained model's held-out rows with their out-of-fold scores.

    Args:
        data: the file that it was trained on, for row numbers and columns; None: places in train.jsonl.
        columns: of that file, for slices.

    Raises:
        InputError: the model has no out-of-fold logits, or the file's rows are not its training rows.
        UsageError: columns without a file.
    """
    held_out = model.held_out
    if held_out is None:
        raise InputError(
            f"{model.folder} has no out-of-fold scores, and scores of rows that it was trained on say nothing. Train "
            "again with folds (ridge --folds 10, lora --calibrate folds:5), or analyse a bundle on another file."
        )
    if columns and data is None:
        raise UsageError("--slice needs the file that has the column: edgewren analyse MODEL TRAIN.csv --slice …")
    texts = [model.texts[row] for row in held_out.rows]
    given = [model.text_labels[row] for row in held_out.rows]
    index_of = {label: index for index, label in enumerate(model.labels)}
    true = np.array([index_of[label] for label in given])
    logits = held_out.logits
    if model.training.get("calibration"):
        logits = cross_fitted(logits, true, held_out.folds, copies(texts))
    places = list(range(len(texts))) if data is None else _places(model, data, texts, given)
    rows = [int(row) + 1 for row in held_out.rows] if data is None else [data.rows[place] for place in places]
    tokenizer = TextTokenizer((model.folder / "tokenizer.json").read_bytes(), int(model.description["max_length"]))
    return Judged(
        source=f"{model.folder.name} on its training rows ({held_out.name})",
        labels=model.labels,
        texts=tuple(texts),
        given=tuple(given),
        rows=tuple(rows),
        scores=softmax(logits).astype(np.float64),
        truncated=tokenizer.encode(texts).truncated,
        columns={} if data is None else read_columns(data.path, columns, rows, format=format, encoding=encoding),
    )


def judge_file(
    bundle: str | Path,
    data: LabelledTexts,
    columns: Sequence[str] = (),
    *,
    format: str | None = None,  # noqa: A002
    encoding: str = "utf-8",
    say: Say = logger.info,
) -> Judged:
    """Return a labelled file with a bundle's scores.

    Args:
        say: told if the file is the one that the bundle was trained on, of which its scores say nothing.

    Raises:
        BundleError, DeviceError: as `Classifier.load`.
        InputError: a label that the bundle does not know.
    """
    classifier = Classifier.load(bundle)
    data.check_known(classifier.labels, bundle)
    data.warn_if_seen(classifier.bundle.manifest.training, bundle, say)
    scored = classifier.score(data.texts)
    return Judged(
        source=f"{Path(bundle).name} on {Path(data.path).name}",
        labels=classifier.labels,
        texts=data.texts,
        given=data.labels,
        rows=data.rows,
        scores=softmax(scored.logits).astype(np.float64),
        truncated=scored.truncated,
        columns=read_columns(data.path, columns, data.rows, format=format, encoding=encoding),
    )


def is_trained_model(path: str | Path) -> bool:
    return (Path(path) / "model.json").is_file()


def load_judged(
    path: str,
    data: LabelledTexts | None,
    columns: Sequence[str],
    *,
    format: str | None = None,  # noqa: A002
    encoding: str = "utf-8",
    say: Say = logger.info,
) -> Judged:
    """Return the rows to analyse for a trained model, or for a bundle and a file.

    Raises:
        UsageError: a bundle without a file.
    """
    if is_trained_model(path):
        return judge_training_rows(read_trained(path), data, columns, format=format, encoding=encoding)
    if data is None:
        raise UsageError(f"{path} is a bundle: name a labelled file that it was not trained on.")
    return judge_file(path, data, columns, format=format, encoding=encoding, say=say)


def read_columns(
    path: str,
    names: Sequence[str],
    rows: Sequence[int],
    *,
    format: str | None = None,  # noqa: A002
    encoding: str = "utf-8",
) -> dict[str, list[str]]:
    """Return columns of a file as text, at the given 1-based rows.

    Raises:
        InputError: the file lacks one of them.
    """
    if not names:
        return {}
    values: dict[str, dict[int, str]] = {name: {} for name in names}
    with open_table(path, format=format, encoding=encoding) as table:
        for name in names:
            check_column(table, name, "--slice")
        for row in table:
            for name in names:
                value = row.get(name)
                values[name][row.number] = "(empty)" if value is None or value == "" else str(value)
    return {name: [found.get(row, "(empty)") for row in rows] for name, found in values.items()}


def _places(model: Trained, data: LabelledTexts, texts: Sequence[str], given: Sequence[str]) -> list[int]:
    """Return the place in the file of each held-out row; equal rows are matched in order."""
    free: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for place, row in enumerate(zip(data.texts, data.labels, strict=True)):
        free[row].append(place)
    places = []
    for row in zip(texts, given, strict=True):
        if not free[row]:
            raise InputError(
                f"{data.path} is not the file that {model.folder} was trained on: it lacks the row {row[0][:60]!r} "
                f"({row[1]}). To judge other rows, export the model and analyse its bundle."
            )
        places.append(free[row].popleft())
    return places
