"""Masks as COCO writes them: run lengths, compressed or not, and polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from anomalyr1.types import InputError

EncodedMask = dict[str, Any]
"""COCO's compressed run lengths: `size` is [H, W], `counts` a text."""


def encode_mask(mask: NDArray[np.bool_]) -> EncodedMask:
    """COCO's compressed run-length encoding of a mask, bool (H, W): size is [H, W]."""
    return _to_text(coco.encode(np.asfortranarray(mask, np.uint8)))


def decode_mask(encoded: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask, bool (H, W), of what `encode_mask` made."""
    return np.asarray(coco.decode(_to_bytes(encoded)), np.bool_)


def encode_segmentation(segmentation: object, size_wh: tuple[int, int]) -> EncodedMask:
    """The mask of an annotation's `segmentation` in a picture of `size_wh`: a list of polygons
    (x, y, x, y, ... in pixels, filled as COCO's own tools do), or run lengths with `counts` as a
    list or as a text.

    Raises InputError for anything else, for polygons that reach more than a pixel out of the
    picture, and for run lengths of another size.

    >>> square = encode_segmentation([[1, 0, 3, 0, 3, 2, 1, 2]], (4, 3))
    >>> decode_mask(square).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    width, height = size_wh
    if isinstance(segmentation, Mapping):
        counts = _read_run_lengths(segmentation, size_wh)
        shape: object = {"size": [height, width], "counts": counts}
        return _to_text(coco.frPyObjects(shape, height, width))
    if not isinstance(segmentation, list) or not segmentation:
        raise InputError(f"is {segmentation!r:.60}, polygons or run lengths are expected")
    polygons = [_read_polygon(polygon, size_wh) for polygon in segmentation]
    return _to_text(coco.merge(coco.frPyObjects(polygons, height, width)))


def unite_masks(encoded: Sequence[EncodedMask]) -> EncodedMask:
    """The union of one or more masks of one size."""
    return _to_text(coco.merge([_to_bytes(one) for one in encoded]))


def count_pixels(encoded: EncodedMask) -> int:
    """How many pixels a mask marks."""
    return int(coco.area(_to_bytes(encoded)))


def _read_polygon(polygon: object, size_wh: tuple[int, int]) -> list[float]:
    if not isinstance(polygon, list) or not all(type(side) in (int, float) for side in polygon):
        raise InputError(f"polygon is {polygon!r:.60}, a list of numbers is expected")
    if len(polygon) < 6 or len(polygon) % 2:
        raise InputError(
            f"polygon has {len(polygon)} numbers, x and y of three corners or more are expected"
        )
    corners = np.array(polygon, np.float64).reshape(-1, 2)
    # Tools round: up to a pixel beyond the edge is cut, more is a fault.
    if not ((corners >= -1) & (corners <= np.add(size_wh, 1))).all():
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        raise InputError(
            f"polygon from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) is not inside "
            f"{size_wh[0]}x{size_wh[1]}"
        )
    inside: list[float] = corners.clip(0, size_wh).ravel().tolist()
    return inside


def _read_run_lengths(encoded: Mapping[str, Any], size_wh: tuple[int, int]) -> list[int]:
    width, height = size_wh
    size, counts = encoded.get("size"), encoded.get("counts")
    if size != [height, width]:
        raise InputError(f"size is {size!r:.60}, height and width are {[height, width]}")
    # pycocotools would fill run lengths that end early with background.
    lengths = _split_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(run) is int and run >= 0 for run in lengths):
        raise InputError(f"counts is {counts!r:.60}, run lengths are expected")
    if sum(lengths) != height * width:
        raise InputError(
            f"run lengths add up to {sum(lengths)}, {width}x{height} are {height * width} pixels"
        )
    return lengths


def _split_counts(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed text, None where it is none. Each is written in groups
    of five bits, lowest first, from the fourth on as its difference to the one before the last."""
    lengths: list[int] = []
    value = shift = 0
    for bits in (ord(sign) - ord("0") for sign in text):
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return None if shift else lengths


def _to_text(encoded: Mapping[str, Any]) -> EncodedMask:
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def _to_bytes(encoded: Mapping[str, Any]) -> EncodedMask:
    return {"size": list(encoded["size"]), "counts": encoded["counts"].encode("ascii")}
