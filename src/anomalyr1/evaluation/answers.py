"""Answers to multiple-choice questions, from our own runs or anywhere: read and written.

A file is a JSON list, as the published runners of MMAD write it, or JSON Lines, as
`anomalyr1 evaluate mmad` does. Our lines have the published fields and more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from anomalyr1.data.mmad import name_subtask
from anomalyr1.types import InputError, Label, Record

ANSWERS_FILE = "answers.jsonl"
LETTERS = ("A", "B", "C", "D", "E")

Key = tuple[str, str, str, str]
"""What makes two answers answers to one question: picture, type, text and the options' texts."""

_PREFIX = re.compile(r"^\s*Question\s*\d*\s*:\s*")
_OPTION_LINE = re.compile(r"^\s*([A-E])\s*[.:)]\s*(\S.*?)\s*$", re.MULTILINE)
_ASKS_FOR_NORMAL = re.compile(
    r"\b(?:free (?:of|from)|without|no|flawless|intact|defect-free|normal)\b", re.IGNORECASE
)
_MEANS: dict[str, Label] = {
    "yes": "anomalous",
    "no": "normal",
    "anomalous": "anomalous",
    "abnormal": "anomalous",
    "defective": "anomalous",
    "normal": "normal",
    "good": "normal",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One question with the answer given. `given` is the letter as it stands in the file, "" where
    none could be read; `label` is the picture's truth where the file tells it."""

    image: str
    question_type: str
    correct_answer: str
    given: str
    question: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    label: Label | None = None
    question_id: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def dataset(self) -> str:
        """The first part of the picture's path, as the published scorer takes it."""
        return self.image.split("/")[0]

    @property
    def subtask(self) -> str:
        """The column that the question counts in."""
        return name_subtask(self.question_type)

    @property
    def is_read(self) -> bool:
        """Whether the answer is one of the question's own letters."""
        return self.given in (self.options or LETTERS)

    @property
    def is_right(self) -> bool:
        """Whether the answer is read and the right one."""
        return self.is_read and self.given == self.correct_answer

    @property
    def right_text(self) -> str:
        """The right option's text; its letter where the options are not known."""
        return self.options.get(self.correct_answer, self.correct_answer)

    @property
    def asked(self) -> str:
        """The question alone: published runners put "Question 2: " before it, and behind it a line
        an option."""
        shown = {letter: _squeeze(option) for letter, option in self.options.items()}
        lines = self.question.split("\n")
        while len(lines) > 1:
            found = _OPTION_LINE.match(lines[-1])
            is_option = found is not None and shown.get(found[1]) == _squeeze(found[2])
            if lines[-1].strip() and not is_option:
                break
            lines.pop()
        return _PREFIX.sub("", "\n".join(lines)).strip()

    @property
    def key(self) -> Key:
        """The same for every order of the options: many published runners shuffle them."""
        options = json.dumps(sorted(map(_squeeze, self.options.values())))
        return (self.image, self.question_type, _squeeze(self.asked), options)


def find_label(answer: Answer) -> Label:
    """Whether the picture is normal or anomalous: as the file says, else as the right option of its
    yes/no question does, else by the name of its folder, of which "good" is normal.

    >>> asked = {"question": "Is there any defect in the object?", "options": {"A": "Yes.", "B": "No."}}
    >>> find_label(Answer("VisA/candle/goods/1.png", "Anomaly Detection", "A", "", **asked))
    'anomalous'
    """  # noqa: E501
    if answer.label is not None:
        return answer.label
    said = answer.options.get(answer.correct_answer, "").strip(" .!").lower()
    meant = _MEANS.get(said.split(",")[0].split(" ")[0]) if said else None
    if meant is not None and not (
        said.startswith(("yes", "no")) and _ASKS_FOR_NORMAL.search(answer.question)
    ):
        return meant
    folders = [part.lower() for part in PurePosixPath(answer.image).parts[:-1]]
    return "normal" if "good" in folders else "anomalous"


def load_answers(path: Path) -> list[Answer]:
    """Answers of a file, or of a run folder, in their order.

    Raises InputError naming the file and the answer for what cannot be read, a missing field and
    a file without answers. What was answered may be anything; the rest must be texts.
    """
    if path.is_dir():
        path = path / ANSWERS_FILE
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}); check the path") from error
    items = _read_list(path, text) if text.lstrip().startswith("[") else _read_lines(path, text)
    if not items:
        raise InputError(f"{path}: holds no answers")
    answers = []
    for number, item in enumerate(items, start=1):
        try:
            answers.append(read_answer(item))
        except InputError as error:
            raise InputError(f"{path}, answer {number}: {error}") from error
    return answers


