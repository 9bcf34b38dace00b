"""What kind of defect a region of the map looks like: a small network on what lies under it.

A region is described by the features and distances of its cells, beside those of the whole picture,
and by its shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyr1.detectors.distances import Features
from anomalyr1.hints import MapRegion, find_map_regions


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


def name_regions(
    session: Any,
    features: Features,
    distances: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """The kinds of a map's regions as `Anomaly.kinds` holds them, from an open session."""
    kinds = np.zeros(anomaly_map.shape, np.uint8)
    regions = find_map_regions(anomaly_map)
    if regions:
        described = np.stack([describe_region(features, distances, one) for one in regions])
        best = session.run(None, {"regions": described})[0].argmax(axis=1)
        for region, kind in zip(regions, best, strict=True):
            kinds[region.rows, region.columns] = 1 + kind
    return kinds
