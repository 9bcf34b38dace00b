"""Where is the defect? Boxes, mask IoU, pixel AUROC and AUPRO.

Maps are counted picture by picture into histograms of 4096 bins over [0, 1], so memory does not
grow with the number of pixels; pixel AUROC and AUPRO are exact up to that binning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyr1.evaluation.intervals import Floats, auroc_of_histograms, divide
from anomalyr1.geometry import match_boxes
from anomalyr1.types import Box, InputError

NUM_BINS = 4096
AUPRO_FPR_LIMIT = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class PixelCounts:
    """Pixels of one or many pictures by anomaly score; counts of several pictures add up.

    `normal` and `defect` are pixel counts, float64 (bins,), rising in score. `overlap` is the sum
    over ground-truth regions of each region's histogram divided by its area, float64 (bins,).
    """

    normal: Floats
    defect: Floats
    overlap: Floats
    num_regions: int


@dataclass(frozen=True, slots=True)
class BoxTally:
    """Boxes of one picture; `matched` maps an IoU threshold to how many pairs reach it."""

    num_true: int
    num_predicted: int
    matched: dict[float, int]


def tally_boxes(
    predicted: Sequence[Box], truth: Sequence[Box], thresholds: Sequence[float] = (0.1, 0.5)
) -> BoxTally:
    """Match the boxes of one picture one to one (Hungarian, largest total IoU) and count pairs.

    Boxes are xyxy, half-open, in the same frame. From sums of tallies over pictures:
    box_accuracy at t = matched[t] / num_true, the share of ground-truth boxes matched with
    IoU >= t (recall); box_precision at t = matched[t] / num_predicted.

    >>> tally_boxes([(0, 0, 4, 4)], [(0, 0, 4, 2)]).matched
    {0.1: 1, 0.5: 1}
    """
    pairs = match_boxes(predicted, truth)
    return BoxTally(
        num_true=len(truth),
        num_predicted=len(predicted),
        matched={limit: sum(iou >= limit for *_, iou in pairs) for limit in thresholds},
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


def count_pixels(anomaly_map: NDArray[np.floating] | None, mask: NDArray[np.bool_]) -> PixelCounts:
    """Count one picture's pixels; the map, (h, w) in [0, 1], is resized bilinearly to the mask.

    `mask` is bool (H, W), True on defects, all False for a normal picture. Regions are its
    8-connected components, as in the MVTec AD evaluation code. A map that is None (missing) is
    counted as the worst one: score 1 on every normal pixel and 0 on every defect pixel. Values
    outside [0, 1] or not finite raise InputError.
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
    return PixelCounts(
        normal=np.bincount(bins[~mask], minlength=NUM_BINS).astype(np.float64),
        defect=np.bincount(defect_bins, minlength=NUM_BINS).astype(np.float64),
        overlap=np.bincount(defect_bins, weights=shares, minlength=NUM_BINS).astype(np.float64),
        num_regions=int(num_regions),
    )


def add_counts(counts: Iterable[PixelCounts]) -> PixelCounts:
    """The counts of several pictures as one; of none, all zero."""
    normal, defect, overlap = np.zeros(NUM_BINS), np.zeros(NUM_BINS), np.zeros(NUM_BINS)
    num_regions = 0
    for picture in counts:
        normal += picture.normal
        defect += picture.defect
        overlap += picture.overlap
        num_regions += picture.num_regions
    return PixelCounts(normal, defect, overlap, num_regions)


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
