"""Speed and memory of `anomalyr1 inspect` with the bundled model, on drawn pictures.

Each way of running it is a process of its own, one after the other, so that no one profits from
another's warm caches. Every picture gets its hint, reasoning and masks. Prints one table and
writes JSON. Usage: python benchmarks/inspect_speed.py [inspect_speed.json]
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
from anomalyr1.reporting.environment import describe_environment

NUM_PICTURES = 50
WAYS = (("1, no reference", 1, False), ("8, no reference", 8, False), ("8, 4 references", 8, True))


def measure_inspect(arguments: list[str]) -> dict[str, float]:
    """Run `inspect` once: seconds from the start of the command to the first line of its result and
    to its end, median and worst seconds a picture, peak resident memory in MiB, pictures.

    Stops the benchmark when a picture failed: its time would flatter.
    """
    command = [sys.executable, "-m", "anomalyr1", "inspect", *arguments, "--json"]
    started = time.perf_counter()
    first, seconds = 0.0, []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            first = first or time.perf_counter() - started
            seconds.append(json.loads(line)["seconds"])
        # Waited for by hand: the usage of this one child, not the highest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        total = time.perf_counter() - started
        if process.returncode != 0:
            errors.seek(0)
            raise SystemExit(f"inspect ended with {process.returncode}:\n{errors.read()[-2000:]}")
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    return {
        "first_result_seconds": first,
        "median_seconds": statistics.median(seconds),
        "worst_seconds": max(seconds),
        "total_seconds": total,
        "peak_mebibytes": usage.ru_maxrss * bytes_a_unit / 2**20,
        "n": len(seconds),
    }


def describe_machine() -> dict[str, object]:
    """Processor, cores and versions, as far as they can be told."""
    return {
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        **describe_environment(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def build_table(rows: dict[str, dict[str, float]]) -> Table:
    """One row a way."""
    table = Table(
        "batch, references", "first result s", "median s", "worst s", "all s", "peak MiB", "n"
    )
    for label, row in rows.items():
        table.add_row(
            label,
            f"{row['first_result_seconds']:.1f}",
            f"{row['median_seconds']:.3f}",
            f"{row['worst_seconds']:.3f}",
            f"{row['total_seconds']:.1f}",
            f"{row['peak_mebibytes']:.0f}",
            f"{row['n']:.0f}",
        )
    return table


def main() -> None:
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        # One product, so that the references are those of every picture.
        plan = Synthesis(
            Path(name) / "drawn", 1, num_queries=NUM_PICTURES, seed=77, categories=("washer",)
        )
        records = [record for product in synthesize(plan) for record in product]
        pictures = [str(record.image_path) for record in records]
        given = [part for path in records[0].reference_paths for part in ("--reference", str(path))]
        for number, (label, batch_size, with_references) in enumerate(WAYS):
            options = ["--batch-size", str(batch_size), "--out", str(Path(name) / str(number))]
            references = given if with_references else []
            rows[label] = measure_inspect([*pictures, *references, *options])
    machine = describe_machine()
    console = Console()
    console.print(build_table(rows))
    console.print(f"{machine['processor']}, {machine['cores']} cores", highlight=False)
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "inspect_speed.json")
    target.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
