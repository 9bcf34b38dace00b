"""Runs the station: opens the store, binds, serves until a signal, finishes accepted work."""

from __future__ import annotations

import types
from pathlib import Path

import uvicorn

from anomalyr1.inspector import Inspector
from anomalyr1.server.app import build_app
from anomalyr1.server.security import is_loopback
from anomalyr1.server.store import Store
from anomalyr1.types import InputError

LEAST_TOKEN = 12


def check_address(host: str, token: str | None) -> None:
    """Raise InputError for an address beyond this machine without a token, and for a weak one."""
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host} lets other machines in: give --token (or ANOMALYR1_TOKEN), "
            "or leave --host at 127.0.0.1"
        )
    if token is not None and len(token) < LEAST_TOKEN:
        raise InputError(f"--token has {len(token)} signs: give at least {LEAST_TOKEN}")


def run_station(
    data: Path,
    url: str | None,
    *,
    host: str,
    port: int,
    model: str | None,
    hint: str,
    token: str | None,
    batch_size: int,
    max_waiting: int,
    drain_seconds: float,
) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises InputError where it cannot start."""
    check_address(host, token)
    store = Store.open(data, url)
    try:
        store.claim()
        app = build_app(
            store,
            lambda name: Inspector.load(name, hint=hint),
            model=model,
            token=token,
            hosts=frozenset({host}),
            batch_size=batch_size,
            max_waiting=max_waiting,
            drain_seconds=drain_seconds,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                log_level="warning",
                server_header=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds)),
            )
        )
        leave = server.handle_exit

        def handle_exit(number: int, frame: types.FrameType | None) -> None:
            # Streams wait for the bell, and the server for them.
            app.state.station.bell.close()
            leave(number, frame)

        server.handle_exit = handle_exit  # type: ignore[assignment]
        server.run()
    finally:
        store.close()
