"""Surfaces that fill the picture, as an inspection camera would see them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]


def smooth_noise(
    rng: np.random.Generator, size: int, cells_x: float, cells_y: float | None = None
) -> Plane:
    """Noise (size, size) of about unit spread with so many cells across and down."""
    down = cells_x if cells_y is None else cells_y
    coarse = rng.normal(size=(max(2, int(down)), max(2, int(cells_x)))).astype(np.float32)
    plane = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray((plane - plane.mean()) / (plane.std() + 1e-6), np.float32)


def photograph(
    plane: NDArray[np.float32], own: np.random.Generator, design: np.random.Generator
) -> Picture:
    """Light, vignette, blur and noise of one photograph; plane (H, W, 3) in [0, 1]."""
    size = plane.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = design.uniform(0, 0.25)
    light = 1 + slope * own.uniform(-1, 1) * ramp[:, None] + slope * own.uniform(-1, 1) * ramp[None]
    light -= design.uniform(0, 0.2) * (ramp[:, None] ** 2 + ramp[None] ** 2)
    light *= own.uniform(0.92, 1.08)
    picture = plane * light[..., None]
    blur = design.uniform(0.0, 1.1)
    if blur > 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    grain = design.uniform(0.003, 0.025)
    noise = own.normal(0, grain, (*plane.shape[:2], 1 if design.random() < 0.5 else 3))
    noisy = picture + noise
    noisy *= 255
    return np.asarray(np.clip(noisy, 0, 255, out=noisy), np.uint8)


def tint(plane: Plane, design: np.random.Generator, grey_share: float = 0.5) -> NDArray[np.float32]:
    """A grey plane in [0, 1] to RGB: grey, or between a dark and a light shade of one hue."""
    if design.random() < grey_share:
        return np.repeat(plane[..., None], 3, axis=2)
    hue, saturation = design.uniform(0, 179), design.uniform(40, 200)
    second = (hue + design.uniform(-12, 12)) % 180
    shades = np.array([[[hue, saturation, 255], [second, saturation * 0.6, 255]]]).astype(np.uint8)
    light, other = cv2.cvtColor(shades, cv2.COLOR_HSV2RGB)[0].astype(np.float32) / 255
    grey = plane[..., None]
    return np.asarray(grey * ((1 - grey) * light + grey * other), np.float32)


def _metal(design: np.random.Generator, own: np.random.Generator, size: int) -> Plane:
    plane = np.full((size, size), design.uniform(0.3, 0.65), np.float32)
    for cells, share in ((300, 0.03), (90, 0.03), (25, 0.025), (7, 0.03)):
        plane += (
            share * design.uniform(0.3, 1.6) * smooth_noise(own, size, cells, design.uniform(2, 5))
        )
    bands = smooth_noise(own, size, design.uniform(5, 14), 3)
    plane += design.uniform(0, 0.12) * np.maximum(bands - 0.8, 0)
    plane += design.uniform(0, 0.05) * smooth_noise(own, size, 4)
    plane += design.uniform(0, 0.012) * smooth_noise(own, size, 40)
    return plane


def brushed_metal(seed: int, size: int, instance: int) -> Picture:
    """Fine parallel grain, along one side or the other."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    plane = _metal(design, own, size)
    if design.random() < 0.5:
        plane = plane.T
    return photograph(tint(np.clip(plane, 0, 1), design, 0.7), own, design)


def ground_metal_tile(seed: int, size: int, instance: int) -> Picture:
    """Ground metal, unevenly lit, with smudges and often a dark uneven margin."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    plane = _metal(design, own, size)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    plane *= 1 + own.uniform(-0.45, 0.45) * ramp[None] + own.uniform(-0.25, 0.25) * ramp[:, None]
    if own.random() < 0.6:
        # Smudges and faint fine marks are normal on ground tiles.
        smudge = smooth_noise(own, size, own.uniform(4, 10))
        plane *= 1 - own.uniform(0.02, 0.08) * np.clip(smudge, 0, 2)
    inside = np.ones((size, size), np.float32)
    for side in range(4):
        if own.random() < 0.45:
            depth = own.uniform(0.005, 0.06) * size
            edge = (
                depth + own.uniform(0, 0.012) * size * smooth_noise(own, size, own.uniform(3, 9))[0]
            )
            distance = np.arange(size, dtype=np.float32)[:, None] - edge[None]
            inside = np.minimum(inside, np.rot90(np.clip(distance / 2 + 0.5, 0, 1), side))
    rim = cv2.GaussianBlur(inside, (0, 0), 3) - inside
    plane = plane * (0.12 + 0.88 * inside) + 0.25 * design.random() * np.maximum(-rim, 0)
    if design.random() < 0.3:
        plane = plane.T
    return photograph(tint(np.clip(plane, 0, 1), design, 0.95), own, design)


def woven_fabric(seed: int, size: int, instance: int) -> Picture:
    """Warp and weft of one of three weaves, some of them checked."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    period = design.uniform(5, 22)
    angle = design.uniform(-0.1, 0.1) + own.uniform(-0.03, 0.03)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    across = columns * np.cos(angle) + rows * np.sin(angle) + own.uniform(0, 99)
    down = rows * np.cos(angle) - columns * np.sin(angle) + own.uniform(0, 99)
    across += 0.8 * smooth_noise(own, size, 12)
    down += 0.8 * smooth_noise(own, size, 12)
    warp, weft = np.sin(2 * np.pi * across / period), np.sin(2 * np.pi * down / period)
    kind = design.integers(3)
    plane = (
        warp * weft
        if kind == 0
        else np.maximum(warp, weft)
        if kind == 1
        else np.sin(2 * np.pi * across / period + 1.2 * np.sin(2 * np.pi * down / period))
    )
    plane = 0.5 + design.uniform(0.08, 0.25) * plane
    if design.random() < 0.4:
        check = period * design.integers(4, 9)
        strength = design.uniform(0.05, 0.2)
        upright, level = (np.sign(np.sin(2 * np.pi * along / check)) for along in (across, down))
        plane += strength * (upright + level) / 2
    plane += 0.04 * smooth_noise(own, size, size / 2)
    return photograph(tint(np.clip(plane, 0, 1), design, 0.4), own, design)


