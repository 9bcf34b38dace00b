"""ROAM's table row by row, its extension's invariants, and the other rewards."""

from __future__ import annotations

import doctest
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomalyr1.geometry import box_iou
from anomalyr1.rewards import (
    HARD_WORDS,
    REWARDS,
    SOFT_WORDS,
    box_iou_reward,
    format_reward,
    label_reward,
    length_reward,
    load_rewards,
    outcome_reward,
    published_reward,
    roam_reward,
)
from anomalyr1.solutions import render_solution
from anomalyr1.types import Box, InputError, Question, Record, Region

METHOD = Path(__file__).parent.parent / "docs" / "method.md"
SIZE = (90, 90)
QUESTION = Question("Which?", {"A": "Scratch", "B": "Dent", "C": "Crack"}, "B")
AGREES = "So the part is anomalous."


def solve(record: Record, size_wh: tuple[int, int] = SIZE) -> str:
    return render_solution(record, size_wh, size_wh, "absolute")


CHOICE = solve(Record("q", Path("q.png"), question=QUESTION))
NORMAL = solve(Record("n", Path("n.png"), label="normal"))
UNMARKED = solve(Record("u", Path("u.png"), label="anomalous"))


def mark(*regions: Region) -> str:
    return solve(Record("m", Path("m.png"), label="anomalous", regions=regions))


SCRATCH = Region((0, 0, 30, 30), "scratch")
DENT = Region((60, 60, 90, 90), "dent")


def answer(letter: str, reasoning: str = "") -> str:
    return f"<think>{reasoning}</think><answer>{letter}</answer>"


def inspect(label: str, defects: Sequence[tuple[Box, str]] = (), reasoning: str = "") -> str:
    listed = [{"bbox_2d": list(box), "label": kind, "description": ""} for box, kind in defects]
    return answer(json.dumps({"verdict": label, "defects": listed}), reasoning)


def value(reward: object, text: object, solution: str | None) -> float | None:
    (found,) = reward([text], [solution])  # type: ignore[operator]
    return found  # type: ignore[no-any-return]


def roam(text: object, solution: str) -> float:
    found = value(roam_reward, text, solution)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So the answer is B. B", 0.0),
        (answer("nothing of it", "Hm."), 0.0),
        (answer("B", "A scratch is visible, because of it."), 0.8),
        (answer("A", "A scratch is visible, because of it."), 0.05),
        (answer("B", "So the answer is B."), 1.0),
        (answer("A", "So the answer is A."), 0.1),
        (answer("A", "So the answer is C."), 0.0),
        (answer("A", "So the answer is B."), 0.0),
        (answer("B", "So the answer is A."), 0.0),
    ],
    ids=[
        "not well formed",
        "none, none",
        "none, right",
        "none, wrong",
        "right, right",
        "wrong, same wrong",
        "wrong, another wrong",
        "right, wrong",
        "wrong, right",
    ],
)
def test_a_question_earns_what_the_published_table_says(text: str, expected: float) -> None:
    assert roam(text, CHOICE) == expected


@pytest.mark.parametrize("truth", [NORMAL, UNMARKED], ids=["normal", "unmarked"])
def test_where_only_the_verdict_counts_an_inspection_earns_what_the_table_says(truth: str) -> None:
    right, wrong = ("normal", "anomalous") if truth is NORMAL else ("anomalous", "normal")
    said = {label: f"So the part is {label}." for label in (right, wrong)}
    cases = [
        (inspect(right), 0.8),
        (inspect(wrong), 0.05),
        (inspect(right, reasoning=said[right]), 1.0),
        (inspect(wrong, reasoning=said[wrong]), 0.1),
        (inspect(wrong, reasoning=said[right]), 0.0),
        (inspect(right, reasoning=said[wrong]), 0.0),
        (answer("fine", said[right]), 0.0),
        (f"{said[right]} {right}", 0.0),
    ]
    assert [roam(text, truth) for text, _ in cases] == [expected for _, expected in cases]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<answer>B</answer>",
        "<answer>B</answer><think>So B.</think>",
        "<think>So B.</think><answer>B",
        "<think>So B.</think><answer>B</answer><answer>B</answer>",
        "<think>So B.<think></think></think><answer>B</answer>",
        "Well: <think>So B.</think><answer>B</answer>",
        "<think>So B.</think> hence <answer>B</answer>",
        "<think>So B.</think><answer>A and B</answer>",
        "<think>So B.</think><answer>E</answer>",
        "<think>So B.</think><answer>Based on the picture</answer>",
    ],
)
def test_what_is_unread_earns_nothing_in_any_reward(text: str) -> None:
    for truth in (CHOICE, NORMAL, UNMARKED, mark(SCRATCH)):
        assert {value(reward, text, truth) for reward in REWARDS.values()} <= {0.0, None}


