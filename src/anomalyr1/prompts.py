"""All prompt text, and the answers a model is trained to give. The one builder for training,
evaluation and use; any change of wording changes `template_id`.

What the prompts of one product share stands in front, so that it can be encoded once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from anomalyr1.types import Hint, HintRegion, InputError, Label, Listed, Message, Prompt, Record

SYSTEM = "You inspect products for defects."
REFERENCES = "Normal reference pictures of the same product:"
PRODUCT = "Product: {category}."
PICTURE = "Picture to judge:"
HINT = (
    "Anomaly map of this picture (red: unlike a normal part; green grows to the right and blue "
    "downwards):"
)
HINT_STRENGTH = "The map's score is {strength}."
HINT_SCORE = ", {score} out of 100."
HINT_REGIONS = "Its regions, with peaks out of 100: {boxes}; the peaks: {peaks} out of 100."
_BEFORE, _BETWEEN, _AFTER = re.split(r"\{boxes\}|\{peaks\}", HINT_REGIONS)
_BOX = re.compile(r"\[(\d{1,5}), (\d{1,5}), (\d{1,5}), (\d{1,5})\]")
BRIGHT, AT_THE = "It is bright", " at the "
LOOKS, LIKE_A = "It looks", " like a "
"""How the sentences on the map begin, and what stands before each place and kind in them."""
HINT_PLACES, _AT = f"{BRIGHT}{AT_THE}{{places}}.", f",{AT_THE}"
HINT_KINDS, _LIKE = f"{LOOKS}{LIKE_A}{{kinds}}.", f",{LIKE_A}"
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
SCORE_SENTENCES = tuple(HINT_STRENGTH.format(strength=strength) for strength in STRENGTHS)
INSPECTION = (
    "Is this product normal or anomalous? Reason in <think></think>, then answer in "
    '<answer></answer> with JSON: {"verdict": "normal"|"anomalous", "defects": '
    '[{"bbox_2d": [left, top, right, bottom], "label": type, "description": text}]}. '
    "A normal product has no defects. Boxes refer to the picture to judge."
)
QUESTION = "Question: {text}"
OPTION = "{letter}: {text}"
_STRENGTH = re.compile(
    HINT_STRENGTH.removesuffix(".").format(strength="([a-z]+)")
    + HINT_SCORE.format(score=r"\d{1,3}").replace(".", r"\.")
)
_OPTION = re.compile(OPTION.format(letter="([A-Z])", text="(.+)"))
CHOICE = (
    "Reason in <think></think>, then answer in <answer></answer> with the letter of the right "
    "option."
)

VERDICT_PROBE = '<answer>{"verdict": "'
"""Put behind a prompt, it makes the next word the verdict, before any reasoning."""


def _template_id(kind: str, *templates: str) -> str:
    return f"{kind}-v1-{hashlib.sha256(chr(0).join(templates).encode()).hexdigest()[:8]}"


_HINT_WORDS = (HINT_STRENGTH, HINT_SCORE, HINT_REGIONS, HINT_PLACES, HINT_KINDS, HINT_NO_REGION)
_HINTED = (HINT, *_HINT_WORDS, _AT, _LIKE, *STRENGTHS)
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
    return _build_prompt(record, INSPECTION_TEMPLATE_ID, [*parts, INSPECTION], _list(hint))


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
    listed = replace(_list(hint), options=tuple(question.options.items()))
    return _build_prompt(record, CHOICE_TEMPLATE_ID, [*parts, asked, CHOICE], listed)


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
        _refuse_control_tokens(record, *(region.kind for region in hint.regions))
        parts += [HINT, num_references + 1, _word_hint(hint)]
    return parts


def name_strength(score: int) -> str:
    """The word for a hint's score out of 100, one of STRENGTHS."""
    return STRENGTHS[min(len(STRENGTHS) - 1, len(STRENGTHS) * score // 100)]


def word_score(score: int) -> str:
    """What prompts and reasonings say of a hint's score out of 100.

    >>> word_score(49), word_score(50)
    ("The map's score is low.", "The map's score is fair.")
    """
    return HINT_STRENGTH.format(strength=name_strength(score))


def word_regions(places: Sequence[str], kinds: Sequence[str]) -> str:
    """What prompts and reasonings say of a map's regions, word for word alike, so that it can be
    copied. Kinds are left out where one is unknown.

    >>> word_regions(["top left", "centre"], ["stain", "hole"])
    'It is bright at the top left, at the centre. It looks like a stain, like a hole.'
    """
    said = HINT_PLACES.format(places=_AT.join(places))
    return f"{said} {HINT_KINDS.format(kinds=_LIKE.join(kinds))}" if all(kinds) else said


def _word_hint(hint: Hint) -> str:
    score = word_score(hint.score).removesuffix(".") + HINT_SCORE.format(score=hint.score)
    if not hint.regions:
        return f"{score} {HINT_NO_REGION}"
    numbers = HINT_REGIONS.format(
        boxes=", ".join(str(list(region.box)) for region in hint.regions),
        peaks=", ".join(str(region.peak) for region in hint.regions),
    )
    places, kinds = zip(*((region.place, region.kind) for region in hint.regions), strict=True)
    return f"{score} {numbers} {word_regions(places, kinds)}"


def read_listed(text: str) -> Listed:
    """What a prompt's last text lists, as `Prompt.listed` holds it; any text may come.

    Regions are without kinds where it does not name one for each; options are those between a
    question and the words that ask for a letter, lettered from A.

    >>> listed = "Its regions, with peaks out of 100: [1, 2, 3, 4]; the peaks: 97 out of 100."
    >>> read_listed(f"{listed} It is bright at the top. It looks like a hole.").regions
    (HintRegion(box=(1, 2, 3, 4), peak=97, place='top', kind='hole'),)
    >>> read_listed(f"Question: Is it whole?\\nA: Yes\\nB: No.\\n{CHOICE}").options
    (('A', 'Yes'), ('B', 'No.'))
    >>> read_listed("Holes at [1, 2, 3, 4] are meant.")
    Listed(regions=(), options=(), strength='')
    """
    return Listed(_read_regions(text), _read_options(text), _read_strength(text))


def _list(hint: Hint | None) -> Listed:
    return Listed() if hint is None else Listed(hint.regions, (), name_strength(hint.score))


def _read_strength(text: str) -> str:
    found = _STRENGTH.search(text)
    return found[1] if found is not None and found[1] in STRENGTHS else ""


def _read_regions(text: str) -> tuple[HintRegion, ...]:
    listed, _, after = text.partition(_BEFORE)[2].partition(_BETWEEN)
    peaks, _, said = after.partition(_AFTER)
    boxes = [tuple(map(int, box)) for box in _BOX.findall(listed)]
    levels = [int(peak) for peak in re.findall(r"\b\d{1,3}\b", peaks)]
    places = _read_list(said, HINT_PLACES.split("{places}"), _AT)
    kinds = _read_list(said, HINT_KINDS.split("{kinds}"), _LIKE)
    if not len(boxes) == len(levels) == len(places):
        return ()
    if len(kinds) != len(boxes):
        kinds = [""] * len(boxes)
    return tuple(
        HintRegion((box[0], box[1], box[2], box[3]), peak, place, kind)
        for box, peak, place, kind in zip(boxes, levels, places, kinds, strict=True)
    )


def _read_options(text: str) -> tuple[tuple[str, str], ...]:
    before, asked, _ = text.rpartition(f"\n{CHOICE}")
    options: list[tuple[str, str]] = []
    for line in reversed(before.split("\n") if asked else []):
        found = _OPTION.fullmatch(line)
        if found is None:
            break
        options.insert(0, (found[1], found[2]))
    letters = "".join(letter for letter, _text in options)
    return tuple(options) if ascii_uppercase.startswith(letters) else ()


def _read_list(text: str, around: Sequence[str], between: str) -> list[str]:
    said, end, _ = text.partition(around[0])[2].partition(around[1])
    return said.split(between) if end else []


def _build_prompt(
    record: Record, template_id: str, parts: Sequence[str | int], listed: Listed
) -> Prompt:
    merged: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] = f"{merged[-1]}\n{part}"
        else:
            merged.append(part)
    messages = (Message("system", (SYSTEM,)), Message("user", tuple(merged)))
    return Prompt(record.record_id, template_id, messages, listed)


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
