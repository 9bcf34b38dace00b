"""An inspection's answer -> verdict and boxes in original pixels, or unread with its reason."""

from __future__ import annotations

import json

import pytest

from anomalyr1.parsing import (
    parse_inspection,
)
from anomalyr1.types import Region, Response


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
