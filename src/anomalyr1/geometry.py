"""Boxes and the frames they live in. The only place where a box changes from one frame to another.

Boxes are xyxy, half-open: a box covers the pixels x1 <= x < x2 and y1 <= y < y2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from anomalyr1.types import Box, BoxFrame, InputError

_ROWS = ("top", "", "bottom")
_COLUMNS = ("left", "", "right")
GRID_WORDS = tuple(f"{row} {column}".strip() or "centre" for row in _ROWS for column in _COLUMNS)
"""The names of the nine places of a picture, row by row."""


def box_area(box_xyxy: Box) -> float:
    """Area in square pixels; 0 for a box without width or height.

    >>> box_area((1, 1, 3, 4))
    6.0
    """
    left, top, right, bottom = box_xyxy
    return float(max(0.0, right - left) * max(0.0, bottom - top))


def box_intersection(first_xyxy: Box, second_xyxy: Box) -> float:
    """Area that two boxes of one frame share, in square pixels; 0 where either is degenerate.

    >>> box_intersection((0, 0, 4, 4), (2, 2, 6, 6))
    4.0
    """
    if box_area(first_xyxy) == 0 or box_area(second_xyxy) == 0:
        return 0.0
    left, top = max(first_xyxy[0], second_xyxy[0]), max(first_xyxy[1], second_xyxy[1])
    right, bottom = min(first_xyxy[2], second_xyxy[2]), min(first_xyxy[3], second_xyxy[3])
    return box_area((left, top, right, bottom))


def box_iou(first_xyxy: Box, second_xyxy: Box) -> float:
    """Intersection over union of two boxes of one frame, in [0, 1].

    A degenerate box (no width or no height) has IoU 0 with everything, itself included.

    >>> box_iou((0, 0, 1, 1), (0, 0, 1, 1))
    1.0
    >>> box_iou((0, 0, 0, 5), (0, 0, 0, 5))
    0.0
    """
    shared = box_intersection(first_xyxy, second_xyxy)
    if shared == 0:
        return 0.0
    union = box_area(first_xyxy) + box_area(second_xyxy) - shared
    return min(1.0, shared / union)


def clip_box(box_xyxy: Box, size_wh: tuple[float, float]) -> Box | None:
    """The part of a box inside a picture of `size_wh`; None where nothing is left.

    >>> clip_box((-2, 1, 3, 9), (8, 8))
    (0.0, 1.0, 3.0, 8.0)
    """
    width, height = size_wh
    left, top, right, bottom = box_xyxy
    clipped = (
        float(max(0.0, left)),
        float(max(0.0, top)),
        float(min(width, right)),
        float(min(height, bottom)),
    )
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None


def box_from_mask(mask: NDArray[np.bool_]) -> Box:
    """The smallest box around every True pixel of a bool (H, W) mask.

    Raises InputError for a mask without a True pixel or of another shape.

    >>> box_from_mask(np.array([[False, True, True]]))
    (1.0, 0.0, 3.0, 1.0)
    """
    mask = _check_mask(mask)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not columns.size:
        raise InputError("mask holds no defect pixel: a box needs at least one")
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


def boxes_from_mask(mask: NDArray[np.bool_], *, min_area: int = 1, merge_gap: int = 0) -> list[Box]:
    """One box a defect of a bool (H, W) mask, largest area of True pixels first.

    Components are 8-connected; those with fewer than `merge_gap` pixels between them (along x
    and along y) count as one defect. Defects of fewer than `min_area` True pixels are left out.
    An empty mask gives an empty list.

    >>> boxes_from_mask(np.array([[True, False, True, True]]))
    [(2.0, 0.0, 4.0, 1.0), (0.0, 0.0, 1.0, 1.0)]
    >>> boxes_from_mask(np.array([[True, False, True, True]]), merge_gap=2)
    [(0.0, 0.0, 4.0, 1.0)]
    """
    import cv2
    from scipy import ndimage

    mask = _check_mask(mask)
    if not mask.any():
        return []
    joined = mask.astype(np.uint8)
    if merge_gap > 1:
        # Growing by a kernel of side g fills up to g - 1 pixels between two components.
        joined = np.asarray(cv2.dilate(joined, np.ones((merge_gap, merge_gap), np.uint8)))
    groups, _num_groups = ndimage.label(joined, structure=np.ones((3, 3), np.int64))
    groups = np.where(mask, groups, 0)
    areas = np.bincount(groups.ravel())
    found = []
    for index, place in enumerate(ndimage.find_objects(groups), start=1):
        if place is not None and areas[index] >= min_area:
            rows, columns = place
            box = (
                float(columns.start),
                float(rows.start),
                float(columns.stop),
                float(rows.stop),
            )
            found.append((-int(areas[index]), box[1], box[0], box))
    return [box for *_, box in sorted(found)]


def frame_size(shown_size_wh: tuple[int, int], frame: BoxFrame) -> tuple[int, int]:
    """Width and height, in the model's units, of a picture shown at `shown_size_wh` pixels.

    >>> frame_size((448, 336), "relative_1000")
    (1000, 1000)
    """
    if frame not in ("absolute", "relative_1000"):
        raise InputError(f"box frame {frame!r} is unknown: use absolute or relative_1000")
    return shown_size_wh if frame == "absolute" else (1000, 1000)


def to_original(
    box: Box,
    shown_size_wh: tuple[int, int],
    original_size_wh: tuple[int, int],
    frame: BoxFrame,
) -> Box:
    """Move a box from the model's frame to original-image pixels, without clipping.

    "absolute" boxes are in pixels of the picture as shown, of `shown_size_wh`; "relative_1000"
    boxes in thousandths of each side. Raises InputError for a size that is not positive.

    >>> to_original((0, 0, 224, 112), (448, 448), (896, 448), "absolute")
    (0.0, 0.0, 448.0, 112.0)
    """
    width, height = _check_size(frame_size(shown_size_wh, frame))
    original_width, original_height = _check_size(original_size_wh)
    left, top, right, bottom = box
    return (
        float(left * original_width / width),
        float(top * original_height / height),
        float(right * original_width / width),
        float(bottom * original_height / height),
    )


def to_model(
    box_xyxy: Box,
    shown_size_wh: tuple[int, int],
    original_size_wh: tuple[int, int],
    frame: BoxFrame,
) -> tuple[int, int, int, int]:
    """Move a box from original-image pixels to the model's frame, in whole units.

    The result lies inside the picture and is at least one unit wide and high, so that it can
    always be read back. Raises InputError for a degenerate box or one outside the picture.

    >>> to_model((0, 0, 448, 112), (448, 448), (896, 448), "absolute")
    (0, 0, 224, 112)
    """
    width, height = _check_size(frame_size(shown_size_wh, frame))
    original_width, original_height = _check_size(original_size_wh)
    inside = clip_box(box_xyxy, original_size_wh)
    if inside is None or not all(math.isfinite(side) for side in box_xyxy):
        raise InputError(
            f"box {tuple(box_xyxy)} covers nothing of a {original_width}x{original_height} "
            "picture: boxes are x1, y1, x2, y2 in original-image pixels"
        )
    left, right = _whole_span(
        inside[0] * width / original_width, inside[2] * width / original_width, width
    )
    top, bottom = _whole_span(
        inside[1] * height / original_height, inside[3] * height / original_height, height
    )
    return (left, top, right, bottom)


def match_boxes(
    predicted_xyxy: Sequence[Box], true_xyxy: Sequence[Box]
) -> list[tuple[int, int, float]]:
    """Pairs (predicted index, true index, IoU) of the one-to-one match of largest total IoU.

    Boxes share one frame. Pairs that do not overlap are left out; the rest come in the order of
    `predicted_xyxy`.

    >>> match_boxes([(9, 9, 10, 10), (0, 0, 2, 2)], [(0, 0, 2, 1)])
    [(1, 0, 0.5)]
    """
    from scipy.optimize import linear_sum_assignment

    if not predicted_xyxy or not true_xyxy:
        return []
    overlaps = np.array(
        [[box_iou(predicted, true) for true in true_xyxy] for predicted in predicted_xyxy]
    )
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [
        (int(row), int(column), float(overlaps[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if overlaps[row, column] > 0
    ]


def grid_words(box_xyxy: Box, size_wh: tuple[int, int]) -> str:
    """Where the middle of a box lies, in words of a 3x3 grid over a picture of `size_wh`.

    >>> grid_words((0, 0, 10, 10), (100, 100))
    'top left'
    >>> grid_words((40, 40, 60, 60), (100, 100))
    'centre'
    """
    width, height = _check_size(size_wh)
    left, top, right, bottom = box_xyxy
    column = min(2, max(0, math.floor(3 * (left + right) / 2 / width)))
    row = min(2, max(0, math.floor(3 * (top + bottom) / 2 / height)))
    return GRID_WORDS[3 * row + column]


def _whole_span(low: float, high: float, limit: int) -> tuple[int, int]:
    """Round both ends; a span that would vanish becomes the unit that holds its middle."""
    start, stop = round(low), round(high)
    if stop <= start:
        start = min(math.floor((low + high) / 2), limit - 1)
        stop = start + 1
    return start, stop


def _check_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise InputError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}: expected bool (height, width)"
        )
    return mask


def _check_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    if size_wh[0] <= 0 or size_wh[1] <= 0:
        raise InputError(f"picture size {size_wh[0]}x{size_wh[1]} must be positive")
    return size_wh
