"""Boxes: overlap, masks to boxes, and the change of frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyr1.geometry import (
    box_area,
    box_from_mask,
    box_intersection,
    box_iou,
    boxes_from_mask,
    clip_box,
    grid_words,
    match_boxes,
    to_model,
    to_original,
)
from anomalyr1.types import Box, BoxFrame, InputError

SIDES = st.floats(-2000, 2000, allow_nan=False)
ANY_BOX = st.tuples(SIDES, SIDES, SIDES, SIDES)
SIZES = st.tuples(st.integers(28, 2000), st.integers(28, 2000))
PROPERTY = settings(max_examples=200, deadline=None, database=None)


def build_mask(*rows: str) -> np.ndarray:
    """`#` is a defect pixel."""
    return np.array([[character == "#" for character in row] for row in rows])


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1.0),  # one pixel, identical: 0 where boxes are closed
        ((0, 0, 4, 4), (0, 0, 4, 2), 0.5),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # half-open boxes that touch share nothing
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),
        ((3, 3, 3, 3), (3, 3, 3, 3), 0.0),
        ((0, 0, 0, 5), (0, 0, 5, 5), 0.0),
        ((4, 4, 0, 0), (0, 0, 4, 4), 0.0),  # corners the wrong way round
    ],
)
def test_iou_of_known_boxes(first: Box, second: Box, iou: float) -> None:
    assert box_iou(first, second) == pytest.approx(iou)


@PROPERTY
@given(first=ANY_BOX, second=ANY_BOX)
def test_iou_is_symmetric_and_between_0_and_1(first: Box, second: Box) -> None:
    assert 0 <= box_iou(first, second) <= 1
    assert box_iou(first, second) == box_iou(second, first)
    assert box_intersection(first, second) <= min(box_area(first), box_area(second))


@PROPERTY
@given(box=ANY_BOX)
def test_a_box_has_iou_1_with_itself_unless_degenerate(box: Box) -> None:
    assert box_iou(box, box) == (1.0 if box_area(box) > 0 else 0.0)


def test_a_box_is_clipped_to_the_picture_or_gone() -> None:
    assert clip_box((-5, 2, 20, 9), (10, 8)) == (0.0, 2.0, 10.0, 8.0)
    assert clip_box((10, 0, 12, 4), (10, 8)) is None


def test_a_mask_gives_the_box_around_its_pixels() -> None:
    mask = build_mask(".....", "..##.", ".#...", ".....")
    assert box_from_mask(mask) == (1.0, 1.0, 4.0, 3.0)


def test_a_single_pixel_gives_a_box_of_one_pixel() -> None:
    assert box_from_mask(build_mask("..", ".#")) == (1.0, 1.0, 2.0, 2.0)


@pytest.mark.parametrize("mask", [np.zeros((3, 3), bool), np.ones((3, 3)), np.ones(3, bool)])
def test_a_mask_that_cannot_have_a_box_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask"):
        box_from_mask(mask)


def test_components_touching_at_a_corner_are_one_defect() -> None:
    assert boxes_from_mask(build_mask("#..", ".#.", "...")) == [(0.0, 0.0, 2.0, 2.0)]


def test_defects_come_largest_first() -> None:
    mask = build_mask("#...##", "....##")
    assert boxes_from_mask(mask) == [(4.0, 0.0, 6.0, 2.0), (0.0, 0.0, 1.0, 1.0)]


def test_small_defects_are_left_out() -> None:
    assert boxes_from_mask(build_mask("#...##"), min_area=2) == [(4.0, 0.0, 6.0, 1.0)]


@pytest.mark.parametrize(("merge_gap", "count"), [(0, 2), (1, 2), (3, 2), (4, 1), (5, 1)])
def test_components_nearer_than_the_gap_are_merged(merge_gap: int, count: int) -> None:
    for mask in (build_mask("#...#"), build_mask("#...#").T, build_mask("#...#")[:, ::-1]):
        assert len(boxes_from_mask(mask, merge_gap=merge_gap)) == count


def test_merging_does_not_make_boxes_larger_than_their_pixels() -> None:
    mask = np.zeros((50, 50), bool)
    mask[20, 20] = mask[20, 24] = True
    assert boxes_from_mask(mask, merge_gap=9) == [(20.0, 20.0, 25.0, 21.0)]


def test_an_empty_mask_has_no_boxes() -> None:
    assert boxes_from_mask(np.zeros((4, 4), bool), merge_gap=5) == []


@pytest.mark.parametrize(
    ("box", "shown", "original", "frame", "expected"),
    [
        ((0, 0, 448, 448), (448, 448), (900, 600), "absolute", (0, 0, 900, 600)),
        ((112, 56, 224, 112), (448, 224), (896, 896), "absolute", (224, 224, 448, 448)),
        ((0, 500, 1000, 1000), (448, 224), (300, 200), "relative_1000", (0, 100, 300, 200)),
    ],
)
def test_model_boxes_land_in_the_original_picture(
    box: Box, shown: tuple[int, int], original: tuple[int, int], frame: BoxFrame, expected: Box
) -> None:
    assert to_original(box, shown, original, frame) == expected


@pytest.mark.parametrize("frame", ["absolute", "relative_1000"])
@PROPERTY
@given(data=st.data(), shown=SIZES, original=SIZES)
def test_a_box_survives_the_round_trip_within_one_model_unit(
    frame: BoxFrame, data: st.DataObject, shown: tuple[int, int], original: tuple[int, int]
) -> None:
    corners = [
        sorted(data.draw(st.tuples(st.floats(0, side - 1e-3), st.floats(1e-3, side))))
        for side in original
    ]
    (left, right), (top, bottom) = corners
    right, bottom = max(right, left + 1e-3), max(bottom, top + 1e-3)
    model_box = to_model((left, top, right, bottom), shown, original, frame)
    limits = shown if frame == "absolute" else (1000, 1000)
    assert 0 <= model_box[0] < model_box[2] <= limits[0]
    assert 0 <= model_box[1] < model_box[3] <= limits[1]
    back = to_original(model_box, shown, original, frame)
    for axis, (before, after) in enumerate(zip((left, top, right, bottom), back, strict=True)):
        unit = original[axis % 2] / limits[axis % 2]
        assert abs(before - after) <= unit + 1e-2


@PROPERTY
@given(data=st.data(), shown=SIZES, original=SIZES)
def test_whole_model_boxes_survive_the_round_trip_exactly(
    data: st.DataObject, shown: tuple[int, int], original: tuple[int, int]
) -> None:
    left, top = data.draw(st.tuples(st.integers(0, shown[0] - 1), st.integers(0, shown[1] - 1)))
    right = data.draw(st.integers(left + 1, shown[0]))
    bottom = data.draw(st.integers(top + 1, shown[1]))
    box = (left, top, right, bottom)
    back = to_original(box, shown, original, "absolute")
    assert to_model(back, shown, original, "absolute") == box


def test_a_box_reaching_out_of_the_picture_is_clipped_for_the_model() -> None:
    assert to_model((-4, 0, 50, 20), (80, 40), (40, 20), "absolute") == (0, 0, 80, 40)


@pytest.mark.parametrize(
    "box", [(50, 0, 60, 5), (3, 3, 3, 5), (5, 5, 3, 3), (0, 0, float("inf"), 5)]
)
def test_a_box_that_covers_nothing_is_refused(box: Box) -> None:
    with pytest.raises(InputError, match="40x20"):
        to_model(box, (80, 40), (40, 20), "absolute")


def test_an_unknown_frame_and_an_empty_picture_are_refused() -> None:
    with pytest.raises(InputError, match="box frame"):
        to_original((0, 0, 1, 1), (4, 4), (4, 4), "relative")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0x4"):
        to_original((0, 0, 1, 1), (0, 4), (4, 4), "absolute")


def test_boxes_are_matched_for_the_largest_total_overlap() -> None:
    # Greedy matching would give the first prediction its best partner and strand the second.
    predicted: list[Box] = [(0, 0, 10, 10), (0, 0, 10, 8)]
    true: list[Box] = [(0, 0, 10, 9), (0, 2, 10, 12)]
    assert [pair[:2] for pair in match_boxes(predicted, true)] == [(0, 1), (1, 0)]


def test_boxes_without_overlap_are_not_matched() -> None:
    assert match_boxes([(0, 0, 1, 1)], [(5, 5, 6, 6)]) == []
    assert match_boxes([], [(5, 5, 6, 6)]) == []
    assert match_boxes([(0, 0, 1, 1)], []) == []


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        ((10, 10), "top left"),
        ((45, 10), "top"),
        ((80, 10), "top right"),
        ((10, 25), "left"),
        ((45, 25), "centre"),
        ((80, 25), "right"),
        ((10, 50), "bottom left"),
        ((45, 50), "bottom"),
        ((90, 60), "bottom right"),  # the last pixel border belongs to the last cell
    ],
)
def test_places_are_named_on_a_3x3_grid(middle: tuple[float, float], words: str) -> None:
    column, row = middle
    assert grid_words((column - 2, row - 2, column + 2, row + 2), (90, 60)) == words
