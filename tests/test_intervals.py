"""Intervals: reproducible, stratified, and equal to scikit-learn without resampling."""

import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalyr1.evaluation import intervals
from anomalyr1.evaluation.intervals import (
    auroc_statistic,
    average_precision_statistic,
    balanced_accuracy_statistic,
    bootstrap,
    percentile_interval,
    ratio_statistic,
    weigh_histograms,
    wilson_interval,
)


def make_scores(n, seed=0, decimals=2):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 3 == 0
    scores = np.clip(generator.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(decimals)
    return labels, scores


@pytest.mark.parametrize("decimals", [1, 2, 8])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("statistic", "reference"),
    [
        (auroc_statistic, roc_auc_score),
        (average_precision_statistic, average_precision_score),
    ],
)
def test_weighted_statistics_agree_with_scikit_learn_ties_included(
    statistic, reference, seed, decimals
):
    labels, scores = make_scores(60, seed, decimals)
    weights = np.random.default_rng(seed).integers(0, 4, size=(3, 60)).astype(float)
    weights[0] = 1
    expected = [reference(labels, scores, sample_weight=row) for row in weights]
    assert statistic(labels, scores)(weights) == pytest.approx(expected)


def test_resamples_keep_the_size_of_each_class():
    labels, _ = make_scores(50)
    anomalous = bootstrap(lambda weights: weights[:, labels].sum(axis=1), labels)
    normal = bootstrap(lambda weights: weights[:, ~labels].sum(axis=1), labels)
    assert set(anomalous) == {labels.sum()}
    assert set(normal) == {(~labels).sum()}


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    labels, scores = make_scores(50)
    statistic = auroc_statistic(labels, scores)
    first = percentile_interval(bootstrap(statistic, labels, seed=4))
    assert first == percentile_interval(bootstrap(statistic, labels, seed=4))
    assert first != percentile_interval(bootstrap(statistic, labels, seed=5))


def test_splitting_resamples_into_chunks_keeps_their_number(monkeypatch):
    monkeypatch.setattr("anomalyr1.evaluation.intervals.WEIGHTS_PER_CHUNK", 70)
    labels, scores = make_scores(20)
    assert bootstrap(auroc_statistic(labels, scores), labels, n_resamples=10).shape == (10,)


def test_an_auroc_interval_surrounds_the_value_and_narrows_with_more_pictures():
    widths = []
    for n in (60, 600):
        labels, scores = make_scores(n)
        low, high = percentile_interval(bootstrap(auroc_statistic(labels, scores), labels))
        assert low < roc_auc_score(labels, scores) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_five_hundred_pictures_resample_in_well_under_two_seconds():
    labels, scores = make_scores(500, decimals=8)
    start = time.perf_counter()
    bootstrap(auroc_statistic(labels, scores), labels)
    bootstrap(average_precision_statistic(labels, scores), labels)
    bootstrap(balanced_accuracy_statistic(labels, scores > 0.5), labels)
    assert time.perf_counter() - start < 2


def test_a_ratio_is_undefined_in_resamples_without_denominator():
    statistic = ratio_statistic(np.array([1, 0]), np.array([1, 0]))
    assert statistic(np.array([[2.0, 0.0]]))[0] == 1
    assert np.isnan(statistic(np.array([[0.0, 2.0]]))[0])


def test_undefined_resamples_are_left_out_and_only_undefined_ones_give_no_interval():
    assert percentile_interval(np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5)
    assert percentile_interval(np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_interval_matches_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_of_no_case_is_none():
    assert wilson_interval(0, 0) is None


def test_histograms_are_weighed_alike_in_one_part_and_in_several(monkeypatch):
    rng = np.random.default_rng(0)
    histograms = [rng.integers(0, 70_000, 5).astype(np.uint32) for _picture in range(7)]
    weights = rng.integers(0, 4, (3, 7)).astype(np.float64)
    monkeypatch.setattr(intervals, "HISTOGRAMS_AT_ONCE", 3)
    found = weigh_histograms(histograms)(weights)
    assert np.array_equal(found, weights @ np.stack(histograms))
