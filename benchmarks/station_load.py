"""Loads a running station: many clients at once, each waiting for its results.

    anomalyr1 serve --data /tmp/station &
    python benchmarks/station_load.py --clients 64 --seconds 120 --pid $! --out station_load.json

Prints answers by status, p50 and p99 of those that came with their result, and the server's memory
before, at a quarter of the time, and at the end. 200 and 429 are right answers, and 202: accepted,
and not done within the two minutes that a request waits. What was accepted is then followed: every
picture must be done exactly once, and the store must hold no other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from station_kills import draw_picture

RIGHT = ("200", "202", "429")


def read_memory(pid: int) -> int:
    """Resident MiB of a process, from /proc."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 // 2**20


def wait_until_ready(client: Any, seconds: float) -> None:
    """Return when the station takes work; it may just have been started."""
    import httpx

    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with suppress(httpx.ConnectError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.5)
    sys.exit(f"the station is not ready after {seconds:.0f} s")


def run_client(number: int, given: argparse.Namespace, ends: float, seen: dict[str, Any]) -> None:
    """Send one picture after the other until the time is over; keep what was answered."""
    import httpx

    with httpx.Client(base_url=given.url, timeout=600) as client:
        count = 0
        while time.monotonic() < ends:
            payload = draw_picture(number * 10_000 + count)
            start = time.monotonic()
            try:
                answer = client.post("/api/inspect", files=[("pictures", ("part.png", payload))])
            except httpx.HTTPError as error:
                seen["statuses"][type(error).__name__] += 1
                continue
            seen["statuses"][str(answer.status_code)] += 1
            if answer.status_code == 200:
                seen["waits"].append(time.monotonic() - start)
            if answer.status_code in (200, 202):
                seen["jobs"].append(answer.json()["job"]["id"])
            if answer.status_code == 429:
                time.sleep(float(answer.headers["retry-after"]))
            count += 1


def follow_jobs(client: Any, jobs: list[str], seconds: float) -> tuple[int, list[int]]:
    """Wait for accepted jobs: how many are not done in time, and the ids of all pictures."""
    ends, ids, num_lost = time.monotonic() + seconds, [], 0
    for job_id in jobs:
        job = client.get(f"/api/jobs/{job_id}").json()
        while job["state"] != "done" and time.monotonic() < ends:
            time.sleep(0.5)
            job = client.get(f"/api/jobs/{job_id}").json()
        num_lost += job["state"] != "done"
        ids += job["inspections"]
    return num_lost, ids


def main() -> None:
    import httpx

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--out", type=Path, default=Path("station_load.json"))
    given = parser.parse_args()
    seen: dict[str, Any] = {"statuses": Counter(), "waits": [], "jobs": []}
    with httpx.Client(base_url=given.url, timeout=600) as client:
        wait_until_ready(client, 120)
        held_before = client.get("/api/inspections?page_size=1").json()["total"]
        before, ends = read_memory(given.pid), time.monotonic() + given.seconds
        threads = [
            threading.Thread(target=run_client, args=(number, given, ends, seen))
            for number in range(given.clients)
        ]
        for thread in threads:
            thread.start()
        time.sleep(given.seconds / 4)
        early = read_memory(given.pid)
        for thread in threads:
            thread.join()
        num_lost, ids = follow_jobs(client, seen["jobs"], 600)
        held = client.get("/api/inspections?page_size=1").json()["total"] - held_before
        failed = client.get("/api/inspections?state=failed&page_size=1").json()["total"]
    ordered = sorted(seen["waits"])
    result = {
        "clients": given.clients,
        "seconds": given.seconds,
        "answers": dict(seen["statuses"]),
        "wrong_answers": sum(
            count for status, count in seen["statuses"].items() if status not in RIGHT
        ),
        "accepted": len(seen["jobs"]),
        "lost": num_lost,
        "twice": held - len(set(ids)),
        "failed": failed,
        "p50_seconds": statistics.median(ordered) if ordered else None,
        "p99_seconds": ordered[int(0.99 * (len(ordered) - 1))] if ordered else None,
        "memory_mib_before": before,
        "memory_mib_at_a_quarter": early,
        "memory_mib_at_the_end": read_memory(given.pid),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(result["wrong_answers"] or result["lost"] or result["twice"]))


if __name__ == "__main__":
    main()
