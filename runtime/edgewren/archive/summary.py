"""What a researcher reports of scored files: shares of each label per group, counted and corrected, as text, CSV, JSON.

Puts together `tally` (the counts), the bundle's evaluation (the errors) and `quantification` (the statistics). Knows no
command line and no colours.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewren.archive.output import REPORT_SUFFIX, beside
from edgewren.archive.tally import Tally
from edgewren.bootstrap import RESAMPLES
from edgewren.bundle import Bundle
from edgewren.display import printable, shortened
from edgewren.errors import InputError, UsageError
from edgewren.metrics import Estimate
from edgewren.quantification import ErrorRates, choose_evaluation, estimate_shares

_MAXIMUM_REPORT_BYTES = 16 * 2**20
_NAME_COLUMNS = 32


@dataclass(frozen=True)
class Correction:
    """Where the classifier's errors are known from: the bundle, the evaluation's name, and the rates themselves."""

    bundle: Bundle
    evaluation: str
    rates: ErrorRates


@dataclass(frozen=True)
class Cell:
    """One label of one group.

    Attributes:
        count, naive: texts that got this label, and their share of the group.
        share: corrected share with its interval; None without correction.
    """

    label: str
    count: int
    naive: float
    share: Estimate | None


@dataclass(frozen=True)
class Group:
    """One group: its name (None: the value is missing or no date), texts counted, uncertain ones among them, cells.

    `doubtful`: the counts do not fit the measured errors, whatever the true shares; see `quantification.Shares`.
    """

    name: str | None
    rows: int
    uncertain: int
    doubtful: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Summary:
    """Shares per group and over all groups. Made by `summarize`."""

    by: str
    period: str | None
    labels: tuple[str, ...]
    groups: tuple[Group, ...]
    total: Group
    tally: Tally
    correction: Correction | None
    confidence: float
    resamples: int
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything as what JSON knows."""
        correction = None
        if self.correction is not None:
            rates = self.correction.rates
            correction = {
                "method": "adjusted count, least squares on the simplex; Bayesian bootstrap of evaluation and counts",
                "model": {
                    "path": str(self.correction.bundle.path),
                    "manifest_sha256": self.correction.bundle.sha256,
                },
                "evaluation": self.correction.evaluation,
                "confusion": rates.confusion.astype(int).tolist(),
                "standard_errors": dict(zip(self.labels, rates.standard_errors.tolist(), strict=True)),
                "confidence": self.confidence,
                "resamples": self.resamples,
                "seed": self.seed,
            }
        return {
            "by": self.by,
            "period": self.period,
            "labels": list(self.labels),
            "rows": {
                "read": self.tally.rows,
                "counted": self.total.rows,
                "uncertain_counted": self.total.uncertain,
                "uncertain_left_out": self.tally.left_out,
                "empty_left_out": self.tally.empty,
                "rejected_left_out": self.tally.rejected,
            },
            "correction": correction,
            "total": _group_dict(self.total),
            "groups": [_group_dict(group) for group in self.groups],
        }

    def as_json(self) -> str:
        """Return one JSON document."""
        return json.dumps(self.as_dict(), ensure_ascii=True, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """Return one line per group and label, without the total, which would be counted twice in a table."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        header = ["group", "rows", "uncertain", "label", "count", "naive_share"]
        corrected = ["share", "share_low", "share_high", "adjusted_count", "doubtful"]
        writer.writerow(header + (corrected if self.correction is not None else []))
        for group in self.groups:
            for cell in group.cells:
                line: list[Any] = [group.name or "", group.rows, group.uncertain, cell.label, cell.count]
                line.append(f"{cell.naive:.6f}")
                if cell.share is not None:
                    shares = (cell.share.value, cell.share.low, cell.share.high)
                    line += [f"{value:.6f}" for value in shares]
                    line += [f"{cell.share.value * group.rows:.1f}", str(group.doubtful).lower()]
                writer.writerow(line)
        return out.getvalue()

    def as_text(self) -> str:
        """Return a table for a terminal, with notes on what was counted and how it was corrected."""
        rows = [line for group in (self.total, *self.groups) for line in self._lines(group)]
        title = f"{self.period} of {self.by}" if self.period else self.by
        header = (printable(title), "rows", "label", "count", "naive", "share", self._interval_title())
        width = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
        right = {1, 3, 4, 5}
        lines = [
            "  ".join(
                text.rjust(size) if column in right else text.ljust(size)
                for column, (text, size) in enumerate(zip(line, width, strict=True))
            ).rstrip()
            for line in [header, *rows]
        ]
        return "\n".join([*lines, "", *self._notes()]) + "\n"

    def _lines(self, group: Group) -> list[tuple[str, ...]]:
        name = "(all)" if group is self.total else _short(group.name)
        lines = []
        for cell in group.cells:
            share = interval = ""
            if cell.share is not None:
                share = f"{cell.share.value:.3f}"
                interval = f"[{cell.share.low:.3f}, {cell.share.high:.3f}]{' *' if group.doubtful else ''}"
            naive = f"{cell.naive:.3f}"
            lines.append((name, f"{group.rows:,}", _short(cell.label), f"{cell.count:,}", naive, share, interval))
            name = ""
        return [(first, rows if first else "", *rest) for first, rows, *rest in lines]

    def _interval_title(self) -> str:
        return f"{100 * self.confidence:g} % interval" if self.correction is not None else ""

    def _notes(self) -> list[str]:
        tally = self.tally
        out = [("empty", tally.empty), ("rejected", tally.rejected), ("uncertain", tally.left_out)]
        left_out = ", ".join(f"{count:,} {name}" for name, count in out if count) or "none"
        notes = [f"{tally.rows:,} rows read, {self.total.rows:,} counted; left out: {left_out}."]
        if self.total.uncertain:
            notes.append(f"{self.total.uncertain:,} uncertain rows are counted with the label that they have.")
        missing = next((group.rows for group in self.groups if group.name is None), 0)
        if missing:
            example = f", for example {tally.unread}" if tally.unread else ""
            what = "no readable date" if self.period else "no value"
            notes.append(f"(none): {missing:,} rows with {what} in {self.by!r}{example}.")
        if self.correction is None:
            notes.append("naive: share of the counted labels. It is NOT corrected for the classifier's errors.")
            return notes
        rows = int(self.correction.rates.confusion.sum())
        notes += [
            "naive: share of the counted labels. share: corrected for the classifier's errors (adjusted count), as",
            f"measured in {self.correction.evaluation!r} on {rows:,} rows. The interval accounts for these rows and",
            "those counted being finite. It holds if texts of one class look alike in all groups; by topic they don't.",
        ]
        warning = self.correction.rates.warning(self.labels)
        if warning is not None:
            notes.append(f"Note: {warning}.")
        if any(group.doubtful for group in (self.total, *self.groups)):
            notes.append(
                "* No true shares would show such counts with the measured errors: texts of some class look different\n"
                "here than in the evaluation. The interval is stretched to the naive share, no longer a 95 % one.\n"
                "Label some of these texts, and evaluate on them."
            )
        return notes


def correction_of(bundle: Bundle, evaluation: str | None = None) -> Correction:
    """Return what a bundle's evaluation tells about its errors.

    Raises:
        InputError: it has no evaluation on held-out rows, or one that is too small or too poor to correct anything.
    """
    labels = bundle.manifest.labels
    try:
        name, rates = choose_evaluation(bundle.manifest.evaluation, labels, evaluation)
    except InputError as error:
        raise InputError(f"{bundle.path}: {error} Or count without correction: --no-adjust.") from error
    problem = rates.problem(labels)
    if problem is not None:
        raise InputError(
            f"{bundle.path}: shares cannot be corrected by {name!r}: {problem}. Evaluate on more labelled rows, use a "
            "better model, or count without correction: --no-adjust."
        )
    return Correction(bundle, name, rates)


def bundle_of(sources: Sequence[str | Path], model: str | Path | None) -> Bundle | None:
    """Return the bundle that scored these files: the one named, held against the files' reports, or the reports' own.

    `edgewren score` writes OUT.report.json beside OUT; files without such a report, or with one that names no model,
    are taken to come from the model that is named.

    Raises:
        BundleError: the bundle cannot be opened.
        UsageError: a file was scored by another bundle than the one named, or the files by different ones.
    """
    bundle = Bundle.open(model, check_files=False) if model is not None else None
    for source in sources:
        path, sha256 = _scored_by(source)
        if bundle is None and path is not None and Path(path).is_dir():
            bundle = Bundle.open(path, check_files=False)
        if bundle is not None and sha256 is not None and sha256 != bundle.sha256:
            raise UsageError(
                f"{source} was scored by another bundle (manifest SHA-256 {sha256[:12]}…) than {bundle.path} "
                f"({bundle.sha256[:12]}…), whose errors are not those of these labels. Name the one that scored it."
            )
    return bundle


def _scored_by(source: str | Path) -> tuple[str | None, str | None]:
    """Return path and manifest hash of the model in a scored file's report, as far as there is one and it tells."""
    path = Path(beside(source, REPORT_SUFFIX))
    try:
        if path.stat().st_size > _MAXIMUM_REPORT_BYTES:
            return None, None
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None, None
    model = report.get("model") if isinstance(report, dict) else None
    if not isinstance(model, dict):
        return None, None
    named = [model.get("path"), model.get("manifest_sha256", model.get("sha256"))]
    found = [value if isinstance(value, str) else None for value in named]
    return found[0], found[1]


def summarize(
    tally: Tally,
    by: str,
    correction: Correction | None,
    *,
    period: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
    largest: int | None = None,
) -> Summary:
    """Turn counts into shares, corrected where the errors are known.

    Groups come in the order of time, or the largest first; the group of rows without value comes last.

    Args:
        tally: the counts.
        by, period: what was grouped by.
        correction: the classifier's errors; None: naive shares only.
        resamples, seed, confidence: of the intervals, see `estimate_shares`.
        largest: keep this many of the largest groups; the total covers all.

    Raises:
        InputError: nothing was counted.
        UsageError: an option is out of range.
    """
    if largest is not None and largest < 1:
        raise UsageError(f"--top is {largest}, expected at least 1.")
    if not tally.counts:
        raise InputError(
            f"None of the {tally.rows:,} rows can be counted ({tally.empty:,} empty, {tally.rejected:,} rejected, "
            f"{tally.left_out:,} uncertain). Expected rows with a label."
        )
    names = sorted(tally.counts, key=lambda name: (name is None, -sum(tally.counts[name]), name or ""))[:largest]
    if period is not None:
        names.sort(key=lambda name: (name is None, name or ""))
    table = np.array([np.sum(list(tally.counts.values()), axis=0), *(tally.counts[name] for name in names)], np.int64)
    shares = None
    if correction is not None:
        shares = estimate_shares(correction.rates, table, resamples=resamples, seed=seed, confidence=confidence)
    groups = []
    for index, name in enumerate([None, *names]):
        rows = int(table[index].sum())
        cells = tuple(
            Cell(
                label,
                int(table[index, column]),
                float(table[index, column]) / rows,
                None
                if shares is None
                else Estimate(
                    float(shares.value[index, column]),
                    float(shares.low[index, column]),
                    float(shares.high[index, column]),
                ),
            )
            for column, label in enumerate(tally.labels)
        )
        uncertain = tally.uncertain.get(name, 0) if index else sum(tally.uncertain.values())
        groups.append(Group(name, rows, uncertain, bool(shares is not None and shares.doubtful[index]), cells))
    return Summary(
        by=by,
        period=period,
        labels=tally.labels,
        groups=tuple(groups[1:]),
        total=groups[0],
        tally=tally,
        correction=correction,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _group_dict(group: Group) -> dict[str, Any]:
    return {
        "group": group.name,
        "rows": group.rows,
        "uncertain": group.uncertain,
        "doubtful": group.doubtful,
        "labels": [
            {
                "label": cell.label,
                "count": cell.count,
                "naive_share": cell.naive,
                "share": None if cell.share is None else cell.share.as_dict(),
                "adjusted_count": None if cell.share is None else cell.share.value * group.rows,
            }
            for cell in group.cells
        ],
    }


def _short(name: str | None) -> str:
    if name is None:
        return "(none)"
    return shortened(name, _NAME_COLUMNS)
