"""The truth of a record as one text, the column `solution` of a training row, and back.

A text, because rows of questions and of inspections then share one column type. What is wrong with
a truth is said here, when rows are made or read, naming the record; rewards can trust the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

from anomalyr1.geometry import clip_box, frame_size
from anomalyr1.types import Box, BoxFrame, InputError, Label, Record, Region


@dataclass(frozen=True, slots=True)
class Solution:
    """What is true of a row: of a question its `letter` and `options`, of an inspection the rest.

    `regions` are the true defects, boxes in original-image pixels; empty for a normal part and
    where none is known. Sizes are (width, height) in pixels: `size_wh` of the picture to judge,
    `shown_size_wh` as the model sees it, writing boxes in `frame`.
    """

    record_id: str
    kind: Literal["choice", "inspection"]
    letter: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    question_type: str = ""
    label: Label | None = None
    regions: tuple[Region, ...] = ()
    size_wh: tuple[int, int] | None = None
    shown_size_wh: tuple[int, int] | None = None
    frame: BoxFrame = "absolute"


def render_solution(
    record: Record, size_wh: tuple[int, int], shown_size_wh: tuple[int, int], frame: BoxFrame
) -> str:
    """The truth of a record as JSON: of its question where it has one, else of its inspection.

    Sizes are (width, height) of the picture to judge, in original pixels and as the model sees it.
    A region without a kind takes the record's `defect_type`; boxes are cut at the picture's edge.
    Raises InputError, naming the record, for a question without an answer among its options, a
    missing label, a normal part with regions, a box that covers nothing, and unusable sizes.

    >>> from pathlib import Path
    >>> record = Record("7", Path("7.png"), label="normal")
    >>> read_solution(render_solution(record, (64, 48), (64, 48), "absolute")).label
    'normal'
    """
    question = record.question
    if question is not None:
        options, kind = dict(question.options), question.question_type
        truth = Solution(record.record_id, "choice", question.answer, options, kind)
        return json.dumps(asdict(_check(truth)))
    truth = Solution(
        record.record_id,
        "inspection",
        label=record.label,
        regions=tuple(
            Region(
                _cut_box(record, region.box_xyxy, size_wh),
                region.defect_type or record.defect_type,
                region.description,
            )
            for region in record.regions
        ),
        size_wh=size_wh,
        shown_size_wh=shown_size_wh,
        frame=frame,
    )
    return json.dumps(asdict(_check(truth)))


@lru_cache(maxsize=4096)
def read_solution(text: str) -> Solution:
    """What `render_solution` wrote. Raises InputError for anything else and for a wrong truth."""
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError(f"a {type(content).__name__} instead of an object")
        return _check(_build(content))
    except InputError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"solution {text[:80]!r} cannot be read ({error!r}): write it with render_solution"
        ) from error


def _build(content: Mapping[str, Any]) -> Solution:
    regions = tuple(
        Region(_read_box(region["box_xyxy"]), region["defect_type"], region["description"])
        for region in content.get("regions", ())
    )
    sizes = {
        name: (int(size[0]), int(size[1]))
        for name in ("size_wh", "shown_size_wh")
        if (size := content.get(name)) is not None
    }
    return Solution(**{**content, **sizes, "regions": regions})


def _read_box(sides: Any) -> Box:
    left, top, right, bottom = sides
    return (float(left), float(top), float(right), float(bottom))


def _cut_box(record: Record, box_xyxy: Box, size_wh: tuple[int, int]) -> Box:
    inside = clip_box(box_xyxy, size_wh) if all(map(math.isfinite, box_xyxy)) else None
    if inside is None:
        raise InputError(
            f"box {tuple(box_xyxy)} of record {record.record_id} covers nothing of its "
            f"{size_wh[0]}x{size_wh[1]} picture: boxes are x1, y1, x2, y2 in original-image pixels"
        )
    return inside


def _check(truth: Solution) -> Solution:
    fault = _find_choice_fault(truth) if truth.kind == "choice" else _find_inspection_fault(truth)
    if fault:
        raise InputError(f"record {truth.record_id} cannot be rewarded: {fault}")
    return truth


def _find_choice_fault(truth: Solution) -> str:
    if not isinstance(truth.options, dict) or len(truth.options) < 2:
        return "its question has fewer than two options; give it the options that it asks for"
    for letter, text in truth.options.items():
        if len(letter) != 1 or not letter.isascii() or not letter.isalpha():
            return f"its question has an option {letter!r}; name options by one letter, A to Z"
        if not isinstance(text, str):
            return f"option {letter} is {text!r}; give it a text"
    if truth.letter not in truth.options:
        known = ", ".join(truth.options)
        return f"its answer {truth.letter!r} is not among the options {known}; correct the question"
    return ""


def _find_inspection_fault(truth: Solution) -> str:
    if truth.kind != "inspection":
        return f"its kind {truth.kind!r} is neither choice nor inspection"
    if truth.label not in ("normal", "anomalous"):
        return f"its label is {truth.label!r}; set it to normal or anomalous"
    if truth.label == "normal" and truth.regions:
        return "it is normal but has regions; remove them or set its label to anomalous"
    for name, size in (("size_wh", truth.size_wh), ("shown_size_wh", truth.shown_size_wh)):
        if size is None or min(size) <= 0:
            return f"its {name} is {size}; give the picture's width and height in pixels"
    assert truth.size_wh is not None and truth.shown_size_wh is not None
    frame_size(truth.shown_size_wh, truth.frame)
    for region in truth.regions:
        if not isinstance(region.defect_type, str):
            return f"a region's defect_type is {region.defect_type!r}; give a text"
        if clip_box(region.box_xyxy, truth.size_wh) != region.box_xyxy:
            return f"box {region.box_xyxy} reaches out of its {truth.size_wh} picture or is empty"
    return ""
