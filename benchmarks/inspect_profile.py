"""Where the time of `anomalyr1 inspect` goes, as shares of the whole, with the bundled model.

Processor time of one thread in a fresh process, so that other work of the machine counts for
little; a part's time is without that of the parts inside it.
Usage: python benchmarks/inspect_profile.py [inspect_profile.json] [pictures]
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from inspect_speed import describe_machine
from rich.console import Console
from rich.table import Table

PARTS = (
    ("start: modules and weights", "anomalyr1.models", "build_inspector"),
    ("read pictures", "anomalyr1.preparation", "load_image"),
    ("detector: references", "anomalyr1.detectors.patch_memory", "PatchMemoryDetector._calibrate"),
    ("detector: picture", "anomalyr1.detectors.patch_memory", "PatchMemoryDetector.detect"),
    ("prompt and drawn map", "anomalyr1.preparation", "Preparer.prepare"),
    (
        "cut pictures, tokens",
        "anomalyr1.engines.transformers_engine",
        "TransformersEngine._prepare",
    ),
    ("prefill", "anomalyr1.engines.shared_fronts", "FrontCache.prefill"),
    (
        "verdict's score",
        "anomalyr1.engines.transformers_engine",
        "TransformersEngine._probe_verdicts",
    ),
    ("decoding", "anomalyr1.engines.transformers_engine", "TransformersEngine._generate_part"),
    ("masks", "anomalyr1.masks", "AutoMasker.masks"),
    ("overlays and files", "anomalyr1.run_folder", "RunFolder.write"),
    ("report", "anomalyr1.cli.inspect", "write_report"),
)
"""What is told apart: name, module, function."""

LATE = {"anomalyr1.engines.transformers_engine", "anomalyr1.engines.shared_fronts"}
"""Modules that are loaded with the model: wrapped once that is done."""


class Stopwatch:
    """Processor seconds by part, those of inner parts taken out."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside: list[float] = []

    def wrap(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted as `name`."""

        @wraps(run)
        def timed(*given: Any, **named: Any) -> Any:
            started = time.process_time()
            self._inside.append(0.0)
            try:
                return run(*given, **named)
            finally:
                whole = time.process_time() - started
                inner = self._inside.pop()
                self.seconds[name] = self.seconds.get(name, 0.0) + whole - inner
                if self._inside:
                    self._inside[-1] += whole

        return timed

    def install(self, late: bool) -> None:
        """Wrap the parts of modules that are loaded with the model, or those of the others."""
        for name, module, path in PARTS:
            if (module in LATE) == late:
                *owners, attribute = path.split(".")
                owner: Any = importlib.import_module(module)
                for part in owners:
                    owner = getattr(owner, part)
                setattr(owner, attribute, self.wrap(name, getattr(owner, attribute)))


def run(arguments: list[str]) -> None:
    """Inspect in this process and print the seconds of each part as JSON."""
    watch = Stopwatch()
    watch.install(late=False)
    from anomalyr1 import models
    from anomalyr1.cli import app

    load = models.build_inspector

    def load_and_watch(*given: Any, **named: Any) -> Any:
        inspector = load(*given, **named)
        watch.install(late=True)
        return inspector

    models.build_inspector = load_and_watch
    begun = time.process_time()
    app(["inspect", *arguments], standalone_mode=False)
    whole = time.process_time()
    parts = {"start: the command's own modules": begun, **watch.seconds}
    parts["the rest"] = whole - sum(parts.values())
    sys.stdout.write(json.dumps(parts))


def measure(arguments: list[str]) -> dict[str, float]:
    """Seconds of each part of one run."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ANOMALYR1_CACHE": "off"}
    done = subprocess.run(
        [sys.executable, __file__, "--run", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def main() -> None:
    """Print the table and write the JSON file."""
    from anomalyr1.data.synthesis import Synthesis, synthesize

    out = Path(sys.argv[1] if len(sys.argv) > 1 else "inspect_profile.json")
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    with tempfile.TemporaryDirectory() as name:
        plan = Synthesis(Path(name), 1, num_queries=number, seed=77, categories=("washer",))
        records = [record for product in synthesize(plan) for record in product]
        pictures = [str(record.image_path) for record in records]
        given = [part for path in records[0].reference_paths for part in ("--reference", str(path))]
        rows = {
            "1, no reference": measure([pictures[0], "--json", "--out", f"{name}/one"]),
            f"{number}, 4 references": measure(
                [*pictures, *given, "--json", "--out", f"{name}/all"]
            ),
        }
    table = Table("part", *rows, title="processor seconds, share of the whole")
    totals = {label: sum(row.values()) for label, row in rows.items()}
    for part in dict.fromkeys(part for row in rows.values() for part in row):
        cells = [
            f"{row.get(part, 0.0):.2f}  {row.get(part, 0.0) / totals[label]:5.1%}"
            for label, row in rows.items()
        ]
        table.add_row(part, *cells)
    Console().print(table)
    document = {"machine": describe_machine(), "pictures": number, "rows": rows}
    out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2:])
    else:
        main()
