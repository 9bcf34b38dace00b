"""Keeps a box that is being written from having no area: its right and bottom lie beyond its left
and top. For tokenizers whose numbers are one token each, as the bundled model's.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LogitsProcessor

_FEWEST = 100


class BoxGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out, after "[x1, y1, ", numbers up to x1, and after "[x1, y1, x2, " those up to y1.

    All else may be written: an answer can still be unreadable.
    """

    def __init__(self, tokenizer: Any) -> None:
        words = tokenizer.get_vocab()
        values = {token: int(word) for word, token in words.items() if word.isdecimal()}
        self._values = values
        self._tokens = torch.tensor(sorted(values, key=values.__getitem__))
        self._sorted = torch.tensor(sorted(values.values()))
        self._opening, self._comma, self._space = (
            tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in (" [1", ",", " 1")
        )

    @classmethod
    def of(cls, tokenizer: Any) -> list[BoxGrammar]:
        """The grammar, or nothing where the tokenizer writes numbers digit by digit."""
        many = sum(word.isdecimal() and len(word) > 1 for word in tokenizer.get_vocab())
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
