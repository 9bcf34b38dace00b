"""Overlays keep the picture's size, put marks where the defect is, and accept any label."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from anomalyr1.reporting.overlays import (
    DEFECT_COLOURS,
    MAX_SIDE,
    VERDICT_COLOURS,
    clean_text,
    draw_map,
    draw_overlay,
)
from anomalyr1.types import InputError


def make_picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (120, 120, 120))


def compute_luminance(colour: tuple[int, int, int]) -> float:
    """WCAG 2.2 relative luminance."""
    linear = [
        side / 12.92 if side <= 0.04045 else ((side + 0.055) / 1.055) ** 2.4
        for side in (part / 255 for part in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("size_wh", "drawn_wh"),
    [
        ((1, 1), (1, 1)),
        ((7, 300), (7, 300)),
        ((64, 64), (64, 64)),
        ((1600, 1200), (1600, 1200)),
        ((4096, 1024), (MAX_SIDE, 512)),
        ((3, 9000), (1, MAX_SIDE)),
    ],
)
def test_the_drawn_picture_has_the_size_of_the_photograph_up_to_the_limit(
    size_wh: tuple[int, int], drawn_wh: tuple[int, int]
) -> None:
    mask = np.ones(size_wh[::-1], bool)
    box = (0.0, 0.0, float(size_wh[0]), float(size_wh[1]))
    drawn = draw_overlay(make_picture(*size_wh), [mask], [box], ["dent"], "anomalous", 0.9)
    assert (drawn.size, drawn.mode) == (drawn_wh, "RGB")
    assert draw_map(np.ones((3, 5), np.float32), size_wh).size == drawn_wh


def test_a_mask_changes_the_defect_and_nothing_far_from_it() -> None:
    mask = np.zeros((200, 300), bool)
    mask[120:160, 200:260] = True
    pixels = np.asarray(draw_overlay(make_picture(300, 200), [mask], [], [], "anomalous", None))
    changed = (pixels != 120).any(axis=2)
    assert changed[120:160, 200:260].all()
    assert not changed[100:, :190].any()


def test_the_box_is_half_open_and_its_tag_stands_above_it() -> None:
    picture = make_picture(400, 400)
    drawn = draw_overlay(picture, [], [(100.0, 200.0, 300.0, 350.0)], ["dent"], "unread", None)
    assert drawn.getpixel((100, 300)) == DEFECT_COLOURS[0]
    assert drawn.getpixel((299, 300)) == DEFECT_COLOURS[0]
    assert drawn.getpixel((200, 275)) == (120, 120, 120)
    assert drawn.getpixel((310, 300)) == (120, 120, 120)
    assert (np.asarray(drawn)[175:198, 100:140] != 120).any()


def test_a_hairline_crack_survives_the_scaling_of_a_large_photograph() -> None:
    mask = np.zeros((64, 8192), bool)
    mask[:, 4001] = True
    drawn = np.asarray(draw_overlay(make_picture(8192, 64), [mask], [], [], "anomalous", None))
    assert (drawn[:, 995:1006] != 120).any()


@pytest.mark.parametrize(
    "box",
    [
        (-50.0, -50.0, 500.0, 500.0),
        (90.0, 90.0, 10.0, 10.0),
        (99.9, 99.9, 100.0, 100.0),
        (500.0, 500.0, 600.0, 600.0),
        (50.0, 50.0, 50.0, 50.0),
    ],
)
def test_a_box_outside_the_picture_or_empty_is_still_drawn(
    box: tuple[float, float, float, float],
) -> None:
    drawn = draw_overlay(make_picture(100, 100), [], [box], ["dent"], "normal", 0.1)
    assert drawn.size == (100, 100)


@pytest.mark.parametrize("label", ["", "\ud83d", "a\nb\x00", "w" * 5000, "表面の傷", "\u202egpj"])
def test_any_label_can_be_drawn(label: str) -> None:
    drawn = draw_overlay(make_picture(200, 150), [], [(9, 9, 50, 50)], [label], "anomalous", 1.0)
    assert drawn.size == (200, 150)


def test_many_defects_in_one_place_are_drawn() -> None:
    boxes = [(20.0, 20.0, 60.0, 60.0)] * 30
    drawn = draw_overlay(make_picture(200, 200), [], boxes, ["chip"] * 30, "anomalous", 0.5)
    assert drawn.size == (200, 200)


def test_the_photograph_itself_is_left_as_it_was() -> None:
    picture = make_picture(100, 100)
    draw_overlay(picture, [np.ones((100, 100), bool)], [], [], "anomalous", 0.5)
    assert np.asarray(picture).min() == np.asarray(picture).max() == 120


@pytest.mark.parametrize(
    ("masks", "boxes", "labels", "problem"),
    [
        ([np.ones((10, 20), bool)], [], [], "a mask is 20 x 10, the picture is 30 x 30"),
        ([], [(0.0, 0.0, 1.0, 1.0)], [], "1 boxes came with 0 labels"),
        ([], [(0.0, 0.0, float("nan"), 1.0)], ["a"], "is not finite"),
    ],
)
def test_what_does_not_fit_the_picture_is_refused(
    masks: list[np.ndarray], boxes: list[tuple[float, ...]], labels: list[str], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        draw_overlay(make_picture(30, 30), masks, boxes, labels, "anomalous", 0.5)  # type: ignore[arg-type]


def test_tags_have_readable_contrast() -> None:
    for colour in DEFECT_COLOURS:
        assert (compute_luminance(colour) + 0.05) / (compute_luminance((16, 16, 16)) + 0.05) >= 4.5
    for colour in VERDICT_COLOURS.values():
        assert 1.05 / (compute_luminance(colour) + 0.05) >= 4.5


def test_the_heat_map_grows_evenly_brighter_on_a_fixed_scale() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None, :]
    colours = np.asarray(draw_map(ramp, (256, 1)))[0]
    luminances = [compute_luminance(tuple(int(part) for part in colour)) for colour in colours]
    assert np.all(np.diff(luminances) > -1e-3)
    assert luminances[0] < 0.01 and luminances[-1] > 0.9
    quiet = np.asarray(draw_map(np.full((4, 4), 0.1, np.float32), (8, 8)))
    assert compute_luminance(tuple(int(part) for part in quiet[0, 0])) < 0.05


def test_map_values_beyond_the_scale_are_drawn_at_its_ends() -> None:
    drawn = np.asarray(draw_map(np.array([[-1.0, 2.0]], np.float32), (2, 1)))
    ends = np.asarray(draw_map(np.array([[0.0, 1.0]], np.float32), (2, 1)))
    assert np.array_equal(drawn, ends)


@pytest.mark.parametrize(
    "anomaly_map",
    [np.zeros((0, 3)), np.zeros((2, 2, 3)), np.full((2, 2), np.nan)],
)
def test_a_map_that_cannot_be_drawn_is_refused(anomaly_map: np.ndarray) -> None:
    with pytest.raises(InputError, match="an anomaly map"):
        draw_map(anomaly_map, (10, 10))


def test_cleaned_text_is_one_visible_line() -> None:
    assert clean_text("a\n\tb\x07\u202ec\ud800 ") == "a bc?"
