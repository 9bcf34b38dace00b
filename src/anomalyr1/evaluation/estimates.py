"""Metrics of a group of cases, each with its resampled values and interval.

The mean over categories resamples every category on its own and averages, so its interval
counts the categories as given, not as drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyr1.evaluation import detection, intervals, localisation
from anomalyr1.evaluation.cases import Case, Pixels
from anomalyr1.evaluation.intervals import Floats, Statistic
from anomalyr1.evaluation.localisation import PixelCounts
from anomalyr1.evaluation.words import find_commonest
from anomalyr1.types import Label, Metric

Seed = Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A metric before it is written: its resampled values also serve the mean over categories."""

    value: float | None
    n: int
    n_unreadable: int
    resampled: Floats | None = None
    interval: tuple[float, float] | None = None


UNDEFINED = Estimate(None, 0, 0)
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_fpr05", "spro_fpr05")


def estimate_verdicts(cases: Sequence[Case], seed: Seed) -> dict[str, Estimate]:
    """Balanced accuracy, accuracy of each class and the share of unread verdicts."""
    labels: list[Label] = ["anomalous" if case.is_anomalous else "normal" for case in cases]
    accuracy = detection.compute_balanced_accuracy(labels, [case.verdict for case in cases])
    is_anomalous, is_unread = _classes(cases), np.array([case.is_unread for case in cases])
    is_right = np.array([case.verdict == case.record.label for case in cases])
    statistic = intervals.balanced_accuracy_statistic(is_anomalous, is_right)
    everything = np.ones(len(cases), dtype=bool)
    return {
        "verdict_balanced_accuracy": _bootstrapped(
            accuracy.balanced, cases, accuracy.n_unreadable, statistic, seed
        ),
        "normal_accuracy": _share(cases, is_right, ~is_anomalous, is_unread, seed),
        "anomalous_accuracy": _share(cases, is_right, is_anomalous, is_unread, seed),
        "unread_rate": _share(cases, is_unread, everything, is_unread, seed),
    }


def estimate_scores(
    cases: Sequence[Case], scores: Sequence[float | None], source: str, seed: Seed
) -> dict[str, Estimate]:
    """Image AUROC, AP, F1-max and calibration error of one source of scores, model or detector."""
    is_anomalous = _classes(cases)
    ranked = detection.rank_scores(is_anomalous, scores)
    n_unreadable = sum(score is None for score in scores)
    return {
        f"image_auroc_{source}": _bootstrapped(
            detection.compute_image_auroc(is_anomalous, scores).value,
            cases,
            n_unreadable,
            intervals.auroc_statistic(is_anomalous, ranked),
            seed,
        ),
        f"image_ap_{source}": _bootstrapped(
            detection.compute_average_precision(is_anomalous, scores).value,
            cases,
            n_unreadable,
            intervals.average_precision_statistic(is_anomalous, ranked),
            seed,
        ),
        f"image_f1max_{source}": _bootstrapped(
            detection.compute_f1_max(is_anomalous, scores).value,
            cases,
            n_unreadable,
            intervals.f1_max_statistic(is_anomalous, ranked),
            seed,
        ),
        f"calibration_error_{source}": _estimate_calibration(cases, scores, seed),
    }


def _estimate_calibration(
    cases: Sequence[Case], scores: Sequence[float | None], seed: Seed
) -> Estimate:
    """n counts the pictures with a score: an unread one has none to be calibrated."""
    is_anomalous = _classes(cases)
    known = np.array([score is not None for score in scores], dtype=bool)
    value = detection.compute_calibration_error(is_anomalous, scores).value
    n, unread = int(known.sum()), int((~known).sum())
    if value is None:
        return Estimate(None, n, unread)
    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    statistic = intervals.calibration_statistic(
        is_anomalous[known], values, detection.CALIBRATION_BINS
    )
    resampled = intervals.bootstrap(statistic, is_anomalous[known], seed=seed)
    return Estimate(value, n, unread, resampled)


