"""How far a number could move: bootstrap over pictures and the Wilson interval.

Every interval is two-sided at 95 %. A resample is a row of weights (how often each picture was
drawn), so a statistic is computed for hundreds of resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights, float64 (r, n), to the statistic of each resample, float64 (r,); NaN: undefined."""

NUM_RESAMPLES = 1000
NORMAL_QUANTILE = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

WEIGHTS_PER_CHUNK = 2_000_000
"""Bounds memory: weights held at once, 16 MB."""

HISTOGRAMS_AT_ONCE = 4096
"""Bounds memory: so many of 512 bins in float64 are 16 MB."""


def bootstrap(
    statistic: Statistic,
    strata: NDArray[np.generic],
    *,
    n_resamples: int = NUM_RESAMPLES,
    seed: int | Sequence[int] = 0,
) -> Floats:
    """The statistic of `n_resamples` resamples of pictures, float64 of shape (n_resamples,).

    `strata`, shape (n,), holds a class a picture; pictures are drawn with replacement within their
    class, so that each resample holds as many normal and anomalous pictures as the data. The same
    seed draws the same pictures.

    >>> bootstrap(lambda weights: weights.sum(axis=1), np.zeros(5), n_resamples=2).tolist()
    [5.0, 5.0]
    """
    n = len(strata)
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    rows_per_chunk = max(1, WEIGHTS_PER_CHUNK // max(1, n))
    values = []
    for start in range(0, n_resamples, rows_per_chunk):
        num_rows = min(rows_per_chunk, n_resamples - start)
        counts = np.zeros(num_rows * n)
        offsets = np.arange(num_rows)[:, None] * n
        for indices in members:
            drawn = indices[generator.integers(len(indices), size=(num_rows, len(indices)))]
            counts += np.bincount((drawn + offsets).ravel(), minlength=num_rows * n)
        values.append(statistic(counts.reshape(num_rows, n)))
    return np.concatenate(values)


def percentile_interval(values: Floats) -> tuple[float, float] | None:
    """The 2.5 % and 97.5 % percentiles of resampled values; None if none of them is defined.

    Zero width means that no resample changed the value, not that it is certain.

    >>> percentile_interval(np.arange(101.0))
    (2.5, 97.5)
    """
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(successes: int, n: int) -> tuple[float, float] | None:
    """Wilson's score interval of a share (Wilson, 1927); None for no cases.

    Unlike the bootstrap it has a width when all cases agree.

    >>> [round(bound, 3) for bound in wilson_interval(10, 10)]
    [0.722, 1.0]
    """
    if n == 0:
        return None
    share, squared = successes / n, NORMAL_QUANTILE**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    spread = np.sqrt(share * (1 - share) / n + squared / (4 * n * n)) / (1 + squared / n)
    half = NORMAL_QUANTILE * float(spread)
    # Set, not computed, at the ends: rounding would leave 1 - 1e-16.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def auroc_statistic(is_anomalous: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Weighted Mann-Whitney statistic: P(anomalous above normal) + P(tie) / 2.

    `is_anomalous` and `scores` have shape (n,). With weights 1 it equals scikit-learn's AUROC.
    """
    order, starts = _tie_groups(scores)
    positive = is_anomalous[order]

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        anomalous = np.add.reduceat(ordered * positive, starts, axis=1)
        normal = np.add.reduceat(ordered * ~positive, starts, axis=1)
        return auroc_of_histograms(anomalous, normal)

    return statistic


def average_precision_statistic(is_anomalous: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Weighted average precision, sum of (R_k - R_(k-1)) P_k over falling distinct scores."""
    order, starts = _tie_groups(-scores)
    positive = is_anomalous[order]

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        anomalous = np.add.reduceat(ordered * positive, starts, axis=1)
        found = np.cumsum(anomalous, axis=1)
        shown = np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        precision = np.divide(found, shown, out=np.zeros_like(found), where=shown > 0)
        return divide(np.sum(anomalous * precision, axis=1), found[:, -1])

    return statistic


def f1_max_statistic(is_anomalous: NDArray[np.bool_], scores: Floats) -> Statistic:
    """Weighted highest F1 of any threshold on the scores, both of shape (n,)."""
    order, starts = _tie_groups(-scores)
    positive = is_anomalous[order]

    def statistic(weights: Floats) -> Floats:
        ordered = weights[:, order]
        found = np.cumsum(np.add.reduceat(ordered * positive, starts, axis=1), axis=1)
        shown = np.cumsum(np.add.reduceat(ordered, starts, axis=1), axis=1)
        total = found[:, -1:]
        f1 = np.divide(2 * found, shown + total, out=np.zeros_like(found), where=total > 0)
        return np.where(total[:, 0] > 0, f1.max(axis=1), np.nan)

    return statistic


def calibration_statistic(
    is_anomalous: NDArray[np.bool_], scores: Floats, num_bins: int
) -> Statistic:
    """Weighted expected calibration error of scores in [0, 1] over equal bins; shapes (n,)."""
    places = np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)
    member = np.eye(num_bins)[places]
    gaps = (scores - is_anomalous)[:, None] * member
    return lambda weights: divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def balanced_accuracy_statistic(
    is_anomalous: NDArray[np.bool_], is_right: NDArray[np.bool_]
) -> Statistic:
    """Weighted mean of the share of right normal and the share of right anomalous pictures."""
    anomalous = ratio_statistic(is_anomalous & is_right, is_anomalous)
    normal = ratio_statistic(~is_anomalous & is_right, ~is_anomalous)
    return lambda weights: (anomalous(weights) + normal(weights)) / 2


def ratio_statistic(
    numerators: NDArray[np.generic], denominators: NDArray[np.generic]
) -> Statistic:
    """Weighted sum of `numerators` over weighted sum of `denominators`, both of shape (n,)."""
    above, below = numerators.astype(np.float64), denominators.astype(np.float64)
    return lambda weights: divide(weights @ above, weights @ below)


def weigh_histograms(histograms: Sequence[NDArray[np.generic]]) -> Callable[[Floats], Floats]:
    """From weights (r, n) to weighted sums (r, bins) of n pictures' histograms, each (bins,)."""

    def add_up(weights: Floats) -> Floats:
        total = np.zeros((len(weights), len(histograms[0])))
        for start in range(0, len(histograms), HISTOGRAMS_AT_ONCE):
            part = slice(start, start + HISTOGRAMS_AT_ONCE)
            total += weights[:, part] @ np.stack(histograms[part], dtype=np.float64)
        return total

    return add_up


def auroc_of_histograms(positives: Floats, negatives: Floats) -> Floats:
    """AUROC from counts a score bin, rising, of shape (..., bins); a shared bin counts half."""
    below = np.cumsum(negatives, axis=-1) - negatives
    won = np.sum(positives * (below + negatives / 2), axis=-1)
    return divide(won, positives.sum(axis=-1) * negatives.sum(axis=-1))


def divide(numerators: Floats, denominators: Floats) -> Floats:
    """Elementwise quotient of equal shapes, NaN where the denominator is 0."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    quotients = np.full(above.shape, np.nan)
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients


def _tie_groups(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    is_start = np.ones(len(ordered), dtype=bool)
    is_start[1:] = ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(is_start)
