"""What each of the processes does first that look at pictures side by side."""

from __future__ import annotations


def use_one_thread() -> None:
    """Keep this process's linear algebra and OpenCV to one thread: with a worker a core, more
    threads only wait for each other."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1)