def estimate_boxes(cases: Sequence[Case], seed: Seed) -> dict[str, Estimate]:
    """Mean IoU of true boxes, and their recall and precision at IoU 0.1, 0.3 and 0.5; n counts true
    boxes, or predicted ones for precision."""
    tallied = [(case, case.boxes) for case in cases if case.boxes is not None]
    strata = np.array([case.is_anomalous for case, _ in tallied], dtype=bool)
    num_true = np.array([tally.num_true for _, tally in tallied], dtype=np.int64)
    num_predicted = np.array([tally.num_predicted for _, tally in tallied], dtype=np.int64)
    ious = np.array([tally.iou_sum for _, tally in tallied], dtype=np.float64)
    missed = sum(case.is_unread for case, tally in tallied if tally.num_true)
    estimates = {"box_mean_iou": _ratio(ious, num_true, strata, missed, seed)}
    for limit, suffix in ((0.1, "iou10"), (0.3, "iou30"), (0.5, "iou50")):
        matched = np.array([tally.matched[limit] for _, tally in tallied], dtype=np.int64)
        for name, totals in (("accuracy", num_true), ("precision", num_predicted)):
            # A picture without true boxes cannot be missed: only precision counts it.
            concerned = num_true > 0 if name == "accuracy" else np.ones(len(tallied), dtype=bool)
            unread = sum(
                case.is_unread
                for (case, _), counts in zip(tallied, concerned, strict=True)
                if counts
            )
            estimates[f"box_{name}_{suffix}"] = _ratio(matched, totals, strata, unread, seed)
    return estimates


def estimate_words(cases: Sequence[Case], seed: Seed) -> dict[str, Estimate]:
    """Accuracy of labels and of places, and of always naming the commonest true word of those
    counted, so the best that one word could get; n counts true boxes of known kind that a
    predicted box meets, or anomalous pictures with true boxes."""
    told = [(case, case.words) for case in cases if case.words is not None]
    kind = find_commonest(true for _, words in told for true, _said in words.kinds)
    place = find_commonest(place for _, words in told for place in words.true_places)
    met = np.array([len(words.kinds) for _, words in told])
    named = [sum(true == said for true, said in words.kinds) for _, words in told]
    usual = [sum(true == kind for true, _said in words.kinds) for _, words in told]
    missed = sum(case.is_unread for case, words in told if words.num_known)
    everything = np.ones(len(told), dtype=bool)
    placed = [case for case, _ in told]
    is_placed = np.array([words.is_placed for _, words in told], dtype=bool)
    is_usual = np.array([place in words.true_places for _, words in told], dtype=bool)
    is_unread = np.array([case.is_unread for case in placed], dtype=bool)
    return {
        "label_accuracy": _ratio(np.array(named), met, everything, missed, seed),
        "label_chance": _ratio(np.array(usual), met, everything, missed, seed),
        "place_accuracy": _share(placed, is_placed, everything, is_unread, seed),
        "place_chance": _share(placed, is_usual, everything, is_unread, seed),
    }


def estimate_masks(cases: Sequence[Case], seed: Seed) -> dict[str, Estimate]:
    """Mean mask IoU over anomalous pictures with a ground-truth mask."""
    measured = [(case, case.mask_iou) for case in cases if case.mask_iou is not None]
    ious = np.array([iou for _, iou in measured], dtype=np.float64)
    unread = sum(case.is_unread for case, _ in measured)
    ones = np.ones(len(measured))
    return {"mask_iou": _ratio(ious, ones, np.zeros(len(measured)), unread, seed)}


