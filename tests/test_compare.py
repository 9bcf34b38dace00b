"""Runs compared on the same questions: what changed, how sure that is, and the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture
from PIL import Image
from playwright.sync_api import Browser
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.data.mmad import SUBTASKS
from anomalyr1.data.near_duplicates import load_fingerprints
from anomalyr1.data.records import write_records
from anomalyr1.evaluation.answers import Answer
from anomalyr1.evaluation.compare import build_run, compute_difference, find_common
from anomalyr1.evaluation.compare_report import show_difference
from anomalyr1.evaluation.overlap import compute_overlap
from anomalyr1.types import InputError, Record

OPTIONS = {"A": "Yes.", "B": "No."}


def answer(number: int, given: str, right: str = "A") -> Answer:
    return Answer(
        f"VisA/nut/bad/{number}.png", "Anomaly Detection", right, given, "Any defect?", OPTIONS
    )


def test_questions_won_and_lost_are_those_that_changed() -> None:
    first = build_run("first", [answer(0, "A"), answer(1, "B"), answer(2, "A"), answer(3, "")])
    other = build_run("other", [answer(0, "A"), answer(1, "A"), answer(2, ""), answer(3, "A")])
    found = compute_difference(first, other, find_common([first, other]))
    assert [key[0][-5] for key in found.won] == ["1", "3"]
    assert [key[0][-5] for key in found.lost] == ["2"]
    assert found.points == 25.0
    assert not found.is_clear


def test_a_change_on_every_question_is_clear_and_none_has_no_width() -> None:
    worse = build_run("worse", [answer(number, "B") for number in range(40)])
    better = build_run("better", [answer(number, "A") for number in range(40)])
    clear = compute_difference(worse, better, find_common([worse, better]))
    assert (clear.points, clear.ci_low, clear.ci_high) == (100.0, 100.0, 100.0)
    same = compute_difference(worse, worse, find_common([worse, worse]))
    assert (same.points, same.ci_low, same.ci_high, same.won) == (0.0, 0.0, 0.0, ())


def test_runs_that_cannot_be_compared_are_refused_with_the_question() -> None:
    first = build_run("first", [answer(0, "A")])
    with pytest.raises(InputError, match="no question in common"):
        find_common([first, build_run("other", [answer(1, "A")])])
    with pytest.raises(InputError, match=r"different right answers \(No\., Yes\.\)"):
        find_common([first, build_run("other", [answer(0, "A", "B")])])
    with pytest.raises(InputError, match=r"first: VisA/nut/bad/0.png.* answered twice"):
        build_run("first", [answer(0, "A"), answer(0, "B")])
    asked_twice = build_run("first", [answer(0, "A"), answer(0, "A"), answer(1, "B")])
    assert len(asked_twice.answers) == 2


def publish(one: Answer, order: str, given: str) -> Answer:
    """An answer as published runners write it: a heading, options shuffled and in the text."""
    options = dict(zip("AB", (one.options[letter] for letter in order), strict=True))
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    right = next(letter for letter, text in options.items() if text == one.right_text)
    text = f"Question 1: {one.question} \n{lines}"
    return Answer(one.image, one.question_type, right, given, text, options)


def test_published_answers_in_another_order_of_options_are_answers_to_the_same_questions() -> None:
    ours = [answer(0, "A"), answer(1, "A")]
    theirs = [publish(ours[0], "BA", "A"), publish(ours[1], "BA", "B")]
    assert [one.right_text for one in theirs] == ["Yes.", "Yes."]
    first, other = build_run("ours", ours), build_run("theirs", theirs)
    common = find_common([first, other])
    assert len(common) == 2
    found = compute_difference(first, other, common)
    assert [key[0] for key in found.lost] == ["VisA/nut/bad/0.png"] and not found.won
    (shown,) = show_difference(found, [first, other], [])["lost"]
    assert shown["question"] == "Any defect?"
    assert shown["chosen"] == {"A": ["ours"], "B": ["theirs"]}, "their A is No., our B"
    wrong = replace(theirs[0], correct_answer="A")
    with pytest.raises(InputError, match=r"different right answers \(No\., Yes\.\)"):
        find_common([first, build_run("wrong", [wrong])])


def test_overlap_finds_copies_and_products_of_the_training_set(tmp_path: Path) -> None:
    trained = [
        Record("a", make_picture(tmp_path / "train/a.png", level=40), "VisA", "nut"),
        Record("b", make_picture(tmp_path / "train/b.png", level=90), "DS-MVTec", "pill"),
    ]
    write_records(tmp_path / "train.jsonl", trained)
    copied = tmp_path / "test.png"
    copied.write_bytes((tmp_path / "train/a.png").read_bytes())
    tested = [
        Record("c", copied, "VisA", "nut"),
        Record("d", make_picture(tmp_path / "d.png", level=200), "GoodsAD", "box"),
    ]
    found = compute_overlap(tmp_path / "train.jsonl", tested)
    assert (found.num_pictures, found.num_same, found.num_products) == (2, 1, 2)
    assert found.products == ("VisA/nut",)
    assert found.num_similar == 0, "it is the same picture, which is said already"
    assert not found.num_by_hash and not found.namesakes
    with pytest.raises(InputError, match="no training manifest"):
        (tmp_path / "manifest.json").write_text("{}")
        compute_overlap(tmp_path / "manifest.json", tested)


def test_overlap_compares_pictures_where_it_can_and_says_where_the_hash_alone_decides(
    tmp_path: Path,
) -> None:
    trained = draw_part(tmp_path / "train/a.png")
    hashed = load_fingerprints([trained])[0]
    manifest = tmp_path / "manifest.json"
    entry = {
        "side": "train", "product": "MVTec-AD/metal_nut/1", "image_path": "train/a.png",
        "phash": hashed.phash, "sha256": hashed.sha256,
    }  # fmt: skip
    manifest.write_text(json.dumps({"pictures": [entry, entry | {"side": "test"}]}))
    tested = [
        Record("c", draw_part(tmp_path / "c.png", faint=True), "DS-MVTec", "metal_nut"),
        Record("d", draw_part(tmp_path / "d.png", turned=True), "GoodsAD", "Metal nut"),
    ]
    found = compute_overlap(manifest, tested)
    assert (found.num_same, found.num_similar, found.num_by_hash) == (0, 1, 0)
    assert (found.products, found.namesakes) == (("MVTec/metal nut",), ("GoodsAD/metal nut",))
    trained.unlink()
    found = compute_overlap(manifest, tested)
    assert (found.num_similar, found.num_by_hash) == (1, 1)
    assert found.sentence() == (
        "Overlap with training: 0 of 2 test pictures are training pictures, 1 others look like one "
        "(1 by perceptual hash alone), and 1 of 2 products were trained on (MVTec/metal nut); "
        "1 more share a trained product's name in another set (GoodsAD/metal nut)."
    )


def draw_part(path: Path, *, faint: bool = False, turned: bool = False) -> Path:
    """A bright bar on a dark ground, the same part in each picture but in another light or pose."""
    levels = np.full((64, 64), 40, np.uint8)
    levels[10:30, 8:40] = 180 if faint else 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels.T if turned else levels).save(path)
    return path


def write_answers(path: Path, items: list[Answer]) -> Path:
    path.write_text(
        json.dumps(
            [
                {
                    "image": one.image,
                    "question": {"text": one.question, "options": dict(one.options)},
                    "question_type": one.question_type,
                    "correct_answer": one.correct_answer,
                    "gpt_answer": one.given,
                }
                for one in items
            ]
        )
    )
    return path


@pytest.mark.parametrize("width", [1366, 360])
def test_the_page_shows_its_tables_whole_on_a_laptop_and_its_settings_on_a_phone(
    tmp_path: Path, browser: Browser, width: int
) -> None:
    items = [
        Answer(f"{dataset}/nut/{kind}/{number}.png", subtask, "A", given, "Which?", OPTIONS)
        for dataset in ("DS-MVTec", "MVTec-LOCO")
        for subtask in SUBTASKS
        for kind in ("good", "bad")
        for number, given in enumerate(["A", "B", "A", ""])
    ]
    path = write_answers(tmp_path / f"{'answers' * 20}.json", items)
    done = CliRunner().invoke(
        cli.app, ["evaluate", "score", str(path), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    page = browser.new_page(viewport={"width": width, "height": 740})
    page.goto((tmp_path / "out/report.html").as_uri())
    hidden = page.evaluate(
        "[...document.querySelectorAll('.scroll')].map((one) => one.scrollWidth - one.clientWidth)"
    )
    assert len(hidden) == 3
    assert hidden[2] == 0
    assert width == 360 or hidden == [0, 0, 0]
    page.close()


def test_the_page_starts_with_the_overlap_marks_quoted_rows_and_escapes_everything(
    tmp_path: Path,
) -> None:
    evil = "<script>alert(1)</script>"
    options = {"A": "Yes.", "B": evil}
    items = [
        Answer(f"VisA/nut/bad/{number}.png", "Anomaly Detection", "A", given, evil, options)
        for number, given in enumerate("AB")
    ]
    first = write_answers(tmp_path / "first.json", items)
    swapped = [
        Answer(one.image, one.question_type, "A", given, evil, options)
        for one, given in zip(items, "BA", strict=True)
    ]
    other = write_answers(tmp_path / "other.json", swapped)
    make_picture(tmp_path / "data/VisA/nut/bad/0.png")
    done = CliRunner().invoke(
        cli.app,
        ["evaluate", "compare", str(first), str(other), "--data", str(tmp_path / "data"),
         "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Overlap with training: not known")
    page = (tmp_path / "out/compare.html").read_text()
    body = page[page.index("<body>") :]
    assert body.index("Overlap with training") < body.index("<h1>")
    assert evil not in page and "&lt;script&gt;" in page
    assert "Human expert" in page and page.count("quoted</span>") >= 15
    assert body.count("data:image/jpeg") == 1 and body.count("no picture") == 1
    assert not re.search(r"(?:src|href)=\"https?:", page)
    assert "Won: 1" in body and "Lost: 1" in body


def test_a_picture_outside_of_the_data_folder_is_never_embedded(tmp_path: Path) -> None:
    make_picture(tmp_path / "secret/a.png")
    (tmp_path / "data").mkdir()
    items = [
        Answer("../secret/a.png", "Anomaly Detection", "A", given, "Any?", OPTIONS)
        for given in "AB"
    ]
    paths = [write_answers(tmp_path / f"{n}.json", [one]) for n, one in enumerate(items)]
    done = CliRunner().invoke(
        cli.app,
        ["evaluate", "compare", *map(str, paths), "--data", str(tmp_path / "data"),
         "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "data:image/jpeg" not in (tmp_path / "out/compare.html").read_text()
