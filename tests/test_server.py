"""The station's API, with a scripted model."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, make_inspector
from fastapi.testclient import TestClient
from serving import SCRIPT, files, inspect, make_client
from test_store import set_times
from test_weights import write_checkpoint

from anomalyr1.data.records import load_records
from anomalyr1.inspector import Inspector
from anomalyr1.server.exports import export_reviewed
from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.promotions import current_model, promote, record_evaluation
from anomalyr1.server.store import Store
from anomalyr1.types import InputError
from anomalyr1.weights import hash_weights


def test_pictures_become_findings_with_map_and_masks(client: TestClient) -> None:
    found = inspect(client, 10, 20, 30)["inspections"]
    assert [item["decision"] for item in found] == ["anomalous"] * 3
    assert found[0]["defects"][0]["box_xyxy"] == [4, 4, 20, 16]
    number = found[0]["id"]
    for name in ("map.png", "masks.png"):
        answer = client.get(f"/api/inspections/{number}/{name}")
        assert answer.headers["content-type"] == "image/png"
    for size in ("thumb", "view", "original"):
        assert client.get(f"/api/pictures/{found[0]['picture']}?size={size}").status_code == 200
    assert verify_store(client.app.state.station.store).problems == ()  # type: ignore[attr-defined]


def test_pictures_of_one_product_are_batched_with_its_references(tmp_path: Path) -> None:
    seen: list[tuple[int, list[Any]]] = []
    gate = threading.Event()

    def script(prompt: Any, pictures: Any) -> str:
        gate.wait(10)
        seen.append((len(pictures), [part for part in prompt.messages[1].parts]))
        return NORMAL

    with make_client(tmp_path, script) as client:
        product = client.post("/api/products", json={"name": "nut", "knowledge": "Six sides."})
        number = product.json()["id"]
        client.post(f"/api/products/{number}/references", files=files(1, 2))
        for level in (3, 4, 5):
            data = {"product_id": number, "wait": "false"}
            answer = client.post("/api/inspect", files=files(level), data=data)
            assert answer.status_code == 202
        gate.set()
        client.get(f"/api/jobs/{answer.json()['job']['id']}/events")
        metrics = client.get("/metrics").text
    assert len(seen) == 3
    assert all(count == 4 for count, _ in seen)  # two references, picture, map
    assert "Six sides." in str(seen[0][1])
    assert "anomalyr1_batch_size_sum 3.0" in metrics
    assert "anomalyr1_batch_size_count 2.0" in metrics or "count 1.0" in metrics


def test_a_part_that_is_a_reference_itself_is_shown_beside_another(client: TestClient) -> None:
    number = client.post("/api/products", json={"name": "nut"}).json()["id"]
    product = client.post(f"/api/products/{number}/references", files=files(1, 2)).json()
    first, second = (item["picture"] for item in product["references"])
    found = inspect(client, 1, 3, product_id=number)["inspections"]
    assert [item["reference"] for item in found] == [second, first]


def test_a_full_queue_answers_429_with_retry_after_and_takes_nothing(tmp_path: Path) -> None:
    gate = threading.Event()

    def script(prompt: object, pictures: object) -> str:
        gate.wait(10)
        return NORMAL

    with make_client(tmp_path, script, max_waiting=2) as client:
        waiting = {"wait": "false"}
        assert client.post("/api/inspect", files=files(1, 2), data=waiting).status_code == 202
        refused = client.post("/api/inspect", files=files(3), data=waiting)
        gate.set()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/api/inspections").json()["total"] == 2


def test_a_request_that_the_whole_queue_could_not_hold_is_taken_where_nothing_waits(
    tmp_path: Path,
) -> None:
    with make_client(tmp_path, lambda prompt, pictures: NORMAL, max_waiting=2) as client:
        assert client.post("/api/inspect", files=files(1, 2, 3)).json()["job"]["done"] == 3


def test_accepted_work_is_finished_before_the_server_ends(tmp_path: Path) -> None:
    with make_client(tmp_path) as client:
        client.post("/api/inspect", files=files(*range(20)), data={"wait": "false"})
    store = Store.open(tmp_path / "data")
    assert store.load_waiting() == []
    store.close()


def test_a_repeated_request_with_its_key_is_one_job(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/api/inspect", files=files(1), headers=headers).json()
    second = client.post("/api/inspect", files=files(1), headers=headers).json()
    assert first["job"]["id"] == second["job"]["id"]
    assert client.get("/api/inspections").json()["total"] == 1


def test_a_model_that_fails_on_one_picture_does_not_take_the_others_along(tmp_path: Path) -> None:
    def script(prompt: Any, pictures: object) -> str:
        if prompt.record_id == "2":
            raise RuntimeError("CUDA fell over at /secret/path")
        return NORMAL

    with make_client(tmp_path, script) as client:
        found = inspect(client, 1, 2, 3)["inspections"]
    assert [item["decision"] for item in found] == ["normal", "unread", "normal"]
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize("text", ["", "\ud800\x00", "<answer>{}</answer>", SCRIPT])
def test_whatever_the_model_says_is_kept_and_sent_and_never_normal(
    tmp_path: Path, text: str
) -> None:
    with make_client(tmp_path, lambda prompt, pictures: text) as client:
        (found,) = inspect(client)["inspections"]
        assert found["decision"] == "unread"
        assert client.get("/api/inspections?reviewed=false").status_code == 200


def test_a_products_threshold_decides_and_the_models_verdict_stays(client: TestClient) -> None:
    number = client.post("/api/products", json={"name": "nut"}).json()["id"]
    client.patch(f"/api/products/{number}", json={"threshold": 0.95})
    (found,) = inspect(client, product_id=number)["inspections"]
    assert (found["verdict"], found["decision"]) == ("anomalous", "normal")


def test_references_are_calibrated_by_leaving_one_out(client: TestClient) -> None:
    number = client.post("/api/products", json={"name": "nut"}).json()["id"]
    client.post(f"/api/products/{number}/references", files=files(1, 2, 3))
    product = client.post(f"/api/products/{number}/calibration").json()
    assert [item["score"] for item in product["references"]] == [0.9] * 3
    gone = client.delete(f"/api/products/{number}/references/{product['references'][0]['id']}")
    assert not gone.json()["is_calibrated"]


def test_a_calibration_counts_while_the_weights_that_made_it_are_at_work(tmp_path: Path) -> None:
    def load(name: str) -> Inspector:
        return make_inspector(lambda prompt, pictures: NORMAL, weights_sha256=name)

    with make_client(tmp_path, load=load) as client:
        station = client.app.state.station  # type: ignore[attr-defined]
        inspect(client)
        number = client.post("/api/products", json={"name": "nut"}).json()["id"]
        client.post(f"/api/products/{number}/references", files=files(1, 2))
        path = f"/api/products/{number}"
        client.patch(path, json={"threshold": 0.4})
        promote(station.store, "runs/b", "Ann")
        assert client.post(f"{path}/calibration").json()["is_calibrated"], "the model before"
        station.worker._looked_at = float("-inf")
        inspect(client)
        product = client.get(path).json()
        assert (product["is_calibrated"], product["references"][0]["score"]) == (False, None)
        assert product["threshold"] == 0.4, "a person's, not a model's"
        assert client.post(f"{path}/calibration").json()["references"][0]["score"] == 0.9


def test_a_correction_shows_in_history_trends_and_exports(
    client: TestClient, tmp_path: Path
) -> None:
    number = inspect(client, 1, 2)["inspections"][0]["id"]
    review = {
        "reviewer": "Ann",
        "verdict": "anomalous",
        "regions": [{"box_xyxy": [1, 2, 9, 9], "label": "dent"}],
        "comment": "=1+1",
    }
    answer = client.post(f"/api/inspections/{number}/reviews", json=review)
    assert answer.status_code == 201
    client.post(
        f"/api/inspections/{number + 1}/reviews", json={"reviewer": "Ben", "verdict": "normal"}
    )
    assert client.get("/api/inspections?disagreement=true").json()["total"] == 1
    assert client.get("/api/inspections?reviewer=Ann").json()["total"] == 1
    trends = client.get("/api/trends").json()
    assert trends["agreement"]["value"] == 0.5
    assert trends["overkill"] == {**trends["overkill"], "value": 1.0, "n": 1}
    assert "'=1+1" in client.get("/api/exports/csv").text
    coco = client.get("/api/exports/coco?reviewer=Ann").json()
    assert coco["annotations"][0]["bbox"] == [1, 2, 8, 7]
    archive = zipfile.ZipFile(io.BytesIO(client.get("/api/exports/records").content))
    archive.extractall(tmp_path / "zip")
    assert len(load_records(tmp_path / "zip" / "records.jsonl")) == 2
    store = client.app.state.station.store  # type: ignore[attr-defined]
    counts = export_reviewed(store, tmp_path / "out")
    assert counts["train.jsonl"] + counts["test.jsonl"] == counts["records.jsonl"] == 2
    records = load_records(tmp_path / "out" / "records.jsonl")
    assert records[0].regions[0].defect_type == "dent"
    assert client.get("/api/model").json()["num_new_corrections"] == 2
    review_id = client.get(f"/api/inspections/{number}").json()["review"]["id"]
    client.post(f"/api/reviews/{review_id}/retract", json={"person": "Ann"})
    item = client.get(f"/api/inspections/{number}").json()
    assert item["review"] is None
    assert item["reviews"][0]["retracted_by"] == "Ann"


@pytest.mark.parametrize(
    ("zone", "days"),
    [
        ("UTC", ["2026-03-28", "2026-03-29", "2026-06-30"]),
        ("Europe/Berlin", ["2026-03-29", "2026-03-30", "2026-07-01"]),  # CET, then CEST twice
        ("Pacific/Kiritimati", ["2026-03-29", "2026-03-30", "2026-07-01"]),
        ("America/Los_Angeles", ["2026-03-28", "2026-03-29", "2026-06-30"]),
        ("Asia/Kolkata", ["2026-03-29", "2026-03-30", "2026-07-01"]),
    ],
)
def test_days_of_trends_are_those_of_the_zone_that_is_asked_for(
    client: TestClient, zone: str, days: list[str]
) -> None:
    found = inspect(client, 1, 2, 3)["inspections"]
    times = ("2026-03-28T23:30", "2026-03-29T22:30", "2026-06-30T22:30")
    moments = {item["id"]: f"{time}:00.000000Z" for item, time in zip(found, times, strict=True)}
    set_times(client.app.state.station.store, moments)  # type: ignore[attr-defined]
    trends = client.get("/api/trends", params={"zone": zone}).json()
    assert [item["day"] for item in trends["days"]] == days


@pytest.mark.parametrize("zone", ["", "Nowhere", "../UTC", "/etc/passwd", "Europe", "UTC\x00"])
def test_a_zone_that_is_none_is_refused(client: TestClient, zone: str) -> None:
    assert client.get("/api/trends", params={"zone": zone}).status_code == 422


@pytest.mark.parametrize(
    "change",
    [
        {"regions": [{"box_xyxy": [0, 0, 900, 5]}]},
        {"regions": [{"box_xyxy": [5, 5, 5, 9]}]},
        {"verdict": "unread"},
        {"verdict": "normal", "regions": [{"box_xyxy": [0, 0, 5, 5]}]},
        {"reviewer": " "},
        {"reviewer": "a\x00b"},
        {"comment": "\ud800"},
    ],
)
def test_a_review_that_makes_no_sense_is_refused(client: TestClient, change: dict) -> None:  # type: ignore[type-arg]
    number = inspect(client)["inspections"][0]["id"]
    body = json.dumps({"reviewer": "Ann", "verdict": "anomalous", **change})
    answer = client.post(
        f"/api/inspections/{number}/reviews",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422
    assert client.get("/api/inspections?reviewed=true").json()["total"] == 0


def test_a_promoted_model_is_loaded_and_each_inspection_keeps_its_own(tmp_path: Path) -> None:
    def load(name: str) -> Inspector:
        if name == "bad":
            raise InputError("bad is not a checkpoint")
        made = make_inspector(lambda prompt, pictures: NORMAL)
        made.engine.engine_id = name  # type: ignore[misc]
        return made

    with make_client(tmp_path, load=load) as client:
        worker = client.app.state.station.worker  # type: ignore[attr-defined]
        assert inspect(client)["inspections"][0]["model"] == "nano"
        for wanted in ("bad", "runs/b"):
            promote(client.app.state.station.store, wanted, "Ann")  # type: ignore[attr-defined]
            worker._looked_at = float("-inf")
            found = inspect(client)["inspections"][0]
            assert found["model"] == {"bad": "nano"}.get(wanted, wanted)
        history = client.get("/api/model").json()["promotions"]
        assert [(item["model"], item["person"]) for item in history] == [
            ("bad", "Ann"),
            ("runs/b", "Ann"),
        ]


def test_a_checkpoint_that_changed_after_its_promotion_is_not_loaded(tmp_path: Path) -> None:
    candidate = write_checkpoint(tmp_path / "candidate")
    loaded: list[str] = []

    def load(name: str) -> Inspector:
        loaded.append(name)
        return make_inspector(lambda prompt, pictures: NORMAL)

    with make_client(tmp_path, load=load) as client:
        station = client.app.state.station  # type: ignore[attr-defined]
        inspect(client)
        promote(station.store, candidate, "Ann", weights_sha256=hash_weights(candidate))
        (tmp_path / "candidate" / "model.safetensors").write_bytes(b"other")
        station.worker._looked_at = float("-inf")
        inspect(client)
        assert loaded == ["nano"]
        assert "not those that were promoted" in client.get("/api/model").json()["problem"]
        promote(station.store, candidate, "Ann", weights_sha256=hash_weights(candidate))
        station.worker._looked_at = float("-inf")
        inspect(client)
        assert loaded == ["nano", candidate]


def test_a_request_promotes_an_evaluation_and_never_names_a_file(
    client: TestClient, tmp_path: Path
) -> None:
    store = client.app.state.station.store  # type: ignore[attr-defined]
    candidate = write_checkpoint(tmp_path / "candidate")
    sides = {
        "current": {"model": "nano", "weights_sha256": hash_weights("nano")},
        "candidate": {"model": candidate, "weights_sha256": hash_weights(candidate)},
    }
    number = record_evaluation(store, sides)
    by_name = client.post("/api/model/promote", json={"model": candidate, "person": "Ann"})
    assert by_name.status_code == 422
    unknown = client.post("/api/model/promote", json={"evaluation": number + 1, "person": "Ann"})
    assert unknown.status_code == 404
    shown = client.get("/api/model").json()["evaluations"]
    assert [item["comparison"]["candidate"]["model"] for item in shown] == [candidate]
    made = client.post("/api/model/promote", json={"evaluation": number, "person": "Ann"})
    assert made.status_code == 200
    assert current_model(store) == candidate
    again = client.post("/api/model/promote", json={"evaluation": number, "person": "Ann"})
    assert again.status_code == 400
    assert client.post("/api/model/rollback", json={"person": "Ben"}).status_code == 200
    assert current_model(store) == "nano"
