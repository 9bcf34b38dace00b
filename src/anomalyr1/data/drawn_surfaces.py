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
    return np.asarray(np.clip((picture + noise) * 255, 0, 255), np.uint8)


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


def _ramps(size: int) -> tuple[Plane, Plane]:
    """Columns (1, size) and rows (size, 1) from -1 to 1."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    return ramp[None], ramp[:, None]


def _develop(
    colour: NDArray[np.float32], design: np.random.Generator, own: np.random.Generator, grey: bool
) -> Picture:
    """Light from the design's side, vignette, softness and sensor noise; grey stays grey."""
    plane = np.ascontiguousarray(colour.mean(axis=2) if grey and colour.ndim == 3 else colour)
    size = plane.shape[0]
    columns, rows = _ramps(size)
    angle = design.uniform(0, 2 * np.pi) + own.normal(0, 0.25)
    slope = design.uniform(0, 0.3) * own.uniform(0.5, 1.3)
    light = 1 + slope * (np.cos(angle) * columns + np.sin(angle) * rows)
    light -= design.uniform(0, 0.18) * (columns**2 + rows**2)
    light *= own.uniform(0.92, 1.08)
    if design.random() < 0.35:
        across = np.cos(angle) * columns + np.sin(angle) * rows - own.uniform(-0.7, 0.7)
        light += design.uniform(0.03, 0.2) * np.exp(-((across / design.uniform(0.15, 0.5)) ** 2))
    plane = plane * (light if plane.ndim == 2 else light[..., None])
    blur = design.uniform(0.0, 1.4)
    if blur > 0.4:
        plane = cv2.GaussianBlur(plane, (0, 0), blur)
    noise = own.standard_normal(plane.shape, np.float32) * np.float32(design.uniform(0.002, 0.02))
    # Compressed pictures have smooth noise.
    noise = 2 * cv2.blur(noise, (3, 3)) if design.random() < 0.4 else noise
    picture = np.clip((plane + noise) * 255, 0, 255).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2) if grey else picture


def _tinted(
    plane: Plane, design: np.random.Generator, own: np.random.Generator, grey: bool
) -> Picture:
    plane = np.clip(plane, 0, 1).astype(np.float32)
    return _develop(plane if grey else tint(plane, design, 0), design, own, grey)


def _streaks(design: np.random.Generator, own: np.random.Generator, size: int) -> Plane:
    """Ground or brushed metal (size, size), its grain upright."""
    plane = np.full((size, size), design.uniform(0.25, 0.7), np.float32)
    contrast = design.uniform(0.4, 1.5)
    for cells, share in ((size, 0.025), (size / 3, 0.03), (45, 0.025), (14, 0.025), (5, 0.03)):
        length = design.uniform(2, 4) if cells < 100 else design.uniform(2, 14)
        layer = smooth_noise(own, size, cells, length)
        plane += share * contrast * design.uniform(0.2, 1.6) * layer
    grain = own.standard_normal((size, size), np.float32)
    reach = int(size * design.uniform(0.02, 0.15)) | 1
    plane += contrast * design.uniform(0.01, 0.05) * np.sqrt(reach) * cv2.blur(grain, (1, reach))
    columns, rows = _ramps(size)
    if design.random() < 0.6:
        width = design.uniform(0.08, 0.4)
        middle = own.uniform(-0.9, 0.9) + 0.05 * own.normal() * rows
        plane += design.uniform(0.03, 0.2) * np.exp(-(((columns - middle) / width) ** 2))
    plane += design.uniform(0, 0.03) * smooth_noise(own, size, 4)
    plane += design.uniform(0, 0.012) * smooth_noise(own, size, 30)
    if own.random() < 0.5:
        smudge = np.clip(smooth_noise(own, size, own.uniform(3, 9)) - 0.5, 0, 1.5)
        plane *= 1 - own.uniform(0.01, 0.07) * smudge
    tilt = design.uniform(-0.04, 0.04) if design.random() < 0.5 else 0.0
    shear = np.array([[1, tilt, -tilt * size / 2], [0, 1, 0]], np.float32)
    return np.asarray(cv2.warpAffine(plane, shear, (size, size), borderMode=cv2.BORDER_REFLECT))


