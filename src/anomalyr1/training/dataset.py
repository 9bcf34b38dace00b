"""Records to rows that TRL's trainers take: prompt and answer, of inspection or of a question.

The prompt is that of `prompts`, the one builder; boxes are moved to the model's frame here by
`geometry`, once. The detector looks before training; what it saw is kept beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from anomalyr1.checkpoint import shown_size
from anomalyr1.data.question_reasoning import write_choice_reasoning
from anomalyr1.data.questions import ask, write_questions
from anomalyr1.data.wording import write_reasoning
from anomalyr1.detectors import Detector
from anomalyr1.detectors.patch_memory import PatchMemoryDetector
from anomalyr1.geometry import box_iou, frame_size, to_model
from anomalyr1.hints import describe_hint, draw_hint
from anomalyr1.images import load_image
from anomalyr1.prompts import (
    build_choice_prompt,
    build_inspection_prompt,
    drop_reasoning,
    render_choice_answer,
    render_inspection_answer,
    to_chat,
)
from anomalyr1.rewards import render_solution
from anomalyr1.training.workers import map_tasks
from anomalyr1.types import (
    Anomaly,
    BoxFrame,
    Hint,
    InputError,
    Prompt,
    Question,
    Record,
    Region,
    SeenRegion,
)


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How rows are made: shares without hint, with a reference shown, without reasoning, and with
    a multiple-choice question (of any subtask that the record's truth can answer) to answer.

    A target box that the hint already gives with an IoU of `copied_iou` or more is written as the
    hint has it: what a small model can learn is to choose among regions. A defect that the hint
    does not show is left out beside ones that it does, rather than taught as a guess. Rows
    without reasoning teach the verdict that the score is read from. The token that decides the
    verdict, without reasoning or in what a reasoning makes of the map's score, and that with which
    a question's right option begins, count `verdict_weight` times beside the mean over all tokens.
    """

    without_hint: float = 0.2
    with_reference: float = 0.4
    without_reasoning: float = 0.2
    with_question: float = 0.0
    copied_iou: float = 0.4
    max_boxes: int = 12
    variants: int = 1
    verdict_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class HintedRecord:
    """A record with the file of its anomaly (None: no hint) and how many references are shown.

    A record with a question is asked it; one without is inspected.
    """

    record: Record
    hint_path: Path | None
    num_references: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A row's prompt with its pictures as RGB, the hint in words (None: no hint), and the size in
    pixels (width, height) of the picture to judge, its own and as the model sees it."""

    prompt: Prompt
    images: tuple[Image.Image, ...]
    hint: Hint | None
    size_wh: tuple[int, int]
    shown_wh: tuple[int, int]


def write_hints(
    records: Sequence[Record], hint_folder: Path, out: Path, *, seed: int, num_workers: int
) -> Iterator[Path]:
    """Write what the detector sees of each record to `out`, from 0, 1, 2 or all of its references
    by turns; yields the files, which `load_anomaly` reads.

    Files that are there already are kept, so that an interrupted run continues.
    """
    out.mkdir(parents=True, exist_ok=True)
    tasks = [(product, [seed, number]) for number, product in enumerate(_find_products(records))]
    load = partial(_open, hint_folder, records, out)
    for paths in map_tasks(_write_product_hints, tasks, load, num_workers=num_workers, chunksize=4):
        yield from paths


def _find_products(records: Sequence[Record]) -> list[list[int]]:
    """The numbers of the records of each folder; the records may be too many to be kept."""
    products: dict[Path, list[int]] = {}
    for number, record in enumerate(records):
        products.setdefault(record.image_path.parent, []).append(number)
    return list(products.values())


def _open(
    hint_folder: Path, records: Sequence[Record], out: Path
) -> tuple[Detector, Sequence[Record], Path]:
    return PatchMemoryDetector.load(hint_folder, num_threads=1), records, out


def _write_product_hints(
    opened: tuple[Detector, Sequence[Record], Path], task: tuple[list[int], list[int]]
) -> list[Path]:
    detector, records, out = opened
    product, seed = task
    rng = np.random.default_rng(seed)
    count = int(rng.choice([0, 1, 2, 4]))
    references = [load_image(path) for path in records[product[0]].reference_paths[:count]]
    paths = [_name_hint(out, number) for number in product]
    for number, path in zip(product, paths, strict=True):
        if not path.is_file():
            picture = load_image(records[number].image_path)
            save_anomaly(path, detector.detect(picture, references))
    return paths


def _name_hint(folder: Path, number: int) -> Path:
    """The file of a record's anomaly, by the record's number."""
    return folder / f"{number:06d}.npz"


def save_anomaly(path: Path, anomaly: Anomaly) -> None:
    """Write an anomaly whole or not at all; the map is kept in float16."""
    temporary = path.with_suffix(".tmp")
    arrays: dict[str, Any] = {
        "anomaly_map": anomaly.anomaly_map.astype(np.float16),
        "score": np.float64(anomaly.score),
    }
    if anomaly.regions is not None:
        regions = anomaly.regions
        arrays["boxes"] = np.array([region.box_xyxy for region in regions]).reshape(-1, 4)
        arrays["peaks"] = np.array([region.peak for region in regions])
        arrays["names"] = np.array([region.kind for region in regions], dtype=np.str_)
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    temporary.replace(path)


def load_anomaly(path: Path) -> Anomaly:
    """What `save_anomaly` wrote. Raises InputError for a file that is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            regions = None
            if "boxes" in arrays:
                told = (arrays[name].tolist() for name in ("boxes", "peaks", "names"))
                regions = tuple(
                    SeenRegion((left, top, right, bottom), peak, kind)
                    for (left, top, right, bottom), peak, kind in zip(*told, strict=True)
                )
            anomaly_map = arrays["anomaly_map"].astype(np.float32)
            return Anomaly(anomaly_map, float(arrays["score"]), regions)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(
            f"hint {path} cannot be read ({error}): delete it and run again"
        ) from error


