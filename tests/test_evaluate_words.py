"""What the labels and the reasoning name, against hand-counted kinds and places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders import make_picture

from anomalyr1.evaluation.records import compute_metrics, explain_undefined
from anomalyr1.training.validation import Answered, compute_validation
from anomalyr1.types import (
    Box,
    Completion,
    Defect,
    Finding,
    InputError,
    Metric,
    Record,
    Region,
    Response,
)

SIZE = (90, 90)
TOP_LEFT: Box = (10, 10, 20, 20)
CENTRE: Box = (40, 40, 50, 50)
BOTTOM: Box = (40, 70, 50, 80)
WORDS = ("label_accuracy", "label_chance", "place_accuracy", "place_chance")


def make_record(
    record_id: str, *regions: tuple[Box, str], category: str = "nut", **fields: Any
) -> Record:
    return Record(
        record_id,
        Path(f"{record_id}.png"),
        label="anomalous",
        category=category,
        regions=tuple(Region(box, kind) for box, kind in regions),
        **fields,
    )


def make_finding(
    record_id: str, *defects: tuple[Box, str], reasoning: str = "", **fields: Any
) -> Finding:
    return Finding(
        record_id,
        f"{record_id}.png",
        **{"verdict": "anomalous", "image_size_wh": SIZE} | fields,
        reasoning=reasoning,
        defects=tuple(Defect(label, "", box) for box, label in defects),
    )


def measure(
    records: Sequence[Record], findings: Sequence[Finding]
) -> dict[tuple[str, str], Metric]:
    metrics = compute_metrics(records, findings, maps=lambda _: None, masks=lambda _: None)
    return {(metric.subset, metric.name): metric for metric in metrics}


@pytest.mark.parametrize(
    ("true", "said", "is_right"),
    [
        ("missing_parts", "missing part", True),
        ("missing part", "Missing-Parts", True),
        ("faulty_imprint", "faulty imprint", True),  # a name of its data set alone
        ("crack", "cracks", True),
        ("crack", "scratch", False),
        ("crack", "defect", False),
        ("crack", "", False),
    ],
)
def test_a_label_is_right_under_any_spelling_of_its_kind(
    true: str, said: str, is_right: bool
) -> None:
    records = [make_record("a", (CENTRE, true))]
    measured = measure(records, [make_finding("a", (CENTRE, said))])
    label = measured["all", "label_accuracy"]
    assert (label.value, label.n, label.n_unreadable) == (float(is_right), 1, 0)
    assert measured["nut", "label_accuracy"] == Metric(
        "label_accuracy", "nut", label.value, 1, 0, label.ci_low, label.ci_high
    )
    assert label.ci_low is not None


@pytest.mark.parametrize(
    ("region_kind", "record_kind", "n"),
    [("", "crack", 1), ("crack", "combined", 1), ("defect", "crack", 0), ("", "anomaly", 0)],
)
def test_only_boxes_of_known_kind_count_for_labels(
    region_kind: str, record_kind: str, n: int
) -> None:
    records = [make_record("a", (CENTRE, region_kind), defect_type=record_kind)]
    measured = measure(records, [make_finding("a", (CENTRE, "crack"))])
    label = measured["all", "label_accuracy"]
    assert (label.value, label.n) == ((1.0, 1) if n else (None, 0))
    if not n:
        assert explain_undefined(label) == (
            "undefined: needs ground-truth boxes of known kind that a predicted box meets"
        )
    assert measured["all", "place_accuracy"].n == 1


@pytest.mark.parametrize(("bottom", "n"), [(90, 1), (91, 0)])
def test_a_box_meets_another_from_an_iou_of_a_tenth_on(bottom: float, n: int) -> None:
    records = [make_record("a", ((0, 0, 10, 9), "crack"))]
    measured = measure(records, [make_finding("a", ((0, 0, 10, bottom), "crack"))])
    assert measured["all", "label_accuracy"].n == n
    assert measured["all", "box_accuracy_iou10"].value == n


def test_labels_are_counted_over_the_boxes_that_are_met_one_to_one() -> None:
    records = [
        make_record("a", (TOP_LEFT, "crack"), (BOTTOM, "dent")),
        make_record("b", (CENTRE, "dent"), (TOP_LEFT, "dent")),
        make_record("c", (CENTRE, "hole")),
    ]
    findings = [
        # Labels are those of the boxes at their places, not of the picture in any order.
        make_finding("a", (BOTTOM, "crack"), (TOP_LEFT, "crack")),
        # The second box of the same place is nobody's.
        make_finding("b", (CENTRE, "dent"), (CENTRE, "stain")),
        make_finding("c", (BOTTOM, "hole")),
    ]
    measured = measure(records, findings)
    label, chance = measured["all", "label_accuracy"], measured["all", "label_chance"]
    assert (label.value, label.n) == pytest.approx((2 / 3, 3))
    assert (chance.value, chance.n) == pytest.approx((2 / 3, 3)), "two of the three are dents"
    assert measured["all", "box_accuracy_iou10"].value == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("reasoning", "is_right"),
    [
        ("There is a crack at the top left.", True),
        ("There is a crack at the upper left and one at the bottom.", True),
        ("There is a crack at the top left and at the centre.", False),
        ("There is a crack at the top.", False),
        ("There is a crack.", False),
        ("", False),
        ("There is no crack at the top left.", False),
        ("Nothing is at the centre, but there is a crack at the bottom.", True),
    ],
)
def test_a_place_is_right_where_each_that_is_named_holds_a_true_box(
    reasoning: str, is_right: bool
) -> None:
    records = [make_record("a", (TOP_LEFT, "crack"), (BOTTOM, ""))]
    place = measure(records, [make_finding("a", reasoning=reasoning)])["nut", "place_accuracy"]
    assert (place.value, place.n) == (float(is_right), 1)
    assert place.ci_low == pytest.approx(0.2065 if is_right else 0.0, abs=1e-4)


@pytest.mark.parametrize("how", ["verdict", "error", "absent"])
def test_an_unread_answer_names_no_place_and_meets_no_box(how: str, tmp_path: Path) -> None:
    said = ((CENTRE, "crack"),)
    records = [make_record("a", *said), make_record("b", *said)]
    findings = [make_finding(name, *said, reasoning="Bright at the centre.") for name in "ab"]
    if how == "verdict":
        findings[1] = make_finding("b", *said, reasoning="At the centre.", verdict="unread")
    elif how == "error":
        findings[1] = make_finding("b", verdict="unread", error="cut off", image_size_wh=None)
    else:
        del findings[1]
    measured = measure(records, findings)
    place, label = measured["all", "place_accuracy"], measured["all", "label_accuracy"]
    assert (place.value, place.n, place.n_unreadable) == (0.5, 2, 1)
    assert (label.value, label.n, label.n_unreadable) == (1.0, 1, 1)


def test_the_size_of_the_picture_that_places_need_comes_from_its_file(tmp_path: Path) -> None:
    record = make_record("a", (TOP_LEFT, "crack"))
    finding = make_finding("a", reasoning="A crack at the bottom right.", image_size_wh=None)
    with pytest.raises(InputError, match=r"a\.png"):
        measure([record], [finding])
    picture = make_picture(tmp_path / "a.png", (20, 20))
    shown = Record("a", picture, label="anomalous", regions=record.regions)
    assert measure([shown], [finding])["all", "place_accuracy"].value == 1.0


def test_chance_is_the_commonest_word_of_those_counted() -> None:
    kinds = ("crack", "crack", "dent", "dent", "dent")
    places = (CENTRE, CENTRE, BOTTOM, TOP_LEFT, CENTRE)
    records, findings = [], []
    for index, (kind, box) in enumerate(zip(kinds, places, strict=True)):
        category = "nut" if index < 3 else "bolt"
        records.append(make_record(f"{index}", (box, kind), category=category))
        findings.append(make_finding(f"{index}", (box, "stain"), reasoning="At the right."))
    measured = measure(records, findings)
    expected = {
        ("all", "label_chance"): 3 / 5,
        ("all", "place_chance"): 3 / 5,
        ("nut", "label_chance"): 2 / 3,
        ("nut", "place_chance"): 2 / 3,
        ("bolt", "label_chance"): 1.0,
        ("bolt", "place_chance"): 1 / 2,
        ("mean", "label_chance"): (2 / 3 + 1) / 2,
        ("mean", "place_chance"): (2 / 3 + 1 / 2) / 2,
    }
    assert {key: measured[key].value for key in expected} == pytest.approx(expected)
    assert [measured["all", name].value for name in ("label_accuracy", "place_accuracy")] == [0, 0]


def test_a_place_that_two_defects_share_counts_once() -> None:
    records = [
        make_record("a", (CENTRE, ""), ((38, 38, 42, 42), "")),
        make_record("b", (BOTTOM, "")),
        make_record("c", (BOTTOM, "")),
    ]
    findings = [make_finding(name, reasoning="At the bottom.") for name in "abc"]
    measured = measure(records, findings)
    assert measured["all", "place_chance"].value == pytest.approx(2 / 3)
    assert measured["all", "place_accuracy"].value == pytest.approx(2 / 3)


def test_words_are_undefined_without_true_boxes() -> None:
    normal = Record("good", Path("good.png"), label="normal", category="nut")
    unmarked = Record("bad", Path("bad.png"), label="anomalous", category="nut", defect_type="dent")
    said = {"reasoning": "A dent at the centre."}
    findings = [make_finding(name, (CENTRE, "dent"), **said) for name in ("good", "bad")]
    measured = measure([normal, unmarked], findings)
    for name in WORDS:
        assert (measured["all", name].value, measured["mean", name].n) == (None, 0)
    assert explain_undefined(measured["all", "place_chance"]) == (
        "undefined: needs anomalous pictures with ground-truth boxes"
    )


def test_a_validation_measures_the_words_too(tmp_path: Path) -> None:
    picture = make_picture(tmp_path / "a.png", SIZE)
    record = Record("a", picture, label="anomalous", regions=(Region(CENTRE, "crack"),))
    response = Response(
        "ok", "A crack at the centre.", "anomalous", regions=(Region(CENTRE, "dent"),)
    )
    metrics = compute_validation([Answered(record, Completion("a", ""), response, False)])
    values = {metric.name: metric.value for metric in metrics}
    assert (values["label_accuracy"], values["place_accuracy"]) == (0.0, 1.0)
