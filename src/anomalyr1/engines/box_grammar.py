"""Keeps a box that is being written to those that the prompt lists, and from having no area.

For tokenizers whose numbers are one token each, as the bundled model's: a small model chooses well
among the regions of an anomaly map, and copies them badly where they are many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor

_FEWEST = 100

ListedBox = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class BoxTokens:
    """How a tokenizer writes "[12, 34, 56, 78]": a token each for `numbers` (token to value), what
    opens a box, and what stands between two numbers."""

    numbers: dict[int, int]
    opening: int
    comma: int
    space: int


def read_box_tokens(tokenizer: Any) -> BoxTokens | None:
    """None for a tokenizer that writes numbers digit by digit."""
    numbers = read_number_tokens(tokenizer)
    if sum(value > 9 for value in numbers.values()) < _FEWEST:
        return None
    opening, comma, space = (
        tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" [1", ",", " 1")
    )
    return BoxTokens(numbers, opening, comma, space)


def read_number_tokens(tokenizer: Any) -> dict[int, int]:
    """The tokens that are a whole number and nothing else, each with its value."""
    return {token: int(word) for word, token in tokenizer.get_vocab().items() if word.isdecimal()}


class BoxGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out numbers that would not continue one of a prompt's boxes that its answer has not
    written yet. Where none is left, or none is listed: those that leave a box without area.

    All else may be written: an answer can still be unreadable. One object serves one call of
    `generate`, `listed` holding the boxes of each of its rows; not for beam search, which moves
    answers between rows.
    """

    def __init__(self, tokens: BoxTokens, listed: Sequence[Sequence[ListedBox]]) -> None:
        self._tokens = tokens
        self._left = [list(boxes) for boxes in listed]
        self._begun: list[list[int] | None] = [None] * len(listed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            self._follow(row, token)
            begun = self._begun[row]
            if begun is not None and token in (self._tokens.opening, self._tokens.space):
                scores[row, self._refuse(begun, self._left[row])] = -torch.inf
        return scores

    def _follow(self, row: int, token: int) -> None:
        """Take the last token into account: it opens a box, goes on with it or ends it."""
        begun = self._begun[row]
        if token == self._tokens.opening:
            self._begun[row] = []
        elif begun is not None and token in self._tokens.numbers:
            begun.append(self._tokens.numbers[token])
            if len(begun) == 4:
                self._left[row] = [box for box in self._left[row] if list(box) != begun]
                self._begun[row] = None
        elif token not in (self._tokens.comma, self._tokens.space):
            self._begun[row] = None

    def _refuse(self, begun: list[int], left: Sequence[ListedBox]) -> list[int]:
        """The tokens of numbers that may not follow those of a box that is `begun`."""
        place = len(begun)
        allowed = {box[place] for box in left if list(box[:place]) == begun}
        numbers = self._tokens.numbers
        if allowed:
            return [token for token, value in numbers.items() if value not in allowed]
        if place < 2:
            return []
        return [token for token, value in numbers.items() if value <= begun[place - 2]]
