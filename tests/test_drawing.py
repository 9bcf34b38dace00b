"""Drawn parts: the same from the same seed, and truthful about where a defect is."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyr1.data.drawing import OBJECTS, STRUCTURAL_DEFECTS, SURFACES, draw_part
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


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'spoon' is not drawn; choose .*gear"):
        draw_part("spoon", 0)


@pytest.mark.parametrize("category", ["wood", "screw", "nut_kernel"])
def test_a_defect_that_a_drawing_cannot_show_is_refused(category: str) -> None:
    with pytest.raises(InputError, match=f"{category} cannot be drawn with 'thread pull'"):
        draw_part(category, 0, 64, "thread pull")
