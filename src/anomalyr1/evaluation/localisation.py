"""Where is the defect? Boxes, mask IoU, and pixel AUROC, AP, F1-max, AUPRO and sPRO.

Maps are counted picture by picture into histograms of 4096 bins over [0, 1], so memory does not
grow with the number of pixels; pixel figures are exact up to that binning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anomalyr1.evaluation.intervals import Floats, auroc_of_histograms, divide
from anomalyr1.geometry import match_boxes
from anomalyr1.types import Box, InputError

NUM_BINS = 4096
AUPRO_FPR_LIMIT = 0.3
TIGHT_FPR_LIMIT = 0.05
BOX_THRESHOLDS = (0.1, 0.3, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class PixelCounts:
    """Pixels of one or many pictures by anomaly score; counts of several pictures add up.

    `normal` and `defect` are pixel counts, float64 (bins,), rising in score. `overlap` is the sum
    over ground-truth regions of each region's histogram divided by its area, float64 (bins,).
    `saturated` is the same over defects with a saturation area: of each, the found pixels over that
    area, at most 1, as they grow from bin to bin with a falling threshold.
    """

    normal: Floats
    defect: Floats
    overlap: Floats
    num_regions: int
    saturated: Floats = field(default_factory=lambda: np.zeros(NUM_BINS))
    num_parts: int = 0


@dataclass(frozen=True, slots=True)
class BoxTally:
    """Boxes of one picture; `matched` maps an IoU threshold to how many pairs reach it,
    `iou_sum` is the sum of the pairs' IoU."""

    num_true: int
    num_predicted: int
    matched: dict[float, int]
    iou_sum: float = 0.0


def tally_boxes(
    predicted: Sequence[Box], truth: Sequence[Box], thresholds: Sequence[float] = BOX_THRESHOLDS
) -> BoxTally:
    """Match the boxes of one picture one to one (Hungarian, largest total IoU) and count pairs.

    Boxes are xyxy, half-open, in the same frame. From sums of tallies over pictures:
    box_accuracy at t = matched[t] / num_true, the share of ground-truth boxes matched with
    IoU >= t (recall); box_precision at t = matched[t] / num_predicted.

    >>> tally_boxes([(0, 0, 4, 4)], [(0, 0, 4, 2)]).matched
    {0.1: 1, 0.3: 1, 0.5: 1}
    """
    pairs = match_boxes(predicted, truth)
    return BoxTally(
        num_true=len(truth),
        num_predicted=len(predicted),
        matched={limit: sum(iou >= limit for *_, iou in pairs) for limit in thresholds},
        iou_sum=float(sum(iou for *_, iou in pairs)),
    )


def compute_mask_iou(predicted: NDArray[np.bool_] | None, truth: NDArray[np.bool_]) -> float:
    """IoU of the union of predicted masks and the ground truth, both bool (H, W).

    None (nothing predicted, or unread) is 0. Masks of different sizes, or a ground truth without
    a defect pixel, raise InputError.

    >>> compute_mask_iou(np.array([[True, True]]), np.array([[True, False]]))
    0.5
    """
    if not truth.any():
        raise InputError("the ground-truth mask holds no defect pixel: mask IoU is undefined")
    if predicted is None:
        return 0.0
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted mask is {_size(predicted.shape)}, ground-truth mask is "
            f"{_size(truth.shape)}: write masks at the picture's size"
        )
    intersection = np.count_nonzero(predicted & truth)
    return float(intersection / np.count_nonzero(predicted | truth))


def count_pixels(
    anomaly_map: NDArray[np.floating] | None,
    mask: NDArray[np.bool_],
    parts: Sequence[tuple[NDArray[np.bool_], int]] = (),
) -> PixelCounts:
    """Count one picture's pixels; the map, (h, w) in [0, 1], is resized bilinearly to the mask.

    `mask` is bool (H, W), True on defects, all False for a normal picture. Regions are its
    8-connected components, as in the MVTec AD evaluation code. A map that is None (missing) is
    counted as the worst one: score 1 on every normal pixel and 0 on every defect pixel. Values
    outside [0, 1] or not finite raise InputError. `parts` are defects with their saturation areas
    in pixels: bool (H, W) and a number each.
    """
    from scipy import ndimage

    worst = np.where(mask, 0.0, 1.0)
    scores = worst if anomaly_map is None else _fit_map(anomaly_map, mask.shape)
    bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    defect_bins = bins[mask]
    regions, num_regions = ndimage.label(mask, structure=np.ones((3, 3), dtype=np.int64))
    pixel_regions = regions[mask]
    areas = np.bincount(pixel_regions, minlength=num_regions + 1)
    shares = 1.0 / areas[pixel_regions] if num_regions else np.zeros(0)
    saturated = np.zeros(NUM_BINS)
    for part, area in parts:
        found = np.cumsum(np.bincount(bins[part], minlength=NUM_BINS)[::-1])
        saturated += np.diff(np.minimum(found / area, 1.0), prepend=0.0)[::-1]
    return PixelCounts(
        normal=np.bincount(bins[~mask], minlength=NUM_BINS).astype(np.float64),
        defect=np.bincount(defect_bins, minlength=NUM_BINS).astype(np.float64),
        overlap=np.bincount(defect_bins, weights=shares, minlength=NUM_BINS).astype(np.float64),
        num_regions=int(num_regions),
        saturated=saturated,
        num_parts=len(parts),
    )


