"""The station's API and its worker, on SQLite and on PostgreSQL."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, anomalous
from fastapi.testclient import TestClient
from serving import files, inspect, make_client
from test_store import picture_bytes

from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.store import Store
from anomalyr1.types import InputError


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
