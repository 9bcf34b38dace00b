"""Batch jobs on this machine: rows beside `inspect`, kills, one and two workers, driver memory.

    python benchmarks/batch_ray.py batch.json [--pictures 2000] [--model detector:patch-memory]

Pictures are drawn small (64 x 48). Prints and writes JSON. One worker and two are timed in turn in
the same run, each held to one thread, between a fifth of the finished blocks and the last, so that
loading the model and starting Ray are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BLOCK_SIZE = 16


def draw_pictures(folder: Path, count: int, size_wh: tuple[int, int] = (64, 48)) -> None:
    """Noise of many levels, every fifth with a dark line."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = rng.integers(90, 110, (size_wh[1], size_wh[0], 3)) + number % 60
        if number % 5 == 0:
            pixels[10:40, 20:24] = 15
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:06d}.png")


def start(command: list[str]) -> subprocess.Popen[str]:
    """A command of this package in a process of its own, held to one thread a worker."""
    return subprocess.Popen(
        [sys.executable, "-m", "anomalyr1", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def build_command(source: Path, out: Path, model: str, workers: int) -> list[str]:
    """A batch job's command line."""
    flags = ["--num-workers", str(workers), "--block-size", str(BLOCK_SIZE), "--json"]
    return ["batch", str(source), "--out", str(out), "--model", model, *flags]


def find_children(parent: int) -> dict[int, str]:
    """Processes below one, with their command lines."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                commands[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().decode("utf-8", "replace")
                )
            except OSError:  # it has ended meanwhile
                continue
            parents[int(folder.name)] = int(fields[1])
    found = {parent}
    while True:
        more = {number for number, above in parents.items() if above in found} - found
        if not more:
            return {number: commands[number] for number in found - {parent}}
        found |= more


def measure_memory(process: int) -> int:
    """Resident MiB of a process, 0 where it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) // 1024 if lines else 0


def run_job(command: list[str], out: Path, num_kills: int = 0) -> dict[str, Any]:
    """Run a batch job to its end, killing workers at random moments; figures of the run."""
    chance, pause = random.Random(0), threading.Event()
    job = start(command)
    killed, peak = 0, 0
    next_kill = time.monotonic() + chance.uniform(6, 10)
    while job.poll() is None:
        pause.wait(0.1)
        peak = max(peak, measure_memory(job.pid))
        if killed < num_kills and time.monotonic() > next_kill:
            workers = [
                number
                for number, command_line in find_children(job.pid).items()
                if command_line.startswith("ray::") and "BlockWorker" in command_line
            ]
            if workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
                next_kill = time.monotonic() + chance.uniform(1, 4)
    told, errors = job.communicate()
    if job.returncode not in (0, 1) or not told.strip():
        raise SystemExit(f"the job failed: {errors[-2000:]}")
    manifest = json.loads(told.strip().splitlines()[-1])
    times = sorted(path.stat().st_mtime for path in (out / "findings").glob("*.parquet"))
    return {
        "rows": manifest["rows"],
        "kills": killed,
        "driver_peak_mib": peak,
        "finished": times,
    }


def compute_rate(run: dict[str, Any], skip: float = 0.2) -> float:
    """Pictures a second between a fifth of the blocks and the last, when all workers run."""
    times = run["finished"]
    first = int(len(times) * skip)
    return (len(times) - 1 - first) * BLOCK_SIZE / (times[-1] - times[first])


def load_findings(source: Path, out: Path, model: str) -> dict[str, Any]:
    """What `inspect` says of the same pictures, by record id, its masks as arrays."""
    command = ["inspect", str(source), "--model", model, "--json", "--out", str(out)]
    told, errors = start(command).communicate()
    if not told:
        raise SystemExit(f"inspect failed: {errors[-2000:]}")
    lines = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    for line in lines:
        for defect in line["defects"]:
            if defect["mask"]:
                with Image.open(out / defect["mask"]) as mask:
                    defect["mask"] = np.asarray(mask.convert("L")) > 127
    return {line["record_id"]: line for line in lines}


SAME = ("verdict", "anomaly_score", "detector_score", "raw_text", "reasoning", "status", "error")


def compare(batch: Path, findings: dict[str, Any]) -> dict[str, int]:
    """How a job's rows stand beside findings: text, scores, and defects with their masks."""
    from anomalyr1.coco_masks import decode_mask
    from anomalyr1.distributed.reading import iterate_rows

    rows = list(iterate_rows(str(batch)))
    ids = [row["record_id"] for row in rows]
    same = num_masks = 0
    for row in rows:
        other = findings.get(row["record_id"], {})
        others = other.get("defects", [])
        is_same = all(row[name] == other.get(name) for name in SAME)
        is_same = is_same and len(row["defects"]) == len(others)
        for defect, found in zip(row["defects"], others, strict=False):
            told = {**defect, "mask": None} == {**found, "mask": None}
            if defect["mask"] is None or found["mask"] is None:
                told = told and defect["mask"] is found["mask"]
            else:
                num_masks += 1
                told = told and np.array_equal(decode_mask(defect["mask"]), found["mask"])
            is_same = is_same and told
        same += is_same
    return {
        "rows": len(rows),
        "same": same,
        "masks": num_masks,
        "missing": len(set(findings) - set(ids)),
        "twice": len(ids) - len(set(ids)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="detector:patch-memory")
    parser.add_argument("--many", type=int, default=20_000, help="pictures of the memory part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    settings = parser.parse_args()
    result: dict[str, Any] = vars(settings) | {"target": str(settings.target)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_pictures(folder / "in", settings.pictures)
        for part in settings.parts:
            MEASURES[part](folder, settings, result)
            settings.target.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def measure_speed(folder: Path, settings: argparse.Namespace, result: dict[str, Any]) -> None:
    """Pictures a second of one worker and of two, each held to one thread."""
    for workers in (1, 2):
        out = folder / f"out{workers}"
        run = run_job(build_command(folder / "in", out, settings.model, workers), out)
        result[f"pictures_a_second_{workers}"] = compute_rate(run)
    result["speed_of_two"] = result["pictures_a_second_2"] / result["pictures_a_second_1"]


def measure_kills(folder: Path, settings: argparse.Namespace, result: dict[str, Any]) -> None:
    """Rows of a job whose workers are killed, beside what `inspect` finds."""
    out = folder / "killed"
    command = build_command(folder / "in", out, settings.model, 2)
    result["kills_done"] = run_job(command, out, settings.kills)["kills"]
    findings = load_findings(folder / "in", folder / "inspected", settings.model)
    result["beside_inspect"] = compare(out, findings)


def measure_driver(folder: Path, settings: argparse.Namespace, result: dict[str, Any]) -> None:
    """Peak memory of the driver for few and many pictures, without a model."""
    draw_pictures(folder / "many", settings.many, (16, 12))
    for name, count in (("in", settings.pictures), ("many", settings.many)):
        out = folder / f"memory_{name}"
        run = run_job(build_command(folder / name, out, "random", 2), out)
        result[f"driver_peak_mib_{count}"] = run["driver_peak_mib"]


MEASURES = {"kills": measure_kills, "speed": measure_speed, "memory": measure_driver}
PARTS = tuple(MEASURES)


if __name__ == "__main__":
    main()
