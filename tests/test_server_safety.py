"""What the station refuses: other addresses and sites, wrong tokens, paths, what is no picture."""

from __future__ import annotations

import base64
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import ImageFile
from serving import SCRIPT, files, inspect, make_client
from test_store import picture_bytes

from anomalyr1.server.run import check_address
from anomalyr1.types import InputError

TOKEN = "a long enough token"


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


@pytest.mark.parametrize(
    "name", [f"{SCRIPT}.png", "<b onclick=x>.png", "../../etc/passwd", "..\\x.png", "\x1b[2J.png"]
)
def test_a_files_name_is_shown_as_text_and_is_never_a_path(client: TestClient, name: str) -> None:
    answer = client.post("/api/inspect", files=files(5, name=name))
    assert answer.status_code == 200
    shown = answer.json()["inspections"][0]["name"]
    assert ".." not in shown and "\x1b" not in shown
    assert answer.headers["content-type"] == "application/json"
    root = client.app.state.station.store.folder.root  # type: ignore[attr-defined]
    assert all(path.parent.parent == root for path in root.rglob("*.png"))


@pytest.mark.parametrize(
    ("path", "status"), [("..%2f..%2fetc%2fpasswd", 404), ("0" * 64, 404), ("%00", 422)]
)
def test_a_picture_is_found_by_its_hash_only(client: TestClient, path: str, status: int) -> None:
    assert client.get(f"/api/pictures/{path}").status_code == status
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


def build_bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has side x side pixels, black or white; at a side of
    10,000 they are all there."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + payload))
        return struct.pack(">I", len(payload)) + kind + payload + checksum

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000 * (1 + 10_000 // 8)))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header_everywhere(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, side: int
) -> None:
    decoded: list[tuple[int, int]] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.size))
    bomb = build_bomb(side)
    sent = [("pictures", ("bomb.png", bomb, "image/png"))]
    url = f"data:image/png;base64,{base64.b64encode(bomb).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}
    chat = {"messages": [{"role": "user", "content": [part]}]}
    number = client.post("/api/products", json={"name": "nut"}).json()["id"]
    for answer in (
        client.post("/api/inspect", files=sent),
        client.post(f"/api/products/{number}/references", files=sent),
        client.post("/v1/chat/completions", json=chat),
    ):
        assert answer.status_code == 400, answer.url
        assert "50,000,000" in answer.text, "the limit that holds here"
    assert decoded == []
    root = client.app.state.station.store.folder.root  # type: ignore[attr-defined]
    assert [path.name for path in root.rglob("*") if path.is_file()] == ["server.lock"]


def test_the_pictures_of_a_chat_are_bounded_together(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anomalyr1.server.api_openai.MOST_CHAT_PIXELS", 2 * 32 * 24)
    url = f"data:image/png;base64,{base64.b64encode(picture_bytes()).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}

    def ask(count: int) -> int:
        chat = {"messages": [{"role": "user", "content": [part] * count}]}
        return client.post("/v1/chat/completions", json=chat).status_code

    assert [ask(2), ask(3)] == [200, 400]


def test_few_pictures_are_decoded_at_once_whichever_way_they_come(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding: set[int] = set()
    most = 0
    three = threading.Barrier(3)
    (found,) = inspect(client)["inspections"]
    load = ImageFile.ImageFile.load

    def load_slowly(image: ImageFile.ImageFile) -> Any:
        nonlocal most
        decoding.add(threading.get_ident())
        most = max(most, len(decoding))
        with suppress(threading.BrokenBarrierError):
            three.wait(1.0)
        loaded = load(image)
        decoding.discard(threading.get_ident())
        return loaded

    number = client.post("/api/products", json={"name": "nut"}).json()["id"]
    monkeypatch.setattr(ImageFile.ImageFile, "load", load_slowly)
    url = f"data:image/png;base64,{base64.b64encode(picture_bytes()).decode()}"
    content = [{"type": "image_url", "image_url": {"url": url}}]
    chat = {"json": {"messages": [{"role": "user", "content": content}]}}
    ways = [
        ("POST", "/v1/chat/completions", chat),
        ("POST", f"/api/products/{number}/references", {"files": files(1)}),
        ("GET", f"/api/pictures/{found['picture']}?size=thumb", {}),
        ("GET", f"/api/inspections/{found['id']}/masks.png", {}),
    ]
    with ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(client.request, method, path, **sent) for method, path, sent in ways * 2
        ]
        assert [one.result().status_code for one in asked] == [200, 201, 200, 200] * 2
    assert most <= 2


def test_a_fault_of_ours_shows_no_trace(client: TestClient, monkeypatch: Any) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr("anomalyr1.server.api_history.load_inspection", fail)
    answer = client.get("/api/inspections/1")
    assert answer.status_code == 500
    assert "secret" not in answer.text and "Traceback" not in answer.text