def brushed_metal(seed: int, size: int, instance: int) -> Picture:
    """Fine parallel grain, upright or level, filling the picture."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, level = bool(design.random() < 0.6), design.random() < 0.5
    plane = _streaks(design, own, size)
    plane = np.ascontiguousarray(plane.T) if level else plane
    # Steel is a cool or warm grey; a quarter of the designs are brass or copper.
    warm, rich = design.uniform(-0.06, 0.08), design.random() < 0.25
    shade = (1.15, design.uniform(0.75, 0.95), design.uniform(0.4, 0.65))
    shade = shade if rich else (1 + warm, 1.0, 1 - warm)
    return _develop(
        np.clip(plane, 0, 1)[..., None] * np.asarray(shade, np.float32), design, own, grey
    )


def _inside_tile(design: np.random.Generator, own: np.random.Generator, size: int) -> Plane:
    """How far inside the tile each pixel lies, in pixels (size, size); margins on 0 to 4 sides."""
    pixels = np.arange(size, dtype=np.float32)
    gaps = []
    for _side in range(4):
        margin = own.uniform(0.01, 0.06) * size if own.random() < 0.5 else -0.2 * size
        wave = smooth_noise(own, size, own.uniform(3, 7))[0] * own.uniform(0.0005, 0.004) * size
        gaps.append(margin + wave + own.normal(0, 0.008) * (pixels - size / 2))
    radius = design.uniform(0.005, 0.07) * size
    before, after = pixels[None] - gaps[0][:, None], pixels[None, ::-1] - gaps[1][:, None]
    across = np.minimum(before, after)
    down = np.minimum(pixels[:, None] - gaps[2][None], pixels[::-1, None] - gaps[3][None])
    corner = radius - np.hypot(np.maximum(radius - across, 0), np.maximum(radius - down, 0))
    straight = np.minimum(across, down)
    return np.asarray(np.where(straight > radius, straight, corner), np.float32)


def _glints(design: np.random.Generator, own: np.random.Generator, size: int) -> Plane:
    """Thin bright lines along the grain (size, size), each bright over a stretch only."""
    lines = np.maximum(smooth_noise(own, size, size / 3, 0.5) - design.uniform(1.2, 2.2), 0)
    stretch = np.clip(smooth_noise(own, size, 6, 3), 0, 1.5)
    return np.asarray(design.uniform(0, 0.25) * lines * stretch, np.float32)


def _side_shadow(own: np.random.Generator, columns: Plane, rows: Plane) -> Plane:
    """Up to two broad shadows that come in from a side or a corner, as factors."""
    light = np.ones((rows.size, columns.size), np.float32)
    for _ in range(int(own.integers(3))):
        angle = float(own.choice([0, np.pi / 2, np.pi, -np.pi / 2]) + own.normal(0, 0.3))
        toward = np.cos(angle) * columns + np.sin(angle) * rows
        depth, start = own.uniform(0.1, 0.7), own.uniform(-0.3, 0.7)
        fade = np.clip((toward - start) / own.uniform(0.4, 1.2), 0, 1)
        light *= 1 - depth * fade * fade * (3 - 2 * fade)
    return light


def ground_metal_tile(seed: int, size: int, instance: int) -> Picture:
    """Ground metal in grey, unevenly lit; dark margins where the tile ends, its edges bright."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    level, rim, ground = design.random() < 0.35, design.uniform(0, 0.25), design.uniform(0.01, 0.14)
    plane = _streaks(design, own, size)
    columns, rows = _ramps(size)
    plane += _glints(design, own, size)
    plane = plane.T if level else plane
    plane = plane * (1 + own.uniform(-0.4, 0.4) * columns + own.uniform(-0.2, 0.2) * rows)
    plane = plane * _side_shadow(own, columns, rows) * own.uniform(0.6, 1.15)
    inside = _inside_tile(design, own, size)
    plane += rim * np.exp(-(((inside - 2.5) / design.uniform(1.5, 5)) ** 2))
    share = np.clip(inside / design.uniform(1.5, 4) + 0.5, 0, 1)
    plane = np.clip(plane, 0, 1) * share + ground * (1 - share)
    return _develop(plane, design, own, True)


def _weave(kind: int, across: Plane, down: Plane) -> Plane:
    """Thread relief in [-1, 1]; across and down in periods."""
    across, down = np.float32(2 * np.pi) * across, np.float32(2 * np.pi) * down
    if kind == 0:
        plane = np.sin(across) * np.sin(down)
    elif kind == 1:
        plane = np.maximum(np.sin(across), np.sin(down)) * 1.3 - 0.4
    elif kind == 2:
        plane = 0.7 * np.sin(across + down) + 0.3 * np.sin(2 * across)
    elif kind == 3:
        # Knit: rows of stitches that lean to the left, then to the right.
        stitch = np.abs((across / np.float32(2 * np.pi)) % 1 - 0.5)
        plane = 0.7 * np.sin(down + 7.5 * stitch) + 2.4 * stitch - 0.6
    else:
        plane = 0.8 * np.sin(across + 0.4 * np.sin(down / 4))
    return np.asarray(plane, np.float32)