def test_the_documented_example_is_what_the_code_computes() -> None:
    failed, attempted = doctest.testfile(str(METHOD), module_relative=False)
    assert (failed, attempted > 8) == (0, True)


def test_the_documented_table_is_the_published_one() -> None:
    rows = [line for line in METHOD.read_text().splitlines() if line.startswith("| well formed |")]
    assert [row.split("|")[4].strip() for row in rows] == [
        *("0.00", "0.80", "0.05", "1.00"),
        *("0.10", "0.00", "0.00", "0.00"),
    ]


def test_a_perfect_inspection_earns_one() -> None:
    defects = [(SCRATCH.box_xyxy, "scratch"), (DENT.box_xyxy, "dent")]
    text = inspect("anomalous", defects, f"A scratch at the top left. {AGREES}")
    assert roam(text, mark(SCRATCH, DENT)) == 1.0


def test_kinds_and_places_in_the_reasoning_count_when_truth_and_answer_bear_them_out() -> None:
    defects, truth = [(SCRATCH.box_xyxy, "scratch")], mark(SCRATCH)
    elsewhere = [((60.0, 60.0, 90.0, 90.0), "dent")]
    right = "There is a scratch at the top left. "
    wrong = "There is a dent at the bottom right. "
    earned = [
        roam(inspect("anomalous", defects, right + AGREES), truth),
        roam(inspect("anomalous", defects, AGREES), truth),
        roam(inspect("anomalous", defects, wrong + AGREES), truth),
        roam(inspect("anomalous", defects, wrong), truth),
        roam(inspect("anomalous", elsewhere, AGREES), truth),
        roam(inspect("anomalous", elsewhere, right + AGREES), truth),
        roam(inspect("anomalous", elsewhere, "So the part is normal."), truth),
    ]
    assert earned == sorted(earned, reverse=True)
    assert len(set(earned)) == len(earned)


def test_a_wrong_kind_said_and_answered_alike_costs_less_than_saying_another() -> None:
    truth, text = mark(SCRATCH), [(SCRATCH.box_xyxy, "dent")]
    said = [f"There is a {kind}. {AGREES}" for kind in ("dent", "crack", "scratch")]
    alike, other, true = (roam(inspect("anomalous", text, reasoning), truth) for reasoning in said)
    assert alike == roam(inspect("anomalous", text, AGREES), truth)
    assert true == other < alike


def test_a_spurious_box_costs_as_much_as_a_missed_defect() -> None:
    first, second = (SCRATCH.box_xyxy, "scratch"), (DENT.box_xyxy, "dent")
    spurious = roam(inspect("anomalous", [first, second], AGREES), mark(SCRATCH))
    missed = roam(inspect("anomalous", [first], AGREES), mark(SCRATCH, DENT))
    assert spurious == pytest.approx(missed)
    assert spurious < roam(inspect("anomalous", [first], AGREES), mark(SCRATCH))


COORDINATE = st.integers(0, 80)
BOX = st.tuples(COORDINATE, COORDINATE, st.integers(1, 40), st.integers(1, 40)).map(
    lambda sides: (
        float(sides[0]),
        float(sides[1]),
        float(min(90, sides[0] + sides[2])),
        float(min(90, sides[1] + sides[3])),
    )
)
KIND = st.sampled_from(["scratch", "dent", "crack", "defect"])
DEFECTS = st.lists(st.tuples(BOX, KIND), max_size=3)
CLAIMS = st.sampled_from(
    ["", "A scratch.", "A dent at the left.", "Bright at the top left.", "No crack. In the centre."]
)


