"""Paints synthetic defects on normal pictures, with an exact mask, as training data.

A defect is made from the picture's own pixels wherever it can be: shading keeps the texture below,
fills carry the grain of the same picture, edges are as soft as the picture. Black-and-white line
art (circuit artwork) is left to `defect_lineart`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyr1.data import defect_lineart, defect_structure, defect_surface
from anomalyr1.data.defect_shapes import Canvas, Floats, Mask, open_canvas
from anomalyr1.types import InputError

VISIBLE_LEVELS = 6
"""A pixel counts as changed where a channel moved by this many grey levels."""

_ATTEMPTS = 6
_AREA_SHARE = (0.0002, 0.35)

_PAINTS: dict[str, Callable[[Canvas], Floats | None]] = {
    "scratch": defect_surface.scratch,
    "crack": defect_surface.crack,
    "hole": defect_surface.hole,
    "dent": defect_surface.dent,
    "stain": defect_surface.stain,
    "discolouration": defect_surface.discolouration,
    "missing part": defect_structure.missing_part,
    "misplaced part": defect_structure.misplaced_part,
    "bent": defect_structure.bent,
    "chipped edge": defect_structure.chipped_edge,
    "cut": defect_surface.cut,
    "thread pull": defect_structure.thread_pull,
    "contamination": defect_structure.contamination,
    "misprint": defect_structure.misprint,
}

DEFECT_KINDS: tuple[str, ...] = tuple(_PAINTS)


@dataclass(frozen=True, slots=True)
class Painted:
    """A picture with one defect. `image`: uint8 RGB (H, W, 3); `mask`: bool (H, W), True where
    the picture was visibly changed."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def paint_defect(
    image: NDArray[np.uint8],
    part: NDArray[np.bool_],
    kind: str,
    rng: np.random.Generator,
    severity: float,
) -> Painted | None:
    """Paint one defect of `kind` on a copy of `image`; None where this part cannot have one.

    `image`: uint8 RGB (H, W, 3). `part`: bool (H, W), True on the object (all True for a picture
    of a surface). `severity` in [0, 1] scales size and contrast: 0 is faint and small, 1 is gross.
    The same `rng` state gives the same picture. Raises InputError for an unknown kind, a wrong
    shape or dtype, or a severity outside [0, 1].

    >>> grey = np.full((96, 96, 3), 120, np.uint8)
    >>> done = paint_defect(grey, np.ones((96, 96), bool), "hole", np.random.default_rng(0), 0.5)
    >>> done.image.shape, bool(done.mask.any())
    ((96, 96, 3), True)
    """
    _check(image, part, kind, severity)
    if not part.any():
        return None
    canvas = open_canvas(image, part, rng, severity)
    lineart = defect_lineart.read_lineart(canvas)
    for attempt in range(_ATTEMPTS):
        # a defect that came out too large is tried again a little smaller
        canvas = replace(canvas, severity=severity * 0.9**attempt)
        if lineart is not None:
            picture = defect_lineart.paint_lineart(canvas, lineart, kind)
        else:
            picture = _PAINTS[kind](canvas)
        if picture is None:
            continue
        painted = _finish(image, picture, canvas)
        if painted is not None:
            return painted
    return None


def _check(image: NDArray[np.uint8], part: NDArray[np.bool_], kind: str, severity: float) -> None:
    if kind not in _PAINTS:
        nearest = difflib.get_close_matches(kind, DEFECT_KINDS, n=1, cutoff=0.0)[0]
        raise InputError(f'defect kind "{kind}" is unknown; the nearest is "{nearest}"')
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"image is {image.dtype} {image.shape}; hand in uint8 RGB of shape (H, W, 3)"
        )
    if part.shape != image.shape[:2] or part.dtype != np.bool_:
        raise InputError(
            f"part is {part.dtype} {part.shape}, image is {image.shape}; hand in bool (H, W)"
        )
    if not 0.0 <= severity <= 1.0:
        raise InputError(f"severity is {severity}; hand in a number from 0 to 1")


def _finish(image: NDArray[np.uint8], picture: Floats, canvas: Canvas) -> Painted | None:
    if canvas.monochrome:
        change = cv2.transform(picture - canvas.picture, np.full((3, 3), 1 / 3, np.float32))
        picture = canvas.picture + change
    result = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    red, green, blue = cv2.split(cv2.absdiff(image, result))
    levels = np.asarray(cv2.max(cv2.max(red, green), blue), np.uint8)
    mask = _visible(levels, canvas.scale)
    low, high = _AREA_SHARE
    if not max(low * mask.size, 4) <= int(mask.sum()) <= high * mask.size:
        return None
    # what is too faint or too small to be in the mask must not be in the picture either
    _, labels = cv2.connectedComponents((levels > 0).astype(np.uint8), connectivity=8)
    kept = np.zeros(int(labels.max()) + 1, np.bool_)
    kept[labels[mask]] = True
    result = np.where(kept[labels][..., None], result, image)
    return Painted(image=result, mask=mask)


def _visible(levels: NDArray[np.uint8], scale: float) -> Mask:
    seen = (levels >= VISIBLE_LEVELS).astype(np.uint8)
    size = 2 * max(round(scale), 1) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(seen, cv2.MORPH_CLOSE, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = areas >= max(4.0, 8.0 * scale * scale)
    keep[0] = False
    if count > 1 and not keep.any():
        keep[1 + int(np.argmax(areas[1:]))] = True
    return np.asarray(keep[labels], np.bool_)
