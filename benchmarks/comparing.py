"""Runs two ways of doing the same in turn, checks that they agree, and only then tells times."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inspect_speed import describe_machine
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of each run, ours and stock in turn, and the largest difference of results."""

    name: str
    ours: tuple[float, ...]
    stock: tuple[float, ...]
    difference: float

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours is, a number a turn."""
        return [stock / ours for ours, stock in zip(self.ours, self.stock, strict=True)]


def compare(
    name: str,
    ours: Callable[[], Any],
    stock: Callable[[], Any],
    measure_difference: Callable[[Any, Any], float],
    *,
    most: float,
    repeats: int,
) -> Comparison:
    """Time both in turn, after a run of each that is not counted.

    Stops the benchmark where their results differ by more than `most`: the time would mean nothing.
    """
    difference = measure_difference(ours(), stock())
    if not difference <= most:
        raise SystemExit(f"{name}: ours and stock differ by {difference:.2g}, more than {most:.2g}")
    seconds: tuple[list[float], list[float]] = ([], [])
    for _turn in range(repeats):
        for taken, run in zip(seconds, (ours, stock), strict=True):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return Comparison(name, tuple(seconds[0]), tuple(seconds[1]), difference)


def report(comparisons: Sequence[Comparison], out: Path, **more: Any) -> None:
    """Print one table and write JSON."""
    table = Table(title="ours beside stock, run in turn")
    for column in ("what", "ours s", "stock s", "times faster", "spread", "differ by"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for one in comparisons:
        table.add_row(
            one.name,
            f"{statistics.median(one.ours):.2f}",
            f"{statistics.median(one.stock):.2f}",
            f"{statistics.median(one.ratios):.1f}",
            f"{min(one.ratios):.1f} to {max(one.ratios):.1f}",
            f"{one.difference:.1g}",
        )
    Console(width=110).print(table)
    rows = [
        {**asdict(one), "ratios": one.ratios, "median_ratio": statistics.median(one.ratios)}
        for one in comparisons
    ]
    out.write_text(json.dumps({"machine": describe_machine(), **more, "rows": rows}, indent=2))
