"""What the routes share: store, worker, bell, metrics; and how a request reaches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request

from anomalyr1.server.bell import Bell
from anomalyr1.server.metrics import Metrics
from anomalyr1.server.store import Store
from anomalyr1.server.worker import Worker

RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Station:
    """A running station. `token` None: no login, loopback only."""

    store: Store
    worker: Worker
    bell: Bell
    metrics: Metrics
    token: str | None = None


def find_station(request: Request) -> Station:
    """The station of the app that a request came to."""
    station: Station = request.app.state.station
    return station


Here = Annotated[Station, Depends(find_station)]


def refuse_full(station: Station) -> HTTPException:
    """The answer of a full queue."""
    station.metrics.refused.inc()
    return HTTPException(
        429,
        f"the queue of {station.worker.max_waiting} pictures is full: try again later",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )
