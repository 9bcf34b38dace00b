"""The worker over several lives of its server: who is tried again, in which order, who is given up.

A life ends where the model raises SystemExit: it ends the worker's thread in the middle of its
work, and leaves in the store what a kill would leave.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, make_inspector
from sqlalchemy.exc import OperationalError
from test_store import picture_bytes

from anomalyr1.server import worker as worker_module
from anomalyr1.server.metrics import Metrics
from anomalyr1.server.search import Filter, find_inspections
from anomalyr1.server.store import Store
from anomalyr1.server.worker import MOST_ATTEMPTS, Worker

BATCH = 4
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def accept(store: Store, count: int) -> None:
    uploads = [store.receive(BytesIO(picture_bytes(n)), f"{n}.png") for n in range(count)]
    store.accept(uploads, None, None)


def live(store: Store, is_killed: Callable[[int], bool]) -> list[int]:
    """One life of a server, until it is killed or nothing waits; the pictures that were tried, in
    order. `is_killed` says whether the server is killed while the model looks at a picture."""
    tried: list[int] = []

    def look(prompt: Any, _pictures: object) -> str:
        tried.append(int(prompt.record_id))
        if is_killed(tried[-1]):
            raise SystemExit
        return NORMAL

    worker = Worker(
        store,
        lambda _name: make_inspector(look),
        "nano",
        metrics=Metrics(),
        ring=lambda: None,
        batch_size=BATCH,
    )
    worker.start()
    worker.stop(60)
    return tried


def find_states(store: Store) -> dict[int, str]:
    return {row.id: row.state for row in find_inspections(store, Filter())[1]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "data")


def test_a_picture_that_kills_the_server_is_given_up_and_takes_no_other_along(
    store: Store,
) -> None:
    accept(store, 10)
    lives = 0
    while store.load_waiting():
        live(store, lambda picture: picture == 2)
        lives += 1
        assert lives <= MOST_ATTEMPTS + 1
    states = find_states(store)
    assert states.pop(2) == "failed"
    assert set(states.values()) == {"done"} and len(states) == 9
    (given_up,) = find_inspections(store, Filter(state="failed"))[1]
    assert given_up.error == f"given up after {MOST_ATTEMPTS} attempts that did not end"


def test_a_picture_that_was_in_work_at_many_kills_from_outside_is_done(store: Store) -> None:
    accept(store, 40)
    kills = 0
    for picture in range(1, 41, BATCH):  # in each batch, at its third picture
        live(store, lambda one, last=picture + 2: one == last)  # type: ignore[misc]
        kills += 1
    assert kills > MOST_ATTEMPTS
    for _ in range(MOST_ATTEMPTS - 1):  # alone, as often as a picture may be
        live(store, lambda one: one == 1)
    live(store, lambda one: False)
    assert set(find_states(store).values()) == {"done"}


def test_what_was_interrupted_comes_first_alone_and_what_died_alone_waits(store: Store) -> None:
    accept(store, 12)
    killers = {2, 3}
    assert live(store, killers.__contains__) == [1, 2], "a batch of the oldest"
    assert live(store, killers.__contains__) == [1, 2]
    assert live(store, killers.__contains__) == [3], "2 died alone: 3 did not yet"
    assert live(store, killers.__contains__) == [4, 5, 6, 7, 8, 2], "in turns with fresh batches"
    assert live(store, killers.__contains__) == [9, 10, 11, 12, 3], "3 died alone less often"
    assert live(store, killers.__contains__) == [2]
    assert live(store, lambda _: False) == [3, 2]


@pytest.mark.parametrize("fault", [OSError("no space left"), OperationalError("", {}, Exception())])
def test_a_picture_is_not_given_up_because_the_disk_or_the_database_failed(
    store: Store, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    accept(store, 1)
    finish, failures = store.finish, iter(range(2 * MOST_ATTEMPTS))

    def fail_at_first(*given: Any, **named: Any) -> bool:
        if next(failures, None) is not None:
            raise fault
        return finish(*given, **named)

    monkeypatch.setattr(store, "finish", fail_at_first)
    monkeypatch.setattr(worker_module, "_RETRY_SECONDS", 0.0)
    live(store, lambda _: False)
    assert find_states(store) == {1: "done"}


def test_a_picture_whose_result_cannot_be_recorded_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(store, 2)
    keep = worker_module.build_map_picture
    broken = iter(range(BATCH * MOST_ATTEMPTS))

    def fail(anomaly_map: Any) -> Any:
        if next(broken, None) is not None:
            raise ValueError("a fault of ours")
        return keep(anomaly_map)

    monkeypatch.setattr(worker_module, "build_map_picture", fail)
    monkeypatch.setattr(worker_module, "_RETRY_SECONDS", 0.0)
    live(store, lambda _: False)
    assert set(find_states(store).values()) == {"failed"}
