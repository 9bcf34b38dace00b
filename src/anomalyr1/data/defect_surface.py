"""Defects of a surface on photographs: lines, holes, dents, stains. A canvas in, a picture out.

Each returns float32 RGB (H, W, 3) or None where it found no place. Grain, shading and colours come
from the picture itself.
"""

from __future__ import annotations

import cv2
import numpy as np

from anomalyr1.data.defect_marks import (
    add_lip,
    held_to_part,
    line_length,
    line_width,
    place_on,
    random_sign,
    shifted,
    worn_line,
)
from anomalyr1.data.defect_shapes import (
    Canvas,
    Floats,
    blob,
    cover,
    curve,
    grain,
    shade,
    smooth_noise,
    soften,
    stroke,
    warp,
    window_of,
)


def scratch(canvas: Canvas) -> Floats:
    """One to five nearly parallel lines, straight or bowed, light or dark, often broken."""
    rng, picture = canvas.rng, canvas.picture.copy()
    angle, length, width = float(rng.uniform(0, np.pi)), line_length(canvas), line_width(canvas)
    (x, y), sign = place_on(canvas), random_sign(canvas, 0.4)
    bend = float(rng.normal(0, 0.35))
    for index in range(1 + int(rng.integers(0, 5) * (rng.random() < 0.35))):
        offset = rng.normal(0, 7 * canvas.scale, 2) * (index > 0)
        middle = (x + float(offset[0]), y + float(offset[1]))
        share = float(rng.uniform(0.4, 1.0)) if index else 1.0
        points = curve(middle, angle + rng.normal(0, 0.04), length * share, bend, 0.012, rng)
        alpha = held_to_part(canvas, worn_line(canvas, points, width * share, 0.5))
        shade(picture, sign * alpha, canvas.amplitude * (0.5 + 0.5 * share))
        if width > 1.8 and rng.random() < 0.5:
            add_lip(canvas, picture, alpha, width * 0.6, width * 0.5, -sign * 0.5)
    return picture


def crack(canvas: Canvas) -> Floats:
    """A jagged dark walk with branches that thin out, or one that runs far through the part."""
    rng, picture = canvas.rng, canvas.picture.copy()
    if rng.random() < 0.4:
        _run_crack(canvas, picture)
        return picture
    length, width = line_length(canvas, 0.12, 0.8), line_width(canvas, 1.0, 3.0)
    angle = float(rng.uniform(0, 2 * np.pi))
    paths = [(curve(place_on(canvas), angle, length, rng.normal(0, 0.5), 0.22, rng, 50), width)]
    for _ in range(int(rng.integers(0, 2 + round(3 * canvas.severity)))):
        trunk, thick = paths[int(rng.integers(len(paths)))]
        start = trunk[int(rng.integers(5, len(trunk) - 5))]
        turn = angle + rng.choice([-1, 1]) * rng.uniform(0.4, 1.1)
        twig = curve((0, 0), turn, length * rng.uniform(0.15, 0.5), 0, 0.22, rng, 24)
        paths.append((twig - twig[0] + start, max(0.65 * thick, 0.8)))
    alpha = np.zeros(canvas.part.shape, np.float32)
    for points, thick in paths:
        jagged = points + rng.normal(0, 0.5 * canvas.scale, points.shape)
        alpha = np.maximum(alpha, worn_line(canvas, jagged.astype(np.float32), thick))
    alpha = held_to_part(canvas, alpha)
    shade(picture, -alpha, 1.3 * canvas.amplitude)
    if rng.random() < 0.5:
        add_lip(canvas, picture, alpha, rng.choice([-1, 1]) * max(width * 0.5, 0.8), 0.8, 0.35)
    return picture


def _run_crack(canvas: Canvas, picture: Floats) -> None:
    """A dark line that wanders, often along a side of the picture, sometimes from rim to rim."""
    rng = canvas.rng
    angle = float(rng.uniform(0, np.pi))
    if rng.random() < 0.6:
        angle = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.12))
    length = line_length(canvas, 0.15, 1.4)
    points = curve(
        place_on(canvas), angle, length, rng.normal(0, 0.3), rng.uniform(0.04, 0.16), rng, 60
    )
    jagged = points + rng.normal(0, 0.6 * canvas.scale, points.shape)
    alpha = worn_line(canvas, jagged.astype(np.float32), line_width(canvas, 1.2, 5.0))
    shade(picture, -held_to_part(canvas, alpha), 1.1 * canvas.amplitude + 8)


