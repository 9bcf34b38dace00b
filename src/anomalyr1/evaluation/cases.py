"""Records paired with their findings and measured one picture at a time, with bounded memory.

Owns what counts as unread. Aggregation and intervals are in `estimates`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyr1.evaluation import localisation
from anomalyr1.evaluation.localisation import NUM_BINS, BoxTally, PixelCounts
from anomalyr1.evaluation.words import WordTally, tally_words
from anomalyr1.images import image_size, load_mask
from anomalyr1.types import Finding, InputError, Record

MapLoader = Callable[[Finding], NDArray[np.floating] | None]
MaskLoader = Callable[[Finding], NDArray[np.bool_] | None]

COARSE_BINS = 512
"""Bins kept a picture for resampling, an eighth of those that are summed."""

Histogram = NDArray[np.generic]

_EMPTY: Histogram = np.zeros(COARSE_BINS, np.uint8)


@dataclass(frozen=True, slots=True)
class Case:
    """A record with what its finding said. `boxes`, `words` and `mask_iou` are None without ground
    truth."""

    record: Record
    finding: Finding | None
    is_anomalous: bool
    verdict: str
    model_score: float | None
    detector_score: float | None
    boxes: BoxTally | None
    words: WordTally | None
    mask_iou: float | None

    @property
    def is_unread(self) -> bool:
        return self.verdict == "unread"


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """`PixelCounts` of one picture in few bins, (COARSE_BINS,), for resampling; counts are in the
    smallest integers that hold them, and what is empty is one array for all pictures.

    `is_missing`: it had no map.
    """

    normal: Histogram
    defect: Histogram
    overlap: Histogram
    num_regions: int
    saturated: Histogram
    num_parts: int
    is_missing: bool


def read_verdict(finding: Finding | None) -> str:
    """The verdict that counts: "unread" for a missing finding and for one with an error."""
    return "unread" if finding is None or finding.error is not None else finding.verdict


def pair_findings(
    records: Sequence[Record], findings: Sequence[Finding]
) -> list[tuple[Record, Finding | None]]:
    """Each record with its finding or None, by record id; InputError for what cannot be paired."""
    if not records:
        raise InputError("there is no record to evaluate: check the data set and its split")
    by_id: dict[str, Finding] = {}
    for finding in findings:
        if finding.record_id in by_id:
            raise InputError(f"two findings for record {finding.record_id}: keep one of them")
        by_id[finding.record_id] = finding
    paired: dict[str, tuple[Record, Finding | None]] = {}
    for record in records:
        if record.label is None:
            raise InputError(
                f"record {record.record_id} ({record.image_path}) has no label: evaluation needs "
                '"normal" or "anomalous"'
            )
        if record.record_id in paired:
            raise InputError(f"record {record.record_id} is listed twice: keep one of them")
        paired[record.record_id] = (record, by_id.pop(record.record_id, None))
    if by_id:
        raise InputError(
            f"finding {next(iter(by_id))} has no record ({len(by_id)} such): evaluate with the "
            "records of the same run"
        )
    return [paired[record_id] for record_id in sorted(paired)]


def build_case(record: Record, finding: Finding | None, masks: MaskLoader) -> Case:
    """Measure one picture's verdict, scores, boxes, words and masks; unread predicts nothing."""
    verdict = read_verdict(finding)
    read = finding if verdict != "unread" else None
    is_anomalous = record.label == "anomalous"
    boxes = words = mask_iou = None
    if record.regions or not is_anomalous:
        predicted = [defect.box_xyxy for defect in read.defects] if read else []
        boxes = localisation.tally_boxes(predicted, [region.box_xyxy for region in record.regions])
    if record.regions and is_anomalous:
        words = tally_words(record, read, _find_size(record, finding))
    if is_anomalous and record.mask_path is not None:
        truth = _load_truth(record, finding)
        mask_iou = localisation.compute_mask_iou(masks(read) if read else None, truth)
    return Case(
        record=record,
        finding=finding,
        is_anomalous=is_anomalous,
        verdict=verdict,
        model_score=read.anomaly_score if read else None,
        detector_score=finding.detector_score if finding else None,
        boxes=boxes,
        words=words,
        mask_iou=mask_iou,
    )


