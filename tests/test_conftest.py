"""What conftest promises every other test."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.org", 80)])
def test_tests_cannot_reach_the_network(address: tuple[str, int]) -> None:
    with socket.socket() as endpoint, pytest.raises(RuntimeError, match="network"):
        endpoint.connect(address)
    with socket.socket() as endpoint, pytest.raises(RuntimeError, match="network"):
        endpoint.connect_ex(address)


def test_tests_can_reach_this_machine() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
