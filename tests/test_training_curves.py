"""Curves and changes in a training report: odd numbers, gaps, spikes, intervals."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from test_training_report import (
    build_grpo_log,
    build_metrics,
    build_samples,
    make_run,
    read_page,
    write_lines,
)

from anomalyr1.reporting.charts import HEIGHT, MAX_POINTS, WIDTH, build_chart
from anomalyr1.reporting.comparison import compare_metrics
from anomalyr1.reporting.training import write_training_report
from anomalyr1.types import Metric

ODD = [math.nan, math.inf, -math.inf, None, True, "text", [1], {"a": 1}, 1e308, -1e308, 10**400]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: repr(odd)[:8])
@pytest.mark.parametrize("is_only", [False, True], ids=["among others", "nothing else"])
def test_odd_numbers_are_gaps(tmp_path: Path, odd: object, is_only: bool) -> None:
    make_run(tmp_path)
    log = list(build_grpo_log())
    for place, line in enumerate(log):
        if is_only or place % 7 == 3:
            line.update({key: odd for key in line if key not in ("step", "stage")})
    write_lines(tmp_path / "metrics.jsonl", log)
    samples = build_samples(range(5, 46, 20))
    for sample in samples:
        sample.update(
            reward=odd, advantage=odd, rewards={"roam_reward": odd}, completion=odd, prompt=odd
        )
    write_lines(tmp_path / "samples.jsonl", samples)
    metrics = [{**one, "value": odd, "ci_low": odd, "n": odd} for one in build_metrics(0.1)]
    (tmp_path / "after.json").write_text(json.dumps(metrics))
    path = write_training_report(tmp_path)
    drawing = " ".join(v for _, name, v in read_page(path).attributes if name in ("d", "x", "y"))
    assert "nan" not in drawing and "inf" not in drawing


def test_a_gap_is_not_bridged_and_is_counted() -> None:
    chart = build_chart("Loss", "loss", range(5), [1.0, 2.0, None, 2.0, 1.0])
    assert chart is not None
    assert chart.raw.count("M") == 2
    assert chart.notes == ("1 logged values are no number: gaps",)
    assert chart.slots[2].text == "step 2: no number"


def test_a_point_between_gaps_is_marked() -> None:
    values = [1.0, 2.0, 3.0, None, 2.0, None, 3.0, 2.0, 1.0]
    chart = build_chart("Loss", "loss", range(9), values)
    assert chart is not None
    assert [x for x, _ in chart.dots] == [WIDTH / 2]


def test_a_spike_does_not_flatten_the_curve() -> None:
    values = [1.0 + 0.1 * math.sin(step) for step in range(100)]
    values[50] = 4e6
    chart = build_chart("Loss", "loss", range(100), values)
    assert chart is not None
    heights = [slot.y for slot in chart.slots if slot.y is not None]
    assert max(heights) - sorted(heights)[1] > HEIGHT / 2
    assert chart.notes == ("1 beyond the axis, as far as 4e6",)


@pytest.mark.parametrize(
    "values",
    [[0.0], [0.0, 0.0], [3.0] * 50, [1e-300, 2e-300], [1e99, -1e99], [1e15 + 1, 1e15 + 2], [-2.0]],
    ids=str,
)
def test_a_curve_of_any_size_stays_within_its_axes(values: list[float]) -> None:
    chart = build_chart("Loss", "loss", range(len(values)), values)
    assert chart is not None
    assert all(slot.y is None or 0 <= slot.y <= HEIGHT for slot in chart.slots)
    assert 1 <= len(chart.y_ticks) <= 12
    assert all(-1 <= y <= HEIGHT + 1 for y, _ in chart.y_ticks)


def test_a_long_curve_is_thinned_but_keeps_its_extremes() -> None:
    values = [math.sin(step / 900) for step in range(20_000)]
    values[12_345] = 3.0
    chart = build_chart("Loss", "loss", range(20_000), values)
    assert chart is not None
    assert chart.raw.count(" ") <= MAX_POINTS + 1
    assert min(float(y) for y in re.findall(r" ([\d.]+)", chart.raw)) < 10


def metric(value: float, low: float | None, high: float | None, name: str = "accuracy") -> Metric:
    return Metric(name, "all", value, 100, 0, low, high)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (metric(0.5, 0.4, 0.6), metric(0.8, 0.7, 0.9), "better"),
        (metric(0.8, 0.7, 0.9), metric(0.5, 0.4, 0.6), "worse"),
        (metric(0.5, 0.4, 0.6), metric(0.65, 0.6, 0.7), "within noise"),
        (metric(0.5, None, None), metric(0.9, 0.8, 1.0), "unknown"),
        (metric(0.3, 0.2, 0.4, "unread_rate"), metric(0.1, 0.0, 0.15, "unread_rate"), "better"),
        (
            metric(0.1, 0.0, 0.2, "contradiction_rate"),
            metric(0.4, 0.3, 0.5, "contradiction_rate"),
            "worse",
        ),
    ],
)
def test_a_change_counts_only_where_the_intervals_do_not_overlap(
    before: Metric, after: Metric, verdict: str
) -> None:
    (row,) = compare_metrics([before], [after])
    assert row.verdict == verdict