def name_subsets(records: Sequence[Record]) -> list[str]:
    """A category name a record, with its data set where names could otherwise collide."""
    datasets = {record.dataset for record in records}
    categories = {record.category for record in records}
    if len(datasets) > 1 or categories & {"all", "mean"}:
        return [f"{record.dataset or 'data'}/{record.category or 'none'}" for record in records]
    return [record.category or "none" for record in records]


def count_all_pixels(
    cases: Sequence[Case], subsets: Sequence[str], maps: MapLoader
) -> tuple[dict[str, PixelCounts], dict[int, Pixels]]:
    """Pixel counts of each subset and of "all", and coarse ones of each picture by its index.

    Anomalous pictures without a ground-truth mask are left out. Both are empty where no picture
    has a map, or none a mask.
    """
    if not any(case.record.mask_path for case in cases if case.is_anomalous):
        return {}, {}
    sums: dict[str, PixelCounts] = {}
    pixels: dict[int, Pixels] = {}
    missing = []

    def add(index: int, anomaly_map: NDArray[np.floating] | None) -> None:
        case = cases[index]
        mask = _pixel_truth(case)
        try:
            counts = localisation.count_pixels(anomaly_map, mask, _load_parts(case))
        except InputError as error:
            raise InputError(f"record {case.record.record_id}: {error}") from error
        for subset in ("all", subsets[index]):
            before = sums.get(subset)
            sums[subset] = localisation.add_counts([counts] if before is None else [before, counts])
        pixels[index] = _coarsen(counts, is_missing=anomaly_map is None)

    for index, case in enumerate(cases):
        if case.is_anomalous and case.record.mask_path is None:
            continue
        anomaly_map = maps(case.finding) if case.finding is not None else None
        if anomaly_map is None:
            missing.append(index)
        else:
            add(index, anomaly_map)
    if not pixels:
        return {}, {}
    for index in missing:
        add(index, None)
    return sums, pixels


def _pixel_truth(case: Case) -> NDArray[np.bool_]:
    if case.is_anomalous:
        return _load_truth(case.record, case.finding)
    width, height = _picture_size(case.record, case.finding)
    return np.zeros((height, width), dtype=bool)


def _picture_size(record: Record, finding: Finding | None) -> tuple[int, int]:
    if finding is not None and finding.image_size_wh is not None:
        return finding.image_size_wh
    return image_size(record.image_path)


def _find_size(record: Record, finding: Finding | None) -> tuple[int, int] | None:
    """None for an unread finding whose picture cannot be read either."""
    try:
        return _picture_size(record, finding)
    except InputError:
        if read_verdict(finding) != "unread":
            raise
        return None


def _load_truth(record: Record, finding: Finding | None) -> NDArray[np.bool_]:
    """The ground-truth mask, bool (H, W) at the picture's size, with at least one defect pixel."""
    if record.mask_path is None:
        raise InputError(f"record {record.record_id} has no ground-truth mask")
    size_wh = _picture_size(record, finding)
    mask = load_mask(
        record.mask_path, size_wh, record.mask_threshold, image_name=str(record.image_path)
    )
    if not mask.any():
        raise InputError(
            f"mask {record.mask_path} holds no defect pixel, yet record {record.record_id} is "
            "anomalous: correct its label or its mask"
        )
    return mask


def _load_parts(case: Case) -> list[tuple[NDArray[np.bool_], int]]:
    """Masks, bool (H, W), of the defects that have a saturation area, and that area in pixels."""
    if not case.record.mask_parts:
        return []
    size_wh = _picture_size(case.record, case.finding)
    name = str(case.record.image_path)
    return [
        (load_mask(part.mask_path, size_wh, 0, image_name=name), part.saturation_area)
        for part in case.record.mask_parts
    ]


def _coarsen(counts: PixelCounts, is_missing: bool) -> Pixels:
    def shrink(histogram: NDArray[np.float64]) -> Histogram:
        if not histogram.any():
            return _EMPTY
        return np.asarray(histogram.reshape(COARSE_BINS, NUM_BINS // COARSE_BINS).sum(axis=1))

    def count(histogram: NDArray[np.float64]) -> Histogram:
        coarse = shrink(histogram)
        return coarse.astype(np.min_scalar_type(int(coarse.max())), copy=False)

    return Pixels(
        normal=count(counts.normal),
        defect=count(counts.defect),
        overlap=shrink(counts.overlap),
        num_regions=counts.num_regions,
        saturated=shrink(counts.saturated),
        num_parts=counts.num_parts,
        is_missing=is_missing,
    )
