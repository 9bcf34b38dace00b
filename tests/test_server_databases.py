"""The station's API and its worker, on SQLite and on PostgreSQL."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, anomalous
from fastapi.testclient import TestClient
from httpx import Response
from serving import files, inspect, make_client
from sqlalchemy import event
from test_store import picture_bytes
from test_weights import write_checkpoint

from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.promotions import current_model, load_promotions, promote, record_evaluation
from anomalyr1.server.store import Store
from anomalyr1.types import InputError
from anomalyr1.weights import hash_weights


@pytest.fixture
def client(tmp_path: Path, database_url: str | None) -> Iterator[TestClient]:
    """A client of a station that finds a crack in dark pictures, on each of the databases."""

    def say(prompt: Any, pictures: Any) -> str:
        return anomalous((4, 4, 20, 16)) if pictures[-2].getpixel((0, 0))[0] < 60 else NORMAL

    with make_client(tmp_path, say, url=database_url) as made:
        yield made
        made.app.state.station.store.close()  # type: ignore[attr-defined]


def list_ids(client: TestClient, query: str) -> list[int]:
    found = client.get(f"/api/inspections?sort=oldest&{query}")
    assert found.status_code == 200, found.text
    assert found.json()["total"] == len(found.json()["inspections"])
    return [item["id"] for item in found.json()["inspections"]]


def test_a_station_inspects_is_corrected_and_looks_back(client: TestClient) -> None:
    product = client.post("/api/products", json={"name": "nut", "knowledge": "Größe M8."}).json()
    number = product["id"]
    assert client.post("/api/products", json={"name": "nut"}).status_code == 409
    product = client.post(f"/api/products/{number}/references", files=files(200, 210, 200)).json()
    assert len(product["references"]) == 2, "the same picture twice is one reference"

    dark, light = (
        item["id"] for item in inspect(client, 10, 100, product_id=number)["inspections"]
    )
    sent = client.post("/api/inspect", files=files(20, name="Prüfling.png"), data={"wait": "false"})
    job = sent.json()["job"]["id"]
    assert '"state": "done"' in client.get(f"/api/jobs/{job}/events").text
    (alone,) = client.get(f"/api/jobs/{job}").json()["inspections"]

    review = {
        "reviewer": "Ann",
        "verdict": "anomalous",
        "regions": [{"box_xyxy": [1, 2, 9, 9], "label": "dent"}],
        "comment": "am Rand",
    }
    assert client.post(f"/api/inspections/{dark}/reviews", json=review).status_code == 201
    agreed = {"reviewer": "Ben", "verdict": "normal"}
    assert client.post(f"/api/inspections/{light}/reviews", json=agreed).status_code == 201
    for query, ids in (
        (f"product_id={number}", [dark, light]),
        ("decision=normal", [light]),
        (f"job_id={job}", [alone]),
        ("reviewer=Ann", [dark]),
        ("reviewed=false", [alone]),
        ("disagreement=false", [dark, light]),
        ("since=2020-01-01&until=2020-12-31", []),
        ("q=rand", [dark]),
        ("q=CRACK", [dark, alone]),
        ("q=Prüfling", [alone]),
    ):
        assert list_ids(client, query) == ids, query

    trends = client.get("/api/trends").json()
    assert (trends["total"], trends["agreement"]["n"], trends["miss"]["value"]) == (3, 2, 0.0)
    assert client.get("/api/model").json()["num_new_corrections"] == 1
    assert "am Rand" in client.get("/api/exports/csv").text
    coco = client.get("/api/exports/coco?reviewer=Ann").json()
    assert coco["annotations"][0]["bbox"] == [1, 2, 8, 7]
    archive = zipfile.ZipFile(io.BytesIO(client.get("/api/exports/records").content))
    lines = archive.read("records.jsonl").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["normal", "anomalous"]

    given = client.get(f"/api/inspections/{dark}").json()["review"]["id"]
    assert client.post(f"/api/reviews/{given}/retract", json={"person": "Ann"}).status_code == 204
    assert list_ids(client, "reviewed=true") == [light]
    assert client.delete(f"/api/products/{number}").status_code == 204
    assert list_ids(client, "q=nut") == [dark, light], "inspections outlive their product"
    store = client.app.state.station.store  # type: ignore[attr-defined]
    assert verify_store(store).problems == ()


def test_work_that_a_dead_server_accepted_is_done_once_by_the_next(
    tmp_path: Path, database_url: str | None
) -> None:
    store = Store.open(tmp_path / "data", database_url)
    uploads = [store.receive(io.BytesIO(picture_bytes(level)), "a.png") for level in (1, 2)]
    job_id, _ = store.accept(uploads, None, "k-1")
    store.close()
    calls: list[str] = []

    def script(prompt: Any, pictures: object) -> str:
        calls.append(prompt.record_id)
        return NORMAL

    with make_client(tmp_path, script, url=database_url) as client:
        events = client.get(f"/api/jobs/{job_id}/events").text
        again = client.post("/api/inspect", files=files(1), headers={"Idempotency-Key": "k-1"})
    assert '"state": "done"' in events
    assert calls == ["1", "2"]
    assert again.json()["job"]["id"] == job_id


def test_text_that_no_database_takes_is_kept_visibly_or_refused(
    tmp_path: Path, database_url: str | None
) -> None:
    def script(prompt: Any, pictures: object) -> str:
        if prompt.record_id == "1":
            return "\ud800\x00"
        raise InputError("a \x00 byte, a \ud800 sign")

    with make_client(tmp_path, script, url=database_url) as client:
        for reason in (None, "a ␀ byte"):
            (found,) = inspect(client)["inspections"]
            assert found["decision"] == "unread"
            assert reason is None or reason in found["error"]
        for path in ("jobs/%00", "jobs/%00/events", "pictures/%00", "inspections?job_id=%00"):
            assert client.get(f"/api/{path}").status_code in (404, 422), path


# Two requests at the same moment


@contextmanager
def meet(store: Store, statement: str) -> Iterator[None]:
    """Two writers wait for one another before a statement that begins so; where the store lets
    one of them in at a time, that one goes on alone after a moment."""
    both = threading.Barrier(2)

    def wait(_connection: object, _cursor: object, text: str, *_: object) -> None:
        if text.startswith(statement):
            with suppress(threading.BrokenBarrierError):
                both.wait(0.5)

    event.listen(store.database.engine, "before_cursor_execute", wait)
    yield
    event.remove(store.database.engine, "before_cursor_execute", wait)


def ask_twice(client: TestClient, statement: str, path: str, **sent: Any) -> list[Response]:
    """The answers to the same request, sent twice at the same moment; by status."""
    store = client.app.state.station.store  # type: ignore[attr-defined]
    with meet(store, statement), ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(client.post, path, **sent) for _ in range(2)]
        return sorted((one.result() for one in asked), key=lambda answer: answer.status_code)


@pytest.mark.parametrize(
    ("statement", "path", "sent", "statuses"),
    [
        ("INSERT INTO products", "products", {"json": {"name": "cap"}}, [201, 409]),
        ("INSERT INTO product_references", "products/1/references", {"files": files(9)}, [201] * 2),
        (
            "INSERT INTO jobs",
            "inspect",
            {"files": files(9), "headers": {"Idempotency-Key": "k"}},
            [200] * 2,
        ),
        ("UPDATE reviews", "reviews/1/retract", {"json": {"person": "Ann"}}, [204, 404]),
        (
            "INSERT INTO promotions",
            "model/promote",
            {"json": {"evaluation": 1, "person": "Ann"}},
            [200, 400],
        ),
    ],
)
def test_a_request_that_comes_twice_at_once_is_answered_as_one_after_the_other(
    client: TestClient,
    tmp_path: Path,
    statement: str,
    path: str,
    sent: dict[str, Any],
    statuses: list[int],
) -> None:
    store = client.app.state.station.store  # type: ignore[attr-defined]
    candidate = write_checkpoint(tmp_path / "candidate")
    sides = {"current": "nano", "candidate": candidate}
    record_evaluation(
        store,
        {
            side: {"model": model, "weights_sha256": hash_weights(model)}
            for side, model in sides.items()
        },
    )
    client.post("/api/products", json={"name": "nut"})
    inspect(client, 1)
    review = {"reviewer": "Ann", "verdict": "normal"}
    client.post("/api/inspections/1/reviews", json=review)

    first, second = ask_twice(client, statement, f"/api/{path}", **sent)
    assert [first.status_code, second.status_code] == statuses, (first.text, second.text)
    if statuses[0] == statuses[1]:
        assert first.json() == second.json()
    again = client.post(f"/api/{path}", **sent)
    assert (again.status_code, again.text) == (second.status_code, second.text)


def test_two_who_roll_back_at_once_go_back_one_after_the_other(client: TestClient) -> None:
    store = client.app.state.station.store  # type: ignore[attr-defined]
    promote(store, "runs/a", "Ann")
    sent = {"json": {"person": "Ben"}}
    answers = ask_twice(client, "INSERT INTO promotions", "/api/model/rollback", **sent)
    assert [answer.status_code for answer in answers] == [200, 400]
    assert [row.action for row in load_promotions(store)] == ["promote", "rollback"]
    assert current_model(store) == "nano"
    assert client.post("/api/model/rollback", **sent).status_code == 400
