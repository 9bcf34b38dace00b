"""The reasoning a model is shown for a multiple-choice question: from the record's truth to an
explicit conclusion that names the right option's letter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from anomalyr1.data.question_facts import CATEGORY_FACTS, VAGUE_KINDS, exact_kind, spoken
from anomalyr1.data.wording import KIND_WORDS, describe_regions
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

    The anomaly map is spoken of only where there is a `hint`, and only where defects are asked for.
    Raises InputError for a question without an answer among its options.
    """
    right = question.options.get(question.answer or "")
    if right is None:
        raise InputError(
            f"record {record.record_id}: the question {question.text!r} has no answer among its "
            "options: a reasoning needs one"
        )
    size_wh = size_wh or image_size(record.image_path)
    subject = question.question_type
    regions = true_regions(record, size_wh)
    sentences = []
    if subject.startswith("Object"):
        sentences += _object_evidence(record, subject, right, rng)
    else:
        if hint is not None:
            sentences.append(word_score(hint.score))
            if record.label == "anomalous" and hint.regions:
                sentences.append(describe_regions(hint.regions))
        sentences.append(_defect_evidence(record, regions, size_wh, rng))
        sentences += _link(record, regions, subject, right, rng)
    sentences += _weigh(question)
    sentences.append(pick(_CONCLUSIONS, rng).format(letter=question.answer))
    return " ".join(sentence for sentence in sentences if sentence)


def _weigh(question: Question) -> list[str]:
    """The options one by one, up to the right one, so that its letter is the last that is named.

    A small model finds out whether an option agrees with what was said; it does not find the letter
    that stands before an option.
    """
    weighed = []
    for letter, text in question.options.items():
        words = text.rstrip(" .").split()
        said = _begin_small(" ".join(words[:_QUOTED_WORDS]))
        is_right = letter == question.answer
        weighed.append(f"{letter} ({said}) {'fits' if is_right else 'does not fit'}.")
        if is_right:
            break
    return weighed


def _begin_small(text: str) -> str:
    return text[:1].lower() + text[1:]


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


_QUOTED_WORDS = 8

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
    return f"{'I see' if rng.random() < 0.5 else 'There is'} a {said}."


def _link(
    record: Record,
    regions: Sequence[Region],
    subject: str,
    right: str,
    rng: np.random.Generator,
) -> list[str]:
    """From what is seen to what is asked."""
    right = _begin_small(right.rstrip(" ."))
    first = regions[0].defect_type if regions else record.defect_type
    match subject:
        case "Anomaly Detection":
            fine = ("No defect is visible.", "The part is normal.")
            faulty = ("That is a defect.", "The part is anomalous.")
            return [pick(fine if record.label == "normal" else faulty, rng)]
        case "Defect Classification":
            return [f"{pick(('This kind is called', 'Its kind is'), rng)} {right}."]
        case "Defect Localization":
            return [f"{pick(('Its place is the', 'It lies at the'), rng)} {right}."]
        case "Defect Description":
            return [f"{pick(('It looks like this:', 'What shows is'), rng)} {right}."]
        case "Defect Analysis":
            words = KIND_WORDS.get(exact_kind(first) or "")
            topic = "cause" if words is not None and right in words.causes else "effect"
            return [f"A likely {topic} of such a defect is: {right}."]
    return [f"This fits: {right}."]


def _object_evidence(
    record: Record, subject: str, right: str, rng: np.random.Generator
) -> list[str]:
    right = _begin_small(right.rstrip(" ."))
    category = spoken(record.category)
    if subject == "Object Classification":
        shapes = [fact.text for fact in CATEGORY_FACTS.get(right, ()) if fact.topic == "shape"]
        seen = [f"The picture shows {shapes[0]}."] if shapes else []
        return [*seen, f"{pick(('That is typical of:', 'This product is:'), rng)} {right}."]
    name = [f"The picture shows this product: {category}."] if category else []
    return [*name, f"{pick(('For such a product this holds:', 'What fits it is'), rng)} {right}."]
