"""Shapes and pixel arithmetic that synthetic defects are drawn with: blobs, strokes, fills.

Pictures here are float32 RGB (H, W, 3) in 0..255; an alpha is float32 (H, W), 0 where nothing
changes. Nothing here knows the name of a defect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Window = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A normal picture with what painting needs to know of it.

    `picture`: float32 (H, W, 3); `residual`: its fine grain, same shape; `part`: bool (H, W);
    `scale`: shorter side / 320; `amplitude`: grey levels a defect should differ by;
    `feather`: blur in pixels that matches the sharpness of the picture; `monochrome`: R = G = B.
    """

    picture: Floats
    residual: Floats
    part: Mask
    rng: np.random.Generator
    severity: float
    scale: float
    amplitude: float
    feather: float
    monochrome: bool

    def between(self, low: float, high: float, jitter: float = 0.2) -> float:
        """`low` at severity 0 to `high` at severity 1 (geometric), times a random factor."""
        value = low * (high / low) ** self.severity
        return float(value * np.exp(self.rng.uniform(-jitter, jitter)))

    def area_px(self, low: float = 0.0008, high: float = 0.08) -> float:
        """A defect area in pixels: a share of the picture, at most half of the part."""
        pixels = self.part.size
        share = float(np.clip(self.between(low, high, 0.35), 0.0003, 0.3))
        return max(min(share * pixels, 0.5 * int(self.part.sum())), 9.0)


def open_canvas(
    image: NDArray[np.uint8], part: Mask, rng: np.random.Generator, severity: float
) -> Canvas:
    """Measure grain, sharpness and colour of `image` (H, W, 3) once, before painting on it."""
    picture = image.astype(np.float32)
    residual = picture - cv2.GaussianBlur(picture, (0, 0), 1.2)
    coarse = picture[::2, ::2] - cv2.GaussianBlur(picture[::2, ::2], (0, 0), 1.2)
    grain = float(np.abs(residual[::2, ::2]).mean())
    sharpness = grain / (float(np.abs(coarse).mean()) + 0.05)
    limit = 4.0 * grain + 1.0
    red, green, blue = cv2.split(image)
    spread = cv2.max(cv2.absdiff(red, green), cv2.absdiff(green, blue))
    amplitude = 16.0 * (120.0 / 16.0) ** severity * float(np.exp(rng.uniform(-0.2, 0.2)))
    return Canvas(
        picture=picture,
        residual=np.clip(residual, -limit, limit).astype(np.float32),
        part=part,
        rng=rng,
        severity=severity,
        scale=min(part.shape) / 320.0,
        # on a rough texture the same change is harder to see
        amplitude=min(amplitude + 1.6 * grain, 200.0),
        feather=float(np.clip(1.5 - sharpness, 0.4, 1.2) * rng.uniform(0.7, 1.3)),
        monochrome=bool((spread <= 3).mean() > 0.99),
    )


def smooth_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> Floats:
    """Noise of unit deviation whose bumps are about `cell` pixels wide."""
    height, width = shape
    cell = max(cell, 1.0)
    grid = (int(width / cell) + 3, int(height / cell) + 3)
    coarse = rng.standard_normal(grid[::-1]).astype(np.float32)
    padded = (max(int(grid[0] * cell), width), max(int(grid[1] * cell), height))
    fine = cv2.resize(coarse, padded, interpolation=cv2.INTER_CUBIC)[:height, :width]
    return np.asarray(fine * 1.35, np.float32)


def pick_pixel(mask: Mask, rng: np.random.Generator) -> tuple[float, float] | None:
    """A random True pixel as (x, y), or None where there is none."""
    places = np.flatnonzero(mask)
    if places.size == 0:
        return None
    y, x = divmod(int(places[rng.integers(places.size)]), mask.shape[1])
    return float(x), float(y)


