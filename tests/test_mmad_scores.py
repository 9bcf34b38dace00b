"""Scores of answers: hand-computed tables, and agreement with the published scorer's arithmetic."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from anomalyr1.data.mmad import SUBTASKS
from anomalyr1.evaluation.answer_checks import find_faults
from anomalyr1.evaluation.answers import load_answers, read_answer
from anomalyr1.evaluation.mmad_scores import Protocol, Table, compute_table
from anomalyr1.evaluation.published import PUBLISHED, REPOSITORY_TABLE
from anomalyr1.evaluation.score_files import write_scores
from anomalyr1.types import InputError

PUBLISHED_TABLES = Path(__file__).parents[2] / "shared" / "data" / "mmad" / "all_result"


def make_answer(
    image: str, right: str, given: object, kind: str = "Anomaly Detection", **fields: object
) -> dict[str, Any]:
    question = {"type": "text", "text": "Is there any defect in the object?", "options": {}}
    return {
        "image": image, "question": question, "question_type": kind, "correct_answer": right,
        "gpt_answer": given, **fields,
    }  # fmt: skip


def score(items: list[dict[str, Any]], protocol: Protocol) -> Table:
    return compute_table([read_answer(item) for item in items], protocol)


def values(table: Table, row: str) -> dict[str, float | None]:
    return {name: cell.value for name, cell in table.rows[row].items()}


def score_as_published(items: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The published arithmetic again, from its description: a list is shortened while walked."""
    items = list(items)
    names = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}
    datasets, kinds = [], []
    for item in items:
        datasets.append(item["image"].split("/")[0])
        kinds.append(names.get(item["question_type"], item["question_type"]))
    seen: dict[tuple[str, str], list[bool]] = {}
    classes: dict[tuple[str, bool], list[bool]] = {}
    for item in items:
        letters = ["A", "B", "C", "D", "E"]
        if item["gpt_answer"] not in letters or item["correct_answer"] not in letters:
            items.remove(item)
            continue
        kind = names.get(item["question_type"], item["question_type"])
        hit = item["gpt_answer"] == item["correct_answer"]
        dataset = item["image"].split("/")[0]
        seen.setdefault((dataset, kind), []).append(hit)
        if kind == "Anomaly Detection":
            classes.setdefault((dataset, "good" in item["image"]), []).append(hit)

    def share(hits: list[bool]) -> float:
        return sum(hits) / len(hits) if hits else 0

    rows: dict[str, dict[str, float]] = {}
    for dataset in dict.fromkeys(datasets):
        row = {kind: share(seen.get((dataset, kind), [])) * 100 for kind in dict.fromkeys(kinds)}
        normal = classes.get((dataset, True), [])
        anomalous = classes.get((dataset, False), [])
        if "Anomaly Detection" in row:
            row["Anomaly Detection"] = (share(normal) + share(anomalous)) / 2 * 100
        row["Average"] = sum(row.values()) / len(row)
        found, alarms = sum(anomalous), len(normal) - sum(normal)
        precision = found / (found + alarms) if found + alarms else 0
        recall = share(anomalous)
        both = precision + recall
        row["Recall"], row["Precision"] = recall * 100, precision * 100
        row["F1"] = (2 * (precision * recall) / both if both else 0) * 100
        row["Overkill"], row["Miss"] = (1 - share(normal)) * 100, (1 - recall) * 100
        rows[dataset] = row
    columns = next(iter(rows.values()))
    rows["Average"] = {
        name: sum(row[name] for row in rows.values()) / len(rows) for name in columns
    }
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_random_answers_score_as_the_published_scorer_counts_them(seed: int) -> None:
    random = Random(seed)
    kinds = [*SUBTASKS, "Object Structure", "Object Details"]
    given = ["A", "B", "C", "D", "E", "a", "", " A", "F", "I cannot tell", None, 3, ["A"]]
    items = [
        make_answer(
            f"{random.choice(['DS-MVTec', 'VisA', 'GoodsAD'])}/nut/"
            f"{random.choice(['good', 'bad', 'goods', 'scratch'])}/{random.randrange(40)}.png",
            random.choice("ABCDE"),
            random.choice(given),
            random.choice(kinds),
        )
        for _ in range(random.choice([3, 40, 600]))
    ]
    table = score(items, "mmad")
    expected = score_as_published(items)
    assert list(table.rows) == list(expected)
    for row, cells in expected.items():
        for column, value in cells.items():
            assert table.rows[row][column].value == pytest.approx(value, abs=1e-9), (row, column)


