"""Few-shot splits keep their promises: disjoint, exact in number, written down, refused clearly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.data.fewshot import FewShot, Split, describe_split, name_products, split_fewshot
from anomalyr1.data.fewshot_files import write_fewshot, write_question_records
from anomalyr1.data.near_duplicates import find_near_duplicates, load_fingerprints
from anomalyr1.data.question_texts import SUBTASKS
from anomalyr1.data.records import load_records, write_records
from anomalyr1.types import InputError, Question, Record, Region


def draw(path: Path, seed: int) -> Path:
    """A picture with a coarse pattern of its own, so that no two are near-duplicates."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(path)
    return path


def make_records(
    folder: Path, counts: dict[str, int], category: str = "nut", first_seed: int = 0
) -> list[Record]:
    records = []
    for kind, count in counts.items():
        for number in range(count):
            name = f"{category}-{kind}-{number}"
            path = draw(folder / category / f"{kind}-{number}.png", first_seed + len(records))
            normal = kind == "normal"
            records.append(
                Record(
                    name,
                    path,
                    category=category,
                    label="normal" if normal else "anomalous",
                    defect_type="" if normal else kind,
                    regions=() if normal else (Region((4, 4, 14, 12), kind),),
                )
            )
    return records


COUNTS = {"normal": 6, "crack": 4, "dent": 4}


def kinds_on(split: Split, side: str) -> Counter[str]:
    return Counter(picture.kind[1] for picture in split.pictures if picture.side == side)


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("defect", {"normal": 2, "crack": 2, "dent": 2}),
        ("category", {"normal": 2, "anomalous": 2}),
    ],
)
def test_exactly_k_pictures_of_each_kind_are_drawn_and_the_rest_tested(
    tmp_path: Path, per: str, expected: dict[str, int]
) -> None:
    split = split_fewshot(make_records(tmp_path, COUNTS), FewShot(2, per))
    assert kinds_on(split, "train") == expected
    train, test = split.records("train"), split.records("test")
    assert len(train) + len(test) == 14
    assert not {record.image_path for record in train} & {record.image_path for record in test}
    assert {record.split for record in train} == {"train"}


def test_a_seed_gives_one_split_and_another_seed_another(tmp_path: Path) -> None:
    records = make_records(tmp_path, COUNTS)
    drawn = [
        {
            record.record_id
            for record in split_fewshot(records, FewShot(2, seed=seed)).records("train")
        }
        for seed in (0, 0, 1, 2)
    ]
    assert drawn[0] == drawn[1] and len({frozenset(ids) for ids in drawn}) > 1


def test_records_of_one_picture_stay_together(tmp_path: Path) -> None:
    records = make_records(tmp_path, COUNTS)
    records += [replace(record, record_id=record.record_id + "-again") for record in records]
    split = split_fewshot(records, FewShot(2))
    sides: dict[Path, set[str]] = {}
    for record in [*split.records("train"), *split.records("test")]:
        sides.setdefault(record.image_path, set()).add(record.split)
    assert len(sides) == 14 and all(len(found) == 1 for found in sides.values())


def test_references_and_a_train_split_of_the_data_set_are_never_tested_on(tmp_path: Path) -> None:
    records = make_records(tmp_path, COUNTS)
    reference = records[0].image_path
    records = [
        replace(
            record,
            split="train" if record.record_id in ("nut-normal-1", "nut-normal-2") else "test",
            reference_paths=() if record.image_path == reference else (reference,),
        )
        for record in records
    ]
    for seed in range(5):
        split = split_fewshot(records, FewShot(2, seed=seed))
        kept = {"nut-normal-0", "nut-normal-1", "nut-normal-2"}
        assert not kept & {record.record_id for record in split.records("test")}
        normal = {item.record_id for item in split.records("train") if item.label == "normal"}
        assert normal <= kept


def make_products(folder: Path, names: list[str]) -> list[Record]:
    records = []
    for number, name in enumerate(names):
        reference = draw(folder / name / "reference.png", 900 + number)
        made = make_records(
            folder / name, {"normal": 3, "crack": 3}, name[:-1], first_seed=100 * number
        )
        records += [
            replace(item, record_id=f"{name}-{item.record_id}", reference_paths=(reference,))
            for item in made
        ]
    return records


