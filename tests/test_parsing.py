"""Model text -> Response: every published misreading is a row here."""

from __future__ import annotations

import pytest

from anomalyr1.parsing import (
    parse_choice,
    parse_yes_no,
)

YES_NO = {"A": "Yes.", "B": "No."}


DEFECTS = {"A": "Crack", "B": "Scratch.", "C": "Both A and B", "D": "Hole in the shell"}


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
