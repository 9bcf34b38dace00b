"""Pictures are looked at side by side, in processes of one thread each."""

from __future__ import annotations

import os
from functools import partial

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
