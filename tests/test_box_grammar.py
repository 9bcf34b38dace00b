"""A box that is being written is one of those that the prompt lists, and never without area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from anomalyr1.engines.box_grammar import BoxGrammar, BoxTokens, read_box_tokens  # noqa: E402
from anomalyr1.training.nano import build_tokenizer  # noqa: E402

LISTED = ((12, 30, 44, 60), (12, 35, 80, 61), (90, 12, 99, 30))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(2560, 0)


def find_allowed(
    tokenizer: Any, written: str, listed: Sequence[tuple[int, int, int, int]]
) -> set[int] | None:
    """The numbers that may come next; None where all may."""
    tokens = read_box_tokens(tokenizer)
    assert tokens is not None
    grammar = BoxGrammar(tokens, [listed])
    # An announced number begins behind its space, which is a token of its own.
    ids = tokenizer("Map: [7, 7, 7, 7]" + written + "1")["input_ids"][:-1]
    size = len(tokenizer.get_vocab())
    scores = torch.zeros(1, size)
    for length in range(1, len(ids) + 1):
        scores = grammar(torch.tensor([ids[:length]]), torch.zeros(1, size))
    refused = {tokens.numbers[int(token)] for token in torch.nonzero(scores[0] < 0)[:, 0]}
    assert int((scores < 0).sum()) == len(refused)
    return set(tokens.numbers.values()) - refused if refused else None


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ('"bbox_2d": [', {12, 90}),
        ('"bbox_2d": [12, ', {30, 35}),
        ('"bbox_2d": [12, 35, ', {80}),
        ('"bbox_2d": [12, 35, 80, ', {61}),
        ('"bbox_2d": [12, 35, 80, 61], ', None),
        ('"bbox_2d": [12, 35, 80, 61], "label": "dent"}, {"bbox_2d": [', {12, 90}),
        ('"bbox_2d": [12, 35, 80, 61], "label": "dent"}, {"bbox_2d": [12, ', {30}),
        ('"bbox_2d": [90, 12, 99, 30]}, {"bbox_2d": [', {12}),
        ("In 12, 35, ", None),
        ('"bbox_2d": [one, ', None),
        ("", None),
    ],
)
def test_a_box_is_one_of_the_listed_ones_that_is_not_written_yet(
    tokenizer: Any, written: str, allowed: set[int] | None
) -> None:
    assert find_allowed(tokenizer, written, LISTED) == allowed


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ('"bbox_2d": [100, 37, ', 100),
        ('"bbox_2d": [100, 37, 120, ', 37),
        ('"bbox_2d": [100, ', None),
        ('"bbox_2d": [100, 37, 120, 50, ', None),
    ],
)
def test_without_a_list_only_numbers_that_leave_no_area_are_left_out(
    tokenizer: Any, written: str, refused: int | None
) -> None:
    allowed = find_allowed(tokenizer, written, ())
    if refused is None:
        assert allowed is None
    else:
        assert allowed is not None and min(allowed) == refused + 1


def test_each_row_has_a_list_of_its_own() -> None:
    tokens = BoxTokens({5: 5, 6: 6}, opening=1, comma=2, space=3)
    grammar = BoxGrammar(tokens, [[(5, 5, 6, 6)], [(6, 5, 9, 9)]])
    scores = grammar(torch.tensor([[1], [1]]), torch.zeros(2, 8))
    assert torch.isinf(scores).tolist() == [
        [token == 6 for token in range(8)],
        [token == 5 for token in range(8)],
    ]


def test_a_tokenizer_that_writes_digits_has_no_such_grammar() -> None:
    class Digits:
        def get_vocab(self) -> dict[str, int]:
            return {str(digit): digit for digit in range(10)}

    assert read_box_tokens(Digits()) is None
