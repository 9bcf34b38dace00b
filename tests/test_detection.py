"""Image-level metrics: undefined is None, unread never helps."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from anomalyr1.evaluation.detection import (
    compute_average_precision,
    compute_balanced_accuracy,
    compute_calibration_error,
    compute_f1_max,
    compute_image_auroc,
    compute_roc_curve,
    rank_scores,
)
from anomalyr1.evaluation.intervals import calibration_statistic, f1_max_statistic
from anomalyr1.types import InputError

FOUR = np.array([False, False, True, True])


@pytest.mark.parametrize(
    ("labels", "scores", "value"),
    [
        (FOUR, [0.1, 0.2, 0.8, 0.9], 1.0),
        (FOUR, [0.9, 0.8, 0.2, 0.1], 0.0),
        (FOUR, [0.5, 0.5, 0.5, 0.5], 0.5),
        (FOUR, [0.1, 0.6, 0.5, 0.9], 0.75),
        (FOUR, [None, 0.2, 0.8, 0.9], 0.5),  # the unread normal outranks both defects
        (FOUR, [0.1, 0.2, None, 0.9], 0.5),  # the unread defect falls below both normals
        (FOUR, [1.0, None, 1.0, 1.0], 0.25),  # worse than a tie at 1.0
        (FOUR, [None, None, None, None], 0.0),
    ],
)
def test_image_auroc_of_small_cases(labels, scores, value):
    assert compute_image_auroc(labels, scores).value == pytest.approx(value)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([True, True], "no normal picture"),
        ([False, False], "no anomalous picture"),
        ([], "no anomalous picture"),
    ],
)
@pytest.mark.parametrize("compute", [compute_image_auroc, compute_average_precision])
def test_one_class_only_is_undefined_with_a_reason(compute, labels, reason):
    score = compute(np.array(labels, dtype=bool), [0.3] * len(labels))
    assert (score.value, score.reason) == (None, reason)
    assert compute_roc_curve(np.array(labels, dtype=bool), [0.3] * len(labels)) == []


@pytest.mark.parametrize("compute", [compute_image_auroc, compute_average_precision])
def test_leaving_any_answer_unread_never_raises_a_score(compute):
    generator = np.random.default_rng(3)
    labels = generator.random(30) < 0.4
    scores = [float(score) for score in generator.random(30).round(1)]
    full = compute(labels, scores).value
    for position in range(len(scores)):
        without = [None if index == position else score for index, score in enumerate(scores)]
        assert compute(labels, without).value <= full


def test_a_score_outside_zero_to_one_is_refused_by_position():
    with pytest.raises(InputError, match=r"1\.5 at position 1"):
        rank_scores(np.array([True, False]), [0.1, 1.5])
    with pytest.raises(InputError, match="nan at position 0"):
        rank_scores(np.array([True, False]), [float("nan"), 0.5])
    with pytest.raises(InputError, match="1 scores for 2 labels"):
        rank_scores(np.array([True, False]), [0.5])


def test_balanced_accuracy_is_the_mean_of_both_classes_and_counts_unread_as_wrong():
    labels = ["normal"] * 8 + ["anomalous"] * 2
    verdicts = ["normal"] * 7 + ["unread"] + ["anomalous", "unread"]
    accuracy = compute_balanced_accuracy(labels, verdicts)
    assert accuracy.normal == 7 / 8
    assert accuracy.anomalous == 1 / 2
    assert accuracy.balanced == pytest.approx((7 / 8 + 1 / 2) / 2)
    assert (accuracy.n_normal, accuracy.n_anomalous, accuracy.n_unreadable) == (8, 2, 2)


def test_always_saying_normal_gives_half_however_rare_defects_are():
    accuracy = compute_balanced_accuracy(["normal"] * 99 + ["anomalous"], ["normal"] * 100)
    assert accuracy.balanced == 0.5


def test_balanced_accuracy_of_one_class_is_undefined_but_that_class_is_reported():
    accuracy = compute_balanced_accuracy(["normal"], ["normal"])
    assert (accuracy.balanced, accuracy.normal, accuracy.anomalous) == (None, 1.0, None)
    assert accuracy.reason == "no anomalous picture"


def test_a_label_that_is_no_label_is_refused():
    with pytest.raises(InputError, match="'good'"):
        compute_balanced_accuracy(["good"], ["normal"])


def test_a_roc_curve_runs_from_corner_to_corner():
    curve = compute_roc_curve(FOUR, [0.1, None, None, 0.9])
    assert curve[0] == (0.0, 0.0)
    assert curve[-1] == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_f1_max_is_the_best_f1_of_any_threshold(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(40) < 0.4
    scores = [
        round(float(value), 1) for value in np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    ]
    best = max(f1_score(labels, np.array(scores) >= threshold) for threshold in set(scores))
    assert compute_f1_max(labels, scores).value == pytest.approx(best)
    weights = np.ones((1, 40))
    assert f1_max_statistic(labels, np.array(scores))(weights)[0] == pytest.approx(best)


def test_f1_max_is_not_helped_by_unread_answers():
    assert compute_f1_max(FOUR, [0.1, 0.2, 0.8, 0.9]).value == 1.0
    assert compute_f1_max(FOUR, [None, 0.2, 0.8, 0.9]).value == pytest.approx(0.8)
    assert compute_f1_max(FOUR[2:], [0.1, 0.2]).reason == "no normal picture"


def test_calibration_error_weighs_each_bin_by_its_pictures():
    labels = np.array([True, False, True, True, False])
    scores = [0.95, 0.95, 0.95, 0.15, None]
    expected = (3 * abs(0.95 - 2 / 3) + 1 * abs(0.15 - 1.0)) / 4
    assert compute_calibration_error(labels, scores).value == pytest.approx(expected)
    known = np.array(scores[:4])
    statistic = calibration_statistic(labels[:4], known, 10)
    assert statistic(np.ones((1, 4)))[0] == pytest.approx(expected)
    assert compute_calibration_error(labels, [None] * 5).reason == "no score"
