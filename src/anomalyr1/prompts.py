"""All prompt text, and the answers a model is trained to give. The one builder for training,
evaluation and use; any change of wording changes `template_id`.

What the prompts of one product share stands in front, so that it can be encoded once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from anomalyr1.types import Hint, InputError, Label, Message, Prompt, Record

SYSTEM = "You inspect products for defects."
REFERENCES = "Normal reference pictures of the same product:"
PRODUCT = "Product: {category}."
PICTURE = "Picture to judge:"
HINT = (
    "Anomaly map of this picture (red: unlike a normal part; green grows to the right and blue "
    "downwards):"
)
HINT_SCORE = "The map's score is {strength}, {score} out of 100."
HINT_REGIONS = (
    "Its regions, with peaks out of 100: {boxes}; the peaks: {peaks} out of 100. "
    "It is bright at the {places}."
)
_BEFORE, _BETWEEN = HINT_REGIONS.partition("{peaks}")[0].split("{boxes}")
_BOX = re.compile(r"\[(\d{1,5}), (\d{1,5}), (\d{1,5}), (\d{1,5})\]")
HINT_KINDS = "It looks like a {kinds}."
HINT_NO_REGION = "It has no region."
STRENGTHS = (
    "nil",
    "minimal",
    "faint",
    "weak",
    "low",
    "fair",
    "raised",
    "high",
    "strong",
    "extreme",
)
"""Words for a score, one a tenth of its scale; from the sixth on it is above the decision line."""
INSPECTION = (
    "Is this product normal or anomalous? Reason in <think></think>, then answer in "
    '<answer></answer> with JSON: {"verdict": "normal"|"anomalous", "defects": '
    '[{"bbox_2d": [left, top, right, bottom], "label": type, "description": text}]}. '
    "A normal product has no defects. Boxes refer to the picture to judge."
)
QUESTION = "Question: {text}"
OPTION = "{letter}: {text}"
CHOICE = (
    "Reason in <think></think>, then answer in <answer></answer> with the letter of the right "
    "option."
)

VERDICT_PROBE = '<answer>{"verdict": "'
"""Put behind a prompt, it makes the next word the verdict: its probabilities are the score, read
before a reasoning has settled the matter."""


def _template_id(kind: str, *templates: str) -> str:
    return f"{kind}-v1-{hashlib.sha256(chr(0).join(templates).encode()).hexdigest()[:8]}"


_HINTED = (HINT, HINT_SCORE, HINT_REGIONS, HINT_KINDS, HINT_NO_REGION, *STRENGTHS)
_SHOWN = (SYSTEM, REFERENCES, PRODUCT, PICTURE, *_HINTED)
INSPECTION_TEMPLATE_ID = _template_id("inspect", *_SHOWN, INSPECTION)
CHOICE_TEMPLATE_ID = _template_id("choice", *_SHOWN, QUESTION, OPTION, CHOICE)

_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
_TAG = re.compile(r"</?(?:think|answer)>")


def build_inspection_prompt(record: Record, *, num_references: int, hint: Hint | None) -> Prompt:
    """Ask for a verdict, boxes and reasons.

    Pictures are indexed: references 0 to num_references - 1, then the picture to judge, then the
    anomaly map where there is a `hint`, whose score and regions are also given in words.
    Raises InputError for a negative number of references and for record texts that hold a model's
    control tokens.

    >>> from pathlib import Path
    >>> record = Record("7", Path("7.png"), category="hazelnut")
    >>> build_inspection_prompt(record, num_references=1, hint=None).messages[1].parts[:3]
    ('Normal reference pictures of the same product:', 0, 'Product: hazelnut.\\nPicture to judge:')
    """
    parts = _pictured(record, num_references, hint)
    return _build_prompt(record, INSPECTION_TEMPLATE_ID, [*parts, INSPECTION], hint)


def build_choice_prompt(record: Record, *, num_references: int, hint: Hint | None) -> Prompt:
    """Ask the record's multiple-choice question; pictures as in `build_inspection_prompt`.

    Raises InputError for a record without a question or a question without options.
    """
    question = record.question
    if question is None or not question.options:
        raise InputError(
            f"record {record.record_id} has no multiple-choice question: "
            "give it a question with options"
        )
    options = [OPTION.format(letter=letter, text=text) for letter, text in question.options.items()]
    asked = "\n".join([QUESTION.format(text=question.text), *options])
    _refuse_control_tokens(record, asked)
    parts = _pictured(record, num_references, hint)
    return _build_prompt(record, CHOICE_TEMPLATE_ID, [*parts, asked, CHOICE], hint)


def render_inspection_answer(
    label: Label,
    regions_in_model_frame: Sequence[tuple[tuple[int, int, int, int], str, str]],
    reasoning: str,
) -> str:
    """The exact text a model is trained to write: regions are (box, label, description).

    Boxes are xyxy in the model's own frame (`geometry.to_model`). The verdict comes first, so
    that its probability is read before any defect is written. Raises InputError for what
    `parsing` would refuse: a normal part with regions, an empty box, tags inside the texts.

    >>> render_inspection_answer("normal", [], "Even surface.")
    '<think>Even surface.</think><answer>{"verdict": "normal", "defects": []}</answer>'
    """
    if label not in ("normal", "anomalous"):
        raise InputError(f"label {label!r} cannot be an answer: use normal or anomalous")
    if label == "normal" and regions_in_model_frame:
        raise InputError("a normal picture cannot have defect regions: correct the record")
    defects = []
    for box, defect_type, description in regions_in_model_frame:
        left, top, right, bottom = (int(side) for side in box)
        if right <= left or bottom <= top:
            raise InputError(f"box {tuple(box)} of a {defect_type or 'defect'} is empty")
        defects.append(
            {
                "bbox_2d": [left, top, right, bottom],
                "label": defect_type,
                "description": description,
            }
        )
    answer = {"verdict": label, "defects": defects}
    return _render(reasoning, json.dumps(answer, ensure_ascii=False, separators=(", ", ": ")))


def drop_reasoning(answer: str) -> str:
    """A rendered answer without its reasoning: what follows `VERDICT_PROBE` is learned from it.

    >>> drop_reasoning("<think>Even.</think><answer>A</answer>")
    '<answer>A</answer>'
    """
    return answer[answer.index("<answer>") :]


def render_choice_answer(letter: str, reasoning: str) -> str:
    """The exact text a model is trained to write for a multiple-choice question.

    >>> render_choice_answer("B", "A scratch is visible.")
    '<think>A scratch is visible.</think><answer>B</answer>'
    """
    return _render(reasoning, letter)


def to_chat(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as a Hugging Face chat: pictures become {"type": "image"}, in index order."""
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in prompt.messages
    ]