def woven_fabric(seed: int, size: int, instance: int) -> Picture:
    """Plain weave, mesh, twill, knit or rib; some of them checked or striped."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, kind = bool(design.random() < 0.5), int(design.integers(5))
    period = size / design.uniform(14, 60)
    angle = design.choice([0.0, 0.0, np.pi / 4]) + design.uniform(-0.1, 0.1) + own.normal(0, 0.02)
    columns, rows = (ramp * np.float32(size / 2 / period) for ramp in _ramps(size))
    turned, lifted = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    slack, shift = np.float32(design.uniform(0.02, 0.12)), own.uniform(0, 99, 2).astype(np.float32)
    across = columns * turned + rows * lifted + shift[0] + slack * smooth_noise(own, size, 9)
    down = rows * turned - columns * lifted + shift[1] + slack * smooth_noise(own, size, 9)
    plane = design.uniform(0.35, 0.6) + design.uniform(0.06, 0.22) * _weave(kind, across, down)
    pattern = design.random()
    repeat, dark = design.integers(4, 10), design.uniform(0.06, 0.2)
    for along, share in ((across, 0.45), (down, 0.3)):
        if pattern < share:
            plane += dark * np.where((along / repeat) % 1 < 0.5, 0.5, -0.5)
    threads = smooth_noise(own, size, size / period, 5) + smooth_noise(own, size, 5, size / period)
    plane += design.uniform(0, 0.015) * threads + 0.03 * smooth_noise(own, size, size / 2)
    return _tinted(plane, design, own, grey)


def wood(seed: int, size: int, instance: int) -> Picture:
    """Rings, fibres and pores along the grain; brown or grey, without knots."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, level = bool(design.random() < 0.45), design.random() < 0.5
    rings, bend = design.uniform(4, 26), design.uniform(0.2, 3)
    phase = (
        rings * _ramps(size)[0]
        + bend * smooth_noise(own, size, 2.5, 2)
        + np.float32(own.uniform(0, 9))
    )
    phase += 0.4 * smooth_noise(own, size, 10, 2)
    saw = (phase / np.float32(np.pi)) % 1
    # Early wood fades slowly into late wood, which ends sharply.
    ring = 1 - 2.4 * saw**2 * np.clip((1 - saw) * design.uniform(2.5, 6), 0, 1)
    plane = design.uniform(0.35, 0.65) + design.uniform(0.03, 0.11) * ring
    plane += design.uniform(0.01, 0.05) * smooth_noise(own, size, size / 2, design.uniform(3, 12))
    plane += design.uniform(0, 0.04) * smooth_noise(own, size, 4, 2)
    if design.random() < 0.6:
        pores = smooth_noise(own, size, size / 1.5, size / design.uniform(9, 25))
        plane -= design.uniform(0.04, 0.14) * np.clip(pores - design.uniform(1.2, 2), 0, 1)
    plane = np.clip(plane.T if level else plane, 0, 1).astype(np.float32)
    red, blue = design.uniform(0.62, 0.88), design.uniform(0.3, 0.7)
    brown = np.stack([plane, red * plane**1.1, blue * plane**1.25], axis=2)
    return _develop(plane if grey else np.ascontiguousarray(brown), design, own, grey)


def _cells(own: np.random.Generator, size: int, pitch: float, order: float) -> tuple[Plane, Plane]:
    """Voronoi cells of a jittered grid: distance to the own seed in pitches, and the creases."""
    steps = np.arange(-pitch, size + pitch, pitch)
    points = np.stack(np.meshgrid(steps, steps), axis=2).reshape(-1, 2)
    points = points + own.uniform(-1, 1, points.shape) * pitch * order
    points = np.clip(points, 0, size - 1).astype(np.int32)
    seeds = np.ones((size, size), np.uint8)
    seeds[points[:, 1], points[:, 0]] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    crease = np.zeros((size, size), np.float32)
    crease[1:, 1:] = (labels[1:, 1:] != labels[1:, :-1]) | (labels[1:, 1:] != labels[:-1, 1:])
    return np.asarray(distance / pitch, np.float32), crease


