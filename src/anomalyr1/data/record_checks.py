"""What is wrong with records and the files they name. Opens pictures; changes nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import track

from anomalyr1.images import check_image, find_images, load_mask
from anomalyr1.types import Box, InputError, Question, Record

PROGRESS_ABOVE = 200
_THREADS = min(8, os.cpu_count() or 1)
_AT_ONCE = 64
_PICTURES_KNOWN = 20_000

ImageState = tuple[int, int] | str
"""The upright (width, height) of a picture that is whole, or what is wrong with it."""


def find_problems(records: Iterable[Record], total: int) -> Iterator[list[str]]:
    """Yield a list of problems for each of `total` records, in order, empty where all is well.

    Reads a few records at a time. Every picture is opened once however many records name it, as
    long as not too many others come between, in threads; more than `PROGRESS_ABOVE` records show a
    progress bar on stderr. See `records.validate_record` for what is found.
    """
    stream = iter(records)
    states: dict[Path, ImageState] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in track(
            iter(lambda: list(islice(stream, _AT_ONCE)), []),
            description="checking pictures",
            total=math.ceil(total / _AT_ONCE),
            console=Console(stderr=True),
            disable=total <= PROGRESS_ABOVE,
            transient=True,
        ):
            yield from _check_batch(batch, states, pool)
            for path in list(islice(states, max(0, len(states) - _PICTURES_KNOWN))):
                del states[path]


def _check_batch(
    batch: Sequence[Record], states: dict[Path, ImageState], pool: ThreadPoolExecutor
) -> list[list[str]]:
    """Problems of each record; adds to `states` and moves what was asked for to its end."""
    paths = dict.fromkeys(
        path for record in batch for path in (record.image_path, *record.reference_paths)
    )
    known = {path: states.pop(path) for path in paths if path in states}
    missing = [path for path in paths if path not in known]
    states |= known | dict(zip(missing, pool.map(_check_picture, missing), strict=True))
    masks = pool.map(lambda record: _find_mask_problems(record, states), batch)
    return [
        _find_record_problems(record, states) + found
        for record, found in zip(batch, masks, strict=True)
    ]


def _check_picture(path: Path) -> ImageState:
    try:
        return check_image(path)
    except InputError as error:
        return str(error)


def _find_record_problems(record: Record, states: Mapping[Path, ImageState]) -> list[str]:
    state = states[record.image_path]
    size_wh = state if isinstance(state, tuple) else None
    problems = [] if isinstance(state, tuple) else [f"picture {state}"]
    for path in record.reference_paths:
        state = states[path]
        if isinstance(state, str):
            problems.append(f"reference {state}")
        if path == record.image_path:
            problems.append(f"{path} is its own reference; name another normal picture")
    if record.label is None and record.mask_path is not None:
        problems.append("has a mask but no label; set label to normal or anomalous")
    if record.label is None and record.regions:
        problems.append("has regions but no label; set label to anomalous")
    if record.label == "normal" and record.regions:
        problems.append("is normal but has regions; remove them or set label to anomalous")
    for index, region in enumerate(record.regions):
        fault = _find_box_fault(region.box_xyxy, size_wh)
        if fault:
            problems.append(f"regions[{index}] {fault}")
        if region.confidence is not None and not 0.0 <= region.confidence <= 1.0:
            problems.append(f"regions[{index}] has confidence {region.confidence}, not in 0..1")
    return problems + _find_question_problems(record.question)


def _find_question_problems(question: Question | None) -> list[str]:
    if question is None:
        return []
    problems = [
        f"question option {letter!r} is not one capital letter"
        for letter in question.options
        if not (len(letter) == 1 and "A" <= letter <= "Z")
    ]
    if question.answer is not None and question.answer not in question.options:
        letters = ", ".join(question.options) or "none"
        problems.append(f"question answer {question.answer!r} is not among the options ({letters})")
    return problems


def _find_box_fault(box_xyxy: Box, size_wh: tuple[int, int] | None) -> str:
    x1, y1, x2, y2 = box_xyxy
    shown = "box (" + ", ".join(f"{side:g}" for side in box_xyxy) + ")"
    if not all(map(math.isfinite, box_xyxy)):
        return f"{shown} is not finite"
    if x1 >= x2 or y1 >= y2:
        return f"{shown} has no area; write x1, y1, x2, y2 with x1 < x2 and y1 < y2"
    if size_wh is not None and not (x1 >= 0 and y1 >= 0 and x2 <= size_wh[0] and y2 <= size_wh[1]):
        return f"{shown} reaches outside the {size_wh[0]}x{size_wh[1]} picture"
    return ""


def _find_mask_problems(record: Record, states: Mapping[Path, ImageState]) -> list[str]:
    state = states[record.image_path]
    if record.mask_path is None:
        return []
    try:
        if isinstance(state, str):  # no size to compare with, but the mask may be at fault too
            for path in find_images([record.mask_path]):
                check_image(path)
            return []
        mask = load_mask(
            record.mask_path, state, record.mask_threshold, image_name=record.image_path.name
        )
    except InputError as error:
        return [str(error)]
    if record.label == "normal" and mask.any():
        return [f"is normal but its mask {record.mask_path} is not blank"]
    return []
