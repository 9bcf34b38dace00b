"""Properties of the parsers: whatever a model writes, nothing raises and nothing is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_parsing import DEFECTS
from test_parsing_inspections import answer_with, read_inspection

from anomalyr1.parsing import (
    parse_choice,
    parse_yes_no,
)

PROPERTY = settings(max_examples=150, deadline=None, database=None)


TAGS = ["<answer>", "</answer>", "<think>", "</think>", "```json"]


MARKS = ["{", "}", "[", "]", '"', "\\", ",", ":", "*", "\ud800", "\x00", "9" * 5000, "[" * 3000]


KEYS = ['"verdict"', '"normal"', '"anomalous"', '"defects"', '"bbox_2d"', "[1, 2, 3, 4]", "NaN"]


WORDS = ["(B)", "A", "B.", "option ", " or ", "yes", "no"]


PIECES = st.sampled_from([*TAGS, *MARKS, *KEYS, *WORDS])


ANY_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.lists(PIECES).map("".join),
    st.lists(PIECES).map(lambda pieces: f"<answer>{''.join(pieces)}</answer>"),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["verdict", "defects", "bbox_2d", "label", "x"]), inner
            )
        ),
    ).map(lambda value: f"<answer>{json.dumps(value)}</answer>"),
)


@PROPERTY
@given(text=ANY_TEXT, finish_reason=st.sampled_from(["stop", "length"]))
def test_no_text_raises_and_only_ok_answers_say_anything(text: str, finish_reason: str) -> None:
    responses = [
        read_inspection(text, finish_reason),
        parse_choice(text, DEFECTS, finish_reason),
        parse_choice(text, finish_reason=finish_reason),
        parse_yes_no(text),
    ]
    for response in responses:
        if response.status != "ok":
            assert (response.label, response.choice, response.regions) == (None, None, ())
            assert response.problem
        f"{response.reasoning}{response.problem}".encode()
    for region in responses[0].regions:
        left, top, right, bottom = region.box_xyxy
        assert 0 <= left < right <= 200
        assert 0 <= top < bottom <= 200


@PROPERTY
@given(
    values=st.lists(st.one_of(st.floats(), st.integers(), st.floats(-20, 120)), max_size=5),
)
def test_any_numbers_as_a_box_are_read_or_refused(values: list[float]) -> None:
    response = read_inspection(answer_with(values))
    assert response.status in ("ok", "malformed")


@pytest.mark.parametrize(
    "text",
    [
        "<answer>" + '\\"' * 50_000,
        "<answer>B," + " " * 50_000 + "</answer>",
        "<answer>B. or" + " " * 50_000 + "x</answer>",
        "<answer>answer" + " " * 50_000 + ":" + " " * 50_000 + "</answer>",
        "<answer>" * 20_000,
        "<answer>B</answer>" * 5_000,
    ],
    ids=["quotes", "spaces", "connective", "prefix", "tags", "answers"],
)
def test_long_hostile_texts_are_read_in_linear_time(text: str) -> None:
    # A quadratic reader would need minutes for these, far beyond the suite's patience.
    for read in (read_inspection, parse_choice, parse_yes_no):
        read(text)  # type: ignore[operator]
