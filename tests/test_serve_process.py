"""The station as a process of its own: it starts, answers, and ends when it is told to."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from serving import files

from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.search import Filter, find_inspections
from anomalyr1.server.store import Store

PATIENCE = 120
"""Seconds, for a machine that is busy."""


@pytest.mark.slow
def test_a_station_that_is_told_to_end_finishes_what_it_accepted(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = tmp_path / "station"
    options = ["--data", str(data), "--port", str(port), "--model", "nano"]
    with subprocess.Popen([sys.executable, "-m", "anomalyr1", "serve", *options]) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                wait_until_ready(client)
                sent = client.post("/api/inspect", files=files(*range(6)), data={"wait": "false"})
                assert sent.status_code == 202
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == -signal.SIGTERM, "it ends as it was told to"
        finally:
            server.kill()
    store = Store.open(data)
    total, rows = find_inspections(store, Filter())
    assert total == 6 and {row.state for row in rows} == {"done"}
    assert all(row.weights_sha256 and row.template_id for row in rows)
    assert verify_store(store).problems == ()
    store.close()


def wait_until_ready(client: httpx.Client) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            answer = client.get("/readyz")
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return
        assert time.monotonic() < ends, "the station does not start"
        time.sleep(0.1)
