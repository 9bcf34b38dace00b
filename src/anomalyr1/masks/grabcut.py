"""A mask from the box and the picture's colours alone, by GrabCut; needs no map and no model.

Also holds the box arithmetic every masker shares: growing a box to whole pixels, its ellipse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.types import Box, InputError

PixelBox = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole original-image pixels, half-open, inside the picture, not empty."""

MAX_SIDE = 192
TINY_SIDE = 4
_CONTEXT = 0.5
_MIN_CONTEXT = 8
_ITERATIONS = 3
_SEED = 0
# GrabCut fits five colour clusters a side and aborts on fewer samples than that.
_MIN_SAMPLES = 16
# A cut that keeps less than this share of the box, or more than the other, has collapsed: the
# colours did not tell defect from part.
_MIN_SHARE = 0.02
_MAX_SHARE = 0.98


@dataclass(frozen=True, slots=True)
class GrabCutMasker:
    """Cut each box's content from its surroundings by colour (Rother et al., SIGGRAPH 2004).

    The box is the only prompt: outside it is background, inside undecided. Runs on the box grown
    by half, at most 192 pixels a side, with a fixed seed, so the same input gives the same mask.
    """

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Return one bool mask (H, W) in original-image pixels per box; `anomaly_map` is ignored.

        `boxes`: xyxy, half-open, original-image pixels. The mask lies inside the box rounded
        outwards. A box with a side under 4 pixels comes back whole; one where GrabCut finds
        nothing, everything, or no surroundings to compare with gives its inscribed ellipse. A box
        wholly outside the picture gives an empty mask.

        Raises InputError for a box that is reversed or not finite.
        """
        return [self._mask(image, box) for box in boxes]

    def _mask(self, image: Image.Image, box: Box) -> NDArray[np.bool_]:
        mask = np.zeros((image.height, image.width), dtype=np.bool_)
        inner = grow_box(box, image.size)
        if inner is None:
            return mask
        x1, y1, x2, y2 = inner
        if min(x2 - x1, y2 - y1) < TINY_SIDE:
            mask[y1:y2, x1:x2] = True
            return mask
        outer = grow_box(box, image.size, _CONTEXT, _MIN_CONTEXT)
        assert outer is not None
        colours = load_crop(image, outer, MAX_SIDE)
        trimap = np.full(colours.shape[:2], cv2.GC_BGD, dtype=np.uint8)
        window = rescale_window(inner, outer, trimap.shape)
        trimap[window] = cv2.GC_PR_FGD
        cut = cut_foreground(colours, trimap)
        if cut is None or not _MIN_SHARE < cut[window].mean() < _MAX_SHARE:
            mask[y1:y2, x1:x2] = build_ellipse(x2 - x1, y2 - y1)
            return mask
        mask[y1:y2, x1:x2] = enlarge(cut, outer)[
            y1 - outer[1] : y2 - outer[1], x1 - outer[0] : x2 - outer[0]
        ]
        return mask


def grow_box(
    box: Box, size_wh: tuple[int, int], fraction: float = 0.0, at_least: int = 0
) -> PixelBox | None:
    """Grow `box` on every side by `fraction` of that side's length, round outwards, clip.

    Both frames are original-image pixels, half-open. Returns None where the box, before growing,
    does not touch the picture. Raises InputError for a box that is reversed or not finite.

    >>> grow_box((10.2, 10.0, 20.0, 20.0), (100, 18), 0.1)
    (9, 9, 21, 18)
    """
    x1, y1, x2, y2 = box
    if not all(math.isfinite(side) for side in box) or x2 <= x1 or y2 <= y1:
        raise InputError(f"box {box} is not x1 < x2, y1 < y2 in finite pixels: drop it or reorder")
    width, height = size_wh
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return None
    grow_x = max(fraction * (x2 - x1), at_least)
    grow_y = max(fraction * (y2 - y1), at_least)
    return (
        max(0, math.floor(x1 - grow_x)),
        max(0, math.floor(y1 - grow_y)),
        min(width, math.ceil(x2 + grow_x)),
        min(height, math.ceil(y2 + grow_y)),
    )


def build_ellipse(width: int, height: int) -> NDArray[np.bool_]:
    """The ellipse inscribed in a box of `width` x `height` pixels, as bool (height, width).

    Never empty: a box of one or two pixels a side is kept whole along that side.
    """
    columns = (np.arange(width) + 0.5) / width * 2 - 1
    rows = (np.arange(height) + 0.5) / height * 2 - 1
    inside: NDArray[np.bool_] = columns[None, :] ** 2 + rows[:, None] ** 2 <= 1
    return inside


def load_crop(image: Image.Image, box: PixelBox, max_side: int) -> NDArray[np.uint8]:
    """Cut `box` out of the picture as RGB uint8 (h, w, 3), each side shrunk to `max_side` at most.

    The sides shrink independently, so that a long thin scratch keeps its width.
    """
    colours = np.asarray(image.crop(box).convert("RGB"))
    height, width = colours.shape[:2]
    size_wh = (min(width, max_side), min(height, max_side))
    if size_wh != (width, height):
        colours = cv2.resize(colours, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return colours


def rescale_window(
    inner: PixelBox, outer: PixelBox, shape_hw: tuple[int, ...]
) -> tuple[slice, slice]:
    """Where `inner` (original-image pixels) lies in a crop of `outer` resized to `shape_hw`.

    Returns (row slice, column slice), at least one pixel each way.
    """
    slices = []
    for axis in (1, 0):
        scale = shape_hw[1 - axis] / (outer[axis + 2] - outer[axis])
        start = min(round((inner[axis] - outer[axis]) * scale), shape_hw[1 - axis] - 1)
        stop = max(round((inner[axis + 2] - outer[axis]) * scale), start + 1)
        slices.append(slice(start, stop))
    return slices[0], slices[1]


def cut_foreground(
    colours: NDArray[np.uint8], trimap: NDArray[np.uint8]
) -> NDArray[np.bool_] | None:
    """Run GrabCut on RGB `colours` (h, w, 3) from `trimap` (h, w) of cv2.GC_* labels.

    Returns bool (h, w), or None where either side has too few pixels to learn colours from.
    """
    is_foreground = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    num_foreground = int(is_foreground.sum())
    if min(num_foreground, is_foreground.size - num_foreground) < _MIN_SAMPLES:
        return None
    cv2.setRNGSeed(_SEED)
    labels = trimap.copy()
    models = np.zeros((2, 1, 65), dtype=np.float64)
    cv2.grabCut(
        colours, labels, (0, 0, 0, 0), models[0], models[1], _ITERATIONS, cv2.GC_INIT_WITH_MASK
    )
    cut: NDArray[np.bool_] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return cut


def enlarge(cut: NDArray[np.bool_], box: PixelBox) -> NDArray[np.bool_]:
    """Bring a cut made on a shrunken crop back to the size of `box`, in original-image pixels."""
    size_wh = (box[2] - box[0], box[3] - box[1])
    if cut.shape == size_wh[::-1]:
        return cut
    soft = cv2.resize(cut.astype(np.float32), size_wh, interpolation=cv2.INTER_LINEAR)
    large: NDArray[np.bool_] = soft > 0.5
    return large
