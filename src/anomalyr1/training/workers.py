"""Processes that look at pictures side by side, one thread each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

Opened = TypeVar("Opened")
Task = TypeVar("Task")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_opened: Any = None


def map_tasks(
    function: Callable[[Opened, Task], Result],
    tasks: Sequence[Task],
    open_once: Callable[[], Opened],
    *,
    num_workers: int,
    chunksize: int,
) -> Iterator[Result]:
    """`function` of each task, in order, and of what each process opens once.

    With a process a core, more threads would only wait for one another. Libraries read how many
    they are allowed when they are loaded, so processes are started anew instead of being forked.
    """
    with ProcessPoolExecutor(
        num_workers, mp_context=get_context("spawn"), initializer=_open, initargs=(open_once,)
    ) as pool:
        with _one_thread_each():
            results = pool.map(partial(_call, function), tasks, chunksize=chunksize)
        yield from results


def _open(open_once: Callable[[], Any]) -> None:
    global _opened
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _opened = open_once()


def _end_with_parent() -> None:
    """A pool whose owner was killed would else wait for tasks for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Any], Any], task: Any) -> Any:
    return function(_opened, task)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
