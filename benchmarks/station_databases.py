"""Accepted uploads a second of a station on SQLite and on PostgreSQL, side by side in one run.

    python benchmarks/station_databases.py --db postgresql://user@host/empty --out databases.json

The model's text is a script and there is no detector, so that store and queue are what is measured:
each picture is received, accepted, inspected and its result recorded. The two take turns, so that
what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from station_kills import find_port

HERE = Path(__file__).parent


def serve_script(data: Path, port: int, url: str | None) -> None:
    """A station whose model says one word of all."""
    import uvicorn

    from anomalyr1.engines.scripted import ScriptedEngine
    from anomalyr1.inspector import Inspector
    from anomalyr1.server.app import build_app
    from anomalyr1.server.store import Store

    def say(_prompt: object, _pictures: object) -> str:
        return '<answer>{"verdict": "normal", "defects": []}</answer>'

    store = Store.open(data, url)
    store.claim()
    app = build_app(store, lambda _name: Inspector(ScriptedEngine(say)))
    uvicorn.run(app, port=port, log_level="error")


def load(url: str | None, clients: int, seconds: float) -> dict[str, Any]:
    """What `station_load.py` finds of a new station on the database."""
    port = find_port()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "load.json"
        serve = [sys.executable, __file__, "--serve", str(Path(folder) / "data"), str(port)]
        server = subprocess.Popen([*serve, *(["--db", url] if url else [])])
        command = [sys.executable, str(HERE / "station_load.py"), "--pid", str(server.pid)]
        command += ["--url", f"http://127.0.0.1:{port}", "--out", str(out)]
        command += ["--clients", str(clients), "--seconds", str(seconds)]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        finally:
            server.terminate()
            server.wait(90)
        found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--db", help="the URL of an empty PostgreSQL database")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("station_databases.json"))
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_script(Path(given.serve[0]), int(given.serve[1]), given.db)
        return
    if given.db is None:
        parser.error("--db is needed")
    urls = {"sqlite": None, "postgresql": given.db}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
    for _ in range(given.rounds):
        for name, url in urls.items():
            runs[name].append(load(url, given.clients, given.seconds))
    rates = {
        name: [run["accepted"] / given.seconds for run in found] for name, found in runs.items()
    }
    means = {name: statistics.mean(found) for name, found in rates.items()}
    result = {
        "clients": given.clients,
        "seconds": given.seconds,
        "accepted_a_second": rates,
        "postgresql_to_sqlite": means["postgresql"] / means["sqlite"],
        "runs": runs,
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    for name, found in rates.items():
        shown = ", ".join(f"{rate:.1f}" for rate in found)
        sys.stdout.write(f"{name:12}{shown} accepted a second\n")
    sys.stdout.write(f"ratio       {result['postgresql_to_sqlite']:.2f}\n")


if __name__ == "__main__":
    main()
