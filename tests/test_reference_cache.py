"""What was computed of references is found by the next run, and nothing else in its place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_patch_memory import _Backbone, _Head, make_tile

from anomalyr1.detectors import reference_cache
from anomalyr1.detectors.patch_memory import PatchMemoryDetector
from anomalyr1.detectors.reference_cache import ReferenceCache, find_cache_folder, open_cache
from anomalyr1.types import Anomaly

REFERENCES = [make_tile(0), make_tile(1), make_tile(2)]


def detect(
    folder: Path, version: bytes = b"1", references: list[Image.Image] = REFERENCES
) -> tuple[Anomaly, int]:
    """What a detector that was just loaded says, and how many pictures its network saw."""
    backbone = _Backbone()
    detector = PatchMemoryDetector(backbone, _Head(), cache=ReferenceCache(folder, version))
    return detector.detect(make_tile(5, spot=True), references), backbone.num_runs


def assert_equal(first: Anomaly, second: Anomaly) -> None:
    np.testing.assert_array_equal(np.asarray(first.anomaly_map), np.asarray(second.anomaly_map))
    assert first.score == second.score


def test_the_next_run_computes_only_the_picture_and_says_the_same(tmp_path: Path) -> None:
    first, computed = detect(tmp_path / "cache")
    again, computed_again = detect(tmp_path / "cache")
    assert (computed, computed_again) == (4, 1)
    assert_equal(first, again)
    assert_equal(
        first, PatchMemoryDetector(_Backbone(), _Head()).detect(make_tile(5, spot=True), REFERENCES)
    )


def test_other_pictures_another_order_and_another_version_are_computed(tmp_path: Path) -> None:
    detect(tmp_path)
    assert detect(tmp_path, references=[make_tile(0), make_tile(1), make_tile(3)])[1] == 4
    assert detect(tmp_path, references=REFERENCES[::-1])[1] == 4
    assert detect(tmp_path, version=b"2")[1] == 4


def test_a_single_reference_is_not_kept(tmp_path: Path) -> None:
    detect(tmp_path / "cache", references=[make_tile(0)])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("place", [0, 40, 300, -30, None])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path: Path, place: int | None) -> None:
    expected, _ = detect(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    if place is None:
        del damaged[len(whole) // 2 :]
    else:
        damaged[place] ^= 255
    path.write_bytes(damaged)
    found, computed = detect(tmp_path)
    assert computed == 4
    assert_equal(found, expected)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert detect(blocked / "cache")[1] == detect(blocked / "cache")[1] == 4


def test_what_was_not_used_for_longest_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [[make_tile(number), make_tile(number + 1)] for number in range(3)]
    for number, references in enumerate(sets[:2]):
        detect(tmp_path, references=references)
        for path in tmp_path.iterdir():
            if path.stat().st_mtime > 1000:
                os.utime(path, (number, number))
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(reference_cache, "MAX_BYTES", 2 * size)
    assert detect(tmp_path, references=sets[0])[1] == 1, "used now, so kept"
    assert detect(tmp_path, references=sets[2])[1] == 3
    assert len(list(tmp_path.iterdir())) == 2
    assert detect(tmp_path, references=sets[0])[1] == 1
    assert detect(tmp_path, references=sets[1])[1] == 3, "was removed"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ANOMALYR1_CACHE": "off"}, None),
        ({"ANOMALYR1_CACHE": ""}, None),
        ({"ANOMALYR1_CACHE": "/here"}, Path("/here")),
        ({"XDG_CACHE_HOME": "/caches"}, Path("/caches/anomalyr1/references")),
        ({"HOME": "/home/me"}, Path("/home/me/.cache/anomalyr1/references")),
    ],
)
def test_the_folder_is_the_users_and_can_be_moved_or_switched_off(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: Path | None
) -> None:
    for name in ("ANOMALYR1_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_cache_folder() == expected


def test_other_networks_or_other_code_have_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOMALYR1_CACHE", str(tmp_path))
    network, code = tmp_path / "head.onnx", tmp_path / "code.py"
    network.write_bytes(b"weights")
    code.write_text("x = 1")
    versions = [open_cache([network], [code])]
    code.write_text("x = 2")
    versions.append(open_cache([network], [code]))
    network.write_bytes(b"others")
    versions.append(open_cache([network], [code]))
    assert None not in versions and len({cache.version for cache in versions if cache}) == 3
    assert versions[-1] == open_cache([network], [code])
