"""What verbs show people in the end: the summary of a training, on stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewren_train.run_summary import Summary


def print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_dict()))  # noqa: T201
        return
    for name, evaluation in summary.evaluations.items():
        print(f"== {name}\n{evaluation.as_text()}\n")  # noqa: T201
    print(f"trained model: {summary.folder}\nnext: edgewren export {summary.folder}")  # noqa: T201
