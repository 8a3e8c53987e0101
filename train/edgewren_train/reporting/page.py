"""One self-contained HTML file from facts. Jinja2 escapes whatever came from people's files; nothing is requested.

The page carries a Content-Security-Policy that forbids every request, so even what slipped through could load nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import edgewren
from edgewren.errors import MissingDependencyError
from edgewren.metrics import Estimate
from edgewren_train.reporting import charts
from edgewren_train.reporting.charts import Chart
from edgewren_train.reporting.comparison import ComparisonFacts
from edgewren_train.reporting.facts import Facts


@dataclass(frozen=True)
class Report:
    """A finished report: the HTML text, and its charts for PNG files."""

    html: str
    charts: tuple[Chart, ...]


def model_report(facts: Facts, *, with_texts: bool = True) -> Report:
    """Return the report of one model.

    Args:
        with_texts: show texts of people (mistakes, doubtful labels, repeated texts); without, only their numbers.

    Raises:
        MissingDependencyError: Jinja2 or matplotlib is not installed.
    """
    drawn: dict[str, Chart] = {}
    if facts.training.get("rows_per_label"):
        drawn["labels"] = charts.label_balance(facts.training["rows_per_label"])
    quoted = facts.evaluation.get(facts.headline) if facts.headline else None
    if quoted is not None:
        drawn["confusion"] = charts.confusion(quoted["confusion"], facts.labels)
    if facts.calibration is not None:
        drawn["reliability"] = charts.reliability(
            facts.calibration["reliability_before"], facts.calibration["reliability_after"]
        )
        drawn["coverage"] = charts.coverage(facts.calibration["coverage"])
    if len(facts.curve) > 1:
        drawn["curve"] = charts.learning_curve(facts.curve)
    return _rendered("model.html.jinja", drawn, facts=facts, quoted=quoted, with_texts=with_texts)


def comparison_report(facts: ComparisonFacts) -> Report:
    """Return the report of a comparison.

    Raises:
        MissingDependencyError: Jinja2 or matplotlib is not installed.
    """
    rows = [(entry.name, entry.balanced_accuracy) for entry in facts.candidates]
    drawn = {"candidates": charts.candidates(rows, "balanced accuracy")}
    fast = [
        (entry.name, entry.texts_per_s, entry.balanced_accuracy, entry.name in facts.front)
        for entry in facts.candidates
        if entry.texts_per_s is not None
    ]
    if len(fast) > 1:
        drawn["trade_off"] = charts.trade_off(fast)
    return _rendered("comparison.html.jinja", drawn, facts=facts)


def _rendered(template: str, drawn: dict[str, Chart], **values: Any) -> Report:
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            f"Reports need Jinja2, which cannot be imported ({error}). Run: pip install 'edgewren[report]'."
        ) from error
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=_figure, signed=_signed, per_hundred=_per_hundred, share=lambda x: f"{x:.1%}")
    html = environment.get_template(template).render(
        charts=drawn,
        version=edgewren.__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **values,
    )
    return Report(html, tuple(drawn.values()))


def _template(name: str) -> str:
    return (resources.files("edgewren_train.reporting") / "templates" / name).read_text(encoding="utf-8")


def _figure(estimate: Mapping[str, float] | Estimate, digits: int = 3) -> str:
    figures = estimate.as_dict() if isinstance(estimate, Estimate) else estimate
    return f"{figures['value']:.{digits}f} [{figures['low']:.{digits}f}, {figures['high']:.{digits}f}]"


def _signed(estimate: Mapping[str, float]) -> str:
    value, low, high = (f"{estimate[key]:+z.3f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _per_hundred(estimate: Mapping[str, float]) -> str:
    """Return '74 (72 to 77)' for a share."""
    value, low, high = (round(100 * estimate[key]) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
