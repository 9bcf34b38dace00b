"""Normal pictures taken from photographs: a user's own parts, or crops of materials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.images import find_images, load_image
from anomalyr1.types import InputError

Picture = NDArray[np.uint8]

_LEAST_SIDE = 16
"""Pixels: below it there is nothing to enlarge."""


@dataclass(frozen=True, slots=True)
class NormalPart:
    """A picture, where the part is in it, and the structural defect when one was drawn.

    `image` uint8 (H, W, 3) RGB; `part` and `defect` bool (H, W).
    """

    image: Picture
    part: NDArray[np.bool_]
    defect: NDArray[np.bool_] | None = None


DrawPart = Callable[[int, str | None], NormalPart]
"""From the number of a photograph and a structural defect, or None, to the picture."""


@lru_cache(maxsize=2)
def load_normals(folder: Path, max_side: int) -> tuple[Picture, ...]:
    """All pictures of a folder, RGB, shrunk to `max_side`. Raises InputError when there is none."""
    pictures = []
    for path in find_images([folder]):
        image = load_image(path)
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        pictures.append(np.asarray(image))
    return tuple(pictures)


def crop_material(
    folder: Path, index: int, size: int, rng: np.random.Generator
) -> tuple[str, DrawPart]:
    """A product cut from one photograph of a material: its name, and a function of the instance.

    The design (zoom, colour, contrast, turn, grey or not) is drawn once; each instance is another
    crop of it with its own light and noise. Raises InputError for a photograph too small to crop.
    """
    pictures = load_normals(folder, 1024)
    names = [path.stem for path in find_images([folder])]
    number = index % len(pictures)
    source = pictures[number]
    if min(source.shape[:2]) < _LEAST_SIDE:
        raise InputError(
            f"photograph {names[number]} is {source.shape[1]}x{source.shape[0]} pixels, too small "
            f"to crop a material from: give pictures of {_LEAST_SIDE} pixels a side or more"
        )
    zoom = float(rng.uniform(0.5, 1.6))
    grey = rng.random() < 0.4
    gain = rng.uniform(0.75, 1.25, 3)
    gamma = float(rng.uniform(0.7, 1.5))
    turn = int(rng.integers(4))
    seed = int(rng.integers(2**31))

    def draw(instance: int, variant: str | None) -> NormalPart:
        own = np.random.default_rng([seed, instance])
        side = int(min(size / zoom, min(source.shape[:2]) - 1))
        top = int(own.integers(source.shape[0] - side))
        left = int(own.integers(source.shape[1] - side))
        crop = np.rot90(source[top : top + side, left : left + side], turn)
        image = cv2.resize(
            np.ascontiguousarray(crop), (size, size), interpolation=cv2.INTER_AREA
        ).astype(np.float32)
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2) if grey else image * gain
        image = 255.0 * (np.clip(image, 0, 255) / 255.0) ** gamma
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        light = 1 + own.uniform(-0.15, 0.15) * ramp[:, None] + own.uniform(-0.15, 0.15) * ramp
        image = image * light[..., None] * own.uniform(0.9, 1.1)
        noise = own.normal(0, own.uniform(0.5, 3), (size, size, 1 if grey else 3))
        pixels = np.clip(image + noise, 0, 255).astype(np.uint8)
        return NormalPart(pixels, np.ones((size, size), bool))

    return f"photo {names[number]}", draw
