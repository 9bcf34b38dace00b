"""Corrections make a candidate, it is measured where it was not trained, and a person decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NORMAL, anomalous
from PIL import Image, ImageDraw
from test_adapt import follow
from test_weights import write_checkpoint

from anomalyr1 import cli
from anomalyr1.data.records import load_records
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.inspector import Inspector
from anomalyr1.server.api_model import is_correction
from anomalyr1.server.comparison import compare_models
from anomalyr1.server.exports import export_reviewed, is_held_out, load_reviewed
from anomalyr1.server.learning import Course, adapt_from_store
from anomalyr1.server.products import add_reference, change_product, create_product
from anomalyr1.server.promotions import (
    current_model,
    find_latest_evaluation,
    load_promotions,
    promote_candidate,
    record_evaluation,
)
from anomalyr1.server.reviews import add_review
from anomalyr1.server.store import Store, Upload
from anomalyr1.types import Finding, InputError
from anomalyr1.weights import hash_weights


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "station")
    yield opened
    opened.close()


def receive(store: Store, seed: int, *, broken: bool = False) -> Upload:
    pixels = np.random.default_rng(seed).normal(120, 10, (96, 96, 3)).clip(0, 255)
    picture = Image.fromarray(pixels.astype(np.uint8))
    if broken:
        ImageDraw.Draw(picture).rectangle((30, 30, 60, 60), fill=(10, 10, 10))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return store.receive(BytesIO(buffer.getvalue()), f"{seed}.png")


def fill(store: Store, count: int = 24) -> int:
    """A product of eight references with `count` reviewed pictures, every other one broken."""
    product = create_product(store, "plate", "Even and grey.")
    for seed in range(1000, 1008):
        add_reference(store, product, receive(store, seed))
    for seed in range(count):
        broken = seed % 2 == 0
        _, (task,) = store.accept([receive(store, seed, broken=broken)], product, None)
        finding = Finding(str(task.inspection_id), f"{seed}.png", "normal", 0.2, 0.3)
        store.finish(task.inspection_id, finding)
        regions = [{"box_xyxy": [30, 30, 61, 61], "label": "hole"}] if broken else []
        verdict = "anomalous" if broken else "normal"
        add_review(store, task.inspection_id, "Ann", verdict, regions, "")
    return product


def load_scripted(name: str) -> Inspector:
    """ "good" sees the dark square, anything else says normal."""

    def say(prompt: Any, pictures: Any) -> str:
        is_dark = np.asarray(pictures[-1])[..., 0].min() < 30
        return anomalous((30, 30, 61, 61)) if is_dark and Path(name).name == "good" else NORMAL

    return Inspector(ScriptedEngine(say), weights_sha256=hash_weights(name))


def compare(store: Store, candidate: str) -> dict[str, Any]:
    records = load_reviewed(store)
    return compare_models(
        store, candidate, records, split_seed=0, follow=follow, load=load_scripted
    )


def test_the_side_of_a_picture_hangs_on_its_content_and_the_seed(
    store: Store, tmp_path: Path
) -> None:
    fill(store, 12)
    export_reviewed(store, tmp_path / "first")
    before = {record.image_path.name for record in load_records(tmp_path / "first" / "test.jsonl")}
    assert before
    _, (task,) = store.accept([receive(store, 77)], None, None)
    store.finish(task.inspection_id, Finding("x", "x.png", "normal"))
    add_review(store, task.inspection_id, "Ann", "normal", [], "")
    export_reviewed(store, tmp_path / "second")
    tested = load_records(tmp_path / "second" / "test.jsonl")
    assert before <= {record.image_path.name for record in tested}
    assert {is_held_out(f"{n:064x}", 1) for n in range(40)} == {True, False}
    assert [is_held_out(f"{n:064x}", 1) for n in range(40)] != [
        is_held_out(f"{n:064x}", 2) for n in range(40)
    ]


def test_a_held_out_picture_is_no_reference_where_one_learns(store: Store, tmp_path: Path) -> None:
    fill(store)
    export_reviewed(store, tmp_path / "out")
    learned = load_records(tmp_path / "out" / "train.jsonl")
    shown = {path.stem for record in learned for path in record.reference_paths}
    assert shown
    assert not any(is_held_out(sha256) for sha256 in shown)
    tested = load_records(tmp_path / "out" / "test.jsonl")
    assert len(tested[0].reference_paths) == 8, "inspected with all that the station would show"


HOLE = {"box_xyxy": [30.0, 30.0, 61.0, 61.0], "label": "hole"}
DENT = {"box_xyxy": [5.0, 5.0, 20.0, 20.0], "label": "dent"}


@pytest.mark.parametrize(
    ("decision", "defects", "verdict", "regions", "corrected"),
    [
        ("anomalous", [HOLE, DENT], "anomalous", [HOLE, DENT], False),
        ("anomalous", [HOLE, DENT], "anomalous", [DENT, HOLE], False),
        ("anomalous", [HOLE, DENT], "anomalous", [HOLE], True),
        ("anomalous", [HOLE], "anomalous", [], True),
        ("anomalous", [HOLE], "anomalous", [HOLE, DENT], True),
        ("anomalous", [], "anomalous", [DENT], True),
        ("anomalous", [HOLE], "anomalous", [{**HOLE, "box_xyxy": [31, 30, 62, 61]}], True),
        ("anomalous", [HOLE], "anomalous", [{**HOLE, "label": "bore"}], True),
        ("anomalous", [HOLE], "anomalous", [{**HOLE, "box_xyxy": [30, 30, 61, 61]}], False),
        ("anomalous", [HOLE], "normal", [], True),
        ("unread", [], "normal", [], True),
        ("normal", [], "normal", [], False),
        ("normal", [HOLE], "normal", [], False),  # a threshold decided: nobody claimed that box
    ],
)
def test_what_a_reviewer_changed_is_a_correction(
    decision: str, defects: list[Any], verdict: str, regions: list[Any], corrected: bool
) -> None:
    review = {"verdict": verdict, "regions": regions}
    inspection = {"decision": decision, "defects": defects, "review": review}
    assert is_correction(inspection) is corrected


def test_a_comparison_counts_who_was_right_on_what_is_held_out(
    store: Store, tmp_path: Path
) -> None:
    fill(store)
    found = compare(store, write_checkpoint(tmp_path / "good"))
    held_out = [record for record in load_reviewed(store) if record.split == "test"]
    broken = sum(record.label == "anomalous" for record in held_out)
    assert 0 < broken < len(held_out) == found["num_pictures"]
    assert found["paired"]["only_candidate"] == broken
    assert found["paired"]["only_current"] == 0
    figures = {row["name"]: row for row in found["metrics"] if row["subset"] == "all"}
    assert figures["anomalous_accuracy"]["current"]["value"] == 0.0
    assert figures["anomalous_accuracy"]["candidate"]["value"] == 1.0
    assert figures["anomalous_accuracy"]["candidate"]["n"] == broken
    assert figures["normal_accuracy"]["candidate"]["high"] == 1.0
    json.dumps(found, allow_nan=False)


def test_the_products_threshold_decides_in_a_comparison_as_at_the_station(
    store: Store, tmp_path: Path
) -> None:
    product = fill(store)
    change_product(store, product, {"threshold": 0.0})

    def load(name: str) -> Inspector:
        from builders import QuietDetector

        return Inspector(
            ScriptedEngine(lambda prompt, pictures: NORMAL),
            detector=QuietDetector(),
            weights_sha256=hash_weights(name),
        )

    candidate = write_checkpoint(tmp_path / "c")
    found = compare_models(
        store, candidate, load_reviewed(store), split_seed=0, follow=follow, load=load
    )
    figures = {row["name"]: row for row in found["metrics"] if row["subset"] == "all"}
    assert figures["normal_accuracy"]["candidate"]["value"] == 0.0


def test_a_comparison_needs_a_held_out_picture(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is reviewed"):
        load_reviewed(store)
    with pytest.raises(InputError, match="no reviewed picture is held out"):
        compare_models(store, "nano", [], split_seed=0, follow=follow, load=load_scripted)


def test_a_candidate_is_promoted_on_its_evaluation_only_while_that_says_what_is_true(
    store: Store, tmp_path: Path
) -> None:
    fill(store)
    candidate = write_checkpoint(tmp_path / "good")
    number = record_evaluation(store, compare(store, candidate))
    with pytest.raises(LookupError):
        promote_candidate(store, number + 1, "Ann")
    weights = tmp_path / "good" / "model.safetensors"
    weights.write_bytes(b"other")
    with pytest.raises(InputError, match="changed since its evaluation"):
        promote_candidate(store, number, "Ann")
    weights.write_bytes(b"one")
    promote_candidate(store, number, "Ann")
    assert current_model(store) == candidate
    (made,) = load_promotions(store)
    assert (made.person, made.evaluation_id, made.weights_sha256) == (
        "Ann",
        number,
        hash_weights(candidate),
    )
    with pytest.raises(InputError, match="measure it again"):
        promote_candidate(store, number, "Ann")


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["anomalyr1", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_promoting_shows_the_evaluation_and_asks_for_one(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(store)
    candidate = write_checkpoint(tmp_path / "good")
    asked = ["model", "promote", candidate, "--data", str(tmp_path / "station"), "--by", "Ann"]
    assert run_cli(monkeypatch, *asked) == 2
    assert "anomalyr1 model evaluate" in capsys.readouterr().err
    record_evaluation(store, compare(store, candidate))
    assert run_cli(monkeypatch, *asked) == 0
    assert "only the candidate right" in capsys.readouterr().out
    assert current_model(store) == candidate
    other = write_checkpoint(tmp_path / "other", b"two")
    asked[2] = other
    assert run_cli(monkeypatch, *asked, "--without-evaluation") == 0
    assert load_promotions(store)[-1].comment == "without evaluation"


def test_the_command_line_hands_its_course_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    courses: list[Course] = []

    def learn(_store: Store, course: Course, **_: Any) -> Any:
        courses.append(course)
        raise InputError("enough")

    monkeypatch.setattr("anomalyr1.server.learning.adapt_from_store", learn)
    asked = ["adapt", "--from-store", str(tmp_path / "station"), "--out", str(tmp_path / "out")]
    numbers = ["--designs=3", "--head-steps=5", "--grpo-steps=7", "--seed=11", "--split-seed=13"]
    assert run_cli(monkeypatch, *asked, *numbers, "-m", "some/model") == 2
    assert courses == [
        Course(
            tmp_path / "out",
            "some/model",
            num_designs=3,
            head_steps=5,
            grpo_steps=7,
            seed=11,
            split_seed=13,
        )
    ]
    assert run_cli(monkeypatch, *asked, "--defects", "some.jsonl") == 2
    assert len(courses) == 1, "a station's defects are in its reviews"


@pytest.mark.slow
def test_corrections_at_the_station_become_a_measured_candidate(
    store: Store, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="training needs the extra 'train'")
    fill(store)
    said: list[str] = []
    folder, comparison = adapt_from_store(
        store,
        Course(tmp_path / "out", num_designs=2, head_steps=2, grpo_steps=0),
        resume=False,
        num_workers=1,
        follow=follow,
        say=said.append,
    )
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == comparison
    assert comparison["current"]["model"] == "nano"
    assert comparison["candidate"]["weights_sha256"] == hash_weights(str(folder))
    trained = load_records(tmp_path / "out" / "lessons.jsonl")
    tested = load_records(tmp_path / "out" / "corrections" / "test.jsonl")
    learned = {record.image_path.name for record in trained}
    learned |= {path.name for path in (tmp_path / "out" / "normal").rglob("*.png")}
    assert learned and tested
    assert not learned & {record.image_path.name for record in tested}
    assert all(record.mask_path for record in trained if record.label == "anomalous")
    found = find_latest_evaluation(store, hash_weights(str(folder)))
    promote_candidate(store, found.id, "Ann")
    assert current_model(store) == str(folder.resolve())
    with pytest.raises(InputError, match="is not empty"):
        adapt_from_store(
            store,
            Course(tmp_path / "out" / "run", num_designs=1, head_steps=1, grpo_steps=0),
            resume=False,
            num_workers=1,
            follow=follow,
            say=said.append,
        )
