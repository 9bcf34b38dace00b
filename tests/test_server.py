"""The station's API, with a scripted model."""

from __future__ import annotations

import base64
import io
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, anomalous, make_inspector
from fastapi.testclient import TestClient
from openai import OpenAI
from test_pages import Served
from test_store import picture_bytes
from test_weights import write_checkpoint

from anomalyr1.data.records import load_records
from anomalyr1.inspector import Inspector
from anomalyr1.server.app import build_app
from anomalyr1.server.exports import export_reviewed
from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.promotions import current_model, promote, record_evaluation
from anomalyr1.server.run import check_address
from anomalyr1.server.store import Store
from anomalyr1.types import InputError
from anomalyr1.weights import hash_weights

TOKEN = "a long enough token"
SCRIPT = "<script>alert(1)</script>"


def broken(prompt: object, pictures: object) -> str:
    return anomalous((4, 4, 20, 16))


def make_client(
    folder: Path,
    script: Callable[..., Any] = broken,
    *,
    load: Callable[[str], Inspector] | None = None,
    **settings: Any,
) -> TestClient:
    store = Store.open(folder / "data")
    store.claim()
    app = build_app(store, load or (lambda name: make_inspector(script)), **settings)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with make_client(tmp_path) as made:
        yield made
        made.app.state.station.store.close()  # type: ignore[attr-defined]


def files(*levels: int, name: str = "part.png") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("pictures", (name, picture_bytes(level), "image/png")) for level in levels]


def inspect(client: TestClient, *levels: int, **data: Any) -> dict[str, Any]:
    answer = client.post("/api/inspect", files=files(*levels or (100,)), data=data)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


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


def test_work_that_a_dead_server_accepted_is_done_once_by_the_next(tmp_path: Path) -> None:
    gate = threading.Event()
    store = Store.open(tmp_path / "data")
    uploads = [store.receive(io.BytesIO(picture_bytes(level)), "a.png") for level in (1, 2)]
    job_id, _ = store.accept(uploads, None, None)
    store.close()
    calls: list[str] = []

    def script(prompt: Any, pictures: object) -> str:
        calls.append(prompt.record_id)
        gate.set()
        return NORMAL

    with make_client(tmp_path, script) as client:
        events = client.get(f"/api/jobs/{job_id}/events").text
    assert '"state": "done"' in events
    assert calls == ["1", "2"]


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


# Safety


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.com"])
def test_another_address_than_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(InputError, match="--token"):
        check_address(host, None)
    check_address(host, TOKEN)
    with pytest.raises(InputError, match="at least"):
        check_address(host, "short")