class ChosenRows(Sequence[HintedRecord]):
    """Rows that are decided, each from the seed and its number, when they are asked for: whether a
    record's hint and a reference are shown, and whether it is asked a question of its own or
    inspected; and that `variants` times over.

    `hints` is the folder that `write_hints` filled, None for no hint. Memory does not grow with the
    number of records where those stay in their file.
    """

    def __init__(
        self,
        records: Sequence[Record],
        hints: Path | None,
        settings: RowSettings,
        seed: int,
        *,
        variants: int = 1,
    ) -> None:
        self._records, self._hints, self._settings = records, hints, settings
        self._seed, self._numbers = seed, range(len(records) * variants)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> HintedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[HintedRecord]: ...
    def __getitem__(self, index: int | slice) -> HintedRecord | list[HintedRecord]:
        if isinstance(index, slice):
            return [self._choose(number) for number in self._numbers[index]]
        return self._choose(self._numbers[index])

    def _choose(self, number: int) -> HintedRecord:
        index, settings = number % len(self._records), self._settings
        record = self._records[index]
        rng = np.random.default_rng([self._seed, number])
        path = None
        if self._hints is not None and rng.random() >= settings.without_hint:
            path = _name_hint(self._hints, index)
        shown = int(bool(record.reference_paths) and rng.random() < settings.with_reference)
        if record.question is None and rng.random() < settings.with_question:
            questions = write_questions(record, rng)
            record = ask(record, questions[int(rng.integers(len(questions)))])
        return HintedRecord(record, path, shown)


def show(hinted: HintedRecord, processor: Any, frame: BoxFrame) -> Shown:
    """The prompt of a row with its pictures, boxes of the hint in the model's `frame`."""
    record = hinted.record
    picture = load_image(record.image_path)
    images = [load_image(path) for path in record.reference_paths[: hinted.num_references]]
    images.append(picture)
    shown_wh = shown_size(processor, picture.size)
    hint = None
    if hinted.hint_path is not None:
        anomaly = load_anomaly(hinted.hint_path)
        images.append(draw_hint(anomaly.anomaly_map, picture.size))
        hint = describe_hint(anomaly, picture.size, shown_wh, frame)
    build = build_inspection_prompt if record.question is None else build_choice_prompt
    prompt = build(record, num_references=hinted.num_references, hint=hint)
    return Shown(prompt, tuple(images), hint, picture.size, shown_wh)