def test_a_product_is_a_folder_of_references_or_a_category(tmp_path: Path) -> None:
    several = make_products(tmp_path, ["nut1", "nut2", "cap1"])
    assert list(dict.fromkeys(name_products(several))) == ["nut/nut1", "nut/nut2", "cap"]
    assert set(name_products(make_records(tmp_path, COUNTS))) == {"nut"}


def test_by_product_no_product_is_on_both_sides_and_categories_are(tmp_path: Path) -> None:
    records = make_products(tmp_path, ["nut1", "nut2", "cap1", "cap2"])
    for seed in range(4):
        split = split_fewshot(records, FewShot(2, by_product=True, seed=seed))
        products = {
            side: {item.product for item in split.pictures if item.side == side}
            for side in ("train", "test")
        }
        assert len(products["train"]) == len(products["test"]) == 2
        assert not products["train"] & products["test"]
        assert {item.category for item in split.records("test")} == {"nut", "cap"}
        assert kinds_on(split, "train") == {"normal": 4, "crack": 4}


@pytest.mark.parametrize(
    "alter",
    [
        lambda picture: picture,
        lambda picture: picture.resize((30, 30)),
        lambda picture: picture.point(lambda level: min(255, level + 12)),
    ],
    ids=["copy", "smaller", "brighter"],
)
def test_altered_copies_are_near_duplicates_and_other_pictures_are_not(
    tmp_path: Path, alter: Callable[[Image.Image], Image.Image]
) -> None:
    paths = [draw(tmp_path / f"{seed}.png", seed) for seed in range(20)]
    with Image.open(paths[3]) as picture:
        alter(picture).save(tmp_path / "copy.jpg", quality=80)
    pairs = find_near_duplicates(load_fingerprints([*paths, tmp_path / "copy.jpg"]))
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 20)]


@pytest.mark.parametrize("levels", [(90, 90, True), (90, 120, False)])
def test_flat_pictures_are_duplicates_where_their_level_is_one(
    tmp_path: Path, levels: tuple[int, int, bool]
) -> None:
    for number, level in enumerate(levels[:2]):
        Image.new("RGB", (40, 40 + number), (level,) * 3).save(tmp_path / f"{number}.png")
    prints = load_fingerprints([tmp_path / "0.png", tmp_path / "1.png"])
    assert bool(find_near_duplicates(prints)) == levels[2]


def with_duplicate(folder: Path) -> list[Record]:
    """Two cracks show the same picture."""
    records = make_records(folder, COUNTS)
    cracks = [record for record in records if record.defect_type == "crack"]
    with Image.open(cracks[0].image_path) as picture:
        picture.save(cracks[1].image_path)
    return records


def test_pictures_with_a_near_duplicate_to_test_on_are_not_drawn_and_said(tmp_path: Path) -> None:
    records = with_duplicate(tmp_path)
    for seed in range(6):
        split = split_fewshot(records, FewShot(2, seed=seed))
        drawn = {record.record_id for record in split.records("train")}
        assert {"nut-crack-2", "nut-crack-3"} <= drawn
        assert split.across() == []
        assert describe_split(split)[0].startswith("2 pictures have near-duplicates")


def test_kept_near_duplicates_across_the_split_are_counted(tmp_path: Path) -> None:
    records = with_duplicate(tmp_path)
    counts = [
        len(split_fewshot(records, FewShot(2, keep_duplicates=True, seed=seed)).across())
        for seed in range(12)
    ]
    assert set(counts) == {0, 1}


def test_too_few_pictures_of_a_kind_name_it_both_numbers_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        split_fewshot(make_records(tmp_path, COUNTS), FewShot(5))
    assert str(caught.value) == (
        "'crack' of category 'nut' has 4 pictures, 5 shots were asked for: "
        "use --shots 4, --per category, or give more pictures"
    )


def test_too_few_because_of_near_duplicates_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 of them are near-duplicates.*--keep-duplicates"):
        split_fewshot(with_duplicate(tmp_path), FewShot(3))


