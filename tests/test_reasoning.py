"""What a reasoning text concludes, and what it does not."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyr1.data.wording import KIND_WORDS, write_reasoning
from anomalyr1.geometry import grid_words
from anomalyr1.reasoning import (
    conclude_choice,
    conclude_verdict,
    find_kinds,
    find_places,
    name_kind,
)
from anomalyr1.types import Hint, HintRegion, Region

OPTIONS = {"A": "Scratch", "B": "Dent", "C": "Vitamin C", "D": "No defect", "E": "Top left."}
YES_NO = {"A": "Yes", "B": "No"}
PLAIN = {"A": "x-ray", "B": "yarn", "C": "zinc"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("So the answer is B.", "B"),
        ("Therefore option (B)", "B"),
        ("Therefore option B is right.", "B"),
        ("The answer is therefore B.", "B"),
        ("So the right option is B.", "B"),
        ("the correct option is B", "B"),
        ("So B.", "B"),
        ("so the answer is **B**", "B"),
        ("The answer is 'B'.", "B"),
        ("The answer is b.", "B"),
        ("I choose (b).", "B"),
        ("Final answer:\nB", "B"),
        ("Answer: B) dent", "B"),
        ("B is correct", "B"),
        ("I conclude that the answer is B, as it is round.", "B"),
        ("There is no scratch so the answer is B", "B"),
        ("If in doubt look closer: it is round, so the answer is B.", "B"),
        ("No doubt the answer is B", "B"),
    ],
)
def test_a_letter_named_as_the_conclusion_is_read(text: str, letter: str) -> None:
    assert conclude_choice(text, OPTIONS) == letter


@pytest.mark.parametrize(
    ("options", "text", "letter"),
    [
        (OPTIONS, "So the answer is a scratch.", "A"),
        (OPTIONS, "So the answer is A dent.", "B"),
        (OPTIONS, "So the answer is vitamin C.", "C"),
        (OPTIONS, "So the defect is a dent.", "B"),
        (OPTIONS, "Therefore the defect lies at the top left.", "E"),
        (OPTIONS, "A dent is the right answer.", "B"),
        (YES_NO, "therefore: no", "B"),
        (YES_NO, "So the answer is yes, there is a dent", "A"),
        ({"A": "left", "B": "top left"}, "So the place is the top left.", "B"),
        ({"A": "yes", "B": "yes, at the edge"}, "The answer is yes, at the edge.", "B"),
    ],
)
def test_an_options_own_text_named_as_the_conclusion_is_read(
    options: dict[str, str], text: str, letter: str
) -> None:
    assert conclude_choice(text, options) == letter


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (OPTIONS, "A scratch is visible."),
        (PLAIN, "So A scratch is visible."),
        (PLAIN, "A"),
        (OPTIONS, "Because no defect can be seen."),
        (OPTIONS, "Defect free."),
        (OPTIONS, "The PCB is green."),
        (OPTIONS, "It contains vitamin C."),
        (PLAIN, "So the answer is vitamin C."),
        (PLAIN, "Vitamin C is correct."),
        (PLAIN, "So the answer is e.g. a scratch"),
        (PLAIN, "So the answer is B-grade yarn dust."),
        (YES_NO, "Therefore an anomaly is present: another one."),
        (YES_NO, "Therefore no defect is visible."),
        (OPTIONS, "Option A: a scratch. Option B: a dent."),
        (OPTIONS, "Another option is B."),
        (OPTIONS, "Is the answer B?"),
        (OPTIONS, "If it were round, the answer would be B."),
        (OPTIONS, "The answer might be B."),
        (OPTIONS, "The answer is F."),
        (OPTIONS, ""),
    ],
)
def test_what_is_no_conclusion_concludes_nothing(options: dict[str, str], text: str) -> None:
    assert conclude_choice(text, options) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is not B.", None),
        ("The answer isn't B.", None),
        ("The answer cannot be B.", None),
        ("I do not think that the answer is B.", None),
        ("It is unlikely that the answer is B.", None),
        ("Therefore option B is wrong.", None),
        ("The wrong option is B.", None),
        ("So the defect is not a dent.", None),
        ("So the answer is neither A nor B.", None),
        ("The answer is B. Wait, the answer is not B.", None),
        ("The answer is A. So the answer is not B.", "A"),
        ("The answer is not B but A.", "A"),
        ("The correct option is not A; it is B.", "B"),
        ("So the answer is B, not A.", "B"),
    ],
)
def test_a_denied_option_is_not_concluded(text: str, letter: str | None) -> None:
    assert conclude_choice(text, OPTIONS) == letter


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A or B.",
        "So the answer is A, B and C.",
        "So it is a scratch or dent.",
        "The answer is B: scratch",
        "The answer is A. The answer is A or B.",
    ],
)
def test_two_options_leave_the_matter_open(text: str) -> None:
    assert conclude_choice(text, OPTIONS) is None


def test_the_last_conclusion_counts() -> None:
    assert conclude_choice("So the answer is A. No, wait. So the answer is B.", OPTIONS) == "B"


def test_letters_come_back_as_the_options_write_them() -> None:
    assert conclude_choice("So the answer is B.", {"a": "left", "b": "right"}) == "b"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("So the part is normal.", "normal"),
        ("Therefore the part is anomalous.", "anomalous"),
        ("No defect is visible, so the part is good.", "normal"),
        ("There is a crack, so the hazelnut is defective.", "anomalous"),
        ("Therefore: ok", "normal"),
        ("therefore anomalous", "anomalous"),
        ("Verdict: anomalous", "anomalous"),
        ("The part is classified as anomalous.", "anomalous"),
        ("It is a faulty part.", "anomalous"),
        ("The part is free of defects.", "normal"),
        ("I see no anomaly.", "normal"),
        ("There is a defect. So the part is anomalous. No other defect is visible.", "anomalous"),
        ("At first the part looks good. So it is faulty.", "anomalous"),
        ("The part looks good. Therefore a defect is present.", "anomalous"),
        ("The part is not normal.", "anomalous"),
        ("The part isn't defective.", "normal"),
        ("The part does not have a defect.", "normal"),
        ("No part is defective.", "normal"),
        ("So nothing is wrong.", "normal"),
        ("It cannot be considered normal.", "anomalous"),
        ("I do not think the part is normal.", "anomalous"),
    ],
)
def test_a_verdict_is_concluded(text: str, label: str) -> None:
    assert conclude_verdict(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Something is unlike a normal part.",
        "Surface and outline look regular.",
        "Nothing is missing, broken or stained.",
        "The part is normal except for a scratch.",
        "The part is otherwise normal.",
        "The part is normal or anomalous.",
        "The part is not broken.",
        "It is a damaged area.",
        "Is the part normal?",
        "If no line is seen the part is normal.",
        "The part would be normal.",
        "No other defect is visible.",
    ],
)
def test_what_is_no_verdict_concludes_none(text: str) -> None:
    assert conclude_verdict(text) is None


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("There is a clear missing part, a gap.", {"missing part"}),
        ("Two holes and chipped edges.", {"hole", "chipped edge"}),
        ("No crack, dent or hole.", set()),
        ("No crack, but a cut.", {"cut"}),
        ("Nothing is missing, broken or stained.", set()),
        ("Free of stains.", set()),
        ("The whole is uncut.", set()),
        ("It is a weld seam gap.", {"weld seam gap"}),
    ],
)
def test_kinds_are_named_and_not_denied(text: str, kinds: set[str]) -> None:
    assert find_kinds(text, ["Weld_seam-gap", "defect"]) == kinds


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("The map is bright at the top left and centre.", {"top left", "centre"}),
        ("A jagged line at the Upper-Right.", {"top right"}),
        ("In the middle, on the left side.", {"centre", "left"}),
        ("Likely cause: an assembly step left out.", set()),
        ("The right option; at the right moment.", set()),
        ("There is nothing at the top left.", set()),
    ],
)
def test_places_are_named_and_not_denied(text: str, places: set[str]) -> None:
    assert find_places(text) == places


@pytest.mark.parametrize("kind", KIND_WORDS)
def test_the_projects_own_reasoning_is_read_back(kind: str) -> None:
    rng = np.random.default_rng(3)
    for column in range(3):
        for row in range(3):
            left, top = 10 + 33 * column, 10 + 33 * row
            box = (left, top, left + 9, top + 9)
            hint = Hint(70, (HintRegion(box, 90, grid_words(box, (99, 99)), kind),))
            text = write_reasoning("anomalous", [Region(box, kind)], (99, 99), rng, hint=hint)
            assert conclude_verdict(text) == "anomalous"
            assert find_kinds(text) == {kind}
            assert find_places(text) == {grid_words(box, (99, 99))}


def test_all_that_is_said_of_several_regions_is_read_back() -> None:
    hint = Hint(
        70,
        (
            HintRegion((0, 0, 9, 9), 90, "top left", "cut"),
            HintRegion((40, 0, 50, 9), 80, "top", "hole"),
        ),
    )
    regions = [Region(region.box, region.kind) for region in hint.regions]
    text = write_reasoning("anomalous", regions, (99, 99), np.random.default_rng(0), hint=hint)
    assert find_kinds(text) == {"cut", "hole"}
    assert find_places(text) == {"top left", "top"}


def test_a_kinds_name_says_no_more_than_the_data_set_does() -> None:
    names = ["Scratches", "ng", "pin_hole", ""]
    assert [name_kind(name) for name in names] == ["scratch", "", "pin hole", ""]


WORDS = (
    "so the answer is not a A B (C) option or and , . ? : therefore scratch dent part normal no "
    "defect anomalous at top left \n ' it if"
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=300),
        st.lists(st.sampled_from(WORDS.split(" ")), max_size=60).map(" ".join),
    )
)
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert conclude_choice(text, OPTIONS) in (None, *OPTIONS)
    assert conclude_verdict(text) in (None, "normal", "anomalous")
    assert all(kind == name_kind(kind) for kind in find_kinds(text, ["weld (", text[:9]]))
    assert find_places(text) <= {
        *("top left", "top", "top right", "left", "centre", "right"),
        *("bottom left", "bottom", "bottom right"),
    }


@pytest.mark.parametrize("piece", ["so ", "the answer is ", "A, ", "not ", "no a ", "at the top, "])
def test_a_repeated_text_is_read_at_once(piece: str) -> None:
    text = piece * 400
    start = time.perf_counter()
    conclude_choice(text, OPTIONS), conclude_verdict(text), find_kinds(text), find_places(text)
    assert time.perf_counter() - start < 2
