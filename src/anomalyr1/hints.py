"""The anomaly map as the model is shown it: a picture, and its score and regions in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.geometry import grid_words, to_model, to_original
from anomalyr1.types import Anomaly, Box, BoxFrame, Hint, HintRegion, Region, SeenRegion

REGION_LEVEL = 0.15
"""A region is where the map is at least this high ..."""

REGION_PEAK = 0.5
"""... and somewhere in it at least this high, the decision line."""

REGION_SHARE = 0.5
"""Its box holds what is at least this share of its peak."""

MOST_REGIONS = 12

_GAP_CELLS = 3
"""Parts of a region fewer map cells apart than this are one."""

LEAST_CELLS = 2
"""Smaller parts of a map are no region."""


def draw_hint(anomaly_map: NDArray[np.float32], size_wh: tuple[int, int]) -> Image.Image:
    """An RGB picture of `size_wh`: red is the map (0.5, the decision line, is half red), green
    grows to the right and blue downwards, so that a patch's colour also says where it lies.

    `anomaly_map` is float32 (h, w) in [0, 1] and covers the whole picture.
    """
    width, height = size_wh
    red = np.clip(np.asarray(anomaly_map, np.float32), 0.0, 1.0) * 255.0
    resized = Image.fromarray(red.astype(np.uint8)).resize(size_wh, Image.Resampling.BILINEAR)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.asarray(resized)
    pixels[..., 1] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[..., 2] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)


@dataclass(frozen=True, slots=True)
class MapRegion:
    """A region of a map (h, w): its highest value, and the `rows` and `columns` (n,) of the cells
    that its box is drawn around."""

    peak: float
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def find_map_regions(anomaly_map: NDArray[np.float32]) -> list[MapRegion]:
    """The regions that stand out in a map (h, w), at most MOST_REGIONS, highest peak first."""
    import cv2

    high = (anomaly_map >= REGION_LEVEL).astype(np.uint8)
    joined = cv2.dilate(high, np.ones((_GAP_CELLS, _GAP_CELLS), np.uint8))
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    found = []
    for number in range(1, count):
        rows, columns = np.nonzero((labels == number) & (high > 0))
        peak = float(anomaly_map[rows, columns].max())
        if len(rows) < LEAST_CELLS or peak < REGION_PEAK:
            continue
        core = anomaly_map[rows, columns] >= REGION_SHARE * peak
        found.append(MapRegion(peak, rows[core], columns[core]))
    return sorted(found, key=lambda region: -region.peak)[:MOST_REGIONS]


def bound_region(region: MapRegion) -> Box:
    """The box around a region's cells, xyxy in cells of the map."""
    return (
        float(region.columns.min()),
        float(region.rows.min()),
        float(region.columns.max() + 1),
        float(region.rows.max() + 1),
    )


def find_regions(anomaly: Anomaly, size_wh: tuple[int, int]) -> list[Region]:
    """What stands out in a map, highest peak first: boxes in pixels of the picture of `size_wh`
    that the map covers; `confidence` is the peak, `defect_type` the kind that it looks like, or "".
    The detector's own regions, or else those of `find_map_regions`."""
    seen = anomaly.regions
    if seen is None:
        found = find_map_regions(anomaly.anomaly_map)
        seen = tuple(SeenRegion(bound_region(region), region.peak) for region in found)
    height, width = anomaly.anomaly_map.shape
    across, down = size_wh[0] / width, size_wh[1] / height
    regions = []
    for region in seen:
        left, top, right, bottom = region.box_xyxy
        box = (left * across, top * down, right * across, bottom * down)
        regions.append(Region(box, region.kind, confidence=region.peak))
    return regions


def scale_score(score: float) -> int:
    """A score in [0, 1] as 0 to 100: 50 is the decision line and 5 more are one more logit, so that
    high scores can be told apart.

    >>> scale_score(0.5), scale_score(0.88), scale_score(1.0)
    (50, 60, 100)
    """
    kept = min(max(score, 1e-9), 1.0 - 1e-9)
    return min(100, max(0, round(50.0 + 5.0 * math.log(kept / (1.0 - kept)))))


def describe_hint(
    anomaly: Anomaly, size_wh: tuple[int, int], shown_wh: tuple[int, int], frame: BoxFrame
) -> Hint:
    """Score and regions in the model's words: boxes in its frame, in reading order.

    `size_wh` is the picture's size in pixels, `shown_wh` the size at which the model sees it.
    """
    regions = sorted(
        find_regions(anomaly, size_wh),
        key=lambda region: (region.box_xyxy[1], region.box_xyxy[0]),
    )
    return Hint(
        scale_score(anomaly.score),
        tuple(
            HintRegion(
                to_model(region.box_xyxy, shown_wh, size_wh, frame),
                round(100 * (region.confidence or 0.0)),
                grid_words(region.box_xyxy, size_wh),
                region.defect_type,
            )
            for region in regions
        ),
    )


def restore_boxes(
    boxes_xyxy: Sequence[Box],
    anomaly: Anomaly,
    size_wh: tuple[int, int],
    shown_wh: tuple[int, int],
    original_wh: tuple[int, int],
    frame: BoxFrame,
) -> list[Box]:
    """Boxes of an answer, in pixels of the original, with those that are a region's as
    `describe_hint` told it (for `size_wh`) as the map has them: told boxes are rounded to the
    model's frame, in which a small defect is a few units wide."""
    exact: dict[Box, Box] = {}
    for region in find_regions(anomaly, size_wh):
        told = to_original(
            to_model(region.box_xyxy, shown_wh, size_wh, frame), shown_wh, original_wh, frame
        )
        whole = to_original(region.box_xyxy, size_wh, original_wh, "absolute")
        exact.setdefault(told, whole)
    return [exact.get(box, box) for box in boxes_xyxy]
