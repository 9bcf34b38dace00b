"""Loads a running station: many clients at once, each waiting for its results.

    anomalyr1 serve --data /tmp/station &
    python benchmarks/station_load.py --clients 64 --seconds 120 --pid $! --out station_load.json

Prints answers by status, p50 and p99 of those that were done, and the server's memory at a quarter
of the time and at the end. Only 200 and 429 are right answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from station_kills import draw_picture


def read_memory(pid: int) -> int:
    """Resident MiB of a process, from /proc."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 // 2**20


def main() -> None:
    import httpx

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--out", type=Path, default=Path("station_load.json"))
    given = parser.parse_args()
    ends = time.monotonic() + given.seconds
    statuses: Counter[str] = Counter()
    waits: list[float] = []
    ids: list[int] = []
    lock = threading.Lock()

    def run(number: int) -> None:
        with httpx.Client(base_url=given.url, timeout=180) as client:
            count = 0
            while time.monotonic() < ends:
                payload = draw_picture(number * 10_000 + count)
                start = time.monotonic()
                try:
                    answer = client.post(
                        "/api/inspect", files=[("pictures", ("part.png", payload))]
                    )
                    status = str(answer.status_code)
                except httpx.HTTPError as error:
                    status, answer = type(error).__name__, None
                with lock:
                    statuses[status] += 1
                    if status == "200" and answer is not None:
                        waits.append(time.monotonic() - start)
                        ids.extend(item["id"] for item in answer.json()["inspections"])
                if status == "429" and answer is not None:
                    time.sleep(float(answer.headers["retry-after"]))
                count += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(given.clients)]
    for thread in threads:
        thread.start()
    time.sleep(given.seconds / 4)
    early = read_memory(given.pid)
    for thread in threads:
        thread.join()
    ordered = sorted(waits)
    result = {
        "clients": given.clients,
        "seconds": given.seconds,
        "answers": dict(statuses),
        "done_twice": len(ids) - len(set(ids)),
        "p50_seconds": statistics.median(ordered) if ordered else None,
        "p99_seconds": ordered[int(0.99 * (len(ordered) - 1))] if ordered else None,
        "memory_mib_at_a_quarter": early,
        "memory_mib_at_the_end": read_memory(given.pid),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
