"""Multiple-choice questions of MMAD's seven subtasks, written from a record's truth.

Each question can be answered from the picture and has one right option; where the truth does not
tell enough, or no option is surely wrong, the question is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from anomalyr1.data.question_facts import (
    CATEGORY_FACTS,
    FACT_QUESTIONS,
    VAGUE_KINDS,
    Fact,
    exact_kind,
    fits_kind,
    kinds_alike,
    known_kinds,
    may_be_called,
    spoken,
)
from anomalyr1.data.question_options import build_question
from anomalyr1.data.question_reasoning import pick, true_regions
from anomalyr1.data.question_texts import QUESTION_TEXTS, SUBTASKS
from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.geometry import box_area, box_intersection, grid_words
from anomalyr1.images import image_size
from anomalyr1.types import Box, InputError, Question, Record, Region

NO_DEFECT = "there is no defect"

_OUTSIDE_SHARE = 0.03
"""A place is a wrong option where no more than this share of a defect's box reaches into it."""

_SEVERITIES = ("slight", "clear", "severe")


@dataclass(frozen=True, slots=True)
class _Truth:
    record: Record
    size_wh: tuple[int, int]
    regions: tuple[Region, ...]
    rng: np.random.Generator
    other_kinds: tuple[str, ...]
    facts: Mapping[str, Sequence[Fact]]

    @property
    def kinds(self) -> list[str]:
        """Kinds of the record's defects as its data set names them, the largest defect's first."""
        named = [region.defect_type for region in self.regions] or [self.record.defect_type]
        return [kind for kind in dict.fromkeys(named) if kind.lower() not in VAGUE_KINDS]


def write_questions(
    record: Record,
    rng: np.random.Generator,
    *,
    category_facts: Mapping[str, Sequence[Fact]] = CATEGORY_FACTS,
    other_kinds: Iterable[str] = (),
    size_wh: tuple[int, int] | None = None,
    subtasks: Iterable[str] = SUBTASKS,
) -> list[Question]:
    """The questions that a record's truth can answer, at most one a subtask, in `SUBTASKS` order.

    A normal record has no question on defects. `other_kinds` are further defect types of the same
    data set, wrong options for kinds that the project's own tables do not know. `size_wh` is the
    picture's (width, height); without it the picture's header is read. Put a question to a record
    with `ask`. Raises InputError for a record without a label and an unknown subtask.
    """
    if record.label is None:
        raise InputError(
            f"record {record.record_id} has no label: questions need a truth, set it to normal or "
            "anomalous"
        )
    wanted = set(subtasks)
    if unknown := wanted.difference(SUBTASKS):
        raise InputError(f"subtask {min(unknown)!r} is unknown; choose from {', '.join(SUBTASKS)}")
    size_wh = size_wh or image_size(record.image_path)
    regions = true_regions(record, size_wh)
    truth = _Truth(record, size_wh, regions, rng, tuple(other_kinds), category_facts)
    written = []
    for subtask, write in _WRITERS.items():
        about_defect = subtask.startswith("Defect")
        if subtask in wanted and not (about_defect and record.label == "normal"):
            question = write(truth)
            if question is not None:
                written.append(question)
    return written


def ask(record: Record, question: Question) -> Record:
    """The record with the question put to it, under an id of its own.

    A question on the object hides the record's category and knowledge, which a prompt would show
    and which would give the answer away.
    """
    name = question.question_type.lower().replace(" ", "-") or "question"
    asked = replace(record, record_id=f"{record.record_id}/{name}", question=question)
    if question.question_type == "Object Classification":
        return replace(asked, category="", knowledge="")
    return asked


def _detection(truth: _Truth) -> Question | None:
    text = pick(QUESTION_TEXTS["Anomaly Detection"], truth.rng)
    right, wrong = ("Yes", "No") if truth.record.label == "anomalous" else ("No", "Yes")
    return _build(truth, "Anomaly Detection", text, right, [wrong], 2)


def _classification(truth: _Truth) -> Question | None:
    kinds = truth.kinds
    if not kinds:
        return None
    meant = frozenset().union(*map(known_kinds, kinds))
    wrong = []
    if not all(map(exact_kind, kinds)):  # a data set's own kinds: its makers tell them apart
        wrong = [
            spoken(kind)
            for kind in truth.other_kinds
            if kind not in kinds and kind.lower() not in VAGUE_KINDS
        ]
    if len(wrong) < 2 and all(map(known_kinds, kinds)):
        wrong += [kind for kind in KIND_WORDS if kind not in kinds_alike(meant)]
    name = "several" if len(kinds) > 1 else "Defect Classification"
    right = exact_kind(kinds[0]) or spoken(kinds[0])
    return _build(
        truth, "Defect Classification", pick(QUESTION_TEXTS[name], truth.rng), right, wrong, 4
    )


def _localisation(truth: _Truth) -> Question | None:
    if not truth.regions:
        return None
    places = {grid_words(cell, (3, 3)): cell for cell in _CELLS}
    right = grid_words(truth.regions[0].box_xyxy, truth.size_wh)
    wrong = [
        place
        for place, cell in places.items()
        if place != right
        and all(_share_inside(region.box_xyxy, cell, truth.size_wh) <= _OUTSIDE_SHARE
                for region in truth.regions)
    ]  # fmt: skip
    if not wrong:
        return None
    if truth.rng.random() < 0.15:
        wrong = [*_sample(wrong, 2, truth.rng), NO_DEFECT]
    name = "places" if len(truth.regions) > 1 else "Defect Localization"
    return _build(
        truth, "Defect Localization", pick(QUESTION_TEXTS[name], truth.rng), right, wrong, 5
    )