def hole(canvas: Canvas) -> Floats:
    """A dark opening, deepest on the lit side, with a soft rim."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area = canvas.area_px(0.0004, 0.03)
    alpha = blob(canvas, place_on(canvas), area, 2.6, rng.uniform(0.02, 0.2), 1 + canvas.feather)
    alpha = held_to_part(canvas, alpha)
    window = window_of(alpha, 4)
    if window is None:
        return picture
    reach = 0.25 * float(np.sqrt(area)) * rng.uniform(0.5, 1.2)
    light = float(rng.uniform(0, 2 * np.pi))
    floor = np.clip(shifted(alpha, np.cos(light) * reach, np.sin(light) * reach), 0, 1)
    add_lip(canvas, picture, alpha, -np.cos(light) * 1.3, -np.sin(light) * 1.3, 0.6)
    shade(picture, -alpha * (1.0 - 0.35 * floor), 1.0 * canvas.amplitude + 25)
    if canvas.severity > 0.3 and rng.random() < 0.6:
        depth = rng.uniform(5, 40)
        cover(picture, alpha * rng.uniform(0.6, 0.95), window, depth + grain(canvas, window, 0.6))
    return picture


def dent(canvas: Canvas) -> Floats:
    """A smooth hollow or bump: a bright and a dark side across one light direction."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area = canvas.area_px(0.002, 0.035)
    radius = float(np.sqrt(area / np.pi))
    height = blob(canvas, place_on(canvas), area, 2.2, 0.12, 1.6 * radius)
    height = soften(height, 0.3 * radius + 0.5)
    window = window_of(height, 3)
    if window is None:
        return picture
    light = float(rng.uniform(0, 2 * np.pi))
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0) * np.cos(light)
    slope += cv2.Sobel(height, cv2.CV_32F, 0, 1) * np.sin(light)
    peak = float(np.abs(slope).max()) + 1e-6
    pull = rng.uniform(0.5, 1.5) * radius * 0.15 / peak * slope[window]
    moved = warp(canvas.picture, window, pull * np.cos(light), pull * np.sin(light))
    cover(picture, held_to_part(canvas, np.clip(3 * height, 0, 1)), window, moved)
    relief = held_to_part(canvas, slope / peak)
    strength = min(0.9 * canvas.amplitude, 85.0)
    shade(picture, np.clip(relief, -1, 0), strength)
    shade(picture, np.clip(relief, 0, 1), strength)
    if rng.random() < 0.4:
        shade(picture, -held_to_part(canvas, height), 0.3 * canvas.amplitude)
    return picture


def _splash(canvas: Canvas, area: float) -> Floats:
    """A large drop with small ones thrown around it."""
    rng, (x, y) = canvas.rng, place_on(canvas)
    edge = 1.0 + canvas.feather
    alpha = blob(canvas, (x, y), 0.8 * area, 1.6, rng.uniform(0.03, 0.2), edge)
    radius = float(np.sqrt(area / np.pi))
    for _ in range(int(rng.integers(0, 7))):
        turn, away = rng.uniform(0, 2 * np.pi), radius * rng.uniform(1.2, 3.0)
        middle = (x + away * float(np.cos(turn)), y + away * float(np.sin(turn)))
        size = max(area * rng.uniform(0.01, 0.12), 6.0)
        alpha = np.maximum(alpha, blob(canvas, middle, size, 1.4, 0.06, edge))
    return alpha


def _dye(canvas: Canvas, picture: Floats, alpha: Floats, strength: float) -> None:
    """Soak `alpha` with a hue: the texture stays, its colour goes."""
    rng, window = canvas.rng, window_of(alpha)
    if window is None:
        return
    hue = float(rng.uniform(0, 180))
    vivid = rng.uniform(160, 255) if rng.random() < 0.65 else rng.uniform(30, 120)
    pixel = np.array([[[hue, vivid, rng.uniform(60, 255)]]], np.uint8)
    colour = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    if canvas.monochrome:
        colour[:] = rng.uniform(20, 120)
    area = picture[window]
    grey = area.mean(axis=2, keepdims=True)
    soaked = area * (colour / 255.0)
    # on dark ground a dye that only absorbs would not show
    opaque = colour * (0.55 + 0.45 * grey / (float(grey.mean()) + 1.0))
    cling = float(np.clip((110.0 - float(grey.mean())) / 90.0, 0.1, 0.9)) * strength
    mixed = soaked * (1 - cling) + opaque * cling
    cover(picture, alpha * strength, window, mixed.astype(np.float32))


