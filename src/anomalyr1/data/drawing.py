"""Draws photographs of parts: surfaces that fill the picture and objects on a background.

`seed` decides the design of a product, `instance` one photograph of it: pose, light, noise. What
varies between instances is what a detector must learn to call normal.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.drawn_objects import OBJECT_DRAWERS, OBJECT_VARIANTS
from anomalyr1.data.drawn_surfaces import SURFACE_DRAWERS
from anomalyr1.types import InputError

SURFACES: tuple[str, ...] = tuple(SURFACE_DRAWERS)
OBJECTS: tuple[str, ...] = tuple(OBJECT_DRAWERS)
STRUCTURAL_DEFECTS: dict[str, tuple[str, ...]] = OBJECT_VARIANTS
"""Category to the defects that its own drawing can show."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """`image` uint8 (size, size, 3) RGB; `part` and `defect` bool (size, size): where the part is,
    and where a structural defect changed the picture (nowhere without one)."""

    image: NDArray[np.uint8]
    part: NDArray[np.bool_]
    defect: NDArray[np.bool_]


def draw_part(
    category: str, seed: int, size: int = 352, variant: str | None = None, instance: int = 0
) -> Drawn:
    """One photograph. Raises InputError for an unknown category or a variant it cannot draw."""
    nothing = np.zeros((size, size), bool)
    if category in SURFACE_DRAWERS:
        _refuse_variant(category, variant, ())
        image = SURFACE_DRAWERS[category](seed, size, instance)
        return Drawn(image, ~nothing, nothing)
    if category not in OBJECT_DRAWERS:
        known = ", ".join(SURFACES + OBJECTS)
        raise InputError(f"category {category!r} is not drawn; choose {known}")
    _refuse_variant(category, variant, STRUCTURAL_DEFECTS.get(category, ()))
    draw = OBJECT_DRAWERS[category]
    image, part = draw(seed, size, instance, None)
    if variant is None:
        return Drawn(image, part, nothing)
    spoiled, spoiled_part = draw(seed, size, instance, variant)
    gap = np.abs(spoiled.astype(np.int16) - image).max(axis=2) > 8
    changed = cv2.morphologyEx(gap.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)).astype(bool)
    return Drawn(np.where(changed[..., None], spoiled, image), part | spoiled_part, changed)


def _refuse_variant(category: str, variant: str | None, known: tuple[str, ...]) -> None:
    if variant is not None and variant not in known:
        raise InputError(f"{category} cannot be drawn with {variant!r}; choose one of {known}")