def read_answer(item: object) -> Answer:
    """An answer from its JSON object. Raises InputError for a missing or wrong field."""
    if not isinstance(item, dict):
        raise InputError(f"is a {type(item).__name__}, an object is expected")
    for name in ("image", "question_type", "correct_answer"):
        if not isinstance(item.get(name), str):
            found = "missing" if name not in item else repr(item[name])[:60]
            raise InputError(f"{name} is {found}, a text is expected")
    if not item["image"]:
        raise InputError("image is empty, the picture's path from the data root is expected")
    if "gpt_answer" not in item:
        raise InputError("gpt_answer is missing; an unread answer is an empty text")
    question = item.get("question")
    text, options = _read_question(question)
    label = item.get("label")
    if label not in (None, "normal", "anomalous"):
        raise InputError(f"label is {label!r:.60}, normal, anomalous or null is expected")
    given = item["gpt_answer"]
    return Answer(
        image=item["image"],
        question_type=item["question_type"],
        correct_answer=item["correct_answer"],
        given=given if isinstance(given, str) else "",
        question=text,
        options=options,
        label=label,
        question_id=str(item.get("question_id", "")),
        details={name: item[name] for name in DETAIL_FIELDS if name in item},
    )


DETAIL_FIELDS = (
    "status", "problem", "raw_text", "template_id", "num_tokens", "num_prompt_tokens", "error",
)  # fmt: skip


def _read_question(question: object) -> tuple[str, dict[str, str]]:
    if isinstance(question, str):
        return question, dict(_OPTION_LINE.findall(question))
    if not isinstance(question, dict):
        return "", {}
    text = question.get("text", "")
    text = text if isinstance(text, str) else ""
    options = question.get("options")
    if isinstance(options, dict) and all(isinstance(value, str) for value in options.values()):
        return text, dict(options)
    return text, dict(_OPTION_LINE.findall(text))


def is_same_text(first: str, other: str) -> bool:
    """Whether two texts differ in nothing but white space."""
    return _squeeze(first) == _squeeze(other)


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def build_answer(record: Record, given: str, **details: object) -> Answer:
    """The answer to a record's question; the picture is named as its question file does."""
    question = record.question
    assert question is not None
    return Answer(
        image=record.record_id.rpartition("#")[0] or record.record_id,
        question_type=question.question_type,
        correct_answer=question.answer or "",
        given=given,
        question=question.text,
        options=question.options,
        label=record.label,
        question_id=record.record_id,
        details=details,
    )


def build_answer_line(answer: Answer) -> str:
    """The answer as one line of ASCII JSON, without the newline: the published fields first.

    Holds nothing that differs from run to run, so that a run that was killed and went on leaves
    the same bytes; seconds are in a file of their own.
    """
    fields = {
        "image": answer.image,
        "question": {"text": answer.question, "options": dict(answer.options)},
        "question_type": answer.question_type,
        "correct_answer": answer.correct_answer,
        "gpt_answer": answer.given,
        "question_id": answer.question_id,
        "label": answer.label,
        **{name: answer.details[name] for name in DETAIL_FIELDS if name in answer.details},
    }
    return json.dumps(fields, ensure_ascii=True, allow_nan=False)


def _read_list(path: Path, text: str) -> list[Any]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not whole JSON ({error}); it may be cut off") from error
    assert isinstance(items, list)
    return items


def _read_lines(path: Path, text: str) -> list[Any]:
    items = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            items.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: is not JSON ({error}); a run that was killed leaves half a"
                " line: give its command again to finish it"
            ) from error
    return items
