"""How a tokenizer writes what `answer_grammar` keeps an answer to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from anomalyr1.data.wording import (
    DECIDED_BEHIND,
    FITS_BEST,
    KIND_WORDS,
    MOST_NAMED,
    SEVERITIES,
    TAKEN_FOR,
    bare_option,
    begin_small,
    count_defects,
)
from anomalyr1.geometry import GRID_WORDS
from anomalyr1.prompts import AT_THE, BRIGHT, HINT_STRENGTH, LIKE_A, LOOKS, STRENGTHS

_FEWEST = 100


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """How a tokenizer writes an answer: `numbers` (token to value), what opens a box, and what
    stands between two numbers; the `key` of a box, behind one of `braces`; `defect_end`, after
    which another defect follows, and `list_ends`, after which none does; `thinking`, which begins
    the text; the tokens that end in "</", the two of "answer>", and the `end` of the text.

    `marks` are the tokens with a quotation mark, brace or bracket; `values` tells by the three
    tokens that begin the words of a defect which of the marks may end them.

    `kinds` are the tokens that begin each kind of defect, named behind one of `severities`;
    `places` those of each place, named behind `at_the`. `lists` are sentences on the map: how one
    begins, what it may name, each up to the comma or the `period` behind it, and how many.

    `there` begins a sentence that tells how many defects there are, and `encode_count` is how it
    goes on for a number of them.

    `letters` are the tokens that are an option's letter, and `answers` what follows "<answer" in an
    answer of that letter, "answer" being behind one of `askings`; `closing` follows the letter.
    `quoting` ends the words that stand before an option's text, which `encode` writes with the
    period behind it, and `encode_named` as it stands within a sentence.
    """

    numbers: dict[int, int]
    opening: int
    comma: int
    space: int
    key: int
    braces: frozenset[int]
    defect_end: int
    list_ends: frozenset[int]
    thinking: int
    slashes: frozenset[int]
    name: int
    bracket: int
    end: int
    marks: frozenset[int]
    values: dict[tuple[int, ...], frozenset[int]]
    kinds: dict[str, frozenset[int]]
    severities: frozenset[int]
    places: dict[str, tuple[int, ...]]
    at_the: tuple[int, ...]
    lists: tuple[tuple[tuple[int, ...], dict[str, tuple[int, ...]], int], ...]
    period: int
    there: int
    encode_count: Callable[[int], tuple[int, ...]]
    letters: dict[str, frozenset[int]]
    answers: dict[str, int]
    askings: frozenset[int]
    closing: int
    quoting: tuple[int, ...]
    encode: Callable[[str], tuple[int, ...]]
    encode_named: Callable[[str], tuple[int, ...]]


def read_answer_tokens(tokenizer: Any) -> AnswerTokens | None:
    """None for a tokenizer that writes numbers digit by digit."""
    numbers = read_number_tokens(tokenizer)
    if sum(value > 9 for value in numbers.values()) < _FEWEST:
        return None

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def first(text: str) -> int:
        return tokens(text)[0]

    def ending(end: str) -> frozenset[int]:
        words = tokenizer.get_vocab().items()
        return frozenset(token for word, token in words if word.endswith(end))

    defect_end, last = first('"}, {'), first('"}]}</answer>')
    scoring = HINT_STRENGTH.partition(" {")[0]
    asking, quoting = tokens("<answer"), tokens(f" {FITS_BEST}")
    name, bracket = tokens("]}</answer>")[-2:]
    deciding = DECIDED_BEHIND.rpartition(" ")[0]
    return AnswerTokens(
        numbers,
        opening=first(" [1"),
        comma=first(","),
        space=first(" 1"),
        key=first("bbox_2d"),
        braces=ending('{"'),
        defect_end=defect_end,
        list_ends=frozenset(token for word, token in tokenizer.get_vocab().items() if "}]" in word),
        thinking=first("<think>"),
        slashes=ending("</"),
        name=name,
        bracket=bracket,
        end=tokenizer.eos_token_id,
        marks=frozenset(
            token for word, token in tokenizer.get_vocab().items() if set(word) & set('"{}[]')
        ),
        values={
            tokens('label": "')[-3:]: frozenset({first('", "')}),
            tokens('description": "')[-3:]: frozenset({defect_end, last}),
        },
        kinds={kind: frozenset({first(kind), first(f" {kind}")}) for kind in KIND_WORDS},
        severities=frozenset(
            first(before) for word in (*SEVERITIES, '"') for before in (word, f" {word}")
        ),
        places={place: tokens(f" {place}") for place in GRID_WORDS},
        at_the=tokens(AT_THE.rstrip()),
        lists=(
            (
                tokens(f" {scoring}")[-3:],
                {strength: tokens(f" {strength}") for strength in STRENGTHS},
                1,
            ),
            (
                tokens(f" {BRIGHT}"),
                {word: tokens(AT_THE + word) for word in GRID_WORDS},
                MOST_NAMED,
            ),
            (
                tokens(f" {LOOKS}"),
                {word: tokens(LIKE_A + word) for word in KIND_WORDS},
                MOST_NAMED,
            ),
            (
                tokens(f" {deciding}")[-3:],
                {
                    label: tokens(said.removeprefix(deciding).removesuffix("."))
                    for label, said in TAKEN_FOR.items()
                },
                1,
            ),
        ),
        period=first("."),
        there=first(" There"),
        encode_count=lambda number: tokens(f" {count_defects(number)}")[1:],
        letters={
            letter: frozenset(tokens(before + letter)[-1] for before in ("", " ", "<answer>"))
            for letter in ascii_uppercase
        },
        answers={letter: tokens(f"<answer>{letter}")[len(asking)] for letter in ascii_uppercase},
        askings=ending("<"),
        closing=first("</"),
        quoting=quoting[-3:],
        encode=lambda text: tokens(f" {FITS_BEST} {bare_option(text)}.")[len(quoting) :],
        encode_named=lambda text: tokens(f" {begin_small(bare_option(text))}"),
    )


def read_number_tokens(tokenizer: Any) -> dict[int, int]:
    """The tokens that are a whole number and nothing else, each with its value."""
    return {token: int(word) for word, token in tokenizer.get_vocab().items() if word.isdecimal()}