def leather(seed: int, size: int, instance: int) -> Picture:
    """Pebbles between creases, or fine pores, with a few soft folds."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, pitch = bool(design.random() < 0.45), size / design.uniform(22, 70)
    distance, crease = _cells(own, size, pitch, design.uniform(0.3, 0.6))
    crease = cv2.GaussianBlur(crease, (0, 0), max(0.7, pitch * design.uniform(0.07, 0.16)))
    depth = smooth_noise(own, size, 9)
    relief = design.uniform(0.3, 1) * (0.6 - distance) - design.uniform(0.5, 2) * crease
    relief += 0.25 * smooth_noise(own, size, size / 3)
    lit = relief + design.uniform(-1, 1) * (relief - np.roll(relief, 1, axis=0)) * pitch / 3
    plane = design.uniform(0.16, 0.65) * (1 + design.uniform(0.08, 0.28) * lit * (1 + 0.2 * depth))
    folds = np.exp(-1.5 * np.abs(smooth_noise(own, size, 4, 2)))
    plane *= 1 - design.uniform(0, 0.08) * folds
    return _tinted(plane, design, own, grey)


def ceramic_tile(seed: int, size: int, instance: int) -> Picture:
    """Smooth glaze: plain, speckled, veined like marble, or chips of terrazzo."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, kind = bool(design.random() < 0.5), int(design.integers(4))
    base = design.uniform(0.3, 0.85)
    plane = np.float32(base) + design.uniform(0.005, 0.04) * smooth_noise(own, size, 5)
    sign = 1.0 if base < 0.45 else -1.0
    if kind == 1:
        for share in (3.5, 9):
            flecks = smooth_noise(own, size, size / (share * design.uniform(0.6, 1.3)))
            shown = np.clip((flecks - design.uniform(1.4, 2.2)) * 4, 0, 1)
            plane += sign * design.uniform(0.03, 0.25) * shown
    elif kind == 2:
        for cells, strength in ((3, 1.0), (7, 0.6), (16, 0.3)):
            turbulence = smooth_noise(own, size, cells) + 0.3 * smooth_noise(own, size, cells * 4)
            vein = np.exp(-np.abs(turbulence) * design.uniform(5, 16))
            fade = np.clip(0.5 + 0.5 * smooth_noise(own, size, 3), 0, 1)
            plane += sign * strength * design.uniform(0.04, 0.22) * vein * fade
    elif kind == 3:
        distance, _crease = _cells(own, size, size / design.uniform(7, 30), 0.5)
        chips = np.clip((design.uniform(0.2, 0.5) - distance) * 25, 0, 1)
        shade = design.uniform(0.3, 1.2) * smooth_noise(own, size, size / 18)
        plane += design.uniform(0.04, 0.16) * chips * shade
    return _tinted(plane, design, own, grey)


def carpet(seed: int, size: int, instance: int) -> Picture:
    """Cut pile, loops in rows, or heather of two yarns."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey, kind = bool(design.random() < 0.5), int(design.integers(3))
    tuft = size / design.uniform(60, 180)
    fine = smooth_noise(own, size, size / tuft)
    fine = 0.7 * fine + 0.4 * smooth_noise(own, size, size / 1.5)
    if kind == 1:
        columns, rows = (ramp * np.float32(size / 2 / tuft / 2.2) for ramp in _ramps(size))
        jitter = 0.12 * smooth_noise(own, size, size / tuft / 3)
        loops = np.cos(2 * np.pi * (columns + jitter + np.float32(own.random())))
        loops = loops * np.cos(np.pi * (rows + jitter + np.float32(own.random())))
        fine = 0.5 * fine + design.uniform(0.8, 1.5) * loops
    plane = design.uniform(0.25, 0.6) * (1 + design.uniform(0.12, 0.4) * fine)
    plane *= 1 + design.uniform(0, 0.08) * smooth_noise(own, size, 6)
    if kind < 2 or grey:
        return _tinted(plane, design, own, grey)
    colour = tint(np.clip(plane, 0, 1).astype(np.float32), design, 0)
    second = design.uniform(0.5, 1.3, 3).astype(np.float32)
    yarn = np.clip(0.5 + 1.5 * smooth_noise(own, size, size / tuft / 1.5), 0, 1)[..., None]
    colour = colour * (1 - yarn + yarn * second)
    return _develop(np.clip(colour, 0, 1), design, own, grey)


def painted_sheet(seed: int, size: int, instance: int) -> Picture:
    """Nearly flat paint: orange peel seen in slanting light, sometimes metal flakes."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    grey = bool(design.random() < 0.5)
    peel = smooth_noise(own, size, size / design.uniform(4, 14))
    side = int(design.integers(2))
    slant = (peel - np.roll(peel, 2, axis=side)) * design.uniform(0.002, 0.03)
    plane = np.full((size, size), design.uniform(0.15, 0.88), np.float32) + slant
    plane += design.uniform(0, 0.03) * smooth_noise(own, size, 3)
    if design.random() < 0.3:
        plane += design.uniform(0.005, 0.03) * smooth_noise(own, size, size / 1.3)
    return _tinted(plane, design, own, grey)


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
