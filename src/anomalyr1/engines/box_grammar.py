"""Keeps a box that is being written from having no area: its right and bottom lie beyond its left
and top. For tokenizers whose numbers are one token each, as the bundled model's.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor

_FEWEST = 100


def read_number_tokens(tokenizer: Any) -> dict[int, int]:
    """The tokens that are a whole number and nothing else, each with its value."""
    return {token: int(word) for word, token in tokenizer.get_vocab().items() if word.isdecimal()}


class BoxGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out, after "[x1, y1, ", numbers up to x1, and after "[x1, y1, x2, " those up to y1.

    All else may be written: an answer can still be unreadable.
    """

    def __init__(self, tokenizer: Any) -> None:
        values = read_number_tokens(tokenizer)
        self._values = values
        self._tokens = torch.tensor(sorted(values, key=values.__getitem__))
        self._sorted = torch.tensor(sorted(values.values()))
        self._opening, self._comma, self._space = (
            tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" [1", ",", " 1")
        )

    @classmethod
    def of(cls, tokenizer: Any) -> list[BoxGrammar]:
        """The grammar, or nothing where the tokenizer writes numbers digit by digit."""
        many = sum(value > 9 for value in read_number_tokens(tokenizer).values())
        return [cls(tokenizer)] if many >= _FEWEST else []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        for row, ids in enumerate(input_ids[:, -10:].tolist()):
            least = self._find_bound(ids)
            if least is not None:
                count = int(torch.searchsorted(self._sorted, least, right=True))
                scores[row, self._tokens[:count].to(scores.device)] = -torch.inf
        return scores

    def _find_bound(self, ids: list[int]) -> int | None:
        """The number that the next one of a box must exceed, if the last tokens say so."""
        numbers: list[int] = []
        while len(ids) >= 4 and ids[-2:] == [self._comma, self._space] and ids[-3] in self._values:
            numbers.insert(0, self._values[ids[-3]])
            ids = ids[:-3]
        is_box = ids[-1:] == [self._opening] and len(numbers) in (2, 3)
        return numbers[len(numbers) - 2] if is_box else None
