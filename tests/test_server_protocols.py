"""The station beside other programs: OpenAI's client, its own description, malformed uploads."""

from __future__ import annotations

import base64
import io
import threading
from pathlib import Path
from typing import Any

import pytest
from browsing import Served
from builders import NORMAL, anomalous, make_inspector
from fastapi.testclient import TestClient
from openai import OpenAI
from serving import broken, files, make_client
from test_learning import compare as compare_with
from test_learning import fill
from test_store import picture_bytes
from test_weights import write_checkpoint

from anomalyr1.server.maintenance import verify_store
from anomalyr1.server.promotions import record_evaluation
from anomalyr1.types import Completion


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


# The description


def describe_operations(client: TestClient) -> dict[tuple[str, str], dict[str, Any]]:
    """Operations of the API's description by method and path."""
    paths = client.get("/openapi.json").json()["paths"]
    return {
        (method, path): operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_every_parameter_says_what_it_is_and_has_an_example(client: TestClient) -> None:
    parameters = [
        (*route, parameter)
        for route, operation in describe_operations(client).items()
        for parameter in operation.get("parameters", [])
    ]
    assert len(parameters) > 50
    lacking = [
        (method, path, parameter["name"])
        for method, path, parameter in parameters
        if not parameter.get("description") or not parameter["schema"].get("examples")
    ]
    assert lacking == []


def outline(value: Any) -> Any:
    """Names and nesting of a JSON value without what is null; of a list its first element."""
    if isinstance(value, dict):
        return {name: outline(inner) for name, inner in value.items() if inner is not None}
    return [outline(inner) for inner in value[:1]] if isinstance(value, list) else None


def test_every_answer_in_json_has_an_example_that_is_shaped_as_a_real_one(tmp_path: Path) -> None:
    gate = threading.Event()

    def say(prompt: Any, pictures: Any) -> Completion:
        if prompt.record_id == "4":
            gate.wait(10)
        text = {"1": anomalous((4, 4, 20, 16)), "2": NORMAL}.get(prompt.record_id, "")
        sizes_wh = tuple(picture.size for picture in pictures)
        return Completion(prompt.record_id, text, p_anomalous=0.9, image_sizes_wh=sizes_wh)

    picture = f"data:image/png;base64,{base64.b64encode(picture_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": picture}}]
    chat = {"messages": [{"role": "user", "content": content}]}
    box = {"box_xyxy": [1, 2, 9, 9], "label": "dent"}
    review = {"reviewer": "Ann", "verdict": "anomalous", "regions": [box]}
    product, inspection = "/api/products/{product_id}", "/api/inspections/{inspection_id}"
    numbers: dict[str, Any] = {"product_id": 1, "reference_id": 1, "inspection_id": 1}
    compared = set()
    with make_client(tmp_path, say) as client:
        operations = describe_operations(client)

        def compare(method: str, path: str, **sent: Any) -> Any:
            answer = client.request(method, path.format(**numbers), **sent)
            status = str(answer.status_code)
            told = operations[method, path]["responses"][status]["content"]["application/json"]
            assert outline(told.get("example")) == outline(answer.json()), (method, path)
            compared.add((method, path, status))
            return answer.json()

        compare("post", "/api/products", json={"name": "nut"})
        compare("post", f"{product}/references", files=files(200, 201, 202))
        compare("post", "/api/inspect", files=files(1, 2, 3), data={"product_id": 1})
        waiting = compare("post", "/api/inspect", files=files(4), data={"wait": "false"})
        gate.set()
        numbers["job_id"] = waiting["job"]["id"]
        compare("get", "/api/jobs/{job_id}")
        compare("post", f"{inspection}/reviews", json=review)
        compare("get", inspection)
        compare("get", "/api/inspections", params={"reviewed": True})
        client.post("/api/inspections/2/reviews", json={"reviewer": "Ben", "verdict": "normal"})
        compare("get", "/api/trends")
        compare("delete", f"{product}/references/{{reference_id}}")
        client.patch("/api/products/1", json={"threshold": 0.4})
        compare("post", f"{product}/calibration")
        compare("patch", product, json={"threshold": 0.5})
        compare("get", product)
        compare("get", "/api/products")
        compare("get", "/v1/models")
        compare("post", "/v1/chat/completions", json=chat)
        compare("get", "/healthz")
        compare("get", "/readyz")
        store = client.app.state.station.store  # type: ignore[attr-defined]
        fill(store)
        record_evaluation(store, compare_with(store, write_checkpoint(tmp_path / "good")))
        compare("post", "/api/model/promote", json={"evaluation": 1, "person": "Ann"})
        compare("get", "/api/model")
        compare("post", "/api/model/rollback", json={"person": "Ann"})
    assert compared == {
        (*route, status)
        for route, operation in operations.items()
        for status, answer in operation["responses"].items()
        if status.startswith("2") and "application/json" in answer.get("content", {})
    }


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