def wood(seed: int, size: int, instance: int) -> Picture:
    """Rings and fibres, brown or grey."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    rings = (
        3 * smooth_noise(own, size, 2.5, 1.5) + np.linspace(0, design.uniform(8, 30), size)[None]
    )
    plane = 0.55 + design.uniform(0.05, 0.15) * np.sin(rings + 0.5 * smooth_noise(own, size, 8, 3))
    plane += design.uniform(0.02, 0.06) * smooth_noise(own, size, 200, 5)
    plane = np.asarray(plane, np.float32)
    if design.random() < 0.5:
        plane = np.ascontiguousarray(plane.T)
    brown = np.array([1.0, design.uniform(0.6, 0.85), design.uniform(0.3, 0.65)], np.float32)
    colour = np.clip(plane, 0, 1)[..., None] * (brown if design.random() < 0.75 else 1.0)
    return photograph(np.broadcast_to(colour, (size, size, 3)).astype(np.float32), own, design)


def leather(seed: int, size: int, instance: int) -> Picture:
    """Grain of bumps and ridges."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    cells = design.uniform(25, 70)
    bumps = cv2.GaussianBlur(smooth_noise(own, size, cells), (0, 0), 1.2)
    ridges = np.abs(bumps) + 0.5 * np.abs(smooth_noise(own, size, cells * 0.5))
    plane = (
        0.3 + design.uniform(0.06, 0.14) * np.tanh(1.5 * ridges) + 0.02 * smooth_noise(own, size, 3)
    )
    return photograph(
        tint(np.clip(plane * design.uniform(0.8, 1.8), 0, 1), design, 0.3), own, design
    )


def ceramic_tile(seed: int, size: int, instance: int) -> Picture:
    """Glaze with veins and speckles."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    plane = np.full((size, size), design.uniform(0.45, 0.85), np.float32)
    if design.random() < 0.5:
        vein = np.abs(smooth_noise(own, size, 6) + 0.4 * smooth_noise(own, size, 20))
        plane -= design.uniform(0.03, 0.15) * np.exp(-vein * 6)
    speckles = smooth_noise(own, size, size / design.uniform(2, 6))
    plane += design.uniform(0.01, 0.05) * np.where(
        speckles > design.uniform(1, 2), design.choice([-3, 2]), 0
    )
    plane += design.uniform(0, 0.04) * smooth_noise(own, size, 5)
    return photograph(tint(np.clip(plane, 0, 1), design), own, design)


def carpet(seed: int, size: int, instance: int) -> Picture:
    """Fine random pile."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    fine = smooth_noise(own, size, size / design.uniform(1.5, 5))
    plane = 0.45 + design.uniform(0.06, 0.16) * fine + 0.05 * smooth_noise(own, size, size / 9)
    return photograph(tint(np.clip(plane, 0, 1), design, 0.4), own, design)


def painted_sheet(seed: int, size: int, instance: int) -> Picture:
    """Paint with faint orange peel."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    plane = np.full((size, size), design.uniform(0.25, 0.85), np.float32)
    plane += design.uniform(0, 0.025) * smooth_noise(own, size, size / design.uniform(3, 9))
    plane += design.uniform(0, 0.06) * smooth_noise(own, size, 3)
    return photograph(tint(np.clip(plane, 0, 1), design, 0.3), own, design)


SURFACE_DRAWERS: dict[str, Callable[[int, int, int], Picture]] = {
    "brushed_metal": brushed_metal,
    "ground_metal_tile": ground_metal_tile,
    "woven_fabric": woven_fabric,
    "wood": wood,
    "leather": leather,
    "ceramic_tile": ceramic_tile,
    "carpet": carpet,
    "painted_sheet": painted_sheet,
}
