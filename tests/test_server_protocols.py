"""The station beside other programs: OpenAI's client, its own description, malformed uploads."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from browsing import Served
from builders import make_inspector
from fastapi.testclient import TestClient
from openai import OpenAI
from serving import broken
from test_store import picture_bytes

from anomalyr1.server.maintenance import verify_store


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
