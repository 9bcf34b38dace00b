"""Regions of the map are named: described, learned, exported, and painted into the anomaly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.detectors.kinds import describe_region, name_regions
from anomalyr1.detectors.patch_memory import open_session
from anomalyr1.hints import find_map_regions
from anomalyr1.types import Record, Region

pytest.importorskip("torch")

from anomalyr1.training.kinds import KINDS, export_kinds, find_kind, train_kinds

GRID = (32, 48)


def make_features(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return tuple(
        rng.normal(size=(3, GRID[0] // step, GRID[1] // step)).astype(np.float32)
        for step in (1, 2, 4)
    )


def make_map(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    levels = np.zeros(GRID, np.float32)
    for left, top, right, bottom in boxes:
        levels[top:bottom, left:right] = 0.9
    return levels


def describe(levels: np.ndarray, features: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    distances = np.zeros((7, *GRID), np.float32)
    return [describe_region(features, distances, one) for one in find_map_regions(levels)]


@pytest.mark.parametrize("box", [(5, 5, 7, 6), (0, 0, 48, 32), (40, 30, 48, 32)])
def test_a_region_of_any_shape_has_a_finite_description(box: tuple[int, int, int, int]) -> None:
    (described,) = describe(make_map(box), make_features(np.random.default_rng(0)))
    assert described.shape == (2 * 9 + 7 + 7,) and described.dtype == np.float32
    assert np.isfinite(described).all()


def test_the_description_holds_what_lies_under_the_region_and_how_it_differs() -> None:
    features = make_features(np.random.default_rng(0))
    (described,) = describe(make_map((8, 8, 16, 16)), features)
    inside = features[0][:, 8:16, 8:16].mean(axis=(1, 2))
    assert described[:3] == pytest.approx(inside, abs=1e-5)
    assert described[3:6] == pytest.approx(inside - features[0].mean(axis=(1, 2)), abs=1e-5)
    coarse = features[2][:, 2:4, 2:4].mean(axis=(1, 2))
    assert described[12:15] == pytest.approx(coarse, abs=1e-5)


def test_lengths_are_told_from_blobs() -> None:
    features = make_features(np.random.default_rng(0))
    (line,) = describe(make_map((4, 10, 40, 12)), features)
    (blob,) = describe(make_map((4, 10, 12, 18)), features)
    assert line[-3] > blob[-3] + 1


def test_what_was_learned_is_exported_and_painted_into_the_map(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs the extra 'train'")
    rng = np.random.default_rng(1)
    features = make_features(rng)
    line, blob = make_map((4, 10, 40, 12)), make_map((4, 10, 14, 20))
    scratch, stain = KINDS.index("scratch"), KINDS.index("stain")
    named = []
    for levels, kind in ((line, scratch), (blob, stain)):
        (described,) = describe(levels, features)
        named += [
            (described + rng.normal(scale=0.05, size=len(described)).astype(np.float32), kind)
            for _ in range(20)
        ]
    path = tmp_path / "kinds.onnx"
    export_kinds(train_kinds(named, seed=0, num_steps=60, batch_size=16), path)
    session = open_session(path, 1)
    distances = np.zeros((7, *GRID), np.float32)
    both = make_map((4, 2, 40, 4), (4, 12, 14, 22))
    kinds = name_regions(session, features, distances, both)
    assert kinds[3, 20] == 1 + scratch and kinds[15, 8] == 1 + stain
    assert kinds[30, 40] == 0
    assert not name_regions(session, features, distances, make_map()).any()


def test_training_repeats_for_a_seed() -> None:
    rng = np.random.default_rng(0)
    named = [(rng.normal(size=9).astype(np.float32), number % 3) for number in range(30)]

    def train(seed: int) -> Any:
        return train_kinds(named, seed=seed, num_steps=5, batch_size=8).read.weight.tolist()

    assert train(0) == train(0) != train(1)


def test_a_regions_kind_is_that_of_the_defect_it_shares_most_with() -> None:
    record = Record(
        "1",
        Path("1.png"),
        label="anomalous",
        regions=(
            Region((0, 0, 10, 10), "scratch"),
            Region((10, 0, 30, 10), "dent"),
            Region((50, 50, 60, 60), "rust"),
        ),
    )
    assert find_kind((8, 0, 20, 10), record) == KINDS.index("dent")
    assert find_kind((30, 30, 40, 40), record) is None, "on no defect"
    assert find_kind((50, 50, 60, 60), record) is None, "a kind that is not known"
    assert tuple(KIND_WORDS) == KINDS
