"""Pictures are looked at side by side, in processes of one thread each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from anomalyr1.training.workers import map_tasks


def _open(number: int) -> tuple[int, int]:
    return number, os.getpid()


def _report(opened: tuple[int, int], task: int) -> tuple[int, int, int, str]:
    number, opened_by = opened
    assert opened_by == os.getpid()
    return number, task * task, opened_by, os.environ["OMP_NUM_THREADS"]


def test_results_come_in_order_from_processes_of_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = list(map_tasks(_report, range(9), partial(_open, 5), num_workers=2, chunksize=2))
    assert [square for _, square, _, _ in found] == [task * task for task in range(9)]
    assert {number for number, *_ in found} == {5}
    assert {threads for *_, threads in found} == {"1"}
    processes = {opened_by for _, _, opened_by, _ in found}
    assert os.getpid() not in processes and len(processes) <= 2, "each opens once"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_a_task_that_fails_says_so() -> None:
    with pytest.raises(TypeError):
        list(map_tasks(_report, ["x"], partial(_open, 5), num_workers=1, chunksize=1))


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from anomalyr1.training.workers import map_tasks\n"
        "def start():\n"
        "    Path(sys.argv[1], str(os.getpid())).touch()\n"
        "def wait(opened, task):\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(map_tasks(wait, [1, 2], start, num_workers=2, chunksize=1))\n"
    )
    seen = tmp_path / "seen"
    seen.mkdir()
    owner = subprocess.Popen([sys.executable, script, seen])
    wait_until(lambda: len(list(seen.iterdir())) == 2)
    owner.kill()
    owner.wait()
    wait_until(lambda: not any(_is_alive(int(path.name)) for path in seen.iterdir()))


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail("not within half a minute")
