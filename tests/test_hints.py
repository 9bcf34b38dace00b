"""The hint picture: red is the map, green and blue say where."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyr1.hints import draw_hint


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