def build_row(
    hinted: HintedRecord, processor: Any, frame: BoxFrame, settings: RowSettings, seed: int
) -> dict[str, Any]:
    """A row for SFT: `prompt` and `completion` as conversations, `images` in order."""
    record = hinted.record
    rng = np.random.default_rng([seed, 1])
    shown = show(hinted, processor, frame)
    answer = (
        _inspection_answer(record, shown, frame, settings, rng)
        if record.question is None
        else _choice_answer(record, record.question, shown, frame, settings, rng)
    )
    if rng.random() < settings.without_reasoning:
        answer = drop_reasoning(answer)
    return {
        "prompt": to_chat(shown.prompt),
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": answer}]}],
        "images": list(shown.images),
    }


def build_rollout(hinted: HintedRecord, processor: Any, frame: BoxFrame) -> dict[str, Any]:
    """A row for GRPO: `prompt`, `images`, the truth as `solution` for the rewards, `record_id`."""
    shown = show(hinted, processor, frame)
    return {
        "prompt": to_chat(shown.prompt),
        "images": list(shown.images),
        "solution": render_solution(hinted.record, shown.size_wh, shown.shown_wh, frame),
        "record_id": hinted.record.record_id,
    }


def _choice_answer(
    record: Record,
    question: Question,
    shown: Shown,
    frame: BoxFrame,
    settings: RowSettings,
    rng: np.random.Generator,
) -> str:
    told = shown.hint
    if told is not None:
        boxes = {box for _, box in place_regions(record.regions, shown, frame, settings.copied_iou)}
        told = replace(told, regions=tuple(seen for seen in told.regions if seen.box in boxes))
    reasoning = record.reasoning or write_choice_reasoning(
        record, question, rng, hint=told, size_wh=shown.size_wh
    )
    return render_choice_answer(question.answer or "", reasoning)


def _inspection_answer(
    record: Record,
    shown: Shown,
    frame: BoxFrame,
    settings: RowSettings,
    rng: np.random.Generator,
) -> str:
    assert record.label is not None
    placed = place_regions(record.regions, shown, frame, settings.copied_iou)[: settings.max_boxes]
    reasoning = record.reasoning or write_reasoning(
        record.label,
        [replace(region, box_xyxy=box) for region, box in placed],
        frame_size(shown.shown_wh, frame),
        rng,
        hint=shown.hint,
    )
    targets = [(box, region.defect_type, region.description) for region, box in placed]
    return render_inspection_answer(record.label, targets, reasoning)


def place_regions(
    regions: Sequence[Region], shown: Shown, frame: BoxFrame, copied_iou: float
) -> list[tuple[Region, tuple[int, int, int, int]]]:
    """The regions to be named, each with its box in the model's frame, in reading order.

    Where the hint shows some of them, those alone are named, with the hint's box where that fits.
    Of several that lie on one region of the hint, the one that fits it best is named.
    """
    exact = [
        (region, to_model(region.box_xyxy, shown.shown_wh, shown.size_wh, frame))
        for region in regions
    ]
    hinted = [region.box for region in shown.hint.regions] if shown.hint is not None else []
    best: dict[tuple[int, int, int, int], tuple[float, Region]] = {}
    placed = []
    for region, box in exact:
        nearest = max(hinted, key=lambda candidate: box_iou(candidate, box), default=None)
        overlap = box_iou(nearest, box) if nearest is not None else 0.0
        if nearest is None or overlap == 0:
            continue
        if overlap < copied_iou:
            placed.append((region, box))
        elif nearest not in best or overlap > best[nearest][0]:
            best[nearest] = (overlap, region)
    placed += [(region, box) for box, (_overlap, region) in best.items()]
    return sorted(placed or exact, key=lambda pair: (pair[1][1], pair[1][0]))
