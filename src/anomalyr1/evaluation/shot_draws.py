"""Figures at several numbers of shots, each over several draws of the reference pictures.

Which pictures are drawn moves a few-shot figure. Intervals over draws say how far: with another
draw, not with other test pictures.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np

from anomalyr1.types import Metric

ShotDraw = tuple[int, int]
"""A number of shots, and the seed that its references were drawn from."""


def average_draws(measured: Mapping[ShotDraw, Sequence[Metric]]) -> dict[int, list[Metric]]:
    """The metrics of each number of shots, mean over its draws.

    The interval is Student's for the mean, cut at 0 and 1; of a single draw, the metric's own over
    pictures stays. A metric that is undefined in one draw is undefined. n and unread are of one
    draw, unread the most of any.
    """
    by_shots: dict[int, list[Sequence[Metric]]] = {}
    for (shots, _), metrics in measured.items():
        by_shots.setdefault(shots, []).append(metrics)
    return {
        shots: [_average(same) for same in zip(*draws, strict=True)]
        for shots, draws in by_shots.items()
    }


def write_shots(path: Path, measured: Mapping[ShotDraw, Sequence[Metric]]) -> None:
    """Write the metrics of every draw as one CSV, a row a metric and subset; `draw` is the seed.

    Where a number of shots has several draws, rows whose draw is "mean" follow, with the interval
    over draws.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    averages = average_draws(measured)
    with path.open("w", encoding="utf-8", newline="") as stream:
        names = [entry.name for entry in fields(Metric)]
        writer = csv.DictWriter(stream, ["shots", "draw", *names])
        writer.writeheader()
        for (shots, seed), metrics in measured.items():
            head = {"shots": shots, "draw": seed}
            writer.writerows(head | asdict(metric) for metric in metrics)
        for shots, means in averages.items():
            if sum(number == shots for number, _ in measured) > 1:
                row = {"shots": shots, "draw": "mean"}
                writer.writerows(row | asdict(metric) for metric in means)


def _average(same: Sequence[Metric]) -> Metric:
    """The mean of one metric over draws; `same` has its name and subset in common."""
    values = [metric.value for metric in same if metric.value is not None]
    first = replace(same[0], n_unreadable=max(metric.n_unreadable for metric in same))
    if len(values) < len(same):
        return replace(first, value=None, ci_low=None, ci_high=None)
    if len(values) == 1:
        return first
    from scipy.stats import t

    mean = float(np.mean(values))
    quantile = float(t.ppf(0.975, len(values) - 1))
    reach = quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return replace(first, value=mean, ci_low=max(0.0, mean - reach), ci_high=min(1.0, mean + reach))
