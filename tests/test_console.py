"""What commands do around their work on the terminal."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from anomalyr1.cli.console import wait_for_model


@pytest.fixture(autouse=True)
def unfreeze() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_a_model_is_loaded_while_the_collector_rests() -> None:
    assert gc.isenabled() and gc.get_freeze_count() == 0
    with wait_for_model("nano"):
        assert not gc.isenabled()
        loaded = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(loaded)


def test_the_collector_goes_on_after_a_model_that_cannot_be_loaded() -> None:
    with pytest.raises(ValueError, match="no such model"), wait_for_model("nano"):
        raise ValueError("no such model")
    assert gc.isenabled() and gc.get_freeze_count() == 0