def window_of(alpha: Floats | Mask, pad: int = 0) -> Window | None:
    """The smallest window around everything in `alpha` above 0.01, or None where it is empty."""
    seen = np.abs(alpha) > 0.01
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if rows.size == 0:
        return None
    return (
        slice(max(int(rows[0]) - pad, 0), min(int(rows[-1]) + 1 + pad, seen.shape[0])),
        slice(max(int(columns[0]) - pad, 0), min(int(columns[-1]) + 1 + pad, seen.shape[1])),
    )


def blob(
    canvas: Canvas,
    centre: tuple[float, float],
    area_px: float,
    elongation: float = 1.6,
    roughness: float = 0.18,
    softness_px: float = 1.5,
    angle: float | None = None,
    boxy: bool = False,
) -> Floats:
    """An alpha (H, W) of one irregular patch of about `area_px`, its edge `softness_px` wide."""
    rng = canvas.rng
    height, width = canvas.part.shape
    stretch = float(np.sqrt(rng.uniform(1.0, elongation)))
    radius = float(np.sqrt(area_px / np.pi))
    theta = float(rng.uniform(0, np.pi)) if angle is None else angle
    half = int(radius * stretch * (1.15 + 2.2 * roughness) * 1.25 + 2 * softness_px) + 3
    left, top = max(int(centre[0]) - half, 0), max(int(centre[1]) - half, 0)
    right, bottom = min(int(centre[0]) + half + 1, width), min(int(centre[1]) + half + 1, height)
    alpha = np.zeros((height, width), np.float32)
    if bottom <= top or right <= left:
        return alpha
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    along = (x - centre[0]) * np.cos(theta) + (y - centre[1]) * np.sin(theta)
    across = (y - centre[1]) * np.cos(theta) - (x - centre[0]) * np.sin(theta)
    along, across = np.abs(along) / (radius * stretch), np.abs(across) * stretch / radius
    distance = np.maximum(along, across) / 0.886 if boxy else np.hypot(along, across)
    shape = (bottom - top, right - left)
    noise = smooth_noise(shape, 0.8 * radius, rng) + 0.45 * smooth_noise(shape, 0.3 * radius, rng)
    if radius > 12:
        noise += 0.2 * smooth_noise(shape, 0.1 * radius, rng)
    inside = (1.0 - distance - roughness * noise) * radius / stretch
    ramp = np.clip(0.5 + inside / max(softness_px, 0.8), 0.0, 1.0)
    alpha[top:bottom, left:right] = ramp * ramp * (3.0 - 2.0 * ramp)
    return alpha


