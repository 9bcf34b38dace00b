"""Held-out metrics before and after a training, side by side, and what their change is worth."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anomalyr1.reporting.page import clean
from anomalyr1.types import Metric

LOWER_IS_BETTER = frozenset({"unread_rate", "contradiction_rate"})

Verdict = Literal["better", "worse", "within noise", "unknown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A metric before and after. `marks` are the intervals in per cent, for drawing, each
    (low, value, high); None where a side has no interval or the metric is no share."""

    title: str
    before: Metric | None
    after: Metric | None
    is_share: bool
    lower_is_better: bool
    change: float | None
    verdict: Verdict
    marks: tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]


def compare_metrics(before: Sequence[Metric], after: Sequence[Metric]) -> list[Comparison]:
    """Metrics of both sides side by side, those over all records first.

    "better" and "worse" are said only where the two 95 % intervals do not overlap.
    """
    sides = [{(one.subset, one.name): one for one in metrics} for metrics in (before, after)]
    keys = list(dict.fromkeys([*sides[0], *sides[1]]))
    keys.sort(key=lambda key: (key[0] != "all", key[1] in LOWER_IS_BETTER))
    return [_compare(key, sides[0].get(key), sides[1].get(key)) for key in keys]


def name_metric(name: str, subset: str = "all") -> str:
    """A metric's name as a person writes it.

    >>> name_metric("box_accuracy_iou50")
    'Box accuracy, IoU 0.5'
    >>> name_metric("accuracy", "Anomaly Detection")
    'Anomaly Detection: accuracy'
    """
    text = re.sub(r"_iou(\d\d)$", lambda found: f", IoU {int(found[1]) / 100:g}", name)
    text = text.replace("_", " ").replace("auroc", "AUROC")
    return text[:1].upper() + text[1:] if subset == "all" else f"{subset}: {text}"


def _compare(key: tuple[str, str], before: Metric | None, after: Metric | None) -> Comparison:
    subset, name = key
    sides = [metric for metric in (before, after) if metric is not None]
    numbers = [
        number
        for metric in sides
        for number in (metric.value, metric.ci_low, metric.ci_high)
        if number is not None
    ]
    is_share = all(0 <= number <= 1 for number in numbers)
    change = None
    if before and after and before.value is not None and after.value is not None:
        change = after.value - before.value
    lower_is_better = name in LOWER_IS_BETTER
    return Comparison(
        title=name_metric(clean(name), clean(subset)),
        before=before,
        after=after,
        is_share=is_share,
        lower_is_better=lower_is_better,
        change=change,
        verdict=_judge(before, after, change, lower_is_better),
        marks=(_mark(before, is_share), _mark(after, is_share)),
    )


def _judge(
    before: Metric | None, after: Metric | None, change: float | None, lower_is_better: bool
) -> Verdict:
    if before is None or after is None or change is None:
        return "unknown"
    edges = (before.ci_low, before.ci_high, after.ci_low, after.ci_high)
    if any(edge is None for edge in edges):
        return "unknown"
    before_low, before_high, after_low, after_high = (edge or 0.0 for edge in edges)
    if after_low <= before_high and before_low <= after_high:
        return "within noise"
    return "better" if (change > 0) != lower_is_better else "worse"


def _mark(metric: Metric | None, is_share: bool) -> tuple[float, float, float] | None:
    if metric is None or not is_share:
        return None
    if metric.value is None or metric.ci_low is None or metric.ci_high is None:
        return None
    return 100 * metric.ci_low, 100 * metric.value, 100 * metric.ci_high