def score_strictly(items: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """`strict` again, from its description, by plain loops over all answers."""
    rows: dict[str, dict[str, float]] = {}
    for dataset in dict.fromkeys(item["image"].split("/")[0] for item in items):
        row = rows[dataset] = {}
        for kind in SUBTASKS:
            found = [
                (item["label"] == "anomalous", item["gpt_answer"] == item["correct_answer"])
                for item in items
                if item["image"].startswith(f"{dataset}/") and item["question_type"] == kind
            ]
            if found:
                row[kind] = 100 * sum(is_right for _, is_right in found) / len(found)
            if kind != SUBTASKS[0]:
                continue
            caught, missed = found.count((True, True)), found.count((True, False))
            passed, alarms = found.count((False, True)), found.count((False, False))
            recall, overkill = caught / (caught + missed), alarms / (passed + alarms)
            row[kind] = 50 * (recall + 1 - overkill)
            row |= {"Recall": 100 * recall, "Miss": 100 - 100 * recall, "Overkill": 100 * overkill}
            row["Precision"] = 100 * caught / (caught + alarms)
            row["F1"] = 200 * caught / (2 * caught + missed + alarms)
        kinds = [row[kind] for kind in SUBTASKS if kind in row]
        row["Average"] = sum(kinds) / len(kinds)
    rows["Average"] = {}
    for column in next(iter(rows.values())):
        values = [row[column] for row in rows.values() if column in row]
        rows["Average"][column] = sum(values) / len(values)
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_random_answers_score_strictly_as_plain_loops_count_them(seed: int) -> None:
    random = Random(seed)
    items = []
    for number in range(500):
        dataset = random.choice(["DS-MVTec", "VisA", "GoodsAD"])
        kind = random.choice(SUBTASKS[:4] if dataset == "GoodsAD" else SUBTASKS)
        label = random.choice(["normal", "anomalous"])
        right = random.choice("AB")
        given = random.choice([right, right, "A", "B", "C", "E", "a", "", "I cannot tell", None])
        item = make_answer(
            f"{dataset}/nut/goods/{number % 90}.png", right, given, kind, label=label
        )
        item["question"]["options"] = {"A": "Yes.", "B": "No."}
        items.append(item)
    table = score(items, "strict")
    for row, cells in score_strictly(items).items():
        for column, value in cells.items():
            assert table.rows[row][column].value == pytest.approx(value, abs=1e-9), (row, column)
    unread = sum(item["gpt_answer"] not in ("A", "B") for item in items)
    assert table.rows["Average"]["Average"].num_unread == unread


def test_an_unread_answer_takes_the_one_behind_it_along_as_published() -> None:
    images = [f"VisA/nut/good/{number}.png" for number in range(6)]
    items = [
        make_answer(image, "A", given)
        for image, given in zip(images, ["A", "?", "B", "?", "?", "A"], strict=True)
    ]
    cell = score(items, "mmad").rows["VisA"]["Overkill"]
    assert (cell.value, cell.n, cell.num_unread, cell.num_skipped) == (0.0, 2, 3, 1)
    strict = score(items, "strict").rows["VisA"]["Overkill"]
    assert strict.value == pytest.approx(100 * 4 / 6)
    assert (strict.n, strict.num_unread, strict.num_skipped) == (6, 3, 0)


HAND = [
    make_answer("VisA/nut/good/1.png", "B", "B"),
    make_answer("VisA/nut/good/2.png", "B", "A"),
    make_answer("VisA/nut/bad/3.png", "A", "A"),
    make_answer("VisA/nut/bad/4.png", "A", "A"),
    make_answer("VisA/nut/bad/5.png", "A", "B"),
    make_answer("VisA/nut/bad/5.png", "C", "C", "Object Details"),
    make_answer("VisA/nut/bad/4.png", "C", "D", "Object Structure"),
    make_answer("GoodsAD/box/good/1.png", "A", "A"),
]


def test_a_table_computed_by_hand_with_the_published_faults() -> None:
    table = score(HAND, "mmad")
    assert values(table, "VisA") == pytest.approx(
        {
            "Anomaly Detection": (50 + 200 / 3) / 2, "Object Analysis": 50.0,
            "Average": ((50 + 200 / 3) / 2 + 50) / 2, "Recall": 200 / 3, "Precision": 200 / 3,
            "F1": 200 / 3, "Overkill": 50.0, "Miss": 100 / 3,
        }
        | dict.fromkeys(SUBTASKS[1:6])
    )  # fmt: skip
    goods = values(table, "GoodsAD")
    assert goods["Anomaly Detection"] == 50.0  # no anomalous picture counts as 0
    assert goods["Object Analysis"] == 0.0  # no question counts as 0
    assert goods["Average"] == 25.0
    assert (goods["Recall"], goods["Precision"], goods["Miss"]) == (0.0, 0.0, 100.0)
    average = values(table, "Average")
    assert average["Average"] == pytest.approx((((50 + 200 / 3) / 2 + 50) / 2 + 25) / 2)


def test_strict_leaves_empty_cells_out_and_means_over_what_there_is() -> None:
    table = score(HAND, "strict")
    goods = values(table, "GoodsAD")
    assert goods["Anomaly Detection"] is None
    assert goods["Object Analysis"] is None
    assert goods["Overkill"] == 0.0
    assert goods["Recall"] is None and goods["F1"] is None and goods["Precision"] is None
    average = values(table, "Average")
    assert average["Object Analysis"] == 50.0
    assert average["Average"] == pytest.approx(((50 + 200 / 3) / 2 + 50) / 2)


def test_strict_takes_the_class_from_the_right_option_and_not_from_the_path() -> None:
    options = {"A": "Yes.", "B": "No."}
    question = {"text": "Is there any defect in the object?", "options": options}
    items = [
        make_answer("VisA/goods/bad/1.png", "A", "A", question=question),
        make_answer("VisA/goods/x/2.png", "B", "A", question=question),
    ]
    row = score(items, "strict").rows["VisA"]
    assert (row["Recall"].value, row["Overkill"].value) == (100.0, 100.0)
    assert score(items, "mmad").rows["VisA"]["Recall"].n == 0


def test_a_question_for_a_normal_part_is_not_taken_for_one_of_a_defect() -> None:
    options = {"A": "Yes.", "B": "No."}
    question = {"text": "Is the part free of defects?", "options": options}
    items = [make_answer("VisA/nut/good/1.png", "A", "A", question=question)]
    assert score(items, "strict").rows["VisA"]["Overkill"].value == 0.0


def test_a_letter_outside_of_the_options_is_unread_in_strict_and_said() -> None:
    question = {"text": "Is there any defect?", "options": {"A": "Yes.", "B": "No."}}
    items = [make_answer("VisA/nut/bad/1.png", "A", "E", question=question)]
    assert score(items, "strict").rows["VisA"]["Miss"].num_unread == 1
    assert score(items, "mmad").rows["VisA"]["Miss"].num_unread == 0
    answers = [read_answer(item) for item in items * 2]
    said = " ".join(find_faults(answers))
    assert "2 answers are a letter that is not among the question's options" in said
    assert "1 questions are answered more than once (1 answers too many" in said


def test_intervals_hold_their_value_and_tell_few_answers_from_many() -> None:
    few = score(HAND, "strict").rows["VisA"]["Recall"]
    many = score(
        [{**item, "image": f"{item['image']}{copy}"} for item in HAND for copy in range(30)],
        "strict",
    ).rows["VisA"]["Recall"]
    for cell in (few, many):
        assert cell.ci_low is not None and cell.ci_high is not None and cell.value is not None
        assert cell.ci_low < cell.value < cell.ci_high
    assert (many.ci_high or 0) - (many.ci_low or 0) < (few.ci_high or 0) - (few.ci_low or 0)


def test_the_table_is_written_as_it_is_published(tmp_path: Path) -> None:
    write_scores(tmp_path, score(HAND, "mmad"), settings={"model": "x"})
    rows = list(csv.reader((tmp_path / "scores.csv").open()))
    assert rows[0] == ["", *SUBTASKS, "Average", "Recall", "Precision", "F1", "Overkill", "Miss"]
    assert [row[0] for row in rows[1:]] == ["VisA", "GoodsAD", "Average"]
    assert float(rows[1][1]) == score(HAND, "mmad").rows["VisA"]["Anomaly Detection"].value
    document = json.loads((tmp_path / "scores.json").read_text())
    cell: Mapping[str, Any] = document["scores"]["VisA"]["Overkill"]
    assert (cell["value"], cell["n"], cell["unread"]) == (50.0, 2, 0)
    assert document["scores"]["VisA"]["TNR"]["value"] == 50.0
    assert document["protocol"] == "mmad" and document["settings"] == {"model": "x"}


@pytest.mark.skipif(not PUBLISHED_TABLES.is_dir(), reason=f"{PUBLISHED_TABLES} is not there")
def test_the_published_tables_have_these_columns_and_their_means_are_ours() -> None:
    for path in PUBLISHED_TABLES.glob("*.csv"):
        header, *rows = csv.reader(path.open())
        assert header[1:12] == [*SUBTASKS, "Average", "Recall", "Precision", "F1"], path.name
        for row in rows:
            cells = [float(text) for text in row[1:]]
            assert sum(cells[:7]) / 7 == pytest.approx(cells[7], abs=1e-9)
        for column in range(1, len(header)):
            numbers = [float(row[column]) for row in rows]
            assert math.fsum(numbers[:-1]) / 4 == pytest.approx(numbers[-1], abs=1e-9)


@pytest.mark.skipif(not PUBLISHED_TABLES.is_dir(), reason=f"{PUBLISHED_TABLES} is not there")
def test_quoted_rows_that_are_called_confirmed_are_those_of_the_repository_s_tables() -> None:
    found = {row.method: row for row in PUBLISHED if row.confirmed == REPOSITORY_TABLE}
    assert len(found) == 2
    files = {
        "Qwen2.5-VL-7B": "answers_1_shot_Qwen2.5-VL-7B-Instruct_accuracy.csv",
        "Qwen2.5-VL-72B-AWQ": "answers_1_shot_Qwen2.5-VL-72B-Instruct-AWQ_accuracy.csv",
    }
    for method, row in found.items():
        last = list(csv.DictReader((PUBLISHED_TABLES / files[method]).open()))[-1]
        quoted = dict(row.cells) | {"Average": row.average, "Anomaly Detection": row.detection}
        for column, value in quoted.items():
            assert value == round(float(last[column]), 2), (method, column)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no answers"),
        ('[{"image": "VisA/a.png"', "cut off"),
        ('[{"image": "VisA/a.png", "question_type": "x", "correct_answer": "A"}]', "gpt_answer"),
        ('[{"image": 3, "question_type": "x", "correct_answer": "A"}]', "image is 3"),
        ('{"image": "a/b.png", "ques', "line 1: is not JSON"),
        ("[3]", "answer 1: is a int"),
    ],
)
def test_a_faulty_file_of_answers_is_refused_with_its_place(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        load_answers(path)
