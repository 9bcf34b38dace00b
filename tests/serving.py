"""A client of a station in this process, with a scripted model. The fixture is in conftest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders import anomalous, make_inspector
from fastapi.testclient import TestClient
from test_store import picture_bytes

from anomalyr1.inspector import Inspector
from anomalyr1.server.app import build_app
from anomalyr1.server.store import Store

SCRIPT = "<script>alert(1)</script>"


def broken(prompt: object, pictures: object) -> str:
    return anomalous((4, 4, 20, 16))


def make_client(
    folder: Path,
    script: Callable[..., Any] = broken,
    *,
    url: str | None = None,
    load: Callable[[str], Inspector] | None = None,
    **settings: Any,
) -> TestClient:
    store = Store.open(folder / "data", url)
    store.claim()
    app = build_app(store, load or (lambda name: make_inspector(script)), **settings)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def files(*levels: int, name: str = "part.png") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("pictures", (name, picture_bytes(level), "image/png")) for level in levels]


def inspect(client: TestClient, *levels: int, **data: Any) -> dict[str, Any]:
    answer = client.post("/api/inspect", files=files(*levels or (100,)), data=data)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
