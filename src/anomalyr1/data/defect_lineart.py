"""Defects of black-and-white line art, such as the artwork of etched circuit boards.

Open traces, shorts, mouse bites, spurs, pin-holes and spurious copper, drawn in the two tones that
the picture already has.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from anomalyr1.data.defect_shapes import Canvas, Floats, Mask, blob, pick_pixel, smooth_noise

_STYLE = {
    "missing part": "open",
    "cut": "open",
    "crack": "open",
    "scratch": "open",
    "thread pull": "short",
    "misplaced part": "short",
    "bent": "short",
    "contamination": "spurious",
    "stain": "spurious",
    "hole": "pin-hole",
    "discolouration": "pin-hole",
    "chipped edge": "bite",
    "dent": "bite",
    "misprint": "spur",
}


@dataclass(frozen=True, slots=True)
class LineArt:
    """`trace`: bool (H, W), the rarer tone; the two tones as RGB float32 (3,)."""

    trace: Mask
    trace_rgb: Floats
    ground_rgb: Floats


def read_lineart(canvas: Canvas) -> LineArt | None:
    """The traces of a picture that is nearly all black and white, None for any other picture."""
    grey = cv2.cvtColor(canvas.picture, cv2.COLOR_RGB2GRAY)
    dark, light = grey < 45, grey > 210
    if float((dark | light).mean()) < 0.88 or min(float(dark.mean()), float(light.mean())) < 0.03:
        return None
    # a photograph of a dark object on white is not line art: its tones are not pure
    if float(canvas.picture[dark].std()) + float(canvas.picture[light].std()) > 16.0:
        return None
    trace = grey < 128
    if float(trace.mean()) > 0.5:
        trace = ~trace
    tones = [np.median(canvas.picture[side & (dark | light)], axis=0) for side in (trace, ~trace)]
    return LineArt(trace, tones[0].astype(np.float32), tones[1].astype(np.float32))


def paint_lineart(canvas: Canvas, art: LineArt, kind: str) -> Floats | None:
    """One defect in the two tones of `art`: a float32 picture, None where no place was found."""
    style = _STYLE[kind]
    erases = style in ("open", "pin-hole", "bite")
    region = art.trace if erases else ~art.trace
    depth = np.asarray(cv2.distanceTransform(region.astype(np.uint8), cv2.DIST_L2, 3), np.float32)
    radius = canvas.between(0.007, 0.03, 0.3) * min(canvas.part.shape)
    if style in ("open", "short"):
        alpha = _bridge(canvas, region, depth)
    elif style in ("pin-hole", "spurious"):
        alpha = _island(canvas, depth, radius)
    else:
        centre = pick_pixel((depth > 0) & (depth <= 1.5) & canvas.part, canvas.rng)
        if centre is None:
            return None
        alpha = blob(canvas, centre, max(np.pi * radius**2, 9.0), 1.8, 0.2, 1.0)
        # one lobe only: a bite never adds copper on the far side of a gap
        alpha *= region
    if alpha is None:
        return None
    tone = art.ground_rgb if erases else art.trace_rgb
    mixed = canvas.picture * (1.0 - alpha[..., None]) + tone * alpha[..., None]
    return mixed.astype(np.float32)


def _island(canvas: Canvas, depth: Floats, radius: float) -> Floats | None:
    """A blob that lies within the region, away from its edges."""
    for share in (1.3, 0.9, 0.6):
        centre = pick_pixel((depth > max(radius * share, 2.0)) & canvas.part, canvas.rng)
        if centre is not None:
            size = max(radius * min(share, 1.0), 1.3)
            return blob(canvas, centre, np.pi * size**2, 1.8, 0.2, 1.0)
    return None


def _bridge(canvas: Canvas, region: Mask, depth: Floats) -> Floats | None:
    """A bar straight across a narrow place of the region, with uneven sides."""
    rng = canvas.rng
    side = min(canvas.part.shape)
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 0.1) & (depth > 1.0)
    # the frame of the picture is no edge of a trace
    margin = max(int(0.03 * side), 3)
    inner = np.zeros_like(ridge)
    inner[margin:-margin, margin:-margin] = True
    ridge &= inner & canvas.part
    if not ridge.any():
        return None
    narrow = max(0.035 * side, float(np.percentile(depth[ridge], 30)))
    centre = pick_pixel(ridge & (depth <= narrow), rng)
    assert centre is not None
    x, y = int(centre[0]), int(centre[1])
    half = float(depth[y, x])
    reach = int(3 * half) + 4
    top, left = max(y - reach, 0), max(x - reach, 0)
    rows, columns = np.nonzero(region[top : y + reach + 1, left : x + reach + 1])
    offsets = np.stack([columns + left - x, rows + top - y]).astype(np.float64)
    _, vectors = np.linalg.eigh(offsets @ offsets.T)
    along = vectors[:, 1]
    thickness = max(canvas.between(0.008, 0.035, 0.3) * side, 2.0)
    span = int(max(half + 3.0, thickness) * 1.5) + 4
    box = (slice(max(y - span, 0), y + span + 1), slice(max(x - span, 0), x + span + 1))
    shape = canvas.part[box].shape
    grid_y, grid_x = np.mgrid[0 : shape[0], 0 : shape[1]]
    grid_y, grid_x = grid_y + box[0].start - y, grid_x + box[1].start - x
    lengthwise = np.abs(grid_x * along[0] + grid_y * along[1])
    crosswise = np.abs(grid_x * along[1] - grid_y * along[0])
    uneven = 0.12 * thickness * smooth_noise(shape, 0.5 * thickness + 2, rng)
    bar = np.clip(thickness / 2 + uneven - lengthwise + 0.5, 0, 1)
    alpha = np.zeros(canvas.part.shape, np.float32)
    near = cv2.dilate(region[box].astype(np.float32), np.ones((3, 3), np.uint8))
    alpha[box] = bar * (crosswise <= half + 2.5) * near
    return alpha
