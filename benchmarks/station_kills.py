"""Kills a station (kill -9) at random moments under load: is every accepted job done exactly once?

    python benchmarks/station_kills.py --kills 30 --out station_kills.json

Clients send pictures with an Idempotency-Key and ask again when a connection breaks. The detector
is the bundled one, so that maps and masks are written; the model's text is a script. In the end
`store verify` must find nothing, every accepted key must be one job, and each picture done once,
with its map and its mask.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path


def draw_picture(seed: int) -> bytes:
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serve_scripted(data: Path, port: int) -> None:
    """A station whose model says one thing of all: the store and the queue are what is tested."""
    import uvicorn

    from anomalyr1.checkpoint import find_hint_folder
    from anomalyr1.detectors.patch_memory import PatchMemoryDetector
    from anomalyr1.engines.scripted import ScriptedEngine
    from anomalyr1.inspector import Inspector
    from anomalyr1.masks import build_masker
    from anomalyr1.server.app import build_app
    from anomalyr1.server.store import Store

    def say(prompt: object, pictures: object) -> str:
        defect = {"bbox_2d": [20, 20, 70, 70], "label": "dent", "description": ""}
        return f"<answer>{json.dumps({'verdict': 'anomalous', 'defects': [defect]})}</answer>"

    store = Store.open(data)
    store.claim()
    detector = PatchMemoryDetector.load(find_hint_folder("nano"))
    inspector = Inspector(ScriptedEngine(say), detector=detector, masker=build_masker("map"))
    app = build_app(store, lambda name: inspector)
    uvicorn.run(app, port=port, log_level="error")


def send(port: int, keys: list[str], stop: threading.Event, worker: int) -> None:
    import httpx

    number = 0
    while not stop.is_set():
        key = f"{worker}-{number}"
        payload = draw_picture(zlib.crc32(key.encode()))
        while True:
            try:
                answer = httpx.post(
                    f"http://127.0.0.1:{port}/api/inspect",
                    files=[("pictures", (f"{key}.png", payload))] * 2,
                    data={"wait": "false"},
                    headers={"Idempotency-Key": key},
                    timeout=10,
                )
            except httpx.HTTPError:
                if stop.is_set():
                    return
                time.sleep(0.05)
                continue
            if answer.status_code in (200, 202):
                keys.append(key)
                break
            assert answer.status_code in (429, 503), answer.text
            time.sleep(0.05)
        number += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("station_kills.json"))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_scripted(Path(given.serve[0]), int(given.serve[1]))
        return
    import sqlalchemy as sa

    from anomalyr1.server.maintenance import verify_store
    from anomalyr1.server.store import Store
    from anomalyr1.server.tables import inspection_pictures, inspections, jobs

    generator = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, port = Path(folder) / "data", find_port()
        command = [sys.executable, __file__, "--serve", str(data), str(port)]
        keys: list[str] = []
        stop = threading.Event()
        threads = [threading.Thread(target=send, args=(port, keys, stop, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        problems: list[str] = []
        for number in range(given.kills):
            server = subprocess.Popen(command)
            before = len(keys)
            ends = time.monotonic() + 30
            while len(keys) == before and time.monotonic() < ends:
                time.sleep(0.02)
            time.sleep(generator.uniform(0.0, 0.8))
            server.kill()
            server.wait()
            store = Store.open(data)
            problems += verify_store(store).problems
            store.close()
            sys.stderr.write(f"kill {number + 1}: {len(keys)} jobs accepted\n")
        server = subprocess.Popen(command)
        time.sleep(3)
        stop.set()
        for thread in threads:
            thread.join()
        store = Store.open(data)
        ends = time.monotonic() + 600
        while store.load_waiting() and time.monotonic() < ends:
            time.sleep(0.2)
        server.terminate()
        server.wait(90)
        health = verify_store(store)
        with store.database.read() as connection:
            found = list(connection.scalars(sa.select(jobs.c.request_key)))
            states = dict(
                connection.execute(
                    sa.select(inspections.c.state, sa.func.count()).group_by(inspections.c.state)
                ).all()
            )
            attempts = dict(
                connection.execute(
                    sa.select(inspections.c.attempts, sa.func.count())
                    .group_by(inspections.c.attempts)
                    .order_by(inspections.c.attempts)
                ).all()
            )
            kinds = dict(
                connection.execute(
                    sa.select(inspection_pictures.c.kind, sa.func.count()).group_by(
                        inspection_pictures.c.kind
                    )
                ).all()
            )
        result = {
            "kills": given.kills,
            "accepted_jobs": len(keys),
            "jobs": len(found),
            "lost": len(set(keys) - set(found)),
            "twice": len(found) - len(set(found)),
            "pictures": states,
            "pictures_by_attempts": attempts,
            "maps": kinds.get("map", 0),
            "masks": kinds.get("mask", 0),
            "problems": [*problems, *health.problems],
            "files_without_row": health.num_loose,
        }
        store.close()
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    is_whole = states == {"done": 2 * len(found)} and set(kinds.values()) == {2 * len(found)}
    sys.exit(bool(result["lost"] or result["twice"] or result["problems"]) or not is_whole)


if __name__ == "__main__":
    main()
