"""Inspector: a picture in, a finding out. Loaded once; used by the CLI, the server, evaluation."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.answered import Answered, fail_question, read_answer
from anomalyr1.checkpoint import resolve_source
from anomalyr1.detectors import Detector
from anomalyr1.engines import Engine
from anomalyr1.geometry import to_original
from anomalyr1.hints import restore_boxes
from anomalyr1.images import load_image
from anomalyr1.masks import Masker, build_masker
from anomalyr1.parsing import parse_inspection
from anomalyr1.preparation import Prepared, Preparer, PromptBuilder, load_detector
from anomalyr1.prompts import build_choice_prompt, build_inspection_prompt
from anomalyr1.types import (
    Anomaly,
    Box,
    Completion,
    Defect,
    Finding,
    InputError,
    Record,
    RefusedError,
    Response,
)
from anomalyr1.weights import hash_weights

_Said = Completion | InputError
"""What a model said to a prompt, or why it said nothing."""

ImageSource = str | Path | bytes | Image.Image | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Inspection:
    """A finding with its pictures in memory.

    `masks`: bool (H, W) in original-image pixels, one a defect of the finding. `anomaly_map`:
    float32 (h, w) in [0, 1] covering the picture, None without a hint. `picture`: the original,
    None where it could not be read.
    """

    finding: Finding
    picture: Image.Image | None = field(default=None, compare=False)
    masks: tuple[NDArray[np.bool_], ...] = field(default=(), compare=False)
    anomaly_map: NDArray[np.float32] | None = field(default=None, compare=False)


class Inspector:
    """A model, a detector for the hint (or none) and a masker (or none), ready to use."""

    def __init__(
        self,
        engine: Engine,
        *,
        detector: Detector | None = None,
        masker: Masker | None = None,
        weights_sha256: str = "",
    ) -> None:
        self._engine = engine
        self._weights_sha256 = weights_sha256
        self._preparer = Preparer(engine, detector)
        self._masker = masker

    @classmethod
    def load(
        cls,
        model: str = "nano",
        *,
        hint: str = "auto",
        masks: str = "auto",
        sam2_model: str | None = None,
        device: str = "auto",
    ) -> Inspector:
        """Load a checkpoint by name, folder or hub id. Raises InputError for an unusable one."""
        resolve_source(model)  # before the import below, which takes seconds
        from anomalyr1.engines.transformers_engine import TransformersEngine

        detector = load_detector(hint, model)
        masker = build_masker(masks, sam2_model=sam2_model) if masks != "none" else None
        engine = TransformersEngine.load(model, device=device)
        weights = hash_weights(model)
        return cls(engine, detector=detector, masker=masker, weights_sha256=weights)

    @property
    def model(self) -> str:
        """The engine's name, as findings carry it."""
        return self._engine.engine_id

    @property
    def weights_sha256(self) -> str:
        """The content hash of the loaded weights, as findings carry it; empty where unknown."""
        return self._weights_sha256

    @property
    def engine(self) -> Engine:
        """The engine alone, for prompts that are not inspections."""
        return self._engine

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly | None:
        """What the detector alone says of an RGB picture; None without a detector."""
        return self._preparer.detect(picture, references)

    def inspect(
        self,
        image: ImageSource,
        *,
        references: Sequence[ImageSource] = (),
        knowledge: str = "",
        category: str = "",
        seed: int = 0,
    ) -> Inspection:
        """Inspect one picture: path, bytes, PIL image or array (uint8 RGB or grey, H x W).

        Raises InputError when the picture or a reference cannot be read.
        """
        start = time.perf_counter()
        picture = load_image(image)
        name = str(image) if isinstance(image, str | Path) else "array"
        record = Record(name, Path(name), category=category, knowledge=knowledge)
        shown = [load_image(source) for source in references]
        prepared = self._preparer.prepare(record, picture, shown, start)
        start = time.perf_counter()
        (said,) = self._engine.generate([prepared.prompt], [prepared.shown], seed=seed)
        return self._conclude(prepared, said, time.perf_counter() - start)

    def inspect_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Inspection]:
        """Inspect records in order, a batch at a time; one that cannot be read is a finding with
        its error, and the others go on.

        Each comes as soon as the model has said what it says to it and to those before it. Of an
        endpoint, `batch_size` are under way: as one is taken, the next is put. `seconds` of a
        finding is its own time, its share of what its batch took and how long it was waited for.
        """
        asked = self._ask(records, build_inspection_prompt, batch_size, seed)
        for record, prepared, said, seconds in asked:
            yield self._conclude_or_fail(record, prepared, said, seconds)

    def answer_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Answered]:
        """Answers to the records' multiple-choice questions, put as in `inspect_records`.

        Each comes, and counts its `seconds`, as there. A question that cannot be put, or that the
        model fails at, has an error; the others are answered.
        """
        asked = self._ask(records, build_choice_prompt, batch_size, seed)
        for record, prepared, said, seconds in asked:
            if prepared is None:
                yield fail_question(record, str(said))
            else:
                answered = read_answer(prepared, said)
                yield replace(answered, seconds=prepared.seconds + seconds)

    def _ask(
        self, records: Iterable[Record], build: PromptBuilder, batch_size: int, seed: int
    ) -> Iterator[tuple[Record, Prepared | None, _Said, float]]:
        """Each record, how it was put (None where it could not be), what was said to it or why
        nothing was, and the seconds that this took."""
        waiting = iter(records)
        under_way: deque[tuple[Record, Prepared | InputError, Iterator[_Said], float]] = deque()
        slides = False
        while True:
            num_free = batch_size - len(under_way) if slides or not under_way else 0
            batch = [(one, self._prepare_or_fail(one, build)) for one in islice(waiting, num_free)]
            start = time.perf_counter()
            said = self._put([put for _, put in batch if isinstance(put, Prepared)], seed)
            share = (time.perf_counter() - start) / max(1, len(batch))
            # A list is a batch that is done; an iterator has only begun, and takes on others.
            slides = slides or not isinstance(said, list)
            answers = iter(said)
            under_way.extend((record, put, answers, share) for record, put in batch)
            if not under_way:
                return
            record, put, answers, share = under_way.popleft()
            start = time.perf_counter()
            if isinstance(put, InputError):
                yield record, None, put, 0.0
            else:
                yield record, put, next(answers), share + time.perf_counter() - start

    def _prepare_or_fail(self, record: Record, build: PromptBuilder) -> Prepared | InputError:
        try:
            return self._preparer.prepare_record(record, build)
        except InputError as error:
            return error

    def _put(self, prepared: Sequence[Prepared], seed: int) -> Iterable[_Said]:
        """What is said to each, whole if it is a list. Prompts that the model cannot take on
        together are put one by one, to name the culprit."""
        if not prepared:
            return []
        try:
            return self._engine.generate(
                [one.prompt for one in prepared], [one.shown for one in prepared], seed=seed
            )
        except RefusedError:
            raise
        except InputError as error:
            if len(prepared) == 1:
                return [error]
            return [said for one in prepared for said in self._put([one], seed)]

    def _conclude_or_fail(
        self, record: Record, prepared: Prepared | None, said: _Said, seconds: float
    ) -> Inspection:
        if isinstance(said, InputError):
            return self._failed(record, said)
        assert prepared is not None
        try:
            return self._conclude(prepared, said, seconds)
        except InputError as error:
            return self._failed(record, error)

    def _conclude(self, prepared: Prepared, completion: Completion, seconds: float) -> Inspection:
        start = time.perf_counter()
        if completion.finish_reason == "error":
            return self._failed(prepared.record, InputError(completion.problem))
        place = len(prepared.shown) - 1 - (prepared.anomaly is not None)
        response = parse_inspection(
            completion.text,
            shown_size_wh=completion.image_sizes_wh[place],
            original_size_wh=prepared.picture.size,
            frame=self._engine.frame,
            finish_reason=completion.finish_reason,
        )
        if completion.finish_reason == "refusal":
            response = Response("refused", problem=completion.problem)
        if prepared.anomaly is not None and response.regions:
            response = self._restore_boxes(prepared, response, completion, place)
        anomaly_map = None if prepared.anomaly is None else prepared.anomaly.anomaly_map
        boxes = [region.box_xyxy for region in response.regions]
        masks: list[NDArray[np.bool_]] = []
        if self._masker is not None and boxes:
            masks = self._masker.masks(prepared.picture, boxes, anomaly_map)
        finding = self._build_finding(prepared, completion, response, anomaly_map)
        seconds += prepared.seconds + time.perf_counter() - start
        return Inspection(
            replace(finding, seconds=seconds), prepared.picture, tuple(masks), anomaly_map
        )

    def _restore_boxes(
        self, prepared: Prepared, response: Response, completion: Completion, place: int
    ) -> Response:
        """The response with the map's own boxes where it names regions of the map; `place` is the
        picture's among those that were shown."""
        assert prepared.anomaly is not None
        boxes = restore_boxes(
            [region.box_xyxy for region in response.regions],
            prepared.anomaly,
            prepared.shown[place].size,
            completion.image_sizes_wh[place],
            prepared.picture.size,
            self._engine.frame,
        )
        pairs = zip(response.regions, boxes, strict=True)
        regions = tuple(replace(region, box_xyxy=box) for region, box in pairs)
        return replace(response, regions=regions)

    def _build_finding(
        self,
        prepared: Prepared,
        completion: Completion,
        response: Response,
        anomaly_map: NDArray[np.float32] | None,
    ) -> Finding:
        record = prepared.record
        verdict = response.label if response.status == "ok" and response.label else "unread"
        return Finding(
            record_id=record.record_id,
            image=str(record.image_path),
            verdict=verdict,
            anomaly_score=None if verdict == "unread" else completion.p_anomalous,
            detector_score=None if prepared.anomaly is None else prepared.anomaly.score,
            reasoning=response.reasoning,
            defects=tuple(
                Defect(
                    region.defect_type,
                    region.description,
                    region.box_xyxy,
                    confidence=measure_confidence(
                        region.box_xyxy, prepared.picture.size, anomaly_map, completion.p_anomalous
                    ),
                )
                for region in response.regions
            ),
            raw_text=completion.text,
            status=response.status,
            model=self._engine.engine_id,
            weights_sha256=self._weights_sha256,
            template_id=prepared.prompt.template_id,
            category=record.category,
            reference=str(record.reference_paths[0]) if record.reference_paths else None,
            image_size_wh=prepared.picture.size,
        )

    def _failed(self, record: Record, error: InputError) -> Inspection:
        return Inspection(
            Finding(
                record_id=record.record_id,
                image=str(record.image_path),
                verdict="unread",
                model=self._engine.engine_id,
                weights_sha256=self._weights_sha256,
                category=record.category,
                error=str(error),
            )
        )


def measure_confidence(
    box_xyxy: Box,
    size_wh: tuple[int, int],
    anomaly_map: NDArray[np.float32] | None,
    p_anomalous: float | None,
) -> float | None:
    """How sure a defect is, in [0, 1]: the map's highest value in its box, in original pixels of a
    picture of `size_wh`; without a map, the model's P(anomalous)."""
    if anomaly_map is None:
        return p_anomalous
    height, width = anomaly_map.shape
    left, top, right, bottom = to_original(box_xyxy, size_wh, (width, height), "absolute")
    inside = anomaly_map[
        int(top) : max(int(top) + 1, round(bottom)), int(left) : max(int(left) + 1, round(right))
    ]
    return float(inside.max()) if inside.size else p_anomalous