def stain(canvas: Canvas) -> Floats:
    """Ink, grease, a water mark with a dark rim, or a broad dark or light patch."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area, style = canvas.area_px(0.0012, 0.12), float(rng.random())
    strength = float(np.clip(canvas.between(0.4, 1.1), 0.25, 1.0))
    if style < 0.35:
        alpha = held_to_part(canvas, _splash(canvas, area))
        uneven = 1.0 + 0.12 * smooth_noise(alpha.shape, 12 * canvas.scale, rng)
        _dye(canvas, picture, np.clip(alpha * uneven, 0, 1), strength)
        return picture
    if style < 0.55:
        alpha = blob(canvas, place_on(canvas), area, 2.0, 0.2, 1.5 + canvas.feather)
        alpha = held_to_part(canvas, alpha)
        sigma = max(0.12 * float(np.sqrt(area)), 1.5)
        rim = alpha * np.clip(1.15 - soften(alpha, sigma), 0.12, 1.0) * 1.4
        shade(picture, random_sign(canvas, 0.8) * np.clip(rim, 0, 1), canvas.amplitude + 6)
        return picture
    edge = rng.choice([1.0 + canvas.feather, 0.35 * float(np.sqrt(area))])
    alpha = blob(canvas, place_on(canvas), area, 3.0, rng.uniform(0.08, 0.3), float(edge))
    uneven = 1.0 + 0.15 * smooth_noise(alpha.shape, 15 * canvas.scale, rng)
    alpha = np.clip(held_to_part(canvas, alpha) * uneven, 0, 1)
    amplitude = min(canvas.amplitude * rng.uniform(0.6, 1.0) + 4, 75.0)
    shade(picture, random_sign(canvas, 0.75) * alpha, amplitude)
    if style > 0.85 and not canvas.monochrome:
        _dye(canvas, picture, alpha, 0.35 * strength)
    return picture


def discolouration(canvas: Canvas) -> Floats:
    """A broad change of tone or hue with the texture intact: faded, burnt, yellowed, in a band."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area = canvas.area_px(0.006, 0.28)
    edge = float(rng.uniform(0.1, 0.8)) * float(np.sqrt(area))
    if rng.random() < 0.3:
        alpha = _band(canvas)
    else:
        alpha = blob(canvas, place_on(canvas), area, rng.choice([2.0, 6.0]), 0.22, max(edge, 2.0))
    alpha = np.clip(alpha * (1 + 0.15 * smooth_noise(alpha.shape, 20 * canvas.scale, rng)), 0, 1)
    alpha = held_to_part(canvas, alpha)
    window = window_of(alpha)
    if window is None:
        return picture
    amplitude = min(0.7 * canvas.amplitude + 8, 60.0)
    if canvas.monochrome or rng.random() < 0.4:
        shade(picture, random_sign(canvas) * alpha, amplitude)
        return picture
    turn = rng.normal(0, 1, 3)
    turn = turn / np.abs(turn).max()
    layer = alpha[window][..., None]
    shading = 0.5 + 0.5 * picture[window] / (picture[window].mean(axis=(0, 1)) + 1.0)
    picture[window] += layer * shading * (turn * amplitude).astype(np.float32)
    return picture


def _band(canvas: Canvas) -> Floats:
    """An alpha (H, W) of a strip across the picture or a piece of one, each side sharp or soft."""
    rng = canvas.rng
    height, width = canvas.part.shape
    centre = place_on(canvas)
    level = rng.random() < 0.5
    alpha = np.ones((height, width), np.float32)
    for axis, side, middle in ((0, height, centre[1]), (1, width, centre[0])):
        across = (axis == 0) == level
        if not across and rng.random() < 0.6:
            continue
        thick = side * canvas.between(0.06, 0.3 if across else 0.6)
        inside = thick / 2 - np.abs(np.arange(side, dtype=np.float32) - middle)
        inside = inside + 1.5 * canvas.scale * smooth_noise((1, side), side / 6, rng)[0]
        ramp = np.clip(0.5 + inside / float(rng.choice([1.5, 0.4 * thick])), 0, 1)
        alpha *= ramp[:, None] if axis == 0 else ramp[None]
    return alpha


def cut(canvas: Canvas) -> Floats:
    """A clean dark slit, pointed at both ends, with a bright lip along one side."""
    rng, picture = canvas.rng, canvas.picture.copy()
    length, width = line_length(canvas, 0.06, 0.6), line_width(canvas, 1.3, 5.0)
    angle = float(rng.uniform(0, 2 * np.pi))
    points = curve(place_on(canvas), angle, length, rng.normal(0, 0.25), 0.006, rng)
    lens = np.sqrt(np.clip(1.0 - np.linspace(-1, 1, len(points)) ** 2, 0, 1))
    widths = np.maximum(width * lens, 0.5).astype(np.float32)
    opacity = np.full(len(points), rng.uniform(0.8, 1.0), np.float32)
    alpha = stroke(canvas.part.shape, points, widths, opacity)
    alpha = held_to_part(canvas, soften(alpha, 0.5 * canvas.feather))
    shade(picture, -alpha, 1.4 * canvas.amplitude + 10)
    away = rng.choice([-1, 1]) * max(0.5 * width, 1.0)
    add_lip(canvas, picture, alpha, -np.sin(angle) * away, np.cos(angle) * away, 0.6)
    return picture