def truth_of(defects: Sequence[tuple[Box, str]]) -> str:
    return mark(*(Region(box, kind) for box, kind in defects))


@settings(max_examples=60, deadline=None)
@given(DEFECTS, DEFECTS, CLAIMS)
def test_a_contradiction_or_silence_never_earns_more_than_agreement(
    true: list[tuple[Box, str]], predicted: list[tuple[Box, str]], claims: str
) -> None:
    truth = truth_of(true)
    agreed = roam(inspect("anomalous", predicted, f"{claims} {AGREES}"), truth)
    silent = roam(inspect("anomalous", predicted, claims), truth)
    contradicting = roam(inspect("anomalous", predicted, "So the part is normal."), truth)
    assert 0 == contradicting < silent <= agreed <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(BOX, KIND), min_size=1, max_size=3), DEFECTS, CLAIMS, st.data())
def test_more_iou_never_earns_less(
    true: list[tuple[Box, str]],
    predicted: list[tuple[Box, str]],
    claims: str,
    data: st.DataObject,
) -> None:
    before = [*predicted, (data.draw(BOX), data.draw(KIND))]
    after = [
        *predicted,
        (data.draw(BOX | st.sampled_from([box for box, _ in true])), before[-1][1]),
    ]
    rise = [box_iou(after[-1][0], box) - box_iou(before[-1][0], box) for box, _ in true]
    if min(rise) < 0:
        before, after = after, before
        rise = [-gain for gain in rise]
    if min(rise) < 0:
        return  # nearer to one defect and farther from another: not more IoU
    truth, reasoning = truth_of(true), f"{claims} {AGREES}"
    for reward in (roam_reward, outcome_reward, box_iou_reward):
        less = value(reward, inspect("anomalous", before, reasoning), truth)
        more = value(reward, inspect("anomalous", after, reasoning), truth)
        assert less is not None and more is not None
        assert more >= less - 1e-9


@settings(max_examples=60, deadline=None)
@given(DEFECTS, DEFECTS, BOX, CLAIMS)
def test_another_box_earns_no_more_for_boxes_unless_it_matches(
    true: list[tuple[Box, str]], predicted: list[tuple[Box, str]], box: Box, claims: str
) -> None:
    if any(box_iou(box, other) > 0 for other, _ in true):
        return
    truth = truth_of(true)
    fewer = value(box_iou_reward, inspect("anomalous", predicted, claims), truth)
    more = value(box_iou_reward, inspect("anomalous", [*predicted, (box, "dent")], claims), truth)
    if fewer is None or more is None:
        assert fewer is more is None
    else:
        assert more <= fewer


PIECES = (
    '<think> </think> <answer> </answer> So the answer is B. {"verdict": "anomalous", "defects": '
    '[]} [{"bbox_2d": [0,0,9,9]}]} normal } " B'
)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=200), st.lists(st.sampled_from(PIECES.split()), max_size=20).map(" ".join)
    )
)
def test_any_text_gets_a_number_in_range(text: str) -> None:
    for truth in (CHOICE, NORMAL, UNMARKED, mark(SCRATCH)):
        for name, reward in REWARDS.items():
            earned = value(reward, text, truth)
            assert earned is None or 0 <= earned <= (2 if name == "published_reward" else 1)


GOOD = answer("B", "So the answer is B.")


@pytest.mark.parametrize(
    "completion",
    [
        GOOD,
        [{"role": "assistant", "content": GOOD}],
        [{"role": "assistant", "content": [{"type": "text", "text": GOOD}]}],
        [{"role": "assistant", "content": [{"type": "text", "text": part} for part in GOOD]}],
    ],
    ids=["plain", "conversation", "text part", "many text parts"],
)
def test_plain_and_conversational_completions_earn_the_same(completion: object) -> None:
    assert roam(completion, CHOICE) == 1.0


