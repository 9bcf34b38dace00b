"""Curves over training steps as SVG paths: raw, smoothed, band, ticks and values to hover over.

All coordinates are those of the drawing, y down; values that are no number leave a gap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 300.0, 150.0
"""Size of the area curves are drawn in, without axes."""

MAX_POINTS = 600
MAX_SLOTS = 100
_MIN_POINTS_TO_SMOOTH = 8

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Slot:
    """A column of the drawing that shows one point's values; `y` is None in a gap."""

    left: float
    width: float
    x: float
    y: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One curve. `raw`, `smooth` and `band` are SVG path data, empty where there is nothing.

    `dots` are points to mark, for curves of few points. `summary` tells a reader who sees no
    picture what it shows; `notes` what it leaves out.
    """

    title: str
    unit: str
    raw: str
    smooth: str
    band: str
    dots: tuple[tuple[float, float], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    slots: tuple[Slot, ...]
    last: str
    summary: str
    notes: tuple[str, ...]


def build_chart(
    title: str,
    unit: str,
    steps: Sequence[int],
    values: Values,
    *,
    lows: Values | None = None,
    highs: Values | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
    is_noisy: bool = True,
) -> Chart | None:
    """The chart of `values` at `steps` (rising); None where no value is a number.

    `lows` and `highs` bound the band. The vertical axis fits the values; `floor` and `ceiling` are
    on it in any case, and cut the band. A few values far from all others do not stretch it: they
    are drawn at its edge, and a note counts them. Only a noisy curve is smoothed.
    """
    heights = _to_array(values)
    known = np.isfinite(heights)
    if not known.any():
        return None
    least = -math.inf if floor is None else floor
    most = math.inf if ceiling is None else ceiling
    low_band = np.clip(_to_array(lows, len(heights)), least, most)
    high_band = np.clip(_to_array(highs, len(heights)), least, most)
    bottom, top = _find_range(heights, low_band, high_band, floor, ceiling)
    y_ticks = _find_ticks(bottom, top, 4)
    first, last = float(steps[0]), float(max(steps[-1], steps[0] + 1))
    xs = (np.array(steps, np.float64) - first) / (last - first) * WIDTH

    def to_y(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return HEIGHT * (1 - (np.clip(numbers, bottom, top) - bottom) / (top - bottom))

    is_smoothed = is_noisy and len(xs) >= _MIN_POINTS_TO_SMOOTH
    smoothed = smooth(np.clip(heights, bottom, top)) if is_smoothed else None
    thinned = np.unique(np.linspace(0, len(xs) - 1, MAX_POINTS // 2).astype(int))
    is_sparse = len(xs) < _MIN_POINTS_TO_SMOOTH
    ys = to_y(heights)
    ends = [float(value) for value in heights[known]]
    text = f"{write_number(ends[0])} at first, {write_number(ends[-1])} at last"
    return Chart(
        title=title,
        unit=unit,
        raw=_build_path(*_thin(xs, ys)),
        smooth="" if smoothed is None else _build_path(xs[thinned], to_y(smoothed)[thinned]),
        band=_build_band(xs[thinned], to_y(high_band)[thinned], to_y(low_band)[thinned]),
        dots=tuple(
            (float(x), float(y)) for x, y, is_known in zip(xs, ys, known, strict=True) if is_known
        )
        if is_sparse
        else _find_lone_points(xs, ys),
        x_ticks=tuple(
            ((tick - first) / (last - first) * WIDTH, label)
            for tick, label in _find_ticks(first, last, 4)
            if float(tick).is_integer()
        ),
        y_ticks=tuple((HEIGHT * (1 - (tick - bottom) / (top - bottom)), s) for tick, s in y_ticks),
        slots=_build_slots(steps, heights, smoothed, (low_band, high_band), xs, ys),
        last=write_number(ends[-1]),
        summary=f"{title} over steps {steps[0]} to {steps[-1]}: {text}",
        notes=_write_notes(heights, bottom, top),
    )


def smooth(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """A weighted mean over neighbouring points, Gaussian, NaN where the point itself is NaN.

    Its standard deviation is a fortieth of the points, at least 1.5.
    """
    sigma = max(1.5, len(heights) / 40)
    reach = min(int(3 * sigma), len(heights) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    known = np.isfinite(heights)
    # "same" would give the kernel's length where that is the longer one.
    total = np.convolve(np.where(known, heights, 0.0), kernel)[reach : reach + len(heights)]
    weight = np.convolve(known.astype(np.float64), kernel)[reach : reach + len(heights)]
    return np.where(known, total / np.where(known, weight, 1.0), np.nan)


def write_number(value: float | None) -> str:
    """A number in four digits at most, or a dash.

    >>> [write_number(value) for value in (None, 0.0, 2e-4, 0.12344, 12345.6, 3.2e9)]
    ['–', '0', '2e-4', '0.1234', '12,346', '3.2e9']
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.4g}"
    if 1e3 <= abs(value) < 1e6:
        return f"{value:,.0f}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _to_array(values: Values | None, length: int = 0) -> NDArray[np.float64]:
    if values is None:
        return np.full(length, np.nan)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _find_range(
    heights: NDArray[np.float64],
    lows: NDArray[np.float64],
    highs: NDArray[np.float64],
    floor: float | None,
    ceiling: float | None,
) -> tuple[float, float]:
    """The vertical axis, bottom < top."""
    every = np.concatenate([heights, lows, highs])
    every = every[np.isfinite(every)]
    bottom, top = float(every.min()), float(every.max())
    if len(every) >= 20:
        low, high = (float(edge) for edge in np.percentile(every, [5, 95]))
        reach = high - low
        if reach > 0:
            bottom = bottom if low - bottom < 4 * reach else low - 0.2 * reach
            top = top if top - high < 4 * reach else high + 0.2 * reach
    bottom = bottom if floor is None else min(bottom, floor)
    top = top if ceiling is None else max(top, ceiling)
    if top - bottom <= 1e-9 * max(abs(top), abs(bottom)):
        spread = abs(top) * 0.1 or 1.0
        bottom, top = bottom - spread, top + spread
    margin = 0.06 * (top - bottom)
    return (
        bottom if bottom == floor else bottom - margin,
        top if top == ceiling else top + margin,
    )


