"""What verbs show people: progress on stderr, the summary of a training on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewren_train.run_summary import Summary


def bar(total: int, title: str, *, unit: str = " texts") -> Callable[[int], None]:
    from tqdm import tqdm

    shown = tqdm(total=total, desc=title, unit=unit, disable=not sys.stderr.isatty(), file=sys.stderr)

    def advance(count: int) -> None:
        shown.update(count)
        if shown.n >= total:
            shown.close()

    return advance


def print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_dict()))  # noqa: T201
        return
    for name, evaluation in summary.evaluations.items():
        print(f"== {name}\n{evaluation.as_text()}\n")  # noqa: T201
    print(f"trained model: {summary.folder}\nnext: edgewren export {summary.folder}")  # noqa: T201
