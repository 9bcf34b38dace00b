"""Workers beside each other use a thread each."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info

from anomalyr1.training.workers import use_one_thread


def count_threads(_task: int) -> list[int]:
    import cv2

    assert np.ones((2, 2)) @ np.ones(2) is not None
    blas = [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]
    return [cv2.getNumThreads(), *blas]


def test_a_worker_uses_one_thread() -> None:
    with ProcessPoolExecutor(1, initializer=use_one_thread) as pool:
        counted = next(iter(pool.map(count_threads, [0])))
    assert len(counted) >= 2 and set(counted) == {1}
