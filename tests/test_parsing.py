"""Model text -> Response: every published misreading is a row here."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyr1.parsing import (
    parse_choice,
    parse_inspection,
    parse_yes_no,
)
from anomalyr1.types import Region, Response

YES_NO = {"A": "Yes.", "B": "No."}
DEFECTS = {"A": "Crack", "B": "Scratch.", "C": "Both A and B", "D": "Hole in the shell"}
PROPERTY = settings(max_examples=150, deadline=None, database=None)


def read_inspection(text: str, finish_reason: str = "stop") -> Response:
    return parse_inspection(
        text,
        shown_size_wh=(100, 50),
        original_size_wh=(200, 200),
        finish_reason=finish_reason,
    )


def answer_with(*boxes: object, verdict: str = "anomalous") -> str:
    defects = [{"bbox_2d": box, "label": "crack", "description": "thin"} for box in boxes]
    return f"<answer>{json.dumps({'verdict': verdict, 'defects': defects})}</answer>"


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", "B"),
        ("b", "B"),
        (" B \n", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("(B)", "B"),
        ("(b).", "B"),
        ("B:", "B"),
        ("**B**", "B"),
        ("**B.** scratch", "B"),
        ("`B`", "B"),
        ('"B"', "B"),
        ("option B", "B"),
        ("Option B.", "B"),
        ("Option (B)", "B"),
        ("Answer: B", "B"),
        ("Answer: option B", "B"),
        ("**Answer:** B", "B"),
        ("Choice: B", "B"),  # the first capital letter of A to E would be C
        ("B) scratch", "B"),
        ("(B) scratch", "B"),
        ("B: the text", "B"),
        ("B: A scratch is visible", "B"),  # the article, not a second letter
        ("B - scratch", "B"),
        ("B\nThe shell is scratched.", "B"),
        ("A", "A"),
        ("A.", "A"),
        ("E", "E"),
        ("A scratch is visible", None),
        ("A dent", None),
        ("The PCB is broken", None),
        ("The PCB ...", None),
        ("Because no defect", None),
        ("Defect free", None),
        ("Based on the image: A", None),
        ("Based on the image", None),
        ("vitamin C.", None),
        ("Contains vitamin C", None),
        ("e.g. a scratch", None),
        ("AB", None),
        ("no", None),  # text under three characters is not its first character
        ("Ex", None),
        ("A or B", None),
        ("A, B", None),
        ("A/B", None),
        ("A) B)", None),
        ("(A)(B)", None),
        ("(A) and (B)", None),
        ("A. or B.", None),
        ("B: not A", None),
        ("F", None),
        ("I", None),
        ("Sorry, please see the picture", None),
        ("", None),
        ("?", None),
        ("...", None),
    ],
)
def test_a_letter_is_read_only_where_it_is_the_answer(answer: str, choice: str | None) -> None:
    response = parse_choice(f"<think>C or D?</think><answer>{answer}</answer>")
    assert (response.status, response.choice) == ("ok" if choice else "malformed", choice)
    assert response.reasoning == "C or D?"
    assert bool(response.problem) == (choice is None)


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("Crack", "A"),
        ("crack.", "A"),
        ("SCRATCH", "B"),
        ("**Scratch**", "B"),
        ("Answer: Hole in the shell", "D"),
        ("(D) hole  in the shell.", "D"),
        ("Both A and B", "C"),
        ("C: Both A and B", "C"),
        ("B) deep scratch on the left", "B"),
        ("A) Scratch", None),
        ("(D) crack.", None),
        ("scratched", None),
        ("A crack", None),
        ("E", None),  # a letter, but not one of these options
        ("E: Crack", None),
        ("Crack, Scratch", None),
    ],
)
def test_the_text_of_an_option_is_read_as_that_option(answer: str, choice: str | None) -> None:
    response = parse_choice(f"<answer>{answer}</answer>", DEFECTS)
    assert (response.status, response.choice) == ("ok" if choice else "malformed", choice)


@pytest.mark.parametrize(
    ("answer", "options", "choice"),
    [
        ("Yes", YES_NO, "A"),
        ("No.", YES_NO, "B"),
        ("No", {"A": "No.", "B": "Yes."}, "A"),
        ("A. No", YES_NO, None),
        ("C", YES_NO, None),
        ("G", dict.fromkeys("ABCDEFG", "text"), "G"),
        ("vitamin C.", {"A": "Vitamin C.", "B": "Vitamin D"}, "A"),
        ("Crack", {"A": "Crack.", "B": "crack"}, None),
        ("B", {"A": "B", "B": "A"}, None),
        ("a", {"a": "one", "b": "two"}, "a"),
        ("A", {}, None),
    ],
)
def test_options_decide_which_letters_exist(
    answer: str, options: dict[str, str], choice: str | None
) -> None:
    response = parse_choice(f"<answer>{answer}</answer>", options)
    assert (response.status, response.choice) == ("ok" if choice else "malformed", choice)


@pytest.mark.parametrize(
    ("text", "finish_reason", "status", "choice"),
    [
        ("<answer>A</answer><answer>B</answer>", "stop", "malformed", None),
        ("<answer>B</answer> so <answer>(B)</answer>", "stop", "ok", "B"),
        ("<answer>B</answer><answer>perhaps</answer>", "stop", "malformed", None),
        ("<answer><answer>B</answer>", "stop", "malformed", None),
        ("<answer>B", "stop", "malformed", None),
        ("B</answer>", "stop", "malformed", None),
        ("</answer>B<answer>", "stop", "malformed", None),
        ("B", "stop", "no_answer", None),
        ("I think it is B", "stop", "no_answer", None),
        ("", "stop", "no_answer", None),
        ("<think>B", "length", "truncated", None),
        ("<answer>B", "length", "truncated", None),
        ("", "length", "truncated", None),
        ("<answer>B</answer> which is", "length", "ok", "B"),
        ("<answer>B</answer><answer>A", "length", "malformed", None),
        ("<answer>prose here</answer>", "length", "malformed", None),
    ],
)
def test_only_one_complete_answer_counts(
    text: str, finish_reason: str, status: str, choice: str | None
) -> None:
    response = parse_choice(text, finish_reason=finish_reason)
    assert (response.status, response.choice) == (status, choice)


@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think> a line </think><answer>B</answer>", "a line"),
        ("opened by the template</think><answer>B</answer>", "opened by the template"),
        ("<think>never closed <answer>B</answer>", "never closed"),
        ("<answer>B</answer>", ""),
        ("<think>\ud800</think><answer>B</answer>", "\ufffd"),
    ],
)
def test_the_reasoning_is_kept(text: str, reasoning: str) -> None:
    assert parse_choice(text).reasoning == reasoning


def test_a_verdict_with_defects_is_read_in_original_pixels() -> None:
    response = read_inspection("<think>Look.</think>" + answer_with([10, 5, 20, 25]))
    region = Region((20.0, 20.0, 40.0, 100.0), "crack", "thin")
    assert response == Response("ok", "Look.", label="anomalous", regions=(region,))


def test_relative_boxes_are_thousandths_of_each_side() -> None:
    response = parse_inspection(
        answer_with([500, 0, 1000, 250]),
        shown_size_wh=(100, 50),
        original_size_wh=(200, 400),
        frame="relative_1000",
    )
    assert response.regions[0].box_xyxy == (100.0, 0.0, 200.0, 100.0)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('{"verdict": "normal", "defects": []}', "normal"),
        ('{"verdict": "anomalous", "defects": []}', "anomalous"),
        ('\n{"defects": [], "verdict": "normal"}\n', "normal"),
        ('```json\n{"verdict": "normal", "defects": []}\n```', "normal"),
        ('```\n{"verdict": "normal", "defects": []}```', "normal"),
        ('{"verdict": "normal", "defects": [], "certainty": 0.9}', "normal"),
        ('{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, 4]}]}', "anomalous"),
    ],
)
def test_a_verdict_is_read_from_json_bare_or_fenced(answer: str, label: str) -> None:
    response = read_inspection(f"<answer>{answer}</answer>")
    assert (response.status, response.label, response.problem) == ("ok", label, "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "normal",
        "no defects",
        '"normal"',
        "[]",
        "null",
        '{"verdict": "normal", "defects": []',
        '{"verdict": "normal", "defects": []} done',
        '{"verdict": "normal", "defects": [],}',
        "{'verdict': 'normal', 'defects': []}",
        '{"defects": []}',
        '{"verdict": null, "defects": []}',
        '{"verdict": "Normal", "defects": []}',
        '{"verdict": "unknown", "defects": []}',
        '{"verdict": "not normal", "defects": []}',
        '{"verdict": ["normal"], "defects": []}',
        '{"verdict": "normal"|"anomalous", "defects": []}',
        '{"verdict": "normal", "verdict": "anomalous", "defects": []}',
        '{"verdict": "normal", "defects": [{"bbox_2d": [1, 2, 3, 4]}]}',
        '{"verdict": "anomalous", "defects": null}',
        '{"verdict": "anomalous", "defects": {"bbox_2d": [1, 2, 3, 4]}}',
        '{"verdict": "anomalous", "defects": ["crack"]}',
        '{"verdict": "anomalous", "defects": [{"label": "crack"}]}',
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, 4], "label": 7}]}',
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, NaN]}]}',
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, Infinity]}]}',
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, 1e999]}]}',
        '{"verdict": "normal", "score": NaN, "defects": []}',
        "[" * 100_000,
        '{"verdict":' * 100_000,
        '{"verdict": "anomalous", "defects": ' + "[" * 900 + "]" * 900 + "}",
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [0, 0, 9, 1' + "0" * 400 + "]}]}",
        '{"verdict": "anomalous", "defects": [{"bbox_2d": [0, 0, 9, 1' + "0" * 9000 + "]}]}",
    ],
    ids=lambda answer: repr(answer[:70]),
)
def test_an_answer_that_cannot_be_read_is_malformed_and_never_normal(answer: str) -> None:
    response = read_inspection(f"<answer>{answer}</answer>")
    assert (response.status, response.label, response.regions) == ("malformed", None, ())
    assert response.problem


@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        "1, 2, 3, 4",
        None,
        [1, 2, "3", 4],
        [1, 2, None, 4],
        [True, 2, 3, 4],
        [[1, 2], [3, 4]],
        [5, 5, 5, 9],
        [9, 9, 5, 5],
        [100, 0, 120, 10],  # begins where the picture ends
        [-20, 0, -1, 10],
        [0, 60, 10, 70],
    ],
)
def test_one_bad_box_makes_the_answer_malformed(box: object) -> None:
    response = read_inspection(answer_with([1, 2, 3, 4], box))
    assert (response.status, response.label, response.regions) == ("malformed", None, ())
    assert response.problem.startswith("defect 2: ")


def test_a_box_reaching_out_of_the_picture_is_clipped_and_said_so() -> None:
    response = read_inspection(answer_with([1, 2, 3, 4], [-5, 40, 120, 60]))
    assert (response.status, response.label) == ("ok", "anomalous")
    assert response.regions[1].box_xyxy == (0.0, 160.0, 200.0, 200.0)
    assert response.problem == "defect 2: box reaches out of the picture and was clipped"


def test_a_box_that_vanishes_in_the_original_picture_is_malformed() -> None:
    text = answer_with([0, 0, 5e-324, 9])
    response = parse_inspection(text, shown_size_wh=(1000, 1000), original_size_wh=(10, 10))
    assert response.status == "malformed"
    assert "too thin" in response.problem


def test_missing_defects_are_mentioned() -> None:
    response = read_inspection('<answer>{"verdict": "anomalous"}</answer>')
    assert (response.label, response.problem) == ("anomalous", "no defects list")


@pytest.mark.parametrize(
    ("text", "finish_reason", "status"),
    [
        (answer_with() + answer_with(), "stop", "ok"),
        (answer_with() + answer_with([1, 2, 3, 4]), "stop", "malformed"),
        (answer_with() + answer_with(verdict="normal"), "stop", "malformed"),
        (answer_with().replace("</answer>", ""), "stop", "malformed"),
        (answer_with().replace("</answer>", ""), "length", "truncated"),
        (answer_with() + " and", "length", "ok"),
        ("<think>The part", "length", "truncated"),
        ("The part is normal.", "stop", "no_answer"),
        ('{"verdict": "normal", "defects": []}', "stop", "no_answer"),
        ("", "stop", "no_answer"),
    ],
)
def test_the_status_says_why_nothing_was_read(text: str, finish_reason: str, status: str) -> None:
    response = read_inspection(text, finish_reason)
    assert response.status == status
    assert response.label == ("anomalous" if status == "ok" else None)


def test_kept_texts_can_always_be_written() -> None:
    answer = '{"verdict": "anomalous", "defects": [{"bbox_2d": [1, 2, 3, 4], "label": "\\ud800"}]}'
    response = read_inspection(f"<answer>{answer}</answer>")
    assert response.regions[0].defect_type == "\ufffd"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Yes.", "yes"),
        ("No", "no"),
        ("no.", "no"),
        ("yes, there is a defect", "yes"),
        ("No, nothing abnormal", "no"),
        ("**Yes**", "yes"),
        ("<answer>Yes</answer>", "yes"),
        ("<think>No?</think><answer>yes</answer>", "yes"),
        ("an anomaly is present", None),  # these hold "no" or "yes" as a part of a word
        ("anomalous", None),
        ("normal", None),
        ("unknown", None),
        ("Nothing", None),
        ("Not sure", None),
        ("eyes", None),
        ("Yesterday", None),
        ("I say yes", None),
        ("yes or no", None),
        ("yes/no", None),
        ("No doubt, it is broken", None),
        ("<answer>Yes</answer><answer>No</answer>", None),
        ("<answer>Yes", None),
        ("", None),
    ],
)
def test_yes_or_no_is_the_first_word_only(text: str, choice: str | None) -> None:
    response = parse_yes_no(text)
    assert (response.status, response.choice) == ("ok" if choice else "malformed", choice)


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
