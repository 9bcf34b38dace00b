"""Marks on the part: where to put them, worn lines, rims, and what lies below a missing piece."""

from __future__ import annotations

import cv2
import numpy as np

from anomalyr1.data.defect_shapes import (
    Canvas,
    Floats,
    Mask,
    Window,
    fill_from,
    grain,
    pick_pixel,
    shade,
    smooth_noise,
    soften,
    stroke,
    window_of,
)


def place_on(canvas: Canvas) -> tuple[float, float]:
    """A pixel of the part, off its rim where the part is thick enough."""
    size = max(int(10 * canvas.scale), 1)
    inner = cv2.erode(canvas.part.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    place = pick_pixel(inner, canvas.rng) or pick_pixel(canvas.part, canvas.rng)
    assert place is not None
    return place


def held_to_part(canvas: Canvas, alpha: Floats, grow_px: int = 0) -> Floats:
    """`alpha` held to the part grown by `grow_px`, with an edge as soft as the picture."""
    if canvas.part.all():
        return alpha
    part: Floats = canvas.part.astype(np.float32)
    if grow_px:
        kernel = np.ones((2 * grow_px + 1, 2 * grow_px + 1), np.uint8)
        part = np.asarray(cv2.dilate(part, kernel), np.float32)
    return np.asarray(alpha * cv2.GaussianBlur(part, (0, 0), canvas.feather), np.float32)


def random_sign(canvas: Canvas, dark: float = 0.5) -> float:
    return -1.0 if canvas.rng.random() < dark else 1.0


def worn_line(canvas: Canvas, points: Floats, width: float, broken: float = 0.0) -> Floats:
    """A stroke that tapers, fades and, with chance `broken`, is interrupted."""
    rng, steps = canvas.rng, len(points)
    wave = smooth_noise((1, steps), steps / 5, rng)[0]
    position = np.linspace(-1, 1, steps)
    taper = 1.0 - rng.uniform(0.2, 0.9) * np.abs(position) ** 3
    opacity = np.clip(0.85 + 0.2 * wave, 0.45, 1.0)
    if rng.random() < broken:
        opacity = np.where(smooth_noise((1, steps), steps / 8, rng)[0] < -0.6, 0.0, opacity)
    widths = (width * taper * np.clip(1 + 0.2 * wave, 0.5, 1.5)).astype(np.float32)
    alpha = stroke(canvas.part.shape, points, widths, opacity.astype(np.float32))
    return soften(alpha, 0.6 * canvas.feather)


def line_width(canvas: Canvas, low: float = 1.1, high: float = 3.5) -> float:
    return float(max(canvas.between(low, high, 0.4) * max(canvas.scale, 0.5), 1.0))


def line_length(canvas: Canvas, low: float = 0.08, high: float = 0.7) -> float:
    return float(min(canvas.between(low, high, 0.35), 1.2) * min(canvas.part.shape))


def shifted(alpha: Floats, x: float, y: float) -> Floats:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return np.asarray(cv2.warpAffine(alpha, matrix, alpha.shape[::-1]), np.float32)


def add_lip(
    canvas: Canvas, picture: Floats, alpha: Floats, x: float, y: float, share: float
) -> None:
    """A rim beside `alpha`, shifted by (x, y): light where `share` > 0."""
    rim = np.clip(shifted(alpha, x, y) - alpha, 0, 1)
    shade(picture, held_to_part(canvas, rim) * np.sign(share), canvas.amplitude * abs(share))


def ground_below(canvas: Canvas, alpha: Floats) -> tuple[Window, Floats] | None:
    """What would be seen in `alpha` if the part were not there: its background, with grain.

    Where the part fills the picture, a smooth continuation of what surrounds `alpha`.
    """
    pad = int(12 * canvas.scale) + 4
    window = window_of(alpha, pad)
    if window is None:
        return None
    source: Mask = alpha < 0.01
    if not canvas.part.all():
        outside = cv2.erode((~canvas.part).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        if outside.sum() > 20:
            source = outside
            if not source[window].any():
                window = (slice(0, source.shape[0]), slice(0, source.shape[1]))
    smooth = fill_from(canvas.picture, source, window)
    known = canvas.residual[source]
    deviation = known.std(axis=0) if len(known) else np.zeros(3)
    own = grain(canvas, window)
    scale = np.minimum(deviation / (own.std(axis=(0, 1)) + 0.05), 1.0)
    return window, (smooth + own * scale).astype(np.float32)


def texture_elsewhere(canvas: Canvas, window: Window) -> tuple[Window, Floats]:
    """`window` with a piece of the picture from another place, brought to its mean colour."""
    rows, columns = canvas.part[window].shape
    top = int(canvas.rng.integers(0, canvas.part.shape[0] - rows + 1))
    left = int(canvas.rng.integers(0, canvas.part.shape[1] - columns + 1))
    piece = canvas.picture[top : top + rows, left : left + columns]
    level = canvas.picture[window].mean(axis=(0, 1)) - piece.mean(axis=(0, 1))
    return window, (piece + level).astype(np.float32)
