"""What a model is shown of a record: references, picture and anomaly map, and the prompt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from anomalyr1.checkpoint import find_hint_folder
from anomalyr1.detectors import Detector
from anomalyr1.engines import Engine
from anomalyr1.hints import describe_hint, draw_hint
from anomalyr1.images import limit_size, load_image
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.types import Anomaly, InputError, Prompt, Record

WORKING_SIDE = 1280
"""Pictures are shown to models at most this many pixels a side; results are in original pixels."""

_PRODUCTS_KEPT = 4

_log = logging.getLogger(__name__)

PromptBuilder = Callable[..., Prompt]
"""`build_inspection_prompt` or `build_choice_prompt`."""


def load_detector(hint: str, model: str = "nano") -> Detector | None:
    """The detector of a hint: "auto" the one that the model brings along or the bundled one,
    "none" None, "dinov2:SOURCE" DINOv2 from a folder or hub id. Raises InputError for anything
    else."""
    if hint == "none":
        return None
    if hint == "auto":
        from anomalyr1.detectors.patch_memory import PatchMemoryDetector

        return PatchMemoryDetector.load(find_hint_folder(model), keep_references=True)
    if hint.startswith("dinov2:"):
        from anomalyr1.detectors.dinov2 import Dinov2Detector

        return Dinov2Detector.load(hint.removeprefix("dinov2:"))
    raise InputError(f"--hint is {hint!r}; choose auto, none or dinov2:FOLDER_OR_HUB_ID")


def leave_itself_out(
    record: Record, picture: Image.Image, references: Sequence[Image.Image]
) -> tuple[Record, Sequence[Image.Image]]:
    """Record and references without those that are the picture itself, pixel for pixel.

    Compared with itself a picture would lack every anomaly. A line in the log says which it was.
    The record's paths, where it has any, are those of the references, in their order. Where none is
    left out, the very sequence comes back, by which a detector knows it again.
    """
    kept = [place for place, shown in enumerate(references) if not _is_same(picture, shown)]
    if len(kept) == len(references):
        return record, references
    _log.warning(
        "%s is among its own references: it is not compared with itself", record.image_path
    )
    if record.reference_paths:
        paths = tuple(record.reference_paths[place] for place in kept)
        record = replace(record, reference_paths=paths)
    return record, tuple(references[place] for place in kept)


def _is_same(first: Image.Image, second: Image.Image) -> bool:
    if first.size != second.size or first.mode != second.mode:
        return False
    x, y = first.width // 2, first.height // 2
    middle = (x - 8, y - 8, x + 8, y + 8)
    # Most differ here already, and all pixels of sixteen references take tens of milliseconds.
    if first.crop(middle).tobytes() != second.crop(middle).tobytes():
        return False
    return first.tobytes() == second.tobytes()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A record as it is put to a model: `shown` are the references, the picture and, where there
    is one, the drawn map, in the prompt's order; `picture` is the original. `seconds` went by."""

    record: Record
    picture: Image.Image
    anomaly: Anomaly | None
    prompt: Prompt
    shown: tuple[Image.Image, ...]
    seconds: float


class ReferencePictures:
    """References read from their paths; those of the last few products stay in memory."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, ...], tuple[Image.Image, ...]] = {}

    def load(self, paths: tuple[Path, ...]) -> tuple[Image.Image, ...]:
        """RGB pictures, WORKING_SIDE at most; the very tuple of before where they are still kept.

        Raises InputError for a picture that cannot be read.
        """
        if paths not in self._kept:
            if len(self._kept) >= _PRODUCTS_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[paths] = tuple(limit_size(load_image(path), WORKING_SIDE) for path in paths)
        return self._kept[paths]


class Preparer:
    """Prepares records for an engine, with the map of a detector where there is one."""

    def __init__(self, engine: Engine, detector: Detector | None) -> None:
        self._engine = engine
        self._detector = detector
        self._references = ReferencePictures()
        self._last_detected: tuple[object, Anomaly] | None = None

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly | None:
        """What the detector alone says of an RGB picture; None without a detector."""
        if self._detector is None:
            return None
        small = [limit_size(reference, WORKING_SIDE) for reference in references]
        return self._detector.detect(limit_size(picture, WORKING_SIDE), small)

    def prepare_record(
        self, record: Record, build: PromptBuilder = build_inspection_prompt
    ) -> Prepared:
        """A record's pictures from its paths. Raises InputError for one that cannot be read."""
        start = time.perf_counter()
        picture = load_image(record.image_path)
        references = self._references.load(record.reference_paths)
        return self.prepare(record, picture, references, start, build)

    def prepare(
        self,
        record: Record,
        picture: Image.Image,
        references: Sequence[Image.Image],
        start: float,
        build: PromptBuilder = build_inspection_prompt,
    ) -> Prepared:
        """RGB pictures at any size; `start` is when work on the record began, by perf_counter."""
        small = limit_size(picture, WORKING_SIDE)
        record, references = leave_itself_out(record, small, _limit_sizes(references))
        anomaly = self._detect(record, small, references)
        shown = [*references[: self._engine.settings.max_references], small]
        hint = None
        if anomaly is not None:
            shown_wh = self._engine.shown_size(small.size)
            hint = describe_hint(anomaly, small.size, shown_wh, self._engine.frame)
        prompt = build(record, num_references=len(shown) - 1, hint=hint)
        if anomaly is not None:
            shown.append(draw_hint(anomaly.anomaly_map, small.size))
        seconds = time.perf_counter() - start
        return Prepared(record, picture, anomaly, prompt, tuple(shown), seconds)

    def _detect(
        self, record: Record, small: Image.Image, references: Sequence[Image.Image]
    ) -> Anomaly | None:
        """A record's several questions show one picture: its map is kept until the next one's."""
        if self._detector is None:
            return None
        key = (record.image_path, record.reference_paths) if record.question else None
        if key is None or self._last_detected is None or self._last_detected[0] != key:
            self._last_detected = (key, self._detector.detect(small, references))
        return self._last_detected[1]


def _limit_sizes(references: Sequence[Image.Image]) -> Sequence[Image.Image]:
    """References at WORKING_SIDE at most; the very sequence where none of them is larger, by which
    a detector knows references that it has just seen."""
    small = tuple(limit_size(reference, WORKING_SIDE) for reference in references)
    same = all(one is other for one, other in zip(small, references, strict=True))
    return references if same else small