def _find_ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Round numbers in [low, high], about `count`, and how they are written."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [number * step for number in range(first, min(last, first + 20) + 1)]
    largest = max((abs(tick) for tick in ticks), default=0.0)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (step / power == 2.5))
    if 1e4 <= largest < 1e6 and step >= 100:
        return [(tick, f"{tick / 1000:g}k" if tick else "0") for tick in ticks]
    if decimals > 3 or largest >= 1e6:
        return [(tick, write_number(0.0 if abs(tick) < step / 2 else tick)) for tick in ticks]
    return [(tick, f"{tick + 0.0:,.{decimals}f}") for tick in ticks]


def _thin(
    xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `MAX_POINTS` points: of each run of them the lowest, the highest, and a gap."""
    if len(xs) <= MAX_POINTS:
        return xs, ys
    chosen: set[int] = set()
    for indices in np.array_split(np.arange(len(xs)), MAX_POINTS // 3):
        part = ys[indices]
        gaps = indices[np.isnan(part)]
        chosen.update(int(index) for index in gaps[:1])
        if len(gaps) < len(indices):
            chosen |= {int(indices[np.nanargmin(part)]), int(indices[np.nanargmax(part)])}
    order = sorted(chosen)
    return xs[order], ys[order]


def _split(ys: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Indices of each run of numbers between gaps."""
    known = np.flatnonzero(np.isfinite(ys))
    if not len(known):
        return []
    return np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)


def _build_path(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    return "".join(
        "M" + "L".join(f"{xs[index]:.1f} {ys[index]:.1f}" for index in run)
        for run in _split(ys)
        if len(run) > 1
    )


def _build_band(
    xs: NDArray[np.float64], uppers: NDArray[np.float64], lowers: NDArray[np.float64]
) -> str:
    paths = []
    for run in _split(uppers + lowers):
        if len(run) > 1:
            edge = [f"{xs[index]:.1f} {uppers[index]:.1f}" for index in run]
            edge += [f"{xs[index]:.1f} {lowers[index]:.1f}" for index in run[::-1]]
            paths.append("M" + "L".join(edge) + "Z")
    return "".join(paths)


def _find_lone_points(
    xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[tuple[float, float], ...]:
    """Points with a gap on either side: no line would show them."""
    lone = [run[0] for run in _split(ys) if len(run) == 1]
    return tuple((float(xs[index]), float(ys[index])) for index in lone[:MAX_POINTS])


def _build_slots(
    steps: Sequence[int],
    heights: NDArray[np.float64],
    smoothed: NDArray[np.float64] | None,
    band: tuple[NDArray[np.float64], NDArray[np.float64]],
    xs: NDArray[np.float64],
    ys: NDArray[np.float64],
) -> tuple[Slot, ...]:
    chosen = np.unique(np.linspace(0, len(xs) - 1, MAX_SLOTS).round().astype(int))
    edges = [0.0, *((xs[chosen[1:]] + xs[chosen[:-1]]) / 2).tolist(), WIDTH]
    slots = []
    for place, index in enumerate(chosen):
        number = float(heights[index])
        text = f"step {steps[index]:,}: "
        if math.isfinite(number):
            text += write_number(number)
            if smoothed is not None:
                text += f", smoothed {write_number(float(smoothed[index]))}"
            low, high = float(band[0][index]), float(band[1][index])
            if math.isfinite(low + high):
                text += f", {write_number(low)} to {write_number(high)}"
        else:
            text += "no number"
        y = float(ys[index]) if math.isfinite(number) else None
        width = max(0.0, edges[place + 1] - edges[place])
        slots.append(Slot(edges[place], width, float(xs[index]), y, text))
    return tuple(slots)


def _write_notes(heights: NDArray[np.float64], bottom: float, top: float) -> tuple[str, ...]:
    notes = []
    num_gaps = int(np.isnan(heights).sum())
    if num_gaps:
        notes.append(f"{num_gaps:,} logged values are no number: gaps")
    known = heights[np.isfinite(heights)]
    beyond = known[(known < bottom) | (known > top)]
    if len(beyond):
        farthest = float(beyond[np.argmax(np.abs(beyond - (bottom + top) / 2))])
        notes.append(f"{len(beyond):,} beyond the axis, as far as {write_number(farthest)}")
    return tuple(notes)
