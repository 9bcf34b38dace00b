"""Distances to normal references: aligned where pictures line up, from a bank where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyr1.detectors.distances import BANK_SIZES, Features, build_memory, compute_distances

CHANNELS = (6, 8, 10)


def make_features(seed: int, height: int = 24, width: int = 16) -> Features:
    """Features of a picture with a layout: every place looks different."""
    rng = np.random.default_rng(seed)
    return tuple(
        rng.normal(size=(channels, height >> level, width >> level)).astype(np.float32)
        for level, channels in enumerate(CHANNELS)
    )


def disturb(features: Features, seed: int, spread: float = 0.05) -> Features:
    rng = np.random.default_rng(seed)
    return tuple(
        (level + rng.normal(0, spread, level.shape)).astype(np.float32) for level in features
    )


def shift(features: Features, right: int) -> Features:
    """The same picture moved: one cell at the coarsest level is four at the finest."""
    return tuple(
        np.roll(level, right * (4 >> number), axis=2) for number, level in enumerate(features)
    )


@pytest.mark.parametrize("num_others", [0, 2])
def test_a_picture_that_equals_a_reference_is_at_distance_0(num_others: int) -> None:
    features = make_features(0)
    others = [disturb(features, seed) for seed in range(num_others)]
    distances = compute_distances(features, build_memory([features, *others]))
    assert distances.shape == (6, 24, 16) and distances.dtype == np.float32
    # Squared distances from the bank are differences of large float32 numbers.
    assert np.abs(distances[:3]).max() < 5e-3


def test_pictures_that_line_up_are_matched_in_place() -> None:
    layout = make_features(1)
    memory = build_memory([disturb(layout, seed) for seed in range(4)])
    assert memory.aligned is True
    assert memory.mean is not None and max(memory.mean) < 0.2


def test_objects_that_lie_anywhere_are_matched_from_the_bank() -> None:
    layout = make_features(2, 20, 20)
    turned = [
        tuple(np.ascontiguousarray(np.rot90(level, turns, (1, 2))) for level in layout)
        for turns in range(4)
    ]
    memory = build_memory([disturb(features, seed) for seed, features in enumerate(turned)])
    assert memory.aligned is False
    flipped = disturb(turned[1], 9)
    assert compute_distances(flipped, memory)[:3].max() < 0.6


def test_one_reference_decides_for_each_picture_how_to_match() -> None:
    layout = make_features(3, 32, 32)
    memory = build_memory([layout])
    assert memory.aligned is None and memory.mean is None
    moved = compute_distances(shift(layout, 4), memory)
    assert moved[:3].max() < 5e-3, "a bank finds each patch wherever it went"


def test_in_place_matching_notices_a_normal_patch_in_the_wrong_place() -> None:
    layout = make_features(4, 32, 32)
    memory = build_memory([disturb(layout, seed) for seed in range(3)])
    swapped = tuple(level.copy() for level in disturb(layout, 8))
    for number, level in enumerate(swapped):
        side = 8 >> number
        level[:, :side, :side] = layout[number][:, -side:, -side:]
    distances = compute_distances(swapped, memory)
    assert distances[0, :8, :8].mean() > 5 * distances[0, 12:, 12:].mean()
    assert distances[3, :8, :8].min() > 4.0, "in units of the normal spread"


def test_a_patch_may_move_by_a_cell() -> None:
    layout = make_features(5, 32, 32)
    references = [disturb(layout, seed) for seed in range(3)]
    moved = disturb(tuple(np.roll(level, 1, axis=1) for level in layout), 7)
    inner = compute_distances(moved, build_memory(references))[:3, 8:-8, 8:-8]
    assert inner.max() < 0.25


def test_references_of_other_sizes_are_compared_from_the_bank() -> None:
    small, large = make_features(6), make_features(6, 40, 48)
    assert build_memory([small, large]).aligned is False
    distances = compute_distances(large, build_memory([small]))
    assert distances.shape == (6, 40, 48) and np.isfinite(distances).all()


def test_a_bank_is_bounded_and_the_same_every_time() -> None:
    references = [make_features(seed, 64, 64) for seed in range(2)]
    memory = build_memory(references)
    assert len(memory.banks[0]) == BANK_SIZES[0]
    np.testing.assert_array_equal(memory.banks[0], build_memory(references).banks[0])


def test_scaled_distances_are_clipped() -> None:
    layout = make_features(7)
    memory = build_memory([disturb(layout, seed, 0.001) for seed in range(3)])
    strange = tuple(level + 50 for level in layout)
    assert compute_distances(strange, memory)[3:].max() == 16.0
