"""Drawn parts: the same from the same seed, and truthful about where a defect is."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyr1.data.drawing import OBJECTS, STRUCTURAL_DEFECTS, SURFACES, draw_part
from anomalyr1.data.sketches import CANVAS, Sketch, draw_box, draw_disc
from anomalyr1.types import InputError

VARIANTS = [(name, kind) for name, kinds in STRUCTURAL_DEFECTS.items() for kind in kinds]


@pytest.mark.parametrize("category", (*SURFACES, *OBJECTS))
def test_a_drawing_depends_on_its_seed_and_instance_and_on_nothing_else(category: str) -> None:
    drawn = draw_part(category, 5, 96)
    assert drawn.image.shape == (96, 96, 3) and drawn.image.dtype == np.uint8
    assert drawn.part.shape == drawn.defect.shape == (96, 96)
    assert drawn.part.any() and not drawn.defect.any()
    np.testing.assert_array_equal(drawn.image, draw_part(category, 5, 96).image)
    assert (drawn.image != draw_part(category, 6, 96).image).any()
    assert (drawn.image != draw_part(category, 5, 96, instance=1).image).any()


@pytest.mark.parametrize("category", SURFACES)
def test_a_surface_fills_its_picture(category: str) -> None:
    assert draw_part(category, 1, 64).part.all()


@pytest.mark.parametrize(("category", "variant"), VARIANTS)
def test_a_structural_defect_changes_the_picture_only_where_it_says(
    category: str, variant: str
) -> None:
    seen = 0
    for seed in range(4):
        normal = draw_part(category, seed, 160)
        spoiled = draw_part(category, seed, 160, variant)
        changed = (normal.image != spoiled.image).any(axis=2)
        assert not (changed & ~spoiled.defect).any()
        assert spoiled.defect.mean() < 0.5
        seen += bool(spoiled.defect.any())
    assert seen >= 2, "the defect is hardly ever visible"


def test_an_etched_board_is_black_and_white_and_keeps_its_layout() -> None:
    for seed in range(3):
        first = draw_part("etched_board", seed).image
        second = draw_part("etched_board", seed, instance=1).image
        assert set(np.unique(first)) == {0, 255}
        assert 0 < (first != second).any(axis=2).mean() < 0.12, "only edges may differ"


def test_a_loose_part_lies_elsewhere_in_the_next_photograph_and_a_connector_does_not() -> None:
    def overlap(category: str) -> float:
        first, second = (draw_part(category, 2, 160, instance=number).part for number in (0, 1))
        return float((first & second).sum() / (first | second).sum())

    assert overlap("screw") < 0.8
    assert overlap("connector") > 0.85


@pytest.mark.parametrize(("category", "variant"), [("gear", "missing part"), ("screw", "bent")])
def test_a_defect_is_drawn_the_same_every_time(category: str, variant: str) -> None:
    first, second = (draw_part(category, 3, 96, variant, instance=2) for _time in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.defect, second.defect)


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'spoon' is not drawn; choose .*gear"):
        draw_part("spoon", 0)


@pytest.mark.parametrize("category", ["wood", "screw", "nut_kernel"])
def test_a_defect_that_a_drawing_cannot_show_is_refused(category: str) -> None:
    with pytest.raises(InputError, match=f"{category} cannot be drawn with 'thread pull'"):
        draw_part(category, 0, 64, "thread pull")


@pytest.mark.parametrize("category", (*SURFACES, *OBJECTS))
def test_two_photographs_of_a_product_look_more_alike_than_two_products(category: str) -> None:
    def tones(seed: int, instance: int) -> np.ndarray:
        pixels = draw_part(category, seed, 96, instance=instance).image.reshape(-1, 3)
        return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])

    first, second = (np.array([tones(seed, number) for seed in range(8)]) for number in (0, 1))
    own = np.abs(first - second).mean()
    others = np.abs(first - np.roll(second, 1, axis=0)).mean()
    assert own < 0.6 * others


def test_a_layer_changes_a_sketch_only_under_its_shape() -> None:
    sketch = Sketch()
    sketch.add(draw_box(100, 100, 400, 400), np.full(3, 0.5, np.float32), 20, 8)
    before = sketch.colour.copy(), sketch.height.copy(), sketch.inside.copy()
    spot = draw_disc(250, 250, 20)
    sketch.add(spot, np.ones(3, np.float32), 5, 3)
    sketch.tint(spot, np.zeros(3, np.float32), 0.5)
    sketch.darken(spot, 0.5)
    sketch.cut(spot)
    after = sketch.colour, sketch.height, sketch.inside
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[spot == 0], new[spot == 0])
    np.testing.assert_allclose(sketch.colour[250, 250], 0.25)
    assert sketch.inside[250, 250] == sketch.height[250, 250] == 0


def test_a_shape_outside_the_canvas_changes_nothing() -> None:
    sketch = Sketch()
    sketch.add(draw_box(CANVAS + 9, 0, CANVAS + 90, 50), np.ones(3, np.float32), 5, 3)
    assert not sketch.inside.any() and not sketch.colour.any() and not sketch.height.any()
