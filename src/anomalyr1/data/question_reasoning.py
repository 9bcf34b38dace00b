"""The reasoning a model is shown for a multiple-choice question: from the record's truth to an
explicit conclusion that names the right option's letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from anomalyr1.data.question_facts import CATEGORY_FACTS, VAGUE_KINDS, spoken
from anomalyr1.data.wording import (
    FITS_BEST,
    TAKEN_FOR,
    bare_option,
    begin_small,
    describe_regions,
)
from anomalyr1.geometry import box_area, boxes_from_mask, grid_words
from anomalyr1.images import image_size, load_mask
from anomalyr1.prompts import word_score
from anomalyr1.types import Hint, InputError, Question, Record, Region


def write_choice_reasoning(
    record: Record,
    question: Question,
    rng: np.random.Generator,
    *,
    hint: Hint | None,
    size_wh: tuple[int, int] | None = None,
) -> str:
    """A short text from the record's truth to an explicit conclusion ("So the answer is B.").

    The right option is quoted before its letter is named: a small model finds out what fits, and
    not which letter stands before it. The anomaly map is spoken of only where there is a `hint`,
    whose regions are those to be told, and only where defects are asked for. Raises InputError for
    a question without an answer among its options.
    """
    right = question.options.get(question.answer or "")
    if right is None:
        raise InputError(
            f"record {record.record_id}: the question {question.text!r} has no answer among its "
            "options: a reasoning needs one"
        )
    size_wh = size_wh or image_size(record.image_path)
    regions = true_regions(record, size_wh)
    sentences = []
    if question.question_type.startswith("Object"):
        sentences.append(_object_evidence(record, question.question_type, right))
    else:
        if hint is not None and record.label is not None:
            sentences += [word_score(hint.score), TAKEN_FOR[record.label]]
            if record.label == "anomalous" and hint.regions:
                sentences.append(describe_regions(hint.regions))
        sentences.append(_defect_evidence(record, regions, size_wh, rng))
    sentences.append(f"{FITS_BEST} {bare_option(right)}.")
    sentences.append(pick(_CONCLUSIONS, rng).format(letter=question.answer))
    return " ".join(sentence for sentence in sentences if sentence)


def true_regions(record: Record, size_wh: tuple[int, int]) -> tuple[Region, ...]:
    """The record's regions, or else its mask's, largest first."""
    regions = record.regions
    if not regions and record.mask_path is not None and record.label == "anomalous":
        mask = load_mask(
            record.mask_path, size_wh, record.mask_threshold, image_name=record.image_path.name
        )
        boxes = boxes_from_mask(mask, min_area=6, merge_gap=max(size_wh) // 12)
        regions = tuple(Region(box, record.defect_type) for box in boxes)
    return tuple(sorted(regions, key=lambda region: -box_area(region.box_xyxy)))


def pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


_CONCLUSIONS = (
    "So the answer is {letter}.",
    "Therefore the answer is {letter}.",
    "So the right option is {letter}.",
    "Therefore option {letter} is right.",
    "The answer is therefore {letter}.",
)
_SEEN_NORMAL = (
    "Surface and outline look regular.",
    "Shape, texture and colour are as expected.",
    "Nothing is missing, broken or stained.",
)


def _defect_evidence(
    record: Record, regions: Sequence[Region], size_wh: tuple[int, int], rng: np.random.Generator
) -> str:
    if record.label == "normal":
        return pick(_SEEN_NORMAL, rng)
    kind = "" if record.defect_type.lower() in VAGUE_KINDS else spoken(record.defect_type)
    if not regions:
        return f"The part shows a defect: {kind}." if kind else "Something is unlike a normal part."
    first = regions[0]
    place = grid_words(first.box_xyxy, size_wh)
    # Names of data sets ("colour", "bent") need not be nouns, so they are not said as such.
    kind = "" if first.defect_type.lower() in VAGUE_KINDS else f" ({spoken(first.defect_type)})"
    said = first.description.rstrip(" .") or f"defect{kind} at the {place}"
    said = re.sub(r"^(?:an?|the)\s+", "", said, flags=re.IGNORECASE)
    return f"There is a {said}."


def _object_evidence(record: Record, subject: str, right: str) -> str:
    if subject == "Object Classification":
        facts = CATEGORY_FACTS.get(begin_small(bare_option(right)), ())
        shapes = [fact.text for fact in facts if fact.topic == "shape"]
        return f"The picture shows {shapes[0]}." if shapes else ""
    category = spoken(record.category)
    return f"The picture shows this product: {category}." if category else ""
