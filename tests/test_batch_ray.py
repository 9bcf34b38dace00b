"""Batch jobs on Ray, in processes of their own: killed workers, a killed job, a bad start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest
from builders import make_picture

from anomalyr1.distributed.reading import iterate_rows

pytestmark = pytest.mark.slow


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "anomalyr1", "batch", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def finish(job: subprocess.Popen[str]) -> dict[str, Any]:
    told, errors = job.communicate(timeout=400)
    assert job.returncode in (0, 1), errors[-3000:]
    manifest: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
    return manifest


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        make_picture(folder / f"{number:04d}.png", (32, 24), level=60 + number % 120)


def find_workers(driver: int) -> list[int]:
    """Processes of Ray's pool that come from this driver."""
    parents: dict[int, int] = {}
    workers = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(status[1])
        if command.startswith(b"ray::") and b"BlockWorker" in command:
            workers.append(int(folder.name))

    def comes_from(number: int) -> bool:
        while number > 1:
            if number == driver:
                return True
            number = parents.get(number, 0)
        return False

    return [number for number in workers if comes_from(number)]


def ids(destination: Path | str) -> list[str]:
    return [Path(row["record_id"]).name for row in iterate_rows(str(destination))]


def test_killed_workers_and_a_killed_job_leave_no_picture_out_and_none_twice(
    tmp_path: Path,
) -> None:
    fill(tmp_path / "in", 300)
    (tmp_path / "in" / "0007.png").write_bytes(b"no picture")
    flags = ["--out", str(tmp_path / "out"), "--model", "random", "--num-workers", "2",
             "--block-size", "4", "--json"]  # fmt: skip
    chance, shards = Random(0), tmp_path / "out" / "findings"
    job = start(str(tmp_path / "in"), *flags)
    killed, ends = 0, time.monotonic() + 300
    pause = threading.Event()
    while job.poll() is None and killed < 3 and time.monotonic() < ends:
        pause.wait(0.05)
        if len(list(shards.glob("*.parquet"))) < 5 * (killed + 1):
            continue
        workers = find_workers(job.pid)
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed += 1
    assert killed == 3, job.communicate(timeout=60)
    job.kill()
    job.communicate(timeout=60)
    done = len(list(shards.glob("*.parquet")))
    assert 0 < done < 75
    manifest = finish(start(str(tmp_path / "in"), *flags))
    assert (manifest["rows"], manifest["errors"], manifest["blocks"]) == (300, 1, 75)
    assert ids(tmp_path / "out") == [f"{number:04d}.png" for number in range(300)]
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_model_that_no_worker_can_load_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    fill(tmp_path / "in", 3)
    job = start(str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--model", "majority",
                "--num-workers", "1")  # fmt: skip
    _, errors = job.communicate(timeout=400)
    assert job.returncode == 2, errors[-3000:]
    assert "majority needs records" in errors and "Traceback" not in errors
