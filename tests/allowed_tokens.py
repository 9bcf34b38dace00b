"""Which tokens the answer's grammar lets a small model write next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from anomalyr1.engines.answer_grammar import AnswerGrammar
from anomalyr1.engines.answer_tokens import read_answer_tokens
from anomalyr1.types import HintRegion, Listed

Box = tuple[int, int, int, int]

LISTED = ((12, 30, 44, 60), (12, 35, 80, 61), (90, 12, 99, 30))


def as_listed(
    listed: Sequence[Box] | Sequence[HintRegion],
    options: dict[str, str] | None = None,
    strength: str = "",
) -> Listed:
    regions = (
        item if isinstance(item, HintRegion) else HintRegion(item, 90, "centre") for item in listed
    )
    return Listed(tuple(regions), tuple((options or {}).items()), strength)


def find_every_allowed(
    tokenizer: Any,
    written: str,
    listed: Sequence[Box] | Sequence[HintRegion],
    before: str = "Map: [7, 7, 7, 7]",
    options: dict[str, str] | None = None,
    strength: str = "",
) -> set[int]:
    """The tokens that may come next."""
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    grammar = AnswerGrammar(tokens, [as_listed(listed, options, strength)])
    # An announced number begins behind its space, which is a token of its own.
    due = written.endswith((" ", "["))
    ids = tokenizer(before + written + "1" * due)["input_ids"]
    ids = ids[:-1] if due else ids
    size = len(tokenizer.get_vocab())
    scores = torch.zeros(1, size)
    for length in range(3, len(ids) + 1):
        scores = grammar(torch.tensor([ids[:length]]), torch.zeros(1, size))
    return set(torch.nonzero(scores[0] == 0)[:, 0].tolist())


def find_allowed(
    tokenizer: Any,
    written: str,
    listed: Sequence[Box] | Sequence[HintRegion],
    *rest: Any,
    **given: Any,
) -> set[int] | None:
    """The tokens that may come next; None where all may but the word of a tag without its "<", the
    key of a box without its brace, the end of a list that is not whole, a second beginning, and
    marks in words."""
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    allowed = find_every_allowed(tokenizer, written, listed, *rest, **given)
    size = len(tokenizer.get_vocab())
    if len(allowed) > size // 2:
        allowed |= {tokens.name, tokens.key, tokens.thinking, *tokens.list_ends, *tokens.marks}
    return None if len(allowed) == size else allowed


def as_numbers(tokenizer: Any, ids: set[int] | None) -> set[int] | None:
    return None if ids is None else {int(tokenizer.decode([token])) for token in ids}
