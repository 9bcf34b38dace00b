"""The anomaly map as the model is shown it: a picture, and its score and regions in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.geometry import grid_words, to_model
from anomalyr1.types import Anomaly, Box, BoxFrame, Hint, HintRegion, Region

REGION_LEVEL = 0.15
"""A region is where the map is at least this high ..."""

REGION_PEAK = 0.5
"""... and somewhere in it at least this high, the decision line."""

REGION_SHARE = 0.5
"""Its box holds what is at least this share of its peak."""

MOST_REGIONS = 12

_KINDS = tuple(KIND_WORDS)

_GAP_CELLS = 3
"""Parts of a region fewer map cells apart than this are one."""

_LEAST_CELLS = 2


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
        if len(rows) < _LEAST_CELLS or peak < REGION_PEAK:
            continue
        core = anomaly_map[rows, columns] >= REGION_SHARE * peak
        found.append(MapRegion(peak, rows[core], columns[core]))
    return sorted(found, key=lambda region: -region.peak)[:MOST_REGIONS]


def find_regions(anomaly: Anomaly, size_wh: tuple[int, int]) -> list[Region]:
    """The regions of `find_map_regions` as boxes in pixels of the picture of `size_wh` that the map
    covers; `confidence` is the peak, `defect_type` the commonest kind of its cells, or ""."""
    found = []
    for region in find_map_regions(anomaly.anomaly_map):
        kind = 0
        if anomaly.kinds is not None:
            kind = int(np.bincount(anomaly.kinds[region.rows, region.columns]).argmax())
        box = place_region(region, anomaly.anomaly_map.shape, size_wh)
        found.append(Region(box, _KINDS[kind - 1] if kind else "", confidence=region.peak))
    return found


def place_region(region: MapRegion, grid_hw: tuple[int, ...], size_wh: tuple[int, int]) -> Box:
    """The box around a region's cells, in pixels of the picture of `size_wh` that a map of
    `grid_hw` cells covers."""
    scale_x, scale_y = size_wh[0] / grid_hw[1], size_wh[1] / grid_hw[0]
    return (
        float(region.columns.min() * scale_x),
        float(region.rows.min() * scale_y),
        float((region.columns.max() + 1) * scale_x),
        float((region.rows.max() + 1) * scale_y),
    )


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
