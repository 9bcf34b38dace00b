"""What a small network makes of each region that a map may have: a closer box, its kind, how well
it fits a defect.

The map's own boxes are as good as its threshold, and the head is surer of them than it should be of
pictures that it was not trained on. So regions are proposed at several thresholds; the network,
trained on other pictures, sees the map and the distances around each, and a description of it that
holds the features; and of those that overlap the one is believed that it takes for the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.detectors.distances import Features
from anomalyr1.geometry import box_area, box_intersection, box_iou
from anomalyr1.hints import LEAST_CELLS, MOST_REGIONS, REGION_PEAK, MapRegion, bound_region
from anomalyr1.types import Box, SeenRegion

KINDS = tuple(KIND_WORDS)

LEVELS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.96)
"""What hangs together where the map is at least one of these high is proposed as a region,"""

LEAST_PEAK = 0.3
"""if the map is somewhere in it at least this high,"""

MOST_PROPOSED = 96
"""at most this many of a picture."""

_SAME_IOU = 0.85
"""Boxes of at least this IoU are one proposal."""

_SHARED = 0.5
"""Two regions are of one defect where this share of the smaller one's box lies in the other's."""

VIEW_SIDE = 16
"""A region is seen on a grid of this many cells a side,"""

MARGIN = 0.5
"""that shows this share of its width left and right of it, and of its height above and below,"""

LEAST_MARGIN = 2.0
"""but at least this many cells of the map."""


def propose_regions(anomaly_map: NDArray[np.float32]) -> list[MapRegion]:
    """What the regions of a map (h, w) may be, highest peak first: two defects that run into each
    other at a low level are apart at a higher one, and a faint one is whole at a low one alone."""
    proposed: list[MapRegion] = []
    boxes: list[Box] = []
    parts = [part for level in LEVELS for part in _find_parts(anomaly_map, level)]
    for part in sorted(parts, key=lambda part: -part.peak):
        box = bound_region(part)
        if all(box_iou(box, other) < _SAME_IOU for other in boxes):
            proposed.append(part)
            boxes.append(box)
        if len(proposed) == MOST_PROPOSED:
            break
    return proposed


def _find_parts(anomaly_map: NDArray[np.float32], level: float) -> list[MapRegion]:
    """The parts of a map that hang together where it is at least `level` high."""
    high = (anomaly_map >= level).astype(np.uint8)
    count, labels, spans, _centres = cv2.connectedComponentsWithStats(high, connectivity=8)
    found = []
    for number in range(1, count):
        left, top, width, height, size = map(int, spans[number])
        window = np.s_[top : top + height, left : left + width]
        rows, columns = np.nonzero(labels[window] == number)
        peak = float(anomaly_map[window][rows, columns].max())
        if size >= LEAST_CELLS and peak >= LEAST_PEAK:
            found.append(MapRegion(peak, rows + top, columns + left))
    return found


@dataclass(frozen=True, slots=True)
class RegionView:
    """A region as the network sees it.

    `frame`: what its view shows, xyxy in cells of the map, beyond the picture's edge too; `own`:
    float32 (4,), its box xyxy in shares of the frame; `maps`: float32 (8, VIEW_SIDE, VIEW_SIDE),
    the map's logits and the distance channels; `described`: float32 (D,), see `describe_region`.
    """

    frame: Box
    own: NDArray[np.float32]
    maps: NDArray[np.float32]
    described: NDArray[np.float32]


def view_region(
    features: Features,
    distances: NDArray[np.float32],
    logits: NDArray[np.float32],
    region: MapRegion,
) -> RegionView:
    """What there is to see of a region of a map whose `logits` and distance channels are (H, W) and
    (7, H, W)."""
    own = left, top, right, bottom = bound_region(region)
    across = max(LEAST_MARGIN, MARGIN * (right - left))
    along = max(LEAST_MARGIN, MARGIN * (bottom - top))
    frame = (left - across, top - along, right + across, bottom + along)
    return RegionView(
        frame,
        share_box(own, frame),
        _resample(np.concatenate([logits[None], distances]), frame),
        describe_region(features, distances, region),
    )


def share_box(box_xyxy: Box, frame: Box) -> NDArray[np.float32]:
    """A box xyxy in shares of a frame: float32 (4,), 0 to 1 where it lies within."""
    start = np.array(frame[:2] * 2)
    length = np.array((frame[2] - frame[0], frame[3] - frame[1]) * 2)
    shares: NDArray[np.float32] = ((np.array(box_xyxy) - start) / length).astype(np.float32)
    return shares


def _resample(maps: NDArray[np.float32], frame: Box) -> NDArray[np.float32]:
    """Maps (C, VIEW_SIDE, VIEW_SIDE) of maps (C, H, W) within a frame; beyond the edge they go on
    as they are there."""
    places = (np.arange(VIEW_SIDE) + 0.5) / VIEW_SIDE
    columns = frame[0] + places * (frame[2] - frame[0]) - 0.5
    rows = frame[1] + places * (frame[3] - frame[1]) - 0.5
    at_x, at_y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    return np.stack(
        [
            cv2.remap(one, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for one in maps
        ]
    ).astype(np.float32)


def describe_region(
    features: Features, distances: NDArray[np.float32], region: MapRegion
) -> NDArray[np.float32]:
    """A region as a vector (D,): mean features of its cells and how they differ from the picture's,
    a level; mean distance channels (C, H, W) of its cells; its shape and peak."""
    parts = []
    for level in features:
        step = distances.shape[1] // level.shape[1]
        inside = level[:, region.rows // step, region.columns // step].mean(axis=1)
        parts += [inside, inside - level.mean(axis=(1, 2))]
    parts.append(distances[:, region.rows, region.columns].mean(axis=1))
    parts.append(_describe_shape(region, distances.shape[1:]))
    return np.concatenate(parts).astype(np.float32)


def _describe_shape(region: MapRegion, grid: tuple[int, ...]) -> NDArray[np.float64]:
    """Logarithms of the region's area, width and height as shares of the map, how much of its box
    it fills, how long it is for its breadth, whether it meets the picture's edge, and its peak."""
    cells = np.stack([region.rows, region.columns]).astype(float)
    spans = cells.max(axis=1) - cells.min(axis=1) + 1.0
    spread = np.linalg.eigvalsh(np.cov(cells, bias=True)) + 1.0 / 12.0
    edge = (cells.min() == 0) or bool((cells.max(axis=1) == np.asarray(grid) - 1).any())
    return np.array(
        [
            np.log(len(region.rows) / (grid[0] * grid[1])),
            np.log(spans[0] / grid[0]),
            np.log(spans[1] / grid[1]),
            len(region.rows) / spans.prod(),
            0.5 * np.log(spread[1] / spread[0]),
            float(edge),
            region.peak,
        ]
    )