def estimate_pixels(
    cases: Sequence[Case],
    total: PixelCounts | None,
    pixels: Sequence[Pixels | None],
    seed: Seed,
) -> dict[str, Estimate]:
    """Pixel AUROC, AP, F1-max, AUPRO and sPRO of a group's summed counts; n counts pictures.

    Intervals come from few bins a picture and are moved so that their own centre, the few-bin
    value of the whole group, lies on the exact value.
    """
    kept = [(case, counts) for case, counts in zip(cases, pixels, strict=True) if counts]
    if total is None or not kept:
        return dict.fromkeys(PIXEL_METRICS, UNDEFINED)
    normal = intervals.weigh_histograms([counts.normal for _, counts in kept])
    defect = intervals.weigh_histograms([counts.defect for _, counts in kept])
    overlap = intervals.weigh_histograms([counts.overlap for _, counts in kept])
    saturated = intervals.weigh_histograms([counts.saturated for _, counts in kept])
    parts = np.array([counts.num_parts for _, counts in kept], dtype=np.float64)
    regions = np.array([counts.num_regions for _, counts in kept], dtype=np.float64)
    strata = np.array([case.is_anomalous for case, _ in kept])
    unread = sum(counts.is_missing for _, counts in kept)

    def auroc(weights: Floats) -> Floats:
        return intervals.auroc_of_histograms(defect(weights), normal(weights))

    def average_precision(weights: Floats) -> Floats:
        return localisation.ap_of_histograms(defect(weights), normal(weights))

    def f1_max(weights: Floats) -> Floats:
        return localisation.f1_max_of_histograms(defect(weights), normal(weights))

    def aupro(limit: float) -> Statistic:
        return lambda weights: localisation.aupro_of_histograms(
            overlap(weights), weights @ regions, normal(weights), limit
        )

    def spro(weights: Floats) -> Floats:
        return localisation.aupro_of_histograms(
            saturated(weights), weights @ parts, normal(weights), localisation.TIGHT_FPR_LIMIT
        )

    estimates = {}
    tight = localisation.TIGHT_FPR_LIMIT
    measures: tuple[tuple[str, float | None, Statistic], ...] = (
        ("pixel_auroc", localisation.compute_pixel_auroc(total), auroc),
        ("pixel_ap", localisation.compute_pixel_ap(total), average_precision),
        ("pixel_f1max", localisation.compute_pixel_f1_max(total), f1_max),
        ("aupro", localisation.compute_aupro(total), aupro(localisation.AUPRO_FPR_LIMIT)),
        ("aupro_fpr05", localisation.compute_aupro(total, tight), aupro(tight)),
        ("spro_fpr05", localisation.compute_spro(total), spro),
    )
    for name, value, statistic in measures:
        if value is None:
            estimates[name] = Estimate(None, len(kept), unread)
            continue
        shift = value - float(statistic(np.ones((1, len(kept))))[0])
        resampled = np.clip(intervals.bootstrap(statistic, strata, seed=seed) + shift, 0.0, 1.0)
        estimates[name] = Estimate(value, len(kept), unread, resampled)
    return estimates


def average_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over the categories in which the metric is defined; n and unread are theirs, summed."""
    defined = [estimate for estimate in estimates if estimate.value is not None]
    if not defined:
        return UNDEFINED
    resampled = [estimate.resampled for estimate in defined if estimate.resampled is not None]
    return Estimate(
        value=float(np.mean([estimate.value for estimate in defined])),
        n=sum(estimate.n for estimate in defined),
        n_unreadable=sum(estimate.n_unreadable for estimate in defined),
        resampled=np.mean(resampled, axis=0),
    )


def build_metric(name: str, subset: str, estimate: Estimate) -> Metric:
    """The metric with its interval: the estimate's own, or the percentiles of its resamples."""
    interval = estimate.interval
    if interval is None and estimate.resampled is not None and estimate.value is not None:
        interval = intervals.percentile_interval(estimate.resampled)
    low, high = interval if interval is not None else (None, None)
    return Metric(name, subset, estimate.value, estimate.n, estimate.n_unreadable, low, high)


def _classes(cases: Sequence[Case]) -> NDArray[np.bool_]:
    return np.array([case.is_anomalous for case in cases], dtype=bool)


def _bootstrapped(
    value: float | None, cases: Sequence[Case], n_unreadable: int, statistic: Statistic, seed: Seed
) -> Estimate:
    if value is None:
        return Estimate(None, len(cases), n_unreadable)
    resampled = intervals.bootstrap(statistic, _classes(cases), seed=seed)
    return Estimate(value, len(cases), n_unreadable, resampled)


def _share(
    cases: Sequence[Case],
    hits: NDArray[np.bool_],
    concerned: NDArray[np.bool_],
    is_unread: NDArray[np.bool_],
    seed: Seed,
) -> Estimate:
    n, successes = int(concerned.sum()), int((hits & concerned).sum())
    if n == 0:
        return UNDEFINED
    statistic = intervals.ratio_statistic(hits & concerned, concerned)
    return Estimate(
        value=successes / n,
        n=n,
        n_unreadable=int((is_unread & concerned).sum()),
        resampled=intervals.bootstrap(statistic, _classes(cases), seed=seed),
        interval=intervals.wilson_interval(successes, n),
    )


def _ratio(
    numerators: NDArray[np.generic],
    denominators: NDArray[np.generic],
    strata: NDArray[np.generic],
    n_unreadable: int,
    seed: Seed,
) -> Estimate:
    above, below = numerators.astype(np.float64), denominators.astype(np.float64)
    n = int(below.sum())
    if n == 0:
        return Estimate(None, 0, n_unreadable)
    resampled = intervals.bootstrap(intervals.ratio_statistic(above, below), strata, seed=seed)
    return Estimate(float(above.sum()) / n, n, n_unreadable, resampled)
