"""The hint picture: red is the map, green and blue say where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import anomalous, make_inspector, make_picture

from anomalyr1.geometry import to_original
from anomalyr1.hints import (
    MOST_REGIONS,
    describe_hint,
    draw_hint,
    find_regions,
    restore_boxes,
    scale_score,
)
from anomalyr1.types import Anomaly, HintRegion, Prompt, Region, SeenRegion


def test_colours_say_what_the_map_marks_and_where() -> None:
    marked = np.zeros((4, 8), np.float32)
    marked[0, 7] = 1.0
    pixels = np.asarray(draw_hint(marked, (80, 40)))
    assert pixels.shape == (40, 80, 3)
    assert pixels[0, -1].tolist() == [255, 255, 0]
    assert pixels[-1, 0].tolist() == [0, 0, 255]
    assert (np.diff(pixels[0, :, 1].astype(int)) >= 0).all()
    assert (np.diff(pixels[:, 0, 2].astype(int)) >= 0).all()


def test_the_decision_line_is_half_red() -> None:
    pixels = np.asarray(draw_hint(np.full((3, 3), 0.5, np.float32), (9, 9)))
    assert (pixels[..., 0] == 127).all()


@pytest.mark.parametrize("size_wh", [(1, 1), (1, 60), (60, 1)])
def test_pictures_of_any_shape_have_a_hint(size_wh: tuple[int, int]) -> None:
    assert draw_hint(np.zeros((96, 96), np.float32), size_wh).size == size_wh


def test_values_beyond_the_range_are_clipped() -> None:
    pixels = np.asarray(draw_hint(np.array([[-3.0, 9.0]], np.float32), (2, 1)))
    assert pixels[0, :, 0].tolist() == [0, 255]


def test_regions_are_boxes_of_the_picture_highest_peak_first() -> None:
    levels = np.zeros((40, 50), np.float32)
    levels[4:8, 10:20] = 0.6
    levels[30:32, 40:44] = 0.9
    regions = find_regions(Anomaly(levels, 0.9), (500, 200))
    assert [region.box_xyxy for region in regions] == [(400, 150, 440, 160), (100, 20, 200, 40)]
    assert [region.confidence for region in regions] == pytest.approx([0.9, 0.6])


def test_what_the_detector_makes_of_regions_goes_before_the_map() -> None:
    levels = np.zeros((40, 80), np.float32)
    levels[4:8, 10:20] = 0.6
    seen = (SeenRegion((9.5, 4.0, 22.0, 8.0), 0.6, "dent"),)
    (region,) = find_regions(Anomaly(levels, 0.9, seen), (160, 120))
    assert region == Region((19.0, 12.0, 44.0, 24.0), "dent", confidence=0.6)
    hint = describe_hint(Anomaly(levels, 0.9, seen), (80, 40), (80, 40), "absolute")
    assert [region.kind for region in hint.regions] == ["dent"]
    assert find_regions(Anomaly(levels, 0.9, ()), (160, 120)) == []


def test_scores_near_one_can_still_be_told_apart() -> None:
    scores = (0.0, 0.01, 0.5, 0.99, 0.999, 1.0)
    assert [scale_score(score) for score in scores] == [0, 27, 50, 73, 85, 100]


def test_parts_of_a_region_that_nearly_touch_are_one() -> None:
    levels = np.zeros((40, 40), np.float32)
    levels[10:20, 10:12] = levels[10:20, 14:16] = 0.8
    assert len(find_regions(Anomaly(levels, 0.9), (40, 40))) == 1
    levels[10:20, 24:26] = 0.8
    assert len(find_regions(Anomaly(levels, 0.9), (40, 40))) == 2


def test_faint_and_tiny_areas_are_no_regions() -> None:
    levels = np.zeros((40, 40), np.float32)
    levels[5:15, 5:15] = 0.45
    levels[30, 30] = 1.0
    assert find_regions(Anomaly(levels, 0.9), (40, 40)) == []


def test_regions_are_bounded_in_number() -> None:
    levels = np.zeros((80, 80), np.float32)
    levels[::8, ::8] = levels[1::8, ::8] = 0.9
    assert len(find_regions(Anomaly(levels, 0.9), (80, 80))) == MOST_REGIONS


def test_a_hint_is_worded_in_the_models_frame_and_in_reading_order() -> None:
    levels = np.zeros((40, 40), np.float32)
    levels[30:32, 2:6] = 0.95
    levels[4:8, 10:20] = 0.61
    hint = describe_hint(Anomaly(levels, 0.876), (400, 400), (80, 80), "absolute")
    assert hint.score == 60
    assert hint.regions == (
        HintRegion((20, 8, 40, 16), 61, "top"),
        HintRegion((4, 60, 12, 64), 95, "bottom left"),
    )
    relative = describe_hint(Anomaly(levels, 0.1), (400, 400), (80, 80), "relative_1000")
    assert relative.regions[0].box == (250, 100, 500, 200)


def test_a_told_box_is_the_maps_own_again_and_another_stays_as_it_is() -> None:
    levels = np.zeros((40, 40), np.float32)
    levels[11:12, 3:6] = levels[30:36, 20:40] = 0.9
    anomaly, small, shown, original = Anomaly(levels, 0.9), (100, 100), (56, 56), (3000, 2000)
    told = describe_hint(anomaly, small, shown, "absolute").regions
    boxes = [to_original(region.box, shown, original, "absolute") for region in told]
    other = (boxes[0][0], boxes[0][1], boxes[0][2] + 1.0, boxes[0][3])
    restored = restore_boxes([*boxes, other], anomaly, small, shown, original, "absolute")
    assert restored == [(225, 550, 450, 600), (1500, 1500, 3000, 1800), other]
    assert boxes[0] != restored[0]


def test_a_finding_has_the_maps_own_box(tmp_path: Path) -> None:
    def script(prompt: Prompt, pictures: object) -> str:
        return anomalous(prompt.listed.regions[0].box)

    path = make_picture(tmp_path / "part.png", (100, 77))
    found = make_inspector(script).inspect(path).finding
    assert found.defects[0].box_xyxy == pytest.approx((37.5, 77 / 3, 62.5, 154 / 3))