def test_with_a_token_nothing_but_health_and_login_is_open(tmp_path: Path) -> None:
    with make_client(tmp_path, token=TOKEN) as client:
        for path in ("/api/products", "/metrics", "/v1/models", "/openapi.json", "/"):
            assert client.get(path).status_code == 401, path
        assert client.get("/healthz").status_code == 200
        page = client.get("/", headers={"accept": "text/html"}, follow_redirects=False)
        assert page.headers["location"] == "/login"
        for given in ("wrong", TOKEN[:-1], TOKEN + "x", "\xe9"):
            headers = {"Authorization": f"Bearer {given}".encode("latin-1")}
            assert client.get("/api/products", headers=headers).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/products", headers=headers).status_code == 200
        assert client.post("/api/session", json={"token": "wrong"}).status_code == 401
        cookie = client.post("/api/session", json={"token": TOKEN}).headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/products").status_code == 200  # by the cookie


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content-length": "999999999999"}, 413),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}, 201),
    ],
)
def test_another_site_cannot_change_anything(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/api/products", json={"name": "nut"}, headers=headers)
    assert answer.status_code == status
    assert len(client.get("/api/products").json()) == (status == 201)


def test_every_answer_carries_a_policy_without_inline_scripts(client: TestClient) -> None:
    for path in ("/", "/api/products", "/nowhere", "/static/nowhere.js"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", [f"{SCRIPT}.png", "../../etc/passwd", "..\\x.png", "\x1b[2J.png"])
def test_a_files_name_is_shown_as_text_and_is_never_a_path(client: TestClient, name: str) -> None:
    answer = client.post("/api/inspect", files=files(5, name=name))
    assert answer.status_code == 200
    shown = answer.json()["inspections"][0]["name"]
    assert ".." not in shown and "\x1b" not in shown
    assert answer.headers["content-type"] == "application/json"
    root = client.app.state.station.store.folder.root  # type: ignore[attr-defined]
    assert all(path.parent.parent == root for path in root.rglob("*.png"))


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "0" * 64, "%00"])
def test_a_picture_is_found_by_its_hash_only(client: TestClient, path: str) -> None:
    assert client.get(f"/api/pictures/{path}").status_code == 404
    assert client.get(f"/static/{path}").status_code == 404


def test_what_is_no_picture_is_refused_by_its_bytes_and_leaves_nothing(client: TestClient) -> None:
    for payload in (b"<svg onload=alert(1)>", b"", picture_bytes()[:50], b"\x89PNG\r\n\x1a\n"):
        sent = [("pictures", ("fine.png", payload, "image/png"))]
        answer = client.post("/api/inspect", files=sent)
        assert answer.status_code == 400
        assert "fine.png" in answer.json()["detail"]
        assert "incoming" not in answer.text
    root = client.app.state.station.store.folder.root  # type: ignore[attr-defined]
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["server.lock"]


def test_a_fault_of_ours_shows_no_trace(client: TestClient, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr("anomalyr1.server.api_history.load_inspection", fail)
    answer = client.get("/api/inspections/1")
    assert answer.status_code == 500
    assert "secret" not in answer.text and "Traceback" not in answer.text


# OpenAI


def openai_client(client: TestClient) -> OpenAI:
    return OpenAI(api_key="none", base_url="http://127.0.0.1/v1", http_client=client, max_retries=0)


def test_the_official_client_asks_with_a_picture_whole_and_streamed(client: TestClient) -> None:
    asked = openai_client(client)
    url = "data:image/png;base64," + base64.b64encode(picture_bytes()).decode()
    messages: Any = [
        {"role": "system", "content": "You inspect."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Normal?"},
                {"type": "image_url", "image_url": {"url": url}},
            ],
        },
    ]
    model = asked.models.list().data[0].id
    whole = asked.chat.completions.create(model=model, messages=messages)
    assert "anomalous" in str(whole.choices[0].message.content)
    chunks = asked.chat.completions.create(model=model, messages=messages, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.strip() == str(whole.choices[0].message.content).strip()


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}],
        [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
        [{"type": "image_url"}],
        "<|image_pad|>",
    ],
)
def test_a_chat_that_names_no_picture_we_may_read_is_refused(
    client: TestClient, content: Any
) -> None:
    body = {"messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "message" in answer.json()["error"]


# Any request


def test_no_described_request_makes_a_fault(tmp_path: Path) -> None:
    import schemathesis

    served = Served(tmp_path / "data", make_inspector(broken))
    try:
        address = f"http://127.0.0.1:{served.port}/openapi.json"
        # An event stream may wait for work.
        schema = schemathesis.openapi.from_url(address).exclude(path_regex="/events$")
        checked: list[str] = []
        for operation in schema.get_all_operations():
            run_examples(operation.ok().as_strategy(), checked)
    finally:
        served.close()
    assert len(set(checked)) > 20


def run_examples(strategy: Any, checked: list[str]) -> None:
    from hypothesis import HealthCheck, Phase, given, settings

    @given(case=strategy)
    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        answer = case.call()
        checked.append(case.operation.label)
        assert answer.status_code < 500, (case.operation.label, answer.text)

    check()


def test_malformed_pictures_are_refused_and_leave_no_file_and_no_memory(
    client: TestClient,
) -> None:
    from random import Random

    generator = Random(0)
    whole = [picture_bytes(3), *(save_as(kind) for kind in ("JPEG", "GIF", "TIFF", "WEBP", "BMP"))]
    memory_mib = []
    for number in range(500):
        payload = bytearray(generator.choice(whole))
        for _ in range(generator.randrange(1, 20)):
            payload[generator.randrange(len(payload))] = generator.randrange(256)
        cut = bytes(payload[: generator.randrange(len(payload))])
        sent = [("pictures", (f"{number}.png", cut, "image/png"))]
        answer = client.post("/api/inspect", files=sent, data={"wait": "false"})
        assert answer.status_code in (202, 200, 400, 429), answer.text
        memory_mib.append(read_memory_mib())
    assert memory_mib[-1] - memory_mib[100] < 20
    store = client.app.state.station.store  # type: ignore[attr-defined]
    assert list((store.folder.root / "incoming").iterdir()) == []
    health = verify_store(store)
    assert health.problems == ()
    assert health.num_loose == 0


def read_memory_mib() -> float:
    """What this process holds now; 0 where the system does not say it in /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * 4096 / 2**20 if path.exists() else 0.0


def save_as(kind: str) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (9, 99, 199)).save(buffer, kind)
    return buffer.getvalue()