def read_regions(
    session: Any,
    features: Features,
    distances: NDArray[np.float32],
    logits: NDArray[np.float32],
    proposed: Sequence[MapRegion],
) -> tuple[SeenRegion, ...]:
    """The regions proposed in a map, as an open session of the network sees them."""
    if not proposed:
        return ()
    views = [view_region(features, distances, logits, region) for region in proposed]
    boxes, kinds, truths = session.run(
        None,
        {
            "maps": np.stack([view.maps for view in views]),
            "described": np.stack([view.described for view in views]),
            "own": np.stack([view.own for view in views]),
        },
    )
    return tuple(
        SeenRegion(
            place_box(box, view.frame, logits.shape),
            region.peak,
            KINDS[int(named.argmax())],
            float(1.0 / (1.0 + np.exp(-truth))),
        )
        for region, view, box, named, truth in zip(
            proposed, views, boxes, kinds, truths, strict=True
        )
    )


def judge_regions(seen: tuple[SeenRegion, ...]) -> tuple[SeenRegion, ...]:
    """The regions that are believed, highest peak first, at most MOST_REGIONS: those whose peak and
    truth have logits with a mean of 0 or more, and of those that reach the decision line the
    likeliest in any case; of several that are of one defect, the one with the highest truth. The
    map says whether there is a defect, the network where: it has learned from painted defects
    alone, and doubts true ones that look otherwise."""
    believed = [region for region in seen if _average(region.peak, region.truth) >= 0.5]
    if not believed:
        standing = [region for region in seen if region.peak >= REGION_PEAK]
        likeliest = sorted(standing, key=lambda region: -_average(region.peak, region.truth))
        return tuple(likeliest[:1])
    kept: list[SeenRegion] = []
    for region in sorted(believed, key=lambda region: -region.truth):
        if not any(_are_of_one_defect(region.box_xyxy, other.box_xyxy) for other in kept):
            kept.append(region)
    return tuple(sorted(kept[:MOST_REGIONS], key=lambda region: -region.peak))


def _are_of_one_defect(first: Box, second: Box) -> bool:
    shared = box_intersection(first, second)
    return shared >= _SHARED * min(box_area(first), box_area(second))


def _average(first: float, second: float) -> float:
    """The mean of two probabilities in logits.

    >>> _average(0.5, 0.5), round(_average(0.9, 0.1), 6)
    (0.5, 0.5)
    """
    odds = [min(max(value, 1e-9), 1.0 - 1e-9) for value in (first, second)]
    logits = [math.log(value / (1.0 - value)) for value in odds]
    return 1.0 / (1.0 + math.exp(-sum(logits) / 2.0))


def place_box(shares: NDArray[np.float32], frame: Box, grid_hw: tuple[int, ...]) -> Box:
    """A box that is given xyxy in shares of a `frame`, in cells of the map: within what frame and
    map have in common, and at least a cell wide and high; what is no number is the middle."""
    finite = np.clip(np.nan_to_num(shares.astype(float), nan=0.5), 0.0, 1.0)
    spans = []
    for axis, limit in ((0, grid_hw[1]), (1, grid_hw[0])):
        start, stop = max(frame[axis], 0.0), min(frame[axis + 2], float(limit))
        low, high = np.clip(
            frame[axis] + finite[[axis, axis + 2]] * (frame[axis + 2] - frame[axis]), start, stop
        )
        if high - low < 1.0:
            low = min(max(start, (low + high - 1.0) / 2.0), stop - 1.0)
            high = low + 1.0
        spans.append((float(low), float(high)))
    (left, right), (top, bottom) = spans
    return (left, top, right, bottom)