def test_a_reward_takes_trls_columns_and_answers_in_order() -> None:
    found = roam_reward(
        prompts=["", "", ""],
        completions=[GOOD, answer("A"), inspect("normal")],
        completion_ids=[[1], [2], [3]],
        solution=[CHOICE, None, NORMAL],
        record_id=["q", "x", "n"],
        trainer_state=None,
    )
    assert found == [1.0, None, 0.8]


def test_fewer_truths_than_completions_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        roam_reward([GOOD, GOOD], [CHOICE])


@pytest.mark.parametrize("wrong", ["", "B", "[]", '{"kind": "choice"}'])
def test_a_reward_does_not_swallow_a_wrong_truth(wrong: str) -> None:
    for reward in REWARDS.values():
        with pytest.raises(InputError, match="render_solution"):
            reward([GOOD], [wrong])


def test_outcome_of_a_question_is_one_or_nothing() -> None:
    texts = [answer("B", "So the answer is A."), answer("Dent"), answer("A"), "B"]
    assert outcome_reward(texts, [CHOICE] * 4) == [1.0, 1.0, 0.0, 0.0]


def test_the_published_reward_is_the_sum() -> None:
    texts = [GOOD, answer("B"), answer("A", "So the answer is A."), "B"]
    assert published_reward(texts, [CHOICE] * 4) == [2.0, 1.8, 0.1, 0.0]


def test_rewards_without_such_a_truth_are_none() -> None:
    unnamed = mark(Region((0, 0, 9, 9), "defect"))
    texts = [GOOD, inspect("normal"), inspect("anomalous"), inspect("anomalous")]
    truths = [CHOICE, NORMAL, UNMARKED, unnamed]
    assert box_iou_reward(texts, truths) == [None, None, None, 0.0]
    assert label_reward(texts, truths) == [None, None, None, None]
    assert format_reward(texts, truths) == [1.0] * 4


@pytest.mark.parametrize(
    ("predicted", "boxes", "labels"),
    [
        ([((0, 0, 30, 15), "Scratches")], 0.25, 0.5),
        ([((0, 0, 30, 30), "scratch"), ((60, 60, 90, 90), "dent")], 1.0, 1.0),
        ([((0, 0, 30, 30), "dent"), ((60, 60, 90, 90), "scratch")], 1.0, 1.0),
        ([((0, 0, 30, 30), "scratch")] * 4, 0.25, 0.25),
        ([], 0.0, 0.0),
    ],
)
def test_boxes_and_labels_are_counted_over_the_larger_number(
    predicted: list[tuple[Box, str]], boxes: float, labels: float
) -> None:
    text, truth = inspect("anomalous", predicted), mark(SCRATCH, DENT)
    assert value(box_iou_reward, text, truth) == boxes
    assert value(label_reward, text, truth) == labels


def test_defects_of_unknown_kind_are_left_out_of_the_labels() -> None:
    truth = mark(SCRATCH, Region((60, 60, 90, 90), "defect"))
    both = [(SCRATCH.box_xyxy, "scratch"), (DENT.box_xyxy, "dent")]
    assert value(label_reward, inspect("anomalous", both), truth) == 1.0


def test_length_falls_smoothly_between_its_limits() -> None:
    counts = [0, SOFT_WORDS, SOFT_WORDS + 1, (SOFT_WORDS + HARD_WORDS) // 2, HARD_WORDS, 999]
    texts = [answer("B", "word " * count) for count in counts]
    earned = [number or 0.0 for number in length_reward(texts, [CHOICE] * len(texts))]
    assert earned[:2] == [1.0, 1.0] and earned[-2:] == [0.0, 0.0]
    assert 0.99 < earned[2] < 1 and math.isclose(earned[3], 0.5)


def test_rewards_are_named_as_trl_logs_them() -> None:
    assert all(reward.__name__ == name for name, reward in REWARDS.items())
    assert load_rewards(["length_reward", "roam_reward"]) == [length_reward, roam_reward]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["roam"], "did you mean roam_reward"),
        (["box_reward"], "did you mean box_iou_reward"),
        (["?"], "choose from roam_reward"),
        ([], "no reward"),
        (["roam_reward", "roam_reward"], "twice"),
    ],
)
def test_an_unusable_choice_of_rewards_is_explained(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_rewards(names)
