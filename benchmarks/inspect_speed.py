"""Speed and memory of `anomalyr1 inspect` with the bundled model, on drawn pictures.

Each way runs in a process of its own, in turn, so that no one profits from another's warm caches.
Prints one table and writes JSON. Usage: python benchmarks/inspect_speed.py [out.json]
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from anomalyr1.data.synthesis import Synthesis, synthesize

NUM_PICTURES = 50


def run(arguments: list[str]) -> dict[str, float]:
    """Run inspect; seconds to the first result, median seconds a picture, peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "anomalyr1", "inspect", *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    first, seconds = 0.0, []
    for line in process.stdout:
        first = first or time.perf_counter() - started
        seconds.append(json.loads(line)["seconds"])
    _, _, usage = os.wait4(process.pid, 0)
    return {
        "first_result_seconds": first,
        "median_seconds": statistics.median(seconds),
        "worst_seconds": max(seconds),
        "peak_megabytes": usage.ru_maxrss / 1024,
        "n": len(seconds),
    }


def main() -> None:
    console = Console()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Synthesis(folder / "drawn", num_products=NUM_PICTURES // 2, num_queries=2, seed=77)
        records = [record for product in synthesize(plan) for record in product]
        pictures = [str(record.image_path) for record in records]
        references = [str(path) for path in records[0].reference_paths]
        for label, batch, given in (
            ("one picture at a time, no reference", "1", []),
            ("batches of 8, no reference", "8", []),
            ("batches of 8, 4 references", "8", references),
        ):
            options = [part for path in given for part in ("--reference", path)]
            out = str(folder / label.replace(" ", "_"))
            rows[label] = run([*pictures, *options, "--batch-size", batch, "--out", out])
    table = Table("way", "first result s", "median s", "worst s", "peak MB", "n")
    for label, row in rows.items():
        table.add_row(
            label,
            f"{row['first_result_seconds']:.1f}",
            f"{row['median_seconds']:.3f}",
            f"{row['worst_seconds']:.3f}",
            f"{row['peak_megabytes']:.0f}",
            f"{row['n']:.0f}",
        )
    console.print(table)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "inspect_speed.json")
    target.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
