"""A records file of a million lines: how long it takes to open, to read whole, and the memory.

Each step is a process of its own, on one file that is written for it and removed. The parts all
show one picture, so that the check's time is that of lines, not of a million pictures.
Usage: python benchmarks/million_records.py [million_records.json] [lines]
       [import open some each check list]
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from inspect_speed import describe_machine
from PIL import Image
from rich.console import Console
from rich.table import Table

from anomalyr1.data.records import StoredRecords, load_records

STEPS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "import": ("nothing but the import", lambda _path: None),
    "open": ("open", lambda path: load_records(path, validate=False)),
    "some": (
        "open, read 1000 records anywhere",
        lambda path: read_some(load_records(path, validate=False)),
    ),
    "each": (
        "open, read every record in turn",
        lambda path: count(load_records(path, validate=False)),
    ),
    "check": ("open and check every line, id and picture", load_records),
    "list": ("every record in a list", lambda path: list(load_records(path, validate=False))),
}
"""Name: what is done, and how."""


def read_some(records: StoredRecords) -> None:
    """Read records in no order, as training does."""
    chance = Random(0)
    for _turn in range(1000):
        records[chance.randrange(len(records))]


def count(records: StoredRecords) -> int:
    """Read all records and keep none."""
    return sum(1 for _record in records)


def write_file(folder: Path, lines: int) -> Path:
    """Records of about 300 bytes with a box, a question and a reference."""
    Image.effect_noise((64, 64), 50).save(folder / "part.png")
    Image.effect_noise((64, 64), 20).save(folder / "normal.png")
    path = folder / "records.jsonl"
    record = {
        "image_path": "part.png",
        "category": "part",
        "label": "anomalous",
        "reference_paths": ["normal.png"],
        "regions": [{"box_xyxy": [4.0, 5.0, 20.0, 21.0], "defect_type": "scratch"}],
        "question": {"text": "Is it normal?", "options": {"A": "Yes.", "B": "No."}, "answer": "B"},
    }
    with path.open("w") as file:
        for number in range(lines):
            file.write(json.dumps({"record_id": f"part/{number:07d}", **record}) + "\n")
    return path


def measure(step: str, path: Path) -> dict[str, float]:
    """Seconds of a step in a fresh process, and that process's peak resident memory."""
    command = [sys.executable, __file__, "--step", step, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def run_step(step: str, path: Path) -> None:
    """Do a step and print what it took as JSON."""
    started, busy = time.perf_counter(), time.process_time()
    kept = STEPS[step][1](path)
    seconds, own = time.perf_counter() - started, time.process_time() - busy
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_a_unit / 2**20
    del kept
    measured = {"seconds": seconds, "processor_seconds": own, "peak_mebibytes": peak}
    sys.stdout.write(json.dumps(measured))


def main() -> None:
    """Print the table and write the JSON file."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "million_records.json")
    lines = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    steps = sys.argv[3:] or list(STEPS)
    with tempfile.TemporaryDirectory() as name:
        path = write_file(Path(name), lines)
        size = path.stat().st_size
        rows = {step: measure(step, path) for step in steps}
    table = Table("step", "seconds", "of the processor", "peak MiB", title=f"{lines:,} lines")
    for step, row in rows.items():
        values = (row["seconds"], row["processor_seconds"], row["peak_mebibytes"])
        table.add_row(STEPS[step][0], f"{values[0]:.1f}", f"{values[1]:.1f}", f"{values[2]:.0f}")
    Console().print(table)
    document = {"machine": describe_machine(), "lines": lines, "bytes": size, "rows": rows}
    out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        run_step(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
