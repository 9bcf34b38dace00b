"""A small model's boxes are those of the regions that the prompt lists, and have an area."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from allowed_tokens import LISTED, Box, as_listed, as_numbers, find_allowed, find_every_allowed  # noqa: E402

from anomalyr1.engines.answer_grammar import AnswerGrammar  # noqa: E402
from anomalyr1.engines.answer_tokens import read_answer_tokens  # noqa: E402


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
    assert as_numbers(tokenizer, find_allowed(tokenizer, written, LISTED)) == allowed


@pytest.mark.parametrize(
    ("written", "text"), [('"bbox_2d": [12', ","), ('"bbox_2d": [12,', " "), ('"x": 12,', None)]
)
def test_a_listed_box_that_is_begun_is_gone_on_with(
    tokenizer: Any, written: str, text: str | None
) -> None:
    allowed = find_allowed(tokenizer, written, LISTED)
    assert (None if allowed is None else tokenizer.decode(sorted(allowed))) == text


@pytest.mark.parametrize("listed", [LISTED, ()])
def test_no_fifth_number_stands_in_a_box(tokenizer: Any, listed: Any) -> None:
    allowed = find_every_allowed(tokenizer, '</think><answer>[{"bbox_2d": [12, 35, 80, 61', listed)
    texts = {tokenizer.decode([token]) for token in allowed}
    assert not [text for text in texts if text.strip().isdigit() or text in (",", " ")]
    assert "]" in texts


def find_ends(tokenizer: Any) -> tuple[int, int]:
    """What ends a defect that another follows, and what ends the last."""
    another, last = (tokenizer(text)["input_ids"][0] for text in ('"}, {', '"}]}</answer>'))
    assert tokenizer.decode([another]) == '"}' and tokenizer.decode([last]) == '"}]}</'
    return another, last


@pytest.mark.parametrize(
    ("listed", "goes_on", "ends"),
    [(LISTED[:1], False, True), (LISTED, True, False), ((), True, True)],
)
def test_the_list_ends_when_all_listed_boxes_are_written_and_not_before(
    tokenizer: Any, listed: Sequence[Box], goes_on: bool, ends: bool
) -> None:
    written = '"bbox_2d": [12, 30, 44, 60], "label": "dent", "description": "a dent'
    allowed = find_every_allowed(tokenizer, written, listed)
    another, last = find_ends(tokenizer)
    assert (another in allowed, last in allowed) == (goes_on, ends)


def test_before_the_first_box_a_list_may_end(tokenizer: Any) -> None:
    """An anomalous part may have no defect that can be pointed at."""
    allowed = find_every_allowed(tokenizer, '<answer>{"verdict": "anomalous", "defects":', LISTED)
    assert find_ends(tokenizer)[1] in allowed


@pytest.mark.parametrize(
    ("written", "opens"),
    [
        ('"label": "dent"}, {"', True),
        ('"defects": [{"', True),
        ('"description": "a shallow slit where another', False),
        ('"bbox_2d": [12, 35, 80, 61], "', False),
    ],
)
def test_the_key_of_a_box_stands_where_a_defect_begins(
    tokenizer: Any, written: str, opens: bool
) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None and tokenizer.decode([tokens.key]) == "bbox_2d"
    ids = tokenizer(written, return_tensors="pt")["input_ids"]
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores = AnswerGrammar(tokens, [as_listed(())])(ids, scores)
    assert (scores[0, tokens.key] == 0) == opens


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
    numbers = {int(word) for word in tokenizer.get_vocab() if word.isdecimal()}
    out = set() if allowed is None else set(range(len(tokenizer.get_vocab()))) - allowed
    expected = set() if refused is None else {value for value in numbers if value <= refused}
    assert (as_numbers(tokenizer, out) or set()) == expected


def test_each_row_has_a_list_of_its_own(tokenizer: Any) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    grammar = AnswerGrammar(tokens, [as_listed(LISTED[:1]), as_listed(LISTED[2:])])
    ids = torch.tensor([[0, 0, tokens.opening]] * 2)
    scores = grammar(ids, torch.zeros(2, len(tokenizer.get_vocab())))
    assert [
        as_numbers(tokenizer, set(torch.nonzero(row == 0)[:, 0].tolist())) for row in scores
    ] == [{12}, {90}]


def test_a_tokenizer_that_writes_digits_has_no_such_grammar() -> None:
    class Digits:
        def get_vocab(self) -> dict[str, int]:
            return {str(digit): digit for digit in range(10)}

    assert read_answer_tokens(Digits()) is None
