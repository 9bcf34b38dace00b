"""Flat shapes built up in a canonical frame, then placed, lit and photographed as an object."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.drawn_surfaces import Mask, Picture, Plane, photograph, smooth_noise

CANVAS = 512
"""Side of the canonical frame; the part's centre is its middle."""


class Sketch:
    """Layers of flat shapes in the canonical frame: height for shading, and colour."""

    def __init__(self) -> None:
        self.height = np.zeros((CANVAS, CANVAS), np.float32)
        self.colour = np.zeros((CANVAS, CANVAS, 3), np.float32)
        self.inside = np.zeros((CANVAS, CANVAS), np.float32)

    def add(self, shape: Plane, colour: NDArray[np.float32], height: float, bevel: float) -> None:
        """Put a shape (0 to 1, anti-aliased) on top, its rim rounded over `bevel` pixels."""
        window = _window_of(shape)
        shape = shape[window]
        distance = cv2.distanceTransform((shape > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        rounded = 1 - (1 - np.clip(distance / np.float32(bevel), 0, 1)) ** 2
        rise = np.float32(height) * np.sqrt(rounded)
        below = 1 - shape
        self.height[window] = self.height[window] * below + rise * shape
        self.colour[window] *= below[..., None]
        self.colour[window] += colour * shape[..., None]
        self.inside[window] = np.maximum(self.inside[window], shape)

    def cut(self, shape: Plane) -> None:
        """Take a shape away: the background shows."""
        window = _window_of(shape)
        self.height[window] *= 1 - shape[window]
        self.inside[window] *= 1 - shape[window]

    def darken(self, shape: Plane, share: float) -> None:
        """Take a share of the light from where the part lies under the shape."""
        window = _window_of(shape)
        covered = shape[window] * self.inside[window]
        self.colour[window] *= 1 - share * covered[..., None]

    def tint(
        self, shape: NDArray[np.floating[Any]], colour: NDArray[np.float32], share: float
    ) -> None:
        """Print a colour flat on the part, where the shape is."""
        window = _window_of(shape)
        painted = self.colour[window]
        painted += (colour - painted) * shape[window][..., None] * share


def _window_of(shape: NDArray[np.floating[Any]]) -> tuple[slice, slice]:
    """The box of a shape, two empty pixels around it so that its rim stays a rim."""
    left, top, width, height = cv2.boundingRect((shape > 0).astype(np.uint8))
    return (
        slice(max(0, top - 2), top + height + 2),
        slice(max(0, left - 2), left + width + 2),
    )


def draw_polygon(points: NDArray[np.float64]) -> Plane:
    """A filled polygon, anti-aliased, of corners (n, 2) as x, y: 0 to 1 on the canvas."""
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / np.float32(255)


def draw_disc(
    x: float, y: float, radius_x: float, radius_y: float | None = None, turn: float = 0
) -> Plane:
    """A filled ellipse, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius_y = radius_x if radius_y is None else radius_y
    points = np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], 1)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return draw_polygon(points @ rotation + [x, y])


def draw_box(left: float, top: float, right: float, bottom: float) -> Plane:
    """A filled upright rectangle."""
    return draw_polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def choose_shade(
    rng: np.random.Generator, low: float, high: float, vivid: float
) -> NDArray[np.float32]:
    """An RGB colour in [0, 1] of any hue, as bright as asked and at most so vivid."""
    hue, vividness, brightness = rng.uniform(0, 179), vivid * rng.random(), rng.uniform(low, high)
    hsv = np.array([[[hue, 255 * vividness, 255 * brightness]]]).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32) / np.float32(255)


def photograph_object(
    sketch: Sketch, seed: int, size: int, instance: int, *, loose: bool, reach: float = 200
) -> tuple[Picture, Mask]:
    """Place the sketch on a background, light it, cast a shadow, take the picture.

    `loose` parts lie anywhere and any way round; `reach` is their radius on the canvas.
    """
    design, own = (
        np.random.default_rng([seed, 0, 7]),
        np.random.default_rng([seed, instance + 1, 7]),
    )
    zoom = size / CANVAS * design.uniform(0.75, 1.15) * own.uniform(0.96, 1.04)
    turn = own.uniform(0, 360) if loose else own.uniform(-0.4, 0.4)
    free = max(0.0, size / 2 - reach * zoom)
    shift = own.uniform(-1, 1, 2) * (free * 0.6 if loose else 1.2)
    matrix = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), turn, zoom)
    matrix[:, 2] += size / 2 - CANVAS / 2 + shift
    height, inside, colour = (
        cv2.warpAffine(
            layer, matrix, (size, size), flags=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        )
        for layer in (sketch.height, sketch.inside, sketch.colour)
    )
    light = design.uniform(0, 2 * np.pi) + own.uniform(-0.2, 0.2)
    strength = design.uniform(0.02, 0.06)
    smooth = cv2.GaussianBlur(height, (0, 0), 1.0)
    slope_x, slope_y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    shading = 1 + np.clip(strength * (slope_x * np.cos(light) + slope_y * np.sin(light)), -0.6, 0.7)
    texture = 1 + design.uniform(0.01, 0.06) * smooth_noise(own, size, design.uniform(20, 120))
    texture += design.uniform(0, 0.06) * smooth_noise(own, size, design.uniform(4, 12))
    back = _background(design, own, size)
    drop = design.uniform(0.01, 0.04) * size
    shadow = np.roll(inside, (int(drop * np.sin(light)), int(drop * np.cos(light))), (0, 1))
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(1.0, drop)) * design.uniform(0.15, 0.6)
    back = back * (1 - shadow[..., None])
    # In place, here and in `photograph`: fresh arrays of this size cost more than the arithmetic.
    plane = colour * (shading * texture)[..., None]
    plane *= inside[..., None]
    back *= 1 - inside[..., None]
    plane += back
    if design.random() < 0.35:
        plane = np.repeat(plane.mean(axis=2, keepdims=True), 3, axis=2)
    return photograph(np.clip(plane, 0, 1).astype(np.float32), own, design), inside > 0.5


def _background(
    design: np.random.Generator, own: np.random.Generator, size: int
) -> NDArray[np.float32]:
    kind = design.random()
    shade = (
        choose_shade(design, 0.05, 0.3, 0.3)
        if kind < 0.35
        else choose_shade(design, 0.5, 1.0, 1.0 if kind < 0.7 else 0.1)
    )
    mottle = 1 + design.uniform(0, 0.06) * smooth_noise(own, size, design.uniform(3, 60))
    return np.asarray(shade * mottle[..., None], np.float32)


def choose_metal(design: np.random.Generator) -> NDArray[np.float32]:
    """The RGB colour of steel, brass or zinc."""
    return np.float32(design.uniform(0.45, 0.8)) * np.array(
        [[1, 1, 1], [1, 0.85, 0.55], [0.9, 0.95, 1.0]][int(design.integers(3))], np.float32
    )
