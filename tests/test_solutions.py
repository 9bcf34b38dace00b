"""A record's truth travels as one text, and a wrong one is refused by the record's name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from anomalyr1.solutions import read_solution, render_solution
from anomalyr1.types import InputError, Question, Record, Region

QUESTION = Question("Which?", {"A": "Scratch", "B": "Dent"}, "B", "Defect Classification")
REGION = Region((1.5, 2.0, 30.0, 40.0), "crack", "a fine line")
PART = Record("part 7", Path("7.png"), label="anomalous", regions=(REGION,))
ASKED = Record("part 7", Path("7.png"), question=QUESTION)


def render(record: Record) -> str:
    return render_solution(record, (64, 48), (128, 96), "relative_1000")


def test_a_question_comes_back_as_it_went() -> None:
    truth = read_solution(render(ASKED))
    assert (truth.record_id, truth.kind, truth.letter) == ("part 7", "choice", "B")
    assert (truth.options, truth.question_type) == (QUESTION.options, "Defect Classification")


def test_an_inspection_comes_back_as_it_went() -> None:
    truth = read_solution(render(PART))
    assert (truth.kind, truth.label, truth.regions) == ("inspection", "anomalous", (REGION,))
    assert (truth.size_wh, truth.shown_size_wh) == ((64, 48), (128, 96))
    assert truth.frame == "relative_1000"


def test_a_region_without_a_kind_has_the_records() -> None:
    record = replace(PART, regions=(replace(REGION, defect_type=""),), defect_type="hole")
    assert read_solution(render(record)).regions[0].defect_type == "hole"


def test_a_box_is_cut_at_the_pictures_edge() -> None:
    record = replace(PART, regions=(replace(REGION, box_xyxy=(-2.0, 0.0, 70.0, 48.0)),))
    assert read_solution(render(record)).regions[0].box_xyxy == (0.0, 0.0, 64.0, 48.0)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (replace(ASKED, question=replace(QUESTION, answer=None)), "None is not among"),
        (replace(ASKED, question=replace(QUESTION, answer="C")), "'C' is not among the options A"),
        (replace(ASKED, question=replace(QUESTION, options={"B": "Dent"})), "fewer than two"),
        (replace(ASKED, question=Question("?", {"A": "x", "BB": "y"}, "A")), "one letter"),
        (replace(PART, label=None), "set it to normal or anomalous"),
        (replace(PART, label="good"), "'good'"),
        (replace(PART, label="normal"), "normal but has regions"),
        (replace(PART, regions=(Region((9, 9, 9, 20)),)), "covers nothing"),
        (replace(PART, regions=(Region((70, 0, 90, 20)),)), "covers nothing"),
        (replace(PART, regions=(Region((0, 0, float("nan"), 20)),)), "covers nothing"),
    ],
)
def test_a_wrong_truth_is_refused_by_the_records_name(record: Record, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        render(record)
    assert "part 7" in str(caught.value)


def test_sizes_and_frames_are_checked() -> None:
    with pytest.raises(InputError, match="shown_size_wh"):
        render_solution(PART, (64, 48), (0, 96), "absolute")
    with pytest.raises(InputError, match="frame"):
        render_solution(PART, (64, 48), (128, 96), "inches")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"letter": "C"},
        {"kind": "guess"},
        {"options": {"A": "x", "B": 3}},
        {"options": ["x", "y"]},
        {"colour": "red"},
        {"regions": [{"box_xyxy": [1, 2, 3]}]},
    ],
)
def test_a_changed_text_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        read_solution(json.dumps(json.loads(render(ASKED)) | change))


@pytest.mark.parametrize("text", ["", "B", "[]", "null", "{}"])
def test_what_is_no_solution_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="render_solution"):
        read_solution(text)
