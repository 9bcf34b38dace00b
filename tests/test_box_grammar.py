"""A box that is being written cannot be without area."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from anomalyr1.engines.box_grammar import BoxGrammar  # noqa: E402
from anomalyr1.training.nano import build_tokenizer  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return build_tokenizer(2560, 0)


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ('"bbox_2d": [100, 37, ', 100),
        ('"bbox_2d": [100, 37, 120, ', 37),
        ('"bbox_2d": [100, ', None),
        ('"bbox_2d": [100, 37, 120, 50, ', None),
        ("In 100, 37, ", None),
        ("", None),
    ],
)
def test_only_numbers_that_leave_no_area_are_left_out(
    tokenizer: object, written: str, refused: int | None
) -> None:
    (grammar,) = BoxGrammar.of(tokenizer)
    # An announced number begins behind its space, which is a token of its own.
    ids = torch.tensor([tokenizer(written + "1")["input_ids"][:-1]])  # type: ignore[operator]
    scores = grammar(ids, torch.zeros(1, 2560))
    words = tokenizer.get_vocab()  # type: ignore[attr-defined]
    out = {int(word) for word, token in words.items() if word.isdecimal() and scores[0, token] < 0}
    numbers = {int(word) for word in words if word.isdecimal()}
    assert out == (set() if refused is None else {n for n in numbers if n <= refused})
    assert int((scores < 0).sum()) == len(out)


def test_a_tokenizer_that_writes_digits_has_no_such_grammar() -> None:
    class Digits:
        def get_vocab(self) -> dict[str, int]:
            return {str(digit): digit for digit in range(10)}

    assert BoxGrammar.of(Digits()) == []