def add_counts(counts: Iterable[PixelCounts]) -> PixelCounts:
    """The counts of several pictures as one; of none, all zero."""
    normal, defect, overlap, saturated = (np.zeros(NUM_BINS) for _ in range(4))
    num_regions = num_parts = 0
    for picture in counts:
        normal += picture.normal
        defect += picture.defect
        overlap += picture.overlap
        saturated += picture.saturated
        num_regions += picture.num_regions
        num_parts += picture.num_parts
    return PixelCounts(normal, defect, overlap, num_regions, saturated, num_parts)


def compute_pixel_auroc(counts: PixelCounts) -> float | None:
    """Area under the ROC curve over all pixels of all pictures; None if one class has no pixel."""
    value = float(auroc_of_histograms(counts.defect, counts.normal))
    return value if np.isfinite(value) else None


def compute_aupro(counts: PixelCounts, fpr_limit: float = AUPRO_FPR_LIMIT) -> float | None:
    """Area under the per-region overlap curve up to `fpr_limit`, divided by the limit.

    Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021): at each threshold the
    overlap is the share of a region found, averaged over all regions of all pictures, whatever
    their size; the false positive rate is taken over all normal pixels. None without a region or
    without a normal pixel.
    """
    value = float(
        aupro_of_histograms(
            counts.overlap, np.float64(counts.num_regions), counts.normal, fpr_limit
        )
    )
    return value if np.isfinite(value) else None


def compute_spro(counts: PixelCounts, fpr_limit: float = TIGHT_FPR_LIMIT) -> float | None:
    """Area under the saturated per-region overlap curve up to `fpr_limit`, divided by it.

    Bergmann et al., "Beyond Dents and Scratches" (IJCV 2022): as AUPRO, but over the defects as
    they are annotated, each found whole with its saturation area. None without such a defect.
    """
    value = float(
        aupro_of_histograms(
            counts.saturated, np.float64(counts.num_parts), counts.normal, fpr_limit
        )
    )
    return value if np.isfinite(value) else None


def compute_pixel_ap(counts: PixelCounts) -> float | None:
    """Average precision over all pixels, not interpolated; None if one class has no pixel."""
    value = float(ap_of_histograms(counts.defect, counts.normal))
    return value if np.isfinite(value) and counts.normal.any() else None


def compute_pixel_f1_max(counts: PixelCounts) -> float | None:
    """The highest F1 of any threshold over all pixels; None if one class has no pixel."""
    value = float(f1_max_of_histograms(counts.defect, counts.normal))
    return value if np.isfinite(value) and counts.normal.any() else None


def ap_of_histograms(positives: Floats, negatives: Floats) -> Floats:
    """Average precision of summed histograms (..., bins), rising in score; NaN: no positive."""
    found = np.cumsum(positives[..., ::-1], axis=-1)
    flagged = found + np.cumsum(negatives[..., ::-1], axis=-1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return divide(np.sum(positives[..., ::-1] * precision, axis=-1), found[..., -1])


def f1_max_of_histograms(positives: Floats, negatives: Floats) -> Floats:
    """Highest F1 = 2 TP / (TP + FP + P) of any threshold, of summed histograms (..., bins)."""
    found = np.cumsum(positives[..., ::-1], axis=-1)
    flagged = found + np.cumsum(negatives[..., ::-1], axis=-1)
    total = found[..., -1:]
    scores = np.divide(2 * found, flagged + total, out=np.zeros_like(found), where=total > 0)
    return np.where(total[..., 0] > 0, scores.max(axis=-1), np.nan)


def aupro_of_histograms(
    overlaps: Floats,
    num_regions: Floats | np.float64,
    normal: Floats,
    fpr_limit: float = AUPRO_FPR_LIMIT,
) -> Floats:
    """AUPRO of summed histograms: `overlaps` and `normal` (..., bins), `num_regions` (...)."""
    num_normal = normal.sum(axis=-1, keepdims=True)
    regions = np.asarray(num_regions, np.float64)[..., None]
    rates = _falling_curve(divide(normal, np.broadcast_to(num_normal, normal.shape)))
    found = _falling_curve(divide(overlaps, np.broadcast_to(regions, overlaps.shape)))
    start, stop = rates[..., :-1], rates[..., 1:]
    # The segment that crosses the limit is cut at it, its height interpolated.
    width = np.clip(np.minimum(stop, fpr_limit) - start, 0.0, None)
    kept = np.divide(width, stop - start, out=np.zeros_like(width), where=stop > start)
    rise = (found[..., 1:] - found[..., :-1]) * kept
    area = np.sum(width * (found[..., :-1] + rise / 2), axis=-1)
    return np.asarray(area / fpr_limit)


def _falling_curve(shares: Floats) -> Floats:
    """Share at or above each threshold, from above the highest score (0) to the lowest."""
    cumulated = np.cumsum(shares[..., ::-1], axis=-1)
    return np.concatenate([np.zeros((*shares.shape[:-1], 1)), cumulated], axis=-1)


def _fit_map(anomaly_map: NDArray[np.floating], shape: tuple[int, ...]) -> Floats:
    import cv2

    values = np.asarray(anomaly_map, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise InputError(f"anomaly map has shape {values.shape}: expected (height, width)")
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        raise InputError(
            f"anomaly map ranges from {low:g} to {high:g}: expected finite values in [0, 1]"
        )
    if values.shape != shape:
        height, width = shape
        resized = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        values = np.asarray(resized, dtype=np.float32)
    return np.clip(values.astype(np.float64), 0.0, 1.0)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