def _pictured(record: Record, num_references: int, hint: Hint | None) -> list[str | int]:
    """Everything before the question: what a product's prompts share stands in front."""
    if num_references < 0:
        raise InputError(f"num_references is {num_references}: use 0 or more")
    parts: list[str | int] = []
    if num_references:
        parts += [REFERENCES, *range(num_references)]
    if record.category:
        parts.append(PRODUCT.format(category=record.category))
    if record.knowledge.strip():
        parts.append(record.knowledge.strip())
    _refuse_control_tokens(record, *(part for part in parts if isinstance(part, str)))
    parts += [PICTURE, num_references]
    if hint is not None:
        parts += [HINT, num_references + 1, _word_hint(hint)]
    return parts


def name_strength(score: int) -> str:
    """The word for a hint's score out of 100.

    >>> name_strength(49), name_strength(50)
    ('low', 'fair')
    """
    return STRENGTHS[min(len(STRENGTHS) - 1, len(STRENGTHS) * score // 100)]


def join_places(places: Sequence[str]) -> str:
    """Places behind "at the", each once: in prompts and in reasonings alike, so that they can be
    copied.

    >>> join_places(["top left", "centre", "top left"])
    'top left, at the centre'
    """
    return ", at the ".join(dict.fromkeys(places))


def _word_hint(hint: Hint) -> str:
    said = [HINT_SCORE.format(strength=name_strength(hint.score), score=hint.score)]
    if not hint.regions:
        return f"{said[0]} {HINT_NO_REGION}"
    said.append(
        HINT_REGIONS.format(
            boxes=", ".join(str(list(region.box)) for region in hint.regions),
            peaks=", ".join(str(region.peak) for region in hint.regions),
            places=join_places([region.place for region in hint.regions]),
        )
    )
    kinds = dict.fromkeys(region.kind for region in hint.regions if region.kind)
    if kinds:
        said.append(HINT_KINDS.format(kinds=", like a ".join(kinds)))
    return " ".join(said)


def read_hint_boxes(text: str) -> tuple[tuple[int, int, int, int], ...]:
    """The boxes that a text lists as a hint's regions, as `Prompt.boxes` holds them. Any text may
    come.

    >>> read_hint_boxes("Its regions, with peaks out of 100: [1, 2, 3, 4]; the peaks: 97 out of")
    ((1, 2, 3, 4),)
    >>> read_hint_boxes("Holes at [1, 2, 3, 4] are meant.")
    ()
    """
    listed, after, _ = text.partition(_BEFORE)[2].partition(_BETWEEN)
    boxes = (map(int, box) for box in (_BOX.findall(listed) if after else ()))
    return tuple((left, top, right, bottom) for left, top, right, bottom in boxes)


def _build_prompt(
    record: Record, template_id: str, parts: Sequence[str | int], hint: Hint | None
) -> Prompt:
    merged: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] = f"{merged[-1]}\n{part}"
        else:
            merged.append(part)
    messages = (Message("system", (SYSTEM,)), Message("user", tuple(merged)))
    boxes = tuple(region.box for region in hint.regions) if hint is not None else ()
    return Prompt(record.record_id, template_id, messages, boxes)


def _refuse_control_tokens(record: Record, *texts: str) -> None:
    """Chat templates do not escape: "<|image_pad|>" in a text would count as a picture."""
    for text in texts:
        if found := _CONTROL_TOKEN.search(text):
            raise InputError(
                f"a text of record {record.record_id} holds {found.group()!r}, which models read "
                "as a control token: remove it"
            )


def _render(reasoning: str, answer: str) -> str:
    for text in (reasoning, answer):
        if found := _TAG.search(text):
            raise InputError(
                f"{text[:60]!r} holds {found.group()}, which would end the answer early: remove it"
            )
    return f"<think>{reasoning}</think><answer>{answer}</answer>"
