"""A detector without a language model as an inspector: its map and score make the finding."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1 import hints
from anomalyr1.answered import Answered
from anomalyr1.data.mmad import SUBTASKS, name_subtask
from anomalyr1.detectors import Detector
from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import limit_size, load_image
from anomalyr1.inspector import Inspection, measure_confidence
from anomalyr1.preparation import WORKING_SIDE, ReferencePictures, leave_itself_out
from anomalyr1.types import (
    Anomaly,
    Box,
    Completion,
    Defect,
    Finding,
    InputError,
    Record,
    Response,
)

DECISION_LINE = 0.5
LEAST_AREA = 0.0002
"""Share of the picture: smaller regions of the map are no defect of their own."""


class DetectorAlone:
    """Judges records by a detector's score; its regions are the defects, or its map above 0.5."""

    def __init__(self, detector: Detector, name: str) -> None:
        self._detector = detector
        self._references = ReferencePictures()
        self.model = name

    def inspect_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Inspection]:
        """Inspect records in order, one at a time, as `Inspector.inspect_records` does."""
        for record in records:
            try:
                yield self._inspect(record)
            except InputError as error:
                yield Inspection(
                    Finding(
                        record_id=record.record_id,
                        image=str(record.image_path),
                        verdict="unread",
                        model=self.model,
                        category=record.category,
                        error=str(error),
                    )
                )

    def answer_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Answered]:
        """Answers yes/no questions about a defect by the score; all others stay unanswered."""
        return map(self._answer, records)

    def _answer(self, record: Record) -> Answered:
        start = time.perf_counter()
        letters = find_yes_no(record)
        if letters is None:
            response = Response("no_answer", problem="a detector answers yes/no questions only")
            return Answered(record, response, template_id="detector")
        try:
            picture = limit_size(load_image(record.image_path), WORKING_SIDE)
            references = self._references.load(record.reference_paths)
            _, others = leave_itself_out(record, picture, references)
            score = self._detector.detect(picture, others).score
        except InputError as error:
            return Answered(record, Response("no_answer"), template_id="detector", error=str(error))
        response = Response("ok", choice=letters[score >= DECISION_LINE])
        said = Completion(record.record_id, f"score {score:.6f}", p_anomalous=score)
        return Answered(record, response, said, "detector", time.perf_counter() - start)

    def _inspect(self, record: Record) -> Inspection:
        start = time.perf_counter()
        picture = load_image(record.image_path)
        small = limit_size(picture, WORKING_SIDE)
        references = self._references.load(record.reference_paths)
        record, others = leave_itself_out(record, small, references)
        anomaly = self._detector.detect(small, others)
        is_anomalous = anomaly.score >= DECISION_LINE
        regions = find_regions(anomaly, picture.size) if is_anomalous else []
        defects = tuple(
            Defect(
                label,
                "",
                box,
                confidence=measure_confidence(box, picture.size, anomaly.anomaly_map, None),
            )
            for box, label, _ in regions
        )
        finding = Finding(
            record_id=record.record_id,
            image=str(record.image_path),
            verdict="anomalous" if is_anomalous else "normal",
            anomaly_score=anomaly.score,
            detector_score=anomaly.score,
            defects=defects,
            status="ok",
            model=self.model,
            template_id="detector",
            category=record.category,
            reference=str(record.reference_paths[0]) if record.reference_paths else None,
            image_size_wh=picture.size,
            seconds=time.perf_counter() - start,
        )
        masks = tuple(mask for _, _, mask in regions)
        return Inspection(finding, picture, masks, anomaly.anomaly_map)


def find_yes_no(record: Record) -> dict[bool, str] | None:
    """The letters of yes (True) and no of a question whether there is a defect; None for others."""
    question = record.question
    if question is None or name_subtask(question.question_type) != SUBTASKS[0]:
        return None
    said = {text.strip(" .!").lower(): letter for letter, text in question.options.items()}
    if set(said) != {"yes", "no"}:
        return None
    return {True: said["yes"], False: said["no"]}


def find_regions(
    anomaly: Anomaly, size_wh: tuple[int, int]
) -> list[tuple[Box, str, NDArray[np.bool_]]]:
    """What the detector makes of its map, or else the map's areas above the decision line, largest
    first: box, label, and as mask, bool (H, W), what is above the line within the box; in pixels of
    a picture of `size_wh`."""
    width, height = size_wh
    resized = Image.fromarray(anomaly.anomaly_map, mode="F").resize(
        size_wh, Image.Resampling.BILINEAR
    )
    above = np.asarray(resized) >= DECISION_LINE
    if anomaly.regions is None:
        least = max(1, round(LEAST_AREA * width * height))
        named = [(box, "") for box in boxes_from_mask(above, min_area=least)]
    else:
        named = [(one.box_xyxy, one.defect_type) for one in hints.find_regions(anomaly, size_wh)]
    found = []
    for box, kind in named:
        left, top, right, bottom = map(round, box)
        mask = np.zeros_like(above)
        mask[top:bottom, left:right] = above[top:bottom, left:right]
        found.append((box, kind or "anomaly", mask))
    return found
