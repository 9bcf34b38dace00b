"""Contradictions between a reasoning and its answer. What earns what is in test_rewards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from anomalyr1.alignment import find_contradiction
from anomalyr1.parsing import parse_choice
from anomalyr1.types import Question, Region, Response

SIZE = (90, 90)
QUESTION = Question("Which?", {"A": "Scratch", "B": "Dent", "C": "Crack"}, "B")
SCRATCH = Region((0, 0, 30, 30), "scratch")


@pytest.mark.parametrize(
    ("reasoning", "letter", "expected"),
    [
        ("So the answer is B.", "B", False),
        ("So the answer is a dent.", "B", False),
        ("So the answer is B.", "A", True),
        ("So the answer is a dent.", "A", True),
        ("A dent is visible.", "A", False),
        ("The answer is not A.", "A", False),
        ("", "A", False),
    ],
)
def test_a_reasoning_contradicts_an_answer_when_it_concludes_another(
    reasoning: str, letter: str, expected: bool
) -> None:
    response = parse_choice(
        f"<think>{reasoning}</think><answer>{letter}</answer>", QUESTION.options
    )
    assert find_contradiction(response, QUESTION) is expected


@pytest.mark.parametrize(
    ("reasoning", "expected"),
    [
        ("So the part is anomalous.", False),
        ("No defect is visible, so the part is good.", True),
        ("The part is not normal.", False),
        ("Something is there.", False),
    ],
)
def test_a_reasoning_contradicts_a_verdict_when_it_concludes_the_other(
    reasoning: str, expected: bool
) -> None:
    response = Response("ok", reasoning, label="anomalous")
    assert find_contradiction(response) is expected
    assert not find_contradiction(replace(response, status="malformed", label=None))


@pytest.mark.parametrize(
    ("reasoning", "size_wh", "expected"),
    [
        ("There is a dent. So the part is anomalous.", None, True),
        ("There is a scratch, not a dent.", None, False),
        ("There is a scratch or dent.", None, False),
        ("Bright at the bottom right.", None, False),
        ("Bright at the bottom right.", SIZE, True),
        ("Bright at the top left and bottom right.", SIZE, False),
        ("Something is there.", SIZE, False),
    ],
)
def test_kinds_and_places_can_contradict_an_inspections_defects(
    reasoning: str, size_wh: tuple[int, int] | None, expected: bool
) -> None:
    response = Response("ok", reasoning, label="anomalous", regions=(SCRATCH,))
    assert find_contradiction(response, size_wh=size_wh) is expected
    assert not find_contradiction(replace(response, regions=()), size_wh=size_wh)
