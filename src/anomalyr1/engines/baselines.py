"""Engines without a model, for sanity: chance, and the answer that is right most often.

They answer in the form that models are trained to write, verdicts and letters alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from random import Random
from typing import Literal

from PIL import Image

from anomalyr1.checkpoint import CheckpointSettings
from anomalyr1.prompts import CHOICE_TEMPLATE_ID, render_choice_answer, render_inspection_answer
from anomalyr1.types import BoxFrame, Completion, InputError, Label, Prompt, Record

_OPTION = re.compile(r"^([A-Z]): ", re.MULTILINE)
_QUESTION_START = "\nQuestion: "


class BaselineEngine:
    """Answers each prompt without looking at its pictures; boxes are never drawn.

    "random" draws verdicts, scores and letters evenly, the same for a seed and a record id.
    "majority" gives the label, or for a kind of question the letter, that is most frequent among
    the records it was built with, and their share of anomalous pictures as its score.
    """

    frame: BoxFrame = "absolute"

    def __init__(self, name: Literal["random", "majority"], records: Sequence[Record] = ()) -> None:
        self.engine_id = name
        self.settings = CheckpointSettings()
        self._letters = _find_usual_letters(records) if name == "majority" else {}
        labels = [record.label for record in records if record.label is not None]
        if name == "majority" and not labels and not self._letters:
            raise InputError("majority needs records with labels or answers to count")
        self._share = labels.count("anomalous") / len(labels) if labels else 0.5

    def shown_size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """The picture's own size."""
        return size_wh

    def generate(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One completion a prompt, in order."""
        return [
            self._answer(prompt, shown, seed)
            for prompt, shown in zip(prompts, pictures, strict=True)
        ]

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The whole answer as one piece."""
        yield self.generate([prompt], [pictures])[0].text
        return "stop"

    def _answer(self, prompt: Prompt, shown: Sequence[Image.Image], seed: int) -> Completion:
        chance = Random(f"{seed}:{prompt.record_id}")
        score = None
        if prompt.template_id == CHOICE_TEMPLATE_ID:
            letter = self._letters.get(prompt.record_id) or chance.choice(_read_letters(prompt))
            text = render_choice_answer(letter, "")
        else:
            score = chance.random() if self.engine_id == "random" else self._share
            label: Label = "anomalous" if score >= 0.5 else "normal"
            text = render_inspection_answer(label, [], "")
        return Completion(
            record_id=prompt.record_id,
            text=text,
            p_anomalous=score,
            image_sizes_wh=tuple(picture.size for picture in shown),
            seed=seed,
        )


def _read_letters(prompt: Prompt) -> list[str]:
    texts = [part for part in prompt.messages[-1].parts if isinstance(part, str)]
    asked = ("\n" + texts[-1]).rpartition(_QUESTION_START)[2]
    return _OPTION.findall(asked)


def _find_usual_letters(records: Sequence[Record]) -> Mapping[str, str]:
    """Record id to the letter that is right most often for questions of its kind."""
    counts: dict[str, Counter[str]] = {}
    asked = {record.record_id: record.question for record in records if record.question}
    for question in asked.values():
        if question.answer is not None:
            counts.setdefault(question.question_type, Counter())[question.answer] += 1
    usual = {kind: min(count, key=lambda key: (-count[key], key)) for kind, count in counts.items()}
    return {
        record_id: usual[question.question_type]
        for record_id, question in asked.items()
        if usual.get(question.question_type) in question.options
    }
