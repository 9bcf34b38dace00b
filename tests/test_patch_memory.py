"""The detector: any picture, any references, calibrated; a stand-in network and the real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from anomalyr1.checkpoint import NANO_FOLDER
from anomalyr1.data.drawing import draw_part
from anomalyr1.detectors import patch_memory
from anomalyr1.detectors.patch_memory import (
    PatchMemoryDetector,
    build_anomaly,
    build_channels,
    compute_score,
    compute_shift,
    working_size,
)
from anomalyr1.detectors.regions import KINDS
from anomalyr1.hints import find_regions
from anomalyr1.types import InputError

BUNDLED = NANO_FOLDER / "hint"


class _Backbone:
    """Mean colours at strides 4, 8 and 16, in place of learned features; counts its pictures."""

    def __init__(self) -> None:
        self.num_runs = 0

    def run(self, _names: None, inputs: dict[str, Any]) -> list[Any]:
        self.num_runs += 1
        pixels = inputs["picture"][0].transpose(1, 2, 0) / 32.0
        height, width = pixels.shape[:2]
        return [
            cv2.resize(pixels, (width // stride, height // stride), interpolation=cv2.INTER_AREA)
            .transpose(2, 0, 1)[None]
            .astype(np.float32)
            for stride in (4, 8, 16)
        ]


class _Head:
    """The fine distance, in logits."""

    def run(self, _names: None, inputs: dict[str, Any]) -> list[Any]:
        return [4.0 * inputs["distances"][:, :1] - 2.0]


class _Regions:
    """Every region is moved to the upper left of what is seen, looks like the third kind, and is
    as likely as `truth`, a logit, says."""

    def __init__(self, truth: float) -> None:
        self._truth = truth

    def run(self, _names: None, inputs: dict[str, Any]) -> list[Any]:
        count = len(inputs["own"])
        boxes = np.array([[0.0, 0.0, 0.5, 0.5]] * count, np.float32)
        return [boxes, np.eye(len(KINDS))[[2] * count], np.array([self._truth] * count)]


def make_detector() -> PatchMemoryDetector:
    return PatchMemoryDetector(_Backbone(), _Head())


def make_tile(instance: int, size: int = 128, *, spot: bool = False) -> Image.Image:
    pixels = draw_part("ceramic_tile", 3, size, instance=instance).image.copy()
    if spot:
        pixels[size // 4 : size // 3, size // 4 : size // 3] = 0
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("size_wh", "working_wh"),
    [
        ((448, 448), (448, 448)),
        ((1, 1), (448, 448)),
        ((4000, 3000), (512, 384)),
        ((1, 60), (96, 1536)),
        ((6000, 100), (1536, 96)),
    ],
)
def test_the_working_size_keeps_area_and_aspect_within_bounds(
    size_wh: tuple[int, int], working_wh: tuple[int, int]
) -> None:
    assert working_size(size_wh) == working_wh


def test_a_spot_that_no_reference_has_is_marked() -> None:
    anomaly = make_detector().detect(make_tile(9, spot=True), [make_tile(n) for n in range(3)])
    marked = np.asarray(anomaly.anomaly_map)
    height, width = marked.shape
    row, column = np.unravel_index(marked.argmax(), marked.shape)
    assert height / 4 <= row <= height / 3 and width / 4 <= column <= width / 3
    assert anomaly.score > 0.5 > make_detector().detect(make_tile(8), [make_tile(0)]).score


@pytest.mark.parametrize("reference_sizes", [(), ((40, 30),), ((64, 64), (200, 90))])
@pytest.mark.parametrize("size_wh", [(1, 1), (60, 1), (2, 120), (31, 33), (1500, 900)])
def test_pictures_and_references_of_any_size_have_a_map(
    size_wh: tuple[int, int], reference_sizes: tuple[tuple[int, int], ...]
) -> None:
    references = [Image.new("RGB", size, (90, 80, 70)) for size in reference_sizes]
    anomaly = make_detector().detect(Image.new("RGB", size_wh, (90, 90, 90)), references)
    width, height = working_size(size_wh)
    marked = np.asarray(anomaly.anomaly_map)
    assert marked.shape == (height // 4, width // 4) and marked.dtype == np.float32
    assert np.isfinite(marked).all() and 0.0 <= marked.min() <= marked.max() <= 1.0
    assert 0.0 <= anomaly.score <= 1.0


def test_references_are_read_once_and_known_again_by_content() -> None:
    backbone = _Backbone()
    detector = PatchMemoryDetector(backbone, _Head())
    first = detector.detect(make_tile(5), [make_tile(0), make_tile(1)])
    assert backbone.num_runs == 3
    again = detector.detect(make_tile(5), [make_tile(0), make_tile(1)])
    assert backbone.num_runs == 4
    np.testing.assert_array_equal(np.asarray(first.anomaly_map), np.asarray(again.anomaly_map))
    detector.detect(make_tile(5), [make_tile(1), make_tile(2)])
    assert backbone.num_runs == 7


def test_a_tuple_of_references_that_comes_again_is_hashed_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[int] = []
    compute = patch_memory._content_key

    def count(pictures: Sequence[Image.Image]) -> bytes:
        hashed.append(len(pictures))
        return compute(pictures)

    monkeypatch.setattr(patch_memory, "_content_key", count)
    detector = make_detector()
    first, second = (make_tile(0), make_tile(1)), (make_tile(2), make_tile(3), make_tile(4))
    expected = [make_detector().detect(make_tile(5), given).score for given in (first, second)]
    hashed.clear()
    given = (first, first, second, first, first)
    found = [detector.detect(make_tile(5), references).score for references in given]
    assert hashed == [2, 3, 2]
    assert found == [expected[0], expected[0], expected[1], expected[0], expected[0]]
    changing = [make_tile(0), make_tile(1)]
    detector.detect(make_tile(5), changing)
    changing[:] = second
    assert detector.detect(make_tile(5), changing).score == expected[1], "a list may change"


def test_only_few_memories_are_kept() -> None:
    detector = make_detector()
    for number in range(12):
        detector.detect(make_tile(0, 16), [Image.new("RGB", (8, 8), (number, 0, 0))])
    assert len(detector._calibrated) == 8


def test_without_references_the_distance_channels_say_so() -> None:
    features = make_detector().features(make_tile(0))
    channels = build_channels(features, None)
    assert channels.shape == (7, *features[0].shape[1:]) and not channels.any()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((-5.0, -6.0), 0.0),
        ((-1.0, -1.0), 0.0),
        ((1.0, 1.0), 2.0 * 2 / 3),
        ((3.0, 3.0, 3.0, 3.0), 4.0 * 4 / 5),
        ((0.0, 2.0), 3.0 * 2 / 3),
    ],
)
def test_noisy_references_lower_the_map_and_quiet_ones_leave_it(
    scores: tuple[float, ...], expected: float
) -> None:
    assert compute_shift(scores) == pytest.approx(expected)


def test_a_score_is_the_mean_of_the_highest_logits() -> None:
    logits = np.zeros((50, 40), np.float32)
    logits[3, 4], logits[7, 7] = 6.0, 2.0
    assert compute_score(logits) == pytest.approx(4.0)
    assert build_anomaly(np.zeros((3, 3), np.float32)).score == pytest.approx(0.5)


def test_a_folder_without_the_network_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"backbone\.onnx is missing"):
        PatchMemoryDetector.load(tmp_path)


@pytest.mark.skipif(
    not (BUNDLED / "head.onnx").is_file(), reason="the bundled detector is not built yet"
)
@pytest.mark.parametrize("size_wh", [(1, 1), (60, 1), (300, 200)])
def test_the_bundled_detector_takes_any_size(size_wh: tuple[int, int]) -> None:
    detector = PatchMemoryDetector.load(BUNDLED, num_threads=1)
    anomaly = detector.detect(Image.new("RGB", size_wh, (120, 120, 120)), [make_tile(0)])
    marked = np.asarray(anomaly.anomaly_map)
    assert np.isfinite(marked).all() and 0.0 <= anomaly.score <= 1.0


def test_regions_are_moved_and_named_where_the_detector_can() -> None:
    references = (make_tile(1), make_tile(2))
    spotted = make_tile(1, spot=True)
    plain = make_detector().detect(spotted, references)
    moved, doubted = (
        PatchMemoryDetector(_Backbone(), _Head(), _Regions(truth)).detect(spotted, references)
        for truth in (4.0, -60.0)
    )
    assert moved.score == doubted.score == plain.score
    assert doubted.regions is not None and len(doubted.regions) == 1
    assert plain.regions is None and (plain.anomaly_map == moved.anomaly_map).all()
    assert moved.regions
    grid_hw, views = make_detector().view(spotted, references)
    assert grid_hw == moved.anomaly_map.shape
    for view, region, own in zip(
        views, moved.regions, find_regions(plain, grid_hw[::-1]), strict=True
    ):
        assert region.kind == KINDS[2] and region.peak == own.confidence
        assert region.box_xyxy[:2] == pytest.approx([max(0.0, side) for side in view.frame[:2]])
        assert region.box_xyxy != own.box_xyxy
    assert make_detector().view(make_tile(1), references) == (grid_hw, [])
