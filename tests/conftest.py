"""What every test shares: no network, and goldens that `pytest --update-golden` rewrites."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from browsing import Served
    from endpoints import Serve
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser

os.environ["ANOMALYR1_CACHE"] = "off"  # the user's own cache is not the tests'

GOLDEN_FOLDER = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        default=False,
        help="rewrite the files of tests/golden instead of comparing with them",
    )


@pytest.fixture(autouse=True)
def block_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches beyond this machine fails, naming the address."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_remote(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_remote(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with tests/golden/<name>, or rewrite that file under --update-golden."""
    update = request.config.getoption("--update-golden")

    def compare(name: str, text: str) -> None:
        path = GOLDEN_FOLDER / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
            return
        assert path.exists(), f"{path} is missing: run pytest --update-golden and review it"
        # Read as bytes, so that line endings count too.
        assert text == path.read_bytes().decode("utf-8")

    return compare


@pytest.fixture
def bucket() -> Iterator[str]:
    """A store in memory that is no local folder; emptied behind the test."""
    import fsspec

    files = fsspec.filesystem("memory")
    yield "memory://bucket"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of an empty database, None for the store's own SQLite file."""
    from databases import open_database

    yield from open_database(request.param)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """The bundled model's tokenizer, as its grammar's tests need it: it takes seconds to make."""
    from anomalyr1.training.nano import build_tokenizer

    return build_tokenizer(2560, 0)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts endpoints that answer by a script."""
    from endpoints import open_endpoints

    yield from open_endpoints()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """A client of a station whose model finds a crack in every picture."""
    from serving import make_client

    with make_client(tmp_path) as made:
        yield made
        made.app.state.station.store.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; a machine without it skips, and says so."""
    from browsing import launch_browser

    yield from launch_browser()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A station on a free port of this machine."""
    from browsing import serve

    yield from serve(tmp_path / "data")


def _refuse_remote(endpoint: socket.socket, address: Any) -> None:
    if endpoint.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = str(address[0])
    if host == "localhost":
        return
    try:
        local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"tests must not use the network, but one connected to {address}")
