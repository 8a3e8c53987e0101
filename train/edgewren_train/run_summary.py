"""What a run tells: the summary for people and tools, and the facts that its folder keeps of data and libraries."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import edgewren
from edgewren.archive.labelled import LabelledTexts
from edgewren.metrics import Evaluation, evaluate
from edgewren_train.model import Description
from edgewren_train.out_of_fold import OutOfFold
from edgewren_train.together import Together

Say = Callable[[str], None]

_LIBRARIES = ("torch", "transformers", "sentence-transformers", "scikit-learn", "peft", "tokenizers", "numpy")


class Pretrained(Protocol):
    """What a run started from."""

    @property
    def id(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def max_length(self) -> int: ...


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

    def describe(self, pretrained: Pretrained, *, normaliser: str, temperature: float) -> Description:
        """Return what model.json says of this run."""
        return Description(
            kind=self.kind,
            labels=self.labels,
            max_length=pretrained.max_length,
            normaliser=normaliser,
            encoder={"id": pretrained.id, "sha256": pretrained.sha256},
            training=self.training,
            evaluation={name: value.as_dict() for name, value in self.evaluations.items()},
            temperature=temperature,
        )


def evaluate_held_out(held_out: OutOfFold, data: LabelledTexts, seed: int) -> Evaluation:
    """Judge held-out rows by models that were not trained on them."""
    true = [data.labels[row] for row in held_out.rows]
    return evaluate(true, held_out.predicted(data.classes), data.classes, seed=seed)


def data_facts(data: LabelledTexts, test: LabelledTexts | None, group_column: str | None = None) -> dict[str, Any]:
    """Return which files were read, the hash of the texts and labels in them, and by which column rows were grouped."""
    facts: dict[str, Any] = {
        "data": {"file": Path(data.path).name, "sha256": data.sha256, "rows": len(data.texts)},
        "texts_sha256": data.texts_sha256,
        "rows_per_label": {name: data.labels.count(name) for name in data.classes},
    }
    if group_column is not None:
        facts["group_column"] = group_column
    if test is not None:
        facts["test_data"] = {"file": Path(test.path).name, "sha256": test.sha256, "rows": len(test.texts)}
    return facts


def library_versions() -> dict[str, str]:
    """Return the version of each library that a training depends on, where it is installed."""
    versions = {"edgewren": edgewren.__version__}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def tell_copies(together: Together, say: Say) -> None:
    """Tell how many rows are copies of others, and what that does, if there are any."""
    rows = len(together.copies)
    _, first, text = np.unique(together.copies, return_index=True, return_inverse=True)
    repeated = rows - len(first)
    if not repeated:
        return
    kept = "held out together"
    if together.groups is not None:
        parted = int((together.groups != together.groups[first[text]]).sum())
        kept += " with their group" + (f" ({parted:,} of them are of another group than the first)" if parted else "")
    say(
        f"note: {repeated:,} of {rows:,} rows repeat an earlier row's text (links apart). Copies are {kept}, but "
        "models learn such a text as often as it occurs, and intervals take all rows for independent: better remove "
        "copies"
    )


def tell_prompts(prompts: Sequence[str], say: Say) -> None:
    """Tell that an encoder's prompts are not used, if it has any."""
    if prompts:
        shown = ", ".join(json.dumps(prompt, ensure_ascii=False) for prompt in prompts[:3])
        say(
            f"note: this encoder knows prompts to put before texts ({shown}{', …' * (len(prompts) > 3)}). None is put "
            "there, neither here nor in scoring"
        )


def warn_of_one_label(predicted: Sequence[str], classes: Sequence[str], say: Say, remedy: str) -> None:
    """Tell if a model answers the same to all texts that it was asked."""
    if len(set(predicted)) == 1 and len(predicted) > len(classes):
        say(f"warning: the model answers {predicted[0]!r} to every text. {remedy}")
