"""Localisation: hand-drawn masks with known answers, and agreement with direct computations."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anomalyr1.evaluation.localisation import (
    add_counts,
    compute_aupro,
    compute_mask_iou,
    compute_pixel_ap,
    compute_pixel_auroc,
    compute_pixel_f1_max,
    compute_spro,
    count_pixels,
    tally_boxes,
)
from anomalyr1.types import InputError


def make_mask(*boxes, size=5):
    mask = np.zeros((size, size), dtype=bool)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = True
    return mask


def make_random_pictures(num=4, size=24, seed=0):
    generator = np.random.default_rng(seed)
    pictures = []
    for index in range(num):
        mask = make_mask((2, 3, 7, 6), (10 + index, 12, 12 + index, 20), size=size)
        if index == 0:
            mask[:] = False
        scores = np.clip(generator.random((size, size)) * 0.8 + 0.2 * mask, 0, 1)
        pictures.append((scores, mask))
    return pictures


def compute_aupro_directly(pictures, limit=0.3):
    """AUPRO by thresholding at every distinct score: slow, and written from the definition."""
    scores = [picture for picture, _ in pictures]
    regions = []
    for index, (_, mask) in enumerate(pictures):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labelled == number) for number in range(1, count + 1)]
    num_normal = sum(np.count_nonzero(~mask) for _, mask in pictures)
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([picture.ravel() for picture in scores]))[::-1]:
        false = sum(np.count_nonzero((values >= threshold) & ~mask) for values, mask in pictures)
        overlap = np.mean(
            [np.mean(scores[index][region] >= threshold) for index, region in regions]
        )
        points.append((false / num_normal, overlap))
    rates, overlaps = np.array(points).T
    grid = np.append(rates[rates < limit], limit)
    at_limit = np.interp(limit, rates, overlaps)
    return np.trapezoid(np.append(overlaps[rates < limit], at_limit), grid) / limit


@pytest.mark.parametrize("seed", range(3))
def test_streamed_pixel_auroc_agrees_with_scikit_learn(seed):
    pictures = make_random_pictures(seed=seed)
    truth = np.concatenate([mask.ravel() for _, mask in pictures])
    scores = np.concatenate([values.ravel() for values, _ in pictures])
    counts = add_counts(count_pixels(values, mask) for values, mask in pictures)
    assert compute_pixel_auroc(counts) == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_streamed_aupro_agrees_with_thresholding_at_every_score(seed, limit):
    pictures = make_random_pictures(seed=seed)
    counts = add_counts(count_pixels(values, mask) for values, mask in pictures)
    expected = compute_aupro_directly(pictures, limit)
    assert compute_aupro(counts, limit) == pytest.approx(expected, abs=2e-3)


def test_a_perfect_map_scores_one_and_an_inverted_map_zero():
    mask = make_mask((1, 1, 3, 3))
    perfect, inverted = count_pixels(mask * 1.0, mask), count_pixels(1.0 - mask, mask)
    assert (compute_pixel_auroc(perfect), compute_pixel_auroc(inverted)) == (1.0, 0.0)
    assert (compute_aupro(perfect), compute_aupro(inverted)) == (pytest.approx(1.0), 0.0)


def test_a_flat_map_is_chance():
    mask = make_mask((1, 1, 3, 3))
    counts = count_pixels(np.full((5, 5), 0.4), mask)
    assert compute_pixel_auroc(counts) == 0.5
    assert compute_aupro(counts) == pytest.approx(0.15)  # the diagonal up to 0.3


def test_a_small_region_weighs_as_much_as_a_large_one_in_aupro():
    mask = make_mask((0, 0, 5, 3), (4, 4, 5, 5))
    only_large = make_mask((0, 0, 5, 3)) * 1.0
    # Half of the regions found at once, the other only along the diagonal.
    assert compute_aupro(count_pixels(only_large, mask)) == pytest.approx(0.5 + 0.5 * 0.15)


def test_regions_that_touch_at_a_corner_are_one():
    assert count_pixels(None, make_mask((0, 0, 2, 2), (2, 2, 4, 4))).num_regions == 1
    assert count_pixels(None, make_mask((0, 0, 2, 2), (3, 3, 4, 4))).num_regions == 2


def test_a_missing_map_is_the_worst_map():
    counts = add_counts(
        [count_pixels(None, make_mask((1, 1, 3, 3))), count_pixels(None, make_mask())]
    )
    assert (compute_pixel_auroc(counts), compute_aupro(counts)) == (0.0, 0.0)


def test_maps_are_resized_to_the_mask():
    mask = make_mask((0, 0, 4, 8), size=8)
    small = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert compute_pixel_auroc(count_pixels(small, mask)) == 1.0


def test_without_defects_or_normal_pixels_pixel_metrics_are_undefined():
    flat = np.full((5, 5), 0.5)
    assert compute_pixel_auroc(count_pixels(flat, make_mask())) is None
    assert compute_aupro(count_pixels(flat, make_mask())) is None
    assert compute_aupro(count_pixels(flat, make_mask((0, 0, 5, 5)))) is None
    assert compute_aupro(add_counts([])) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, 255.0])
def test_maps_outside_zero_to_one_are_refused(value):
    scores = np.full((5, 5), 0.5)
    scores[2, 2] = value
    with pytest.raises(InputError, match="expected finite values"):
        count_pixels(scores, make_mask())


def test_a_map_with_channels_is_refused():
    with pytest.raises(InputError, match="shape"):
        count_pixels(np.zeros((5, 5, 3)), make_mask())


@pytest.mark.parametrize(
    ("predicted", "iou"),
    [
        (make_mask((1, 1, 3, 3)), 1.0),
        (make_mask((1, 1, 5, 3)), 0.5),
        (make_mask((3, 3, 5, 5)), 0.0),
        (make_mask(), 0.0),
        (None, 0.0),
    ],
)
def test_mask_iou_of_hand_drawn_masks(predicted, iou):
    assert compute_mask_iou(predicted, make_mask((1, 1, 3, 3))) == iou


def test_mask_iou_refuses_other_sizes_and_an_empty_truth():
    with pytest.raises(InputError, match=r"4x4.*5x5"):
        compute_mask_iou(np.ones((4, 4), dtype=bool), make_mask((1, 1, 3, 3)))
    with pytest.raises(InputError, match="no defect pixel"):
        compute_mask_iou(make_mask((1, 1, 3, 3)), make_mask())


@pytest.mark.parametrize(
    ("predicted", "truth", "at_10", "at_50"),
    [
        ([], [(0, 0, 4, 4)], 0, 0),
        ([(0, 0, 4, 4)], [], 0, 0),
        ([(0, 0, 4, 4)], [(0, 0, 4, 4)], 1, 1),
        ([(0, 0, 4, 1)], [(0, 0, 4, 4)], 1, 0),
        ([(0, 0, 4, 4), (0, 0, 4, 3)], [(0, 0, 4, 4)], 1, 1),  # one true box is matched once
        ([(0, 0, 9, 9)], [(0, 0, 9, 5), (0, 5, 9, 9)], 1, 1),  # and so is one predicted box
        ([(5, 5, 9, 9)], [(0, 0, 4, 4)], 0, 0),
    ],
)
def test_boxes_are_matched_one_to_one(predicted, truth, at_10, at_50):
    tally = tally_boxes(predicted, truth)
    assert (tally.num_predicted, tally.num_true) == (len(predicted), len(truth))
    assert (tally.matched[0.1], tally.matched[0.5]) == (at_10, at_50)
    assert at_50 <= tally.matched[0.3] <= at_10


def test_mean_iou_counts_missed_boxes_as_nothing():
    tally = tally_boxes([(0, 0, 4, 4), (9, 9, 12, 10)], [(0, 0, 4, 2), (6, 6, 8, 8)])
    assert tally.iou_sum == pytest.approx(0.5)


def compute_spro_directly(pictures, limit):
    """sPRO by thresholding at every score: pictures are (map, [(part, saturation area)])."""
    scores = np.unique(np.concatenate([values.ravel() for values, _ in pictures]))[::-1]
    points = [(0.0, 0.0)]
    for score in scores:
        overlaps, wrong, normal = [], 0, 0
        for values, parts in pictures:
            union = np.zeros(values.shape, bool)
            for part, _ in parts:
                union |= part
            found = values >= score
            overlaps += [min((found & part).sum() / area, 1.0) for part, area in parts]
            wrong += (found & ~union).sum()
            normal += (~union).sum()
        points.append((wrong / normal, float(np.mean(overlaps))))
    rates, shares = np.array(points).T
    inside = rates <= limit
    edge = np.interp(limit, rates, shares)
    return np.trapezoid([*shares[inside], edge], [*rates[inside], limit]) / limit


@pytest.mark.parametrize("seed", range(3))
def test_streamed_spro_agrees_with_thresholding_at_every_score(seed):
    rng = np.random.default_rng(seed)
    pictures, streamed = [], []
    for _ in range(3):
        values = rng.random((12, 15)).astype(np.float32)
        first, second = np.zeros((12, 15), bool), np.zeros((12, 15), bool)
        first[1:5, 2:7], second[4:10, 5:9] = True, True
        values[first] = np.sqrt(values[first])
        parts = [(first, 7), (second, int(second.sum()))]
        pictures.append((values, parts))
        streamed.append(count_pixels(values, first | second, parts))
    for limit in (0.05, 0.3):
        expected = compute_spro_directly(pictures, limit)
        assert compute_spro(add_counts(streamed), limit) == pytest.approx(expected, abs=5e-3)


def test_a_defect_found_up_to_its_saturation_counts_as_found_whole():
    part = np.zeros((10, 10), bool)
    part[2:6, 2:6] = True
    values = np.zeros((10, 10), np.float32)
    values[2:4, 2:4] = 1.0  # 4 of 16 pixels, nothing else
    assert compute_spro(count_pixels(values, part, [(part, 4)])) == pytest.approx(1.0)
    assert compute_spro(count_pixels(values, part, [(part, 8)])) == pytest.approx(0.5, abs=0.03)
    assert compute_spro(count_pixels(values, part)) is None


@pytest.mark.parametrize("seed", range(3))
def test_pixel_ap_and_f1_max_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((40, 30)) < 0.2
    values = np.clip(rng.normal(0.4 + 0.2 * mask, 0.2), 0, 1)
    values = (np.floor(values * 4095) / 4096).astype(np.float32)  # a bin a value
    counts = count_pixels(values, mask)
    assert compute_pixel_ap(counts) == pytest.approx(
        average_precision_score(mask.ravel(), values.ravel()), abs=1e-9
    )
    precision, recall, _ = precision_recall_curve(mask.ravel(), values.ravel())
    best = np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert compute_pixel_f1_max(counts) == pytest.approx(best, abs=1e-9)
    assert compute_pixel_ap(count_pixels(values, np.zeros_like(mask))) is None
    assert compute_pixel_f1_max(count_pixels(values, np.ones_like(mask))) is None
