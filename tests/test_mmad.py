"""MMAD's question files become records; what is wrong with them is said, or mended when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import make_picture
from PIL import Image

from anomalyr1.data.importing import ImportPlan, import_records
from anomalyr1.data.mmad import (
    SUBTASKS,
    choose_references,
    load_mmad,
    name_picture,
    name_subtask,
)
from anomalyr1.data.records import load_records, write_records
from anomalyr1.prompts import build_choice_prompt
from anomalyr1.types import InputError, Record

SHARED = (Path(__file__).resolve().parents[2] / "shared" / "data").resolve()
REAL_FILES = [
    "mmad/questions_subset.json",
    "iad_r1/test_DTD_format.json",
    "iad_r1/test_MPDD_format.json",
    "iad_r1/test_SDD_format.json",
]


def ask(
    text: str = "Is there any defect in the object?",
    answer: str = "A",
    kind: str = "Anomaly Detection",
    **options: str,
) -> dict[str, Any]:
    return {
        "Question": text,
        "Options": options or {"A": "Yes.", "B": "No."},
        "Answer": answer,
        "type": kind,
        "annotation": True,
    }


def make_entry(key: str, *questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    dataset, category, *rest = key.split("/")
    templates = {
        "similar_templates": [f"{dataset}/{category}/train/good/000.png"],
        "random_templates": [f"{dataset}/{category}/train/good/001.png"],
    }
    entry = {"image_path": "/".join(rest), "conversation": list(questions), "mask_path": None}
    return entry | templates | fields


def write_mmad(folder: Path, entries: dict[str, Any], *, pictures: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mmad.json").write_text(json.dumps(entries))
    if pictures:
        for number, (key, entry) in enumerate(entries.items()):
            make_picture(folder / key, level=60 + number % 100)
            for template in entry["similar_templates"] + entry["random_templates"]:
                make_picture(folder / template)
            if entry["mask_path"]:
                make_picture(folder.joinpath(*key.split("/")[:2], entry["mask_path"]))
    return folder


CRACK = "VisA/candle/test/bad/000.JPG"
GOOD = "VisA/candle/test/good/001.JPG"


def test_a_question_becomes_a_record_with_all_that_the_file_says(tmp_path: Path) -> None:
    colour = ask("What colour is it?", "C", "Object Details", A="Red.", B="Blue.", C="White.")
    entries = {
        CRACK: make_entry(CRACK, ask(), colour, mask_path="ground_truth/bad/000.png"),
        GOOD: make_entry(GOOD, ask(answer="B")),
    }
    folder = write_mmad(tmp_path, entries)
    texts = {"good": "Smooth wax.", "bad": "Cracks."}
    (folder / "domain_knowledge.json").write_text(json.dumps({"VisA": {"candle": texts}}))
    mmad = load_mmad(folder)
    first, second, good = mmad.records
    assert (mmad.missing, mmad.faults, mmad.mended) == ((), (), ())
    assert [record.record_id for record in mmad.records] == [
        f"{CRACK}#0",
        f"{CRACK}#1",
        f"{GOOD}#0",
    ]
    assert name_picture(second) == CRACK
    assert (first.dataset, first.category, first.label, first.defect_type) == (
        "VisA",
        "candle",
        "anomalous",
        "bad",
    )
    assert (good.label, good.defect_type, good.mask_path) == ("normal", "", None)
    assert first.mask_path == tmp_path / "VisA/candle/ground_truth/bad/000.png"
    assert first.knowledge == "Smooth wax.\nCracks."
    assert second.question is not None
    assert (second.question.options, second.question.answer, second.question.question_type) == (
        colour["Options"],
        "C",
        "Object Details",
    )
    assert name_subtask("Object Details") == "Object Analysis"
    assert choose_references(first, 1, "random").reference_paths == (
        tmp_path / "VisA/candle/train/good/001.png",
    )
    assert choose_references(first, 0, "similar").reference_paths == ()
    with pytest.raises(InputError, match="has 1 similar templates, 2 are wanted"):
        choose_references(first, 2, "similar")


def test_mvtec_pictures_look_up_their_knowledge_under_mvtec(tmp_path: Path) -> None:
    key = "DS-MVTec/bottle/image/good/000.png"
    folder = write_mmad(tmp_path, {key: make_entry(key, ask(answer="B"))})
    (folder / "domain_knowledge.json").write_text('{"MVTec": {"bottle": {"good": "Round."}}}')
    assert load_mmad(folder).records[0].knowledge == "Round."


def test_a_file_that_is_cut_off_in_the_middle_says_so(tmp_path: Path) -> None:
    folder = write_mmad(tmp_path, {CRACK: make_entry(CRACK, ask())})
    whole = (folder / "mmad.json").read_text()
    for length in (1, len(whole) // 2, len(whole) - 1):
        (folder / "mmad.json").write_text(whole[:length])
        with pytest.raises(InputError, match=r"not whole JSON .* cut off"):
            load_mmad(folder)


def test_missing_files_are_listed_once_all_together_unless_allowed(tmp_path: Path) -> None:
    entries = {
        CRACK: make_entry(CRACK, ask(), ask("Why?")),
        GOOD: make_entry(GOOD, ask(answer="B")),
    }
    folder = write_mmad(tmp_path, entries)
    (folder / CRACK).unlink()
    (folder / "VisA/candle/train/good/001.png").unlink()
    with pytest.raises(InputError) as caught:
        load_mmad(folder)
    lines = str(caught.value).splitlines()
    assert "2 pictures, templates or masks are not under" in lines[0]
    assert [line.strip() for line in lines[1:3]] == [CRACK, "VisA/candle/train/good/001.png"]
    mmad = load_mmad(folder, allow_missing=True)
    assert len(mmad.records) == 3
    assert set(mmad.missing) == {folder / CRACK, folder / "VisA/candle/train/good/001.png"}


def test_an_answer_that_is_no_option_stops_or_is_left_out(tmp_path: Path) -> None:
    folder = write_mmad(tmp_path, {CRACK: make_entry(CRACK, ask(), ask("Which?", "E"))})
    with pytest.raises(InputError, match=r"bad/000.JPG#1: answer 'E' is not among A, B; --fix"):
        load_mmad(folder)
    mmad = load_mmad(folder, fix=True)
    assert [record.record_id for record in mmad.records] == [f"{CRACK}#0"]
    assert "left out" in mmad.mended[0]


def test_repeated_questions_are_told_and_left_out_only_when_asked(tmp_path: Path) -> None:
    again = ask(answer="B")
    folder = write_mmad(tmp_path, {CRACK: make_entry(CRACK, ask(), ask(), again)})
    mmad = load_mmad(folder)
    assert len(mmad.records) == 3
    assert any("#1: repeats the question #0" in fault for fault in mmad.faults)
    assert any("#2: repeats the question #0 with another answer" in fault for fault in mmad.faults)
    assert [record.record_id for record in load_mmad(folder, fix=True).records] == [f"{CRACK}#0"]


def test_a_picture_listed_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(make_entry(CRACK, ask()))
    (tmp_path / "mmad.json").write_text(f'{{"{CRACK}": {entry}, "{CRACK}": {entry}}}')
    with pytest.raises(InputError, match="1 keys occur twice"):
        load_mmad(tmp_path, allow_missing=True)


@pytest.mark.parametrize(
    "key", [CRACK.replace("/test", "//test"), CRACK.replace("/test", "/./test")]
)
def test_a_picture_listed_twice_in_another_spelling_is_refused(tmp_path: Path, key: str) -> None:
    entry = make_entry(CRACK, ask())
    (tmp_path / "mmad.json").write_text(json.dumps({CRACK: entry, key: entry}))
    with pytest.raises(InputError, match=r"1 problems:\n'VisA/.*: expected a picture's path"):
        load_mmad(tmp_path, allow_missing=True)


def test_pictures_without_questions_are_counted_and_told(tmp_path: Path) -> None:
    entries = {CRACK: make_entry(CRACK), GOOD: make_entry(GOOD, ask(answer="B"))}
    mmad = load_mmad(write_mmad(tmp_path, entries))
    assert mmad.faults == (f"1 pictures have no question, first {CRACK}",)
    assert [record.record_id for record in mmad.records] == [f"{GOOD}#0"]


def test_an_answer_that_contradicts_the_folder_is_told(tmp_path: Path) -> None:
    folder = write_mmad(tmp_path, {GOOD: make_entry(GOOD, ask(answer="A"))})
    assert load_mmad(folder).faults == (f"{GOOD}#0: the answer is yes, the folder good",)


def test_options_that_are_empty_or_speak_of_themselves_are_told(tmp_path: Path) -> None:
    both = ask("Which?", A="Dust.", B="Both A and B.", C="Oil.")
    told = ask("Which of them?", A="Dust.", B="Oil.", C="All of the above.")
    empty = ask("And which?", A="Dust.", B=" .")
    folder = write_mmad(tmp_path, {CRACK: make_entry(CRACK, ask(), told, both, empty)})
    mmad = load_mmad(folder)
    assert [fault.partition("; ")[0] for fault in mmad.faults] == [
        f"1 questions have an option that is empty, first {CRACK}#3",
        f"1 questions have an option that speaks of itself, first {CRACK}#2",
    ]
    assert len(mmad.records) == 4


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ([], "no list `conversation`"),
        ({"conversation": [{"Question": " "}]}, "no text `Question`"),
        ({"conversation": [ask(A="only one")]}, "expected letters with texts"),
        ({"conversation": [ask() | {"Options": {"yes": "Yes.", "no": "No."}}]}, "letters"),
        ({"conversation": [ask() | {"Answer": None}]}, "must be texts"),
        ({"conversation": ["Why?"]}, "is not an object"),
        ({"conversation": [ask()], "mask_path": "../../etc/passwd"}, "mask_path is"),
        ({"conversation": [ask()], "similar_templates": ["/etc/passwd"]}, "similar_templates"),
    ],
)
def test_entries_of_another_shape_are_named(tmp_path: Path, entry: Any, said: str) -> None:
    (tmp_path / "mmad.json").write_text(json.dumps({CRACK: entry}))
    with pytest.raises(InputError, match=said):
        load_mmad(tmp_path, allow_missing=True)


def write_misplaced(folder: Path) -> Path:
    """Pictures 021 and 022 of pill/good, the first of them a metal nut, and its twin."""
    nut = ask("What is it?", "A", "Object Classification", A="A metal nut.", B="A pill.")
    pill = ask("What is it?", "B", "Object Classification", A="A metal nut.", B="A pill.")
    keys = [
        "DS-MVTec/pill/image/good/021.png",
        "DS-MVTec/pill/image/good/022.png",
        "DS-MVTec/metal_nut/image/good/021.png",
    ]
    entries = {
        key: make_entry(key, asked) for key, asked in zip(keys, (nut, pill, nut), strict=True)
    }
    return write_mmad(folder, entries)


def test_metal_nuts_among_the_pills_are_told_and_mended(tmp_path: Path) -> None:
    folder = write_misplaced(tmp_path)
    told = load_mmad(folder)
    assert [record.category for record in told.records] == ["pill", "pill", "metal_nut"]
    assert "1 pictures in DS-MVTec/pill/image/good are metal nuts" in told.faults[0]
    mended = load_mmad(folder, fix=True)
    assert mended.faults == ()
    assert [record.category for record in mended.records] == ["metal_nut", "pill", "metal_nut"]
    assert mended.records[0].similar_paths == mended.records[2].similar_paths
    assert mended.records[1].similar_paths != mended.records[2].similar_paths


def test_a_metal_nut_is_known_by_its_pixels_where_its_questions_are_silent(tmp_path: Path) -> None:
    keys = ["DS-MVTec/pill/image/good/003.png", "DS-MVTec/metal_nut/image/good/003.png"]
    folder = write_mmad(tmp_path, {key: make_entry(key, ask(answer="B")) for key in keys})
    assert load_mmad(folder).faults == (), "another picture is in its place: a corrected copy"
    (folder / keys[0]).write_bytes((folder / keys[1]).read_bytes())
    assert "metal nuts" in load_mmad(folder).faults[0]


def rebuild(record: Record, root: Path) -> dict[str, Any]:
    """A record's question in the file's own shape."""
    question = record.question
    assert question is not None
    shape = {
        "Question": question.text,
        "Options": question.options,
        "Answer": question.answer,
        "type": question.question_type,
    }
    templates = {
        "similar_templates": [path.relative_to(root).as_posix() for path in record.similar_paths],
        "random_templates": [path.relative_to(root).as_posix() for path in record.random_paths],
    }
    if question.is_verified is not None:
        shape["annotation"] = question.is_verified
    return {"question": shape, **templates}


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_question_files_survive_records_without_loss(tmp_path: Path, name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    source = json.loads(path.read_text())
    mmad = load_mmad(path, allow_missing=True)
    write_records(tmp_path / "records.jsonl", mmad.records)
    records = list(load_records(tmp_path / "records.jsonl", validate=False))
    assert records == list(mmad.records)
    expected = [
        {
            "question": question,
            "similar_templates": entry["similar_templates"],
            "random_templates": entry["random_templates"],
        }
        for entry in source.values()
        for question in entry["conversation"]
    ]
    assert [rebuild(record, path.parent) for record in records] == expected
    assert [name_picture(record) for record in records] == [
        key for key, entry in source.items() for _ in entry["conversation"]
    ]
    for record in records:
        assert record.question is not None
        assert name_subtask(record.question.question_type) in SUBTASKS
        prompt = build_choice_prompt(record, num_references=0, hint=None)
        text = prompt.messages[1].parts[-1]
        assert isinstance(text, str)
        for letter, option in record.question.options.items():
            assert f"{letter}: {option}" in text


def write_masked(folder: Path, size_wh: tuple[int, int] = (64, 48)) -> Path:
    masks = {"mask_path": "ground_truth/bad/000.png"}
    write_mmad(folder, {CRACK: make_entry(CRACK, ask(), ask("Which defect?"), **masks)})
    mask = Image.new("L", size_wh)
    mask.paste(2, (4, 5, 14, 13))
    mask.save(folder / "VisA/candle/ground_truth/bad/000.png")
    return folder


def test_an_import_gives_each_question_the_boxes_of_its_mask(tmp_path: Path) -> None:
    folder = write_masked(tmp_path / "MMAD")
    done = import_records(ImportPlan("mmad", folder, tmp_path / "out"))
    records = load_records(done.records_file)
    assert len(records) == done.num_records == 2
    assert {record.regions[0].box_xyxy for record in records} == {(4.0, 5.0, 14.0, 13.0)}
    assert any("2 questions (39672)" in note for note in done.notes)


def test_an_import_refuses_masks_of_another_size_and_damaged_pictures(tmp_path: Path) -> None:
    folder = write_masked(tmp_path / "MMAD", (32, 24))
    template = folder / "VisA/candle/train/good/001.png"
    template.write_bytes(template.read_bytes()[:-20])
    with pytest.raises(InputError) as caught:
        import_records(ImportPlan("mmad", folder, tmp_path / "out"))
    assert "mask 000.png is 32x24, image 000.JPG is 64x48" in str(caught.value)
    assert "001.png: damaged or cut off" in str(caught.value)
    assert not (tmp_path / "out").exists()
