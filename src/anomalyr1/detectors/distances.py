"""How far each patch is from the normal references: a memory bank or aligned neighbourhoods.

Features are float32 (C, H, W) with channels of unit variance; a distance is Euclidean divided by
sqrt(C), so that 1 is about the spread of one channel. Nothing here is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Features = tuple[NDArray[np.float32], ...]
"""One array (C, H, W) a level: stride 4, 8, 16."""

BANK_SIZES = (2048, 4096, 4096)
"""Patches kept a level; more references are thinned evenly, so cost is bounded."""

ALIGNED_RADIUS = (2, 1, 1)
"""Cells that a patch may have moved, a level."""

ALIGNED_RATIO = 1.35
"""Aligned matching is chosen when its mean distance is at most this multiple of the bank's."""

NUM_LEVELS = 3

_DECIDING = 1
"""Bank or aligned is decided at stride 8, where neither noise nor layout dominates."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Normal references, ready to compare with.

    `banks`: (n, C) a level; `references`: their features, for aligned matching; `aligned`: which
    of the two is used, None when it is decided per picture (a single reference); `mean` and
    `std`: of leave-one-out distances a level, None for a single reference.
    """

    banks: tuple[NDArray[np.float32], ...]
    references: tuple[Features, ...]
    aligned: bool | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def build_memory(references: Sequence[Features]) -> Memory:
    """Memory of one or more references; leaving one out chooses matching and sets the scale."""
    banks = collect_banks(references)
    if len(references) == 1:
        return Memory(banks, tuple(references), None, None, None)
    pairs = [
        (features, [other for number, other in enumerate(references) if number != index])
        for index, features in enumerate(references)
    ]
    aligned = all(_same_grid(features, others) for features, others in pairs) and _prefer_aligned(
        [_aligned_level(features, others, _DECIDING) for features, others in pairs],
        [
            _bank_level(_thinned(features), _bank(others, _DECIDING), _DECIDING)
            for features, others in pairs
        ],
    )
    mean, std = [], []
    for level in range(NUM_LEVELS):
        left_out = [
            _aligned_level(features, others, level)
            if aligned
            else _bank_level(_thinned(features), _bank(others, level), level)
            for features, others in pairs
        ]
        values = np.concatenate([distances.ravel() for distances in left_out])
        mean.append(float(values.mean()))
        std.append(float(values.std()) + 1e-3)
    return Memory(banks, tuple(references), aligned, tuple(mean), tuple(std))


def collect_banks(references: Sequence[Features]) -> tuple[NDArray[np.float32], ...]:
    """Rows (n, C) of all references a level, thinned from a fixed seed where they are too many."""
    return tuple(_bank(references, level) for level in range(NUM_LEVELS))


def leave_out(memory: Memory, index: int) -> Memory:
    """The memory without one of its references, its scale and way of matching kept."""
    others = tuple(features for number, features in enumerate(memory.references) if number != index)
    return replace(memory, banks=collect_banks(others), references=others)


def compute_distances(features: Features, memory: Memory) -> NDArray[np.float32]:
    """Channels (6, H, W) at stride 4: three distances, then the same in units of normal spread."""
    aligned = memory.aligned is not False and _same_grid(features, memory.references)
    if aligned and memory.aligned is None:
        aligned = _prefer_aligned(
            [_aligned_level(features, memory.references, _DECIDING)],
            [_bank_level(features, memory.banks[_DECIDING], _DECIDING)],
        )
    maps = [
        _aligned_level(features, memory.references, level)
        if aligned
        else _bank_level(features, memory.banks[level], level)
        for level in range(NUM_LEVELS)
    ]
    height, width = features[0].shape[1:]
    raw = [cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR) for level in maps]
    scaled = []
    for level, distance in enumerate(raw):
        if memory.mean is None or memory.std is None:
            mean = float(np.median(distance))
            std = 1.5 * float(np.median(np.abs(distance - mean))) + 0.05
        else:
            mean, std = memory.mean[level], memory.std[level] + 0.02
        scaled.append(np.clip((distance - mean) / std, -4.0, 16.0))
    return np.stack([*raw, *scaled]).astype(np.float32)


def _thinned(features: Features) -> Features:
    """Every other row and column: enough to learn the scale of distances from."""
    return tuple(level[:, ::2, ::2] for level in features)


def _bank(references: Sequence[Features], level: int) -> NDArray[np.float32]:
    rows = np.concatenate(
        [features[level].reshape(features[level].shape[0], -1).T for features in references]
    )
    size = BANK_SIZES[level]
    if len(rows) > size:
        rows = rows[np.random.default_rng(level).choice(len(rows), size, replace=False)]
    return np.ascontiguousarray(rows)


def _bank_level(features: Features, bank: NDArray[np.float32], level: int) -> NDArray[np.float32]:
    """Distance (H, W) of each patch to the nearest row of the bank."""
    channels, height, width = features[level].shape
    rows = features[level].reshape(channels, -1).T
    half_squares = 0.5 * np.einsum("nc,nc->n", bank, bank)
    nearest = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), 1024):
        similarity = rows[start : start + 1024] @ bank.T
        similarity -= half_squares
        nearest[start : start + 1024] = similarity.max(axis=1)
    squares = np.einsum("nc,nc->n", rows, rows) - 2.0 * nearest
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0.0) / channels)
    return distances.reshape(height, width)


def _aligned_level(
    features: Features, references: Sequence[Features], level: int
) -> NDArray[np.float32]:
    """Distance (H, W) of each patch to the nearest around its own place in any reference."""
    here, radius = features[level], ALIGNED_RADIUS[level]
    channels, height, width = here.shape
    nearest = np.full((height, width), np.inf, np.float32)
    for reference in references:
        there = np.pad(reference[level], ((0, 0), (radius, radius), (radius, radius)), mode="edge")
        for down in range(2 * radius + 1):
            for right in range(2 * radius + 1):
                gap = here - there[:, down : down + height, right : right + width]
                np.minimum(nearest, np.einsum("chw,chw->hw", gap, gap), out=nearest)
    distances: NDArray[np.float32] = np.sqrt(nearest / channels)
    return distances


def _same_grid(features: Features, others: Sequence[Features]) -> bool:
    return all(other[0].shape == features[0].shape for other in others)


def _prefer_aligned(
    aligned: Sequence[NDArray[np.float32]], bank: Sequence[NDArray[np.float32]]
) -> bool:
    near = float(np.mean([distances.mean() for distances in aligned]))
    free = float(np.mean([distances.mean() for distances in bank]))
    return near <= ALIGNED_RATIO * free + 0.02
