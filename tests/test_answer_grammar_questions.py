"""A small model answers a question by one of its options."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from allowed_tokens import find_allowed

OPTIONS = {"A": "Thread pull.", "B": "Thread, bent", "C": "2.5 holes", "D": "Thread pull."}
FITTING = "It is odd. What fits best is:"


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("", {" Thread", " "}),
        (" Thread", {" pull", ","}),
        (" Thread pull", {"."}),
        (" Thread,", {" bent"}),
        (" 2", {"."}),
        (" 2.", {"5"}),
        (" 2.5 holes", {"."}),
    ],
)
def test_the_option_that_fits_is_quoted_word_for_word(
    tokenizer: Any, written: str, texts: set[str]
) -> None:
    allowed = find_allowed(tokenizer, FITTING + written, (), "", OPTIONS)
    assert allowed is not None
    firsts = {tokenizer(text)["input_ids"][0] for text in texts}
    assert firsts <= allowed and len(allowed) == len(texts)


PLACES = {"A": "Top", "B": "Top left.", "C": "Centre", "D": "left"}


@pytest.mark.parametrize(
    ("said", "begun", "texts"),
    [
        ("It is bright at the centre, at the bottom.", "", {" Centre"}),
        ("It is bright at the centre. There is a cut at the top.", "", {" Top"}),
        ("There is a cut at the top left.", " Top", {" left"}),
        ("There is a cut at the top, not at the left.", "", {" left"}),
        ("There is a cut at the bottom.", "", {" Top", " Centre", " left"}),
    ],
)
def test_the_option_that_was_named_last_is_the_one_that_fits(
    tokenizer: Any, said: str, begun: str, texts: set[str]
) -> None:
    written = f"{said} What fits best is:{begun}"
    allowed = find_allowed(tokenizer, written, (), "", PLACES)
    assert allowed == {tokenizer(text)["input_ids"][0] for text in texts}


@pytest.mark.parametrize(
    ("quoted", "letter"), [(" Thread pull.", "A"), (" Thread, bent.", "B"), (" 2.5 holes.", "C")]
)
def test_from_there_on_no_other_letter_is_named(tokenizer: Any, quoted: str, letter: str) -> None:
    told = f"{FITTING}{quoted} So the answer is"
    allowed = find_allowed(tokenizer, told, (), "", OPTIONS)
    assert allowed is not None
    forms = {other: tokenizer(f" {other}")["input_ids"][-1] for other in "ABCDE"}
    assert [other for other, form in forms.items() if form in allowed] == [letter]
    asked = find_allowed(tokenizer, f"{told} {letter}.</think><answer", (), "", OPTIONS)
    assert asked == {tokenizer(f"<answer>{letter}")["input_ids"][-1]}


def test_an_answer_to_a_question_is_a_letter_of_its_options(tokenizer: Any) -> None:
    allowed = find_allowed(tokenizer, "It is odd.</think><answer", (), "", OPTIONS)
    assert allowed == {tokenizer(f"<answer>{letter}")["input_ids"][-1] for letter in OPTIONS}
    ended = find_allowed(tokenizer, "It is odd.</think><answer>C", (), "", OPTIONS)
    assert ended == {tokenizer("</answer>")["input_ids"][0]}
    free = find_allowed(tokenizer, "It is odd.</think><answer", ())
    assert free is not None and len(free) == len(tokenizer.get_vocab()) - 1, "all but the end"


def test_options_under_other_names_than_letters_are_left_alone(tokenizer: Any) -> None:
    named = {"1": "A dent", "2": "A hole"}
    assert find_allowed(tokenizer, FITTING, (), "", named) is None