def curve(
    middle: tuple[float, float],
    angle: float,
    length: float,
    bend: float,
    wiggle: float,
    rng: np.random.Generator,
    steps: int = 40,
) -> Floats:
    """A path (steps, 2) of x, y through `middle`; `bend` in radians end to end."""
    turns = angle + bend * np.linspace(-0.5, 0.5, steps) + np.cumsum(rng.normal(0, wiggle, steps))
    moves = np.stack([np.cos(turns), np.sin(turns)], axis=1) * (length / steps)
    points = np.cumsum(moves, axis=0)
    return np.asarray(points - points[steps // 2] + np.asarray(middle), np.float32)


def stroke(shape: tuple[int, int], points: Floats, widths_px: Floats, opacities: Floats) -> Floats:
    """An alpha (H, W) of a line through `points` (n, 2); width and opacity per point, (n,)."""
    factor = 4 if max(shape) <= 800 else 2
    pad = int(np.max(widths_px)) + 3
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - pad, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + pad, (shape[1], shape[0]))
    alpha = np.zeros(shape, np.float32)
    if (high <= low).any():
        return alpha
    size = high - low
    fine = np.zeros((size[1] * factor, size[0] * factor), np.uint8)
    places = np.round((points - low + 0.5) * factor).astype(int)
    for index in range(len(points) - 1):
        thickness = max(round(float(widths_px[index]) * factor), 1)
        level = int(255 * np.clip(opacities[index], 0, 1))
        start, stop = places[index], places[index + 1]
        cv2.line(
            fine, (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1])), level, thickness
        )
    small = cv2.resize(fine, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
    alpha[low[1] : high[1], low[0] : high[0]] = small.astype(np.float32) / 255.0
    return alpha


def soften(alpha: Floats, sigma: float) -> Floats:
    """`alpha` blurred by `sigma` pixels, computed only where it is not zero."""
    window = window_of(alpha, int(3 * sigma) + 2)
    if window is None:
        return alpha
    result = np.zeros_like(alpha)
    result[window] = cv2.GaussianBlur(alpha[window], (0, 0), max(sigma, 0.2))
    return result


def shade(picture: Floats, alpha: Floats, amplitude: float) -> None:
    """Darken where `alpha` < 0 and lighten where > 0, keeping texture; changes `picture`.

    `amplitude`: grey levels at |alpha| = 1. The sign is turned round where the surface is already
    too dark or too bright for the change to show.
    """
    window = window_of(alpha)
    if window is None:
        return
    layer, area = alpha[window][..., None], picture[window]
    weight = np.abs(layer)
    mean = float((area * weight).sum() / (3.0 * weight.sum()))
    total = float(layer.sum())
    if (total < 0 and mean < min(45.0, 1.2 * amplitude)) or (total > 0 and mean > 215.0):
        layer = -layer
    dark = min(amplitude / max(mean, 1.0), 0.93)
    bright = min(amplitude / max(255.0 - mean, 1.0), 0.93)
    area *= 1.0 - np.clip(-layer, 0, 1) * dark
    picture[window] = 255.0 - (255.0 - area) * (1.0 - np.clip(layer, 0, 1) * bright)


def cover(picture: Floats, alpha: Floats, window: Window, content: Floats | float) -> None:
    """Lay `content` (window-shaped, or a grey level) over `picture` in `window`; changes it."""
    layer = alpha[window][..., None]
    picture[window] = picture[window] * (1.0 - layer) + content * layer


def grain(canvas: Canvas, window: Window, strength: float = 1.0) -> Floats:
    """Fine grain of the same picture, cut from a random place, in the shape of `window`."""
    rows, columns = canvas.part[window].shape
    height, width = canvas.part.shape
    top = int(canvas.rng.integers(0, height - rows + 1))
    left = int(canvas.rng.integers(0, width - columns + 1))
    return canvas.residual[top : top + rows, left : left + columns] * np.float32(strength)


def fill_from(picture: Floats, source: Mask, window: Window) -> Floats:
    """A smooth continuation, window-shaped, of the pixels of `window` that are True in `source`.

    Normalised convolution at a few widths: near pixels count where there are any.
    """
    area, known = picture[window], source[window].astype(np.float32)
    rows, columns = known.shape
    factor = max(max(rows, columns) / 48.0, 1.0)
    size = (max(int(columns / factor), 1), max(int(rows / factor), 1))
    values = cv2.resize(area * known[..., None], size, interpolation=cv2.INTER_AREA)
    weights = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    values, weights = values.reshape(size[1], size[0], 3), weights.reshape(size[1], size[0])
    top = np.zeros_like(values)
    below = np.full(weights.shape, 1e-6, np.float32)
    for sigma, share in ((1.5, 1.0), (5.0, 0.05), (20.0, 0.002)):
        top = top + share * cv2.GaussianBlur(values, (0, 0), sigma)
        below = below + share * cv2.GaussianBlur(weights, (0, 0), sigma)
    smooth = np.asarray(top / below[..., None], np.float32)
    if factor == 1.0:
        return smooth
    return np.asarray(
        cv2.resize(smooth, (columns, rows), interpolation=cv2.INTER_LINEAR), np.float32
    )


def warp(layer: Floats, window: Window, move_x: Floats, move_y: Floats) -> Floats:
    """`layer` (H, W, ...) sampled in `window` at each pixel plus its move, window-shaped."""
    grid_y, grid_x = np.mgrid[window]
    return np.asarray(
        cv2.remap(
            layer,
            (grid_x + move_x).astype(np.float32),
            (grid_y + move_y).astype(np.float32),
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT,
        ),
        np.float32,
    )