@pytest.mark.parametrize(
    ("change", "plan", "said"),
    [
        ({"label": None, "regions": ()}, FewShot(1), "record nut-normal-0 has no label"),
        ({}, FewShot(0), "shots is 0"),
        ({}, FewShot(1, "product"), "per is 'product'"),
        ({}, FewShot(1, by_product=True), "one product"),
    ],
)
def test_what_cannot_be_split_is_refused(
    tmp_path: Path, change: dict[str, object], plan: FewShot, said: str
) -> None:
    records = make_records(tmp_path, COUNTS)
    records[0] = replace(records[0], **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said):
        split_fewshot(records, plan)


def test_a_split_that_leaves_nothing_to_test_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to test on"):
        split_fewshot(make_records(tmp_path, {"normal": 2, "crack": 2}), FewShot(2))


def test_one_picture_with_two_truths_is_refused(tmp_path: Path) -> None:
    records = make_records(tmp_path, COUNTS)
    records.append(replace(records[0], record_id="other", label="anomalous", defect_type="dent"))
    with pytest.raises(InputError, match="nut-normal-0 and other differ"):
        split_fewshot(records, FewShot(1))


def test_a_kind_that_is_trained_on_but_not_tested_is_said(tmp_path: Path) -> None:
    split = split_fewshot(make_records(tmp_path, {"normal": 3, "crack": 2}), FewShot(2))
    assert describe_split(split) == ["nothing left to test on of nut: crack"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["data", "fewshot", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_command_writes_records_questions_and_a_manifest_that_repeat(tmp_path: Path) -> None:
    source, out = tmp_path / "nut.jsonl", tmp_path / "split"
    write_records(source, make_records(tmp_path, COUNTS))
    arguments = (source, "--shots", 2, "--questions", "--seed", 3, "--out", out)
    assert "train.jsonl: 6 records" in run(*arguments).replace("\n", "")
    names = {path.name for path in out.iterdir()}
    assert names == {
        "train.jsonl", "test.jsonl", "train_questions.jsonl", "test_questions.jsonl",
        "manifest.json",
    }  # fmt: skip
    asked = load_records(out / "train_questions.jsonl")
    types = Counter(record.question.question_type for record in asked if record.question)
    assert set(types) == set(SUBTASKS) and types["Anomaly Detection"] == 6
    assert all(record.reasoning and record.split == "train" for record in asked)
    assert not any(item.reasoning for item in load_records(out / "test_questions.jsonl"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["seed"] == 3 and manifest["settings"]["questions"]
    assert manifest["pictures_by_kind"]["test"] == {
        "nut: crack": 2,
        "nut: dent": 2,
        "nut: normal": 4,
    }
    assert len(manifest["pictures"]) == 14
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    run(*arguments)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_another_split_is_not_written_over_one_that_is_there(tmp_path: Path) -> None:
    source, out = tmp_path / "nut.jsonl", tmp_path / "split"
    write_records(source, make_records(tmp_path, COUNTS))
    run(source, "--shots", 2, "--out", out)
    with pytest.raises(InputError, match="holds another split"):
        run(source, "--shots", 1, "--out", out)


def test_the_files_are_the_split_that_was_decided(tmp_path: Path) -> None:
    source = tmp_path / "nut.jsonl"
    write_records(source, make_records(tmp_path, COUNTS))
    split = split_fewshot(load_records(source), FewShot(1))
    assert write_fewshot(tmp_path / "out", split, source=source) == {
        "train.jsonl": 3, "test.jsonl": 11
    }  # fmt: skip
    assert list(load_records(tmp_path / "out" / "train.jsonl")) == split.records("train")


def test_a_record_that_holds_a_question_gets_no_others(tmp_path: Path) -> None:
    record = make_records(tmp_path, {"crack": 1})[0]
    with pytest.raises(InputError, match="has a question already"):
        write_question_records(replace(record, question=Question("?", {"A": "x", "B": "y"})), 0)


def test_the_help_is_as_reviewed(golden: Callable[[str, str], None]) -> None:
    result = CliRunner().invoke(
        cli.app, ["data", "fewshot", "--help"], env={"COLUMNS": "90", "TERM": "dumb"}
    )
    lines = [line.rstrip() for line in result.output.splitlines()]
    golden("help_data_fewshot.txt", "\n".join(lines).strip() + "\n")
