"""Keeps the answer of a small model in shape: its boxes are those that the prompt lists, each once,
none is without area, and nothing follows the answer.

For tokenizers whose numbers are one token each, as the bundled model's: it chooses well among the
regions of an anomaly map, and copies them badly where they are many.
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
class AnswerTokens:
    """How a tokenizer writes an answer: `numbers` (token to value), what opens a box, and what
    stands between two numbers; `defect_end`, after which another defect follows; the tokens that
    end in "</", the two of "answer>", and the `end` of the text."""

    numbers: dict[int, int]
    opening: int
    comma: int
    space: int
    defect_end: int
    slashes: frozenset[int]
    name: int
    bracket: int
    end: int


def read_answer_tokens(tokenizer: Any) -> AnswerTokens | None:
    """None for a tokenizer that writes numbers digit by digit."""
    numbers = read_number_tokens(tokenizer)
    if sum(value > 9 for value in numbers.values()) < _FEWEST:
        return None

    def first(text: str) -> int:
        token: int = tokenizer(text, add_special_tokens=False)["input_ids"][0]
        return token

    name, bracket = tokenizer("]}</answer>", add_special_tokens=False)["input_ids"][-2:]
    return AnswerTokens(
        numbers,
        opening=first(" [1"),
        comma=first(","),
        space=first(" 1"),
        defect_end=first('"}, {'),
        slashes=frozenset(
            token for word, token in tokenizer.get_vocab().items() if word.endswith("</")
        ),
        name=name,
        bracket=bracket,
        end=tokenizer.eos_token_id,
    )


def read_number_tokens(tokenizer: Any) -> dict[int, int]:
    """The tokens that are a whole number and nothing else, each with its value."""
    return {token: int(word) for word, token in tokenizer.get_vocab().items() if word.isdecimal()}


class AnswerGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out what would not continue one of a prompt's boxes that its answer has not written
    yet, a fifth number in a box, further defects once all are written, and text after the answer.
    Where no box is listed, or one is begun that is not: numbers that leave a box without area.

    Else anything may be written: an answer can still be unreadable. One object serves one call of
    `generate`, `listed` holding the boxes of each of its rows; not for beam search, which moves
    answers between rows.
    """

    def __init__(self, tokens: AnswerTokens, listed: Sequence[Sequence[ListedBox]]) -> None:
        self._tokens = tokens
        self._left = [list(boxes) for boxes in listed]
        self._is_listed = [bool(boxes) for boxes in listed]
        self._begun: list[list[int] | None] = [None] * len(listed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        tokens = self._tokens
        for row, (slash, name, token) in enumerate(input_ids[:, -3:].tolist()):
            is_whole = self._follow(row, token)
            begun = self._begun[row]
            if is_whole:
                scores[row, [tokens.comma, tokens.space, *tokens.numbers]] = -torch.inf
            elif begun is not None:
                self._constrain(scores[row], token, begun, self._left[row])
            elif self._is_listed[row] and not self._left[row]:
                scores[row, tokens.defect_end] = -torch.inf
            if (name, token) == (tokens.name, tokens.bracket) and slash in tokens.slashes:
                _keep(scores[row], [tokens.end])
        return scores

    def _constrain(
        self, scores: torch.Tensor, last: int, begun: list[int], left: Sequence[ListedBox]
    ) -> None:
        """Leave out, in place, what may not follow the `last` token of a box that is `begun`."""
        tokens, place = self._tokens, len(begun)
        values = {box[place] for box in left if list(box[:place]) == begun}
        allowed = [token for token, value in tokens.numbers.items() if value in values]
        if last in (tokens.opening, tokens.space):
            if allowed:
                _keep(scores, allowed)
            elif place >= 2:
                least = begun[place - 2]
                refused = [token for token, value in tokens.numbers.items() if value <= least]
                scores[refused] = -torch.inf
        elif allowed:
            _keep(scores, [tokens.space if last == tokens.comma else tokens.comma])

    def _follow(self, row: int, token: int) -> bool:
        """Take the last token into account: it opens a box, goes on with it or ends it. True when
        it is a box's fourth number, behind which no other may stand."""
        begun = self._begun[row]
        if token == self._tokens.opening:
            self._begun[row] = []
        elif begun is not None and token in self._tokens.numbers:
            begun.append(self._tokens.numbers[token])
            if len(begun) == 4:
                self._left[row] = [box for box in self._left[row] if list(box) != begun]
                self._begun[row] = None
                return True
        elif token not in (self._tokens.comma, self._tokens.space):
            self._begun[row] = None
        return False


def _keep(scores: torch.Tensor, tokens: list[int]) -> None:
    """Leave out all but `tokens`, unless those were left out before: something has to follow."""
    kept = scores[tokens].clone()
    if torch.isneginf(kept).all():
        return
    scores.fill_(-torch.inf)
    scores[tokens] = kept