def _description(truth: _Truth) -> Question | None:
    kinds = truth.kinds
    meant = frozenset().union(*map(known_kinds, kinds))
    if not kinds or not all(known_kinds(kind) for kind in kinds):
        return None
    described = truth.regions[0].description if truth.regions else ""
    kind = exact_kind(kinds[0])
    severity = next((word for word in _SEVERITIES if described.startswith(word + " ")), "")
    look = _read_look(described, kind, truth.rng)
    if not look:
        return None
    named = kind is not None and look in KIND_WORDS[kind].looks and truth.rng.random() < 0.5
    others = [other for other in KIND_WORDS if other not in kinds_alike(meant, by_look=not named)]
    looks = [(other, pick(KIND_WORDS[other].looks, truth.rng)) for other in others]
    if named:
        prefix = f"{severity} " if severity else ""
        right = f"{prefix}{kind}: {look}"
        wrong = [f"{prefix}{other}: {text}" for other, text in looks]
    else:
        right, wrong = look, [text for _, text in looks]
    text = pick(
        QUESTION_TEXTS["several looks" if len(truth.regions) > 1 else "Defect Description"],
        truth.rng,
    )
    return _build(truth, "Defect Description", text, right, wrong, 5)


def _analysis(truth: _Truth) -> Question | None:
    kinds = [exact_kind(kind) for kind in truth.kinds]
    kind = kinds[0] if kinds else None
    if kind is None or None in kinds:
        return None
    topic = "causes" if truth.rng.random() < 0.5 else "effects"
    right = pick(getattr(KIND_WORDS[kind], topic), truth.rng)
    phrases = dict.fromkeys(
        phrase for words in KIND_WORDS.values() for phrase in getattr(words, topic)
    )
    wrong = [
        phrase
        for phrase in phrases
        if not any(fits_kind(phrase, other) for other in kinds if other is not None)
    ]
    text = pick(QUESTION_TEXTS[topic], truth.rng).format(kind=kind)
    return _build(truth, "Defect Analysis", text, right, wrong, 5)


def _object_classification(truth: _Truth) -> Question | None:
    category = spoken(truth.record.category)
    if not category:
        return None
    wrong = [spoken(other) for other in truth.facts if not may_be_called(category, other)]
    text = pick(QUESTION_TEXTS["Object Classification"], truth.rng)
    return _build(truth, "Object Classification", text, category, wrong, 5)


def _object_analysis(truth: _Truth) -> Question | None:
    category = spoken(truth.record.category)
    facts = {spoken(name): list(found) for name, found in truth.facts.items()}
    own = facts.get(category)
    if not own:
        return None
    fact = own[int(truth.rng.integers(len(own)))]
    wrong = [
        other.text
        for name, found in facts.items()
        for other in found
        if other.topic == fact.topic
        and other.text != fact.text
        and not set(other.groups) & set(fact.groups)
        and not (fact.topic == "shape" and may_be_called(category, name))
    ]
    text = pick(FACT_QUESTIONS[fact.topic], truth.rng)
    return _build(truth, "Object Analysis", text, fact.text, list(dict.fromkeys(wrong)), 5)


_WRITERS: dict[str, Callable[[_Truth], Question | None]] = dict(
    zip(
        SUBTASKS,
        (
            _detection,
            _classification,
            _localisation,
            _description,
            _analysis,
            _object_classification,
            _object_analysis,
        ),
        strict=True,
    )
)

_CELLS: tuple[Box, ...] = tuple(
    (float(column), float(row), column + 1.0, row + 1.0) for row in range(3) for column in range(3)
)


def _build(
    truth: _Truth, subtask: str, text: str, right: str, wrong: Sequence[str], most: int
) -> Question | None:
    """The question with up to `most` options, or None where nothing is surely wrong."""
    wrong = [option for option in dict.fromkeys(wrong) if option.casefold() != right.casefold()]
    if not wrong:
        return None
    count = min(most, int(truth.rng.choice([3, 4, 4, 4, 5])))
    chosen = _sample(wrong, count - 1, truth.rng)
    ending = "." if truth.rng.random() < 0.5 else ""
    right, *chosen = [option[0].upper() + option[1:] + ending for option in (right, *chosen)]
    return build_question(text, right, chosen, subtask, truth.rng)


def _share_inside(box_xyxy: Box, cell: Box, size_wh: tuple[int, int]) -> float:
    """The share of a box that lies in a cell of the 3x3 grid over a picture of `size_wh`."""
    width, height = size_wh[0] / 3, size_wh[1] / 3
    left, top, right, bottom = cell
    place = (left * width, top * height, right * width, bottom * height)
    return box_intersection(box_xyxy, place) / max(box_area(box_xyxy), 1e-9)


def _read_look(described: str, kind: str | None, rng: np.random.Generator) -> str:
    """What a region's description says of its look, without its place; "" where nothing is told."""
    looks = KIND_WORDS[kind].looks if kind is not None else ()
    for look in looks:
        if look in described:
            return look
    if described:
        return described.rpartition(" at the ")[0] or described
    return pick(looks, rng) if looks else ""


def _sample(choices: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    order = rng.permutation(len(choices))[:count]
    return [choices[int(number)] for number in order]
