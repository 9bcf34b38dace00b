"""Records travel through JSON Lines unchanged, and a faulty file is refused line by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from record_files import GOOD, write_lines, write_picture

from anomalyr1.data.record_json import record_from_json, record_to_json
from anomalyr1.data.records import load_records, validate_record, write_records
from anomalyr1.types import InputError, Question, Record, Region


def write_mask(path: Path, size_wh: tuple[int, int] = (40, 30), value: int = 255) -> Path:
    Image.new("L", size_wh, value).save(path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


def make_record(folder: Path, **values: object) -> Record:
    """A valid defective record with its picture; `values` replace fields."""
    defaults: dict[str, object] = {
        "record_id": "nut/0",
        "image_path": write_picture(folder / "nut.png"),
        "label": "anomalous",
        "regions": (Region((1.0, 2.0, 10.5, 12.0), "scratch"),),
    }
    return Record(**{**defaults, **values})  # type: ignore[arg-type]


def test_records_come_back_equal(tmp_path: Path) -> None:
    full = Record(
        record_id="nut/full",
        image_path=write_picture(tmp_path / "data" / "größe\u2028 1.png"),
        dataset="parts",
        category="nut",
        split="test",
        label="anomalous",
        defect_type="crack",
        mask_path=write_mask(tmp_path / "data" / "mask.png"),
        reference_paths=(write_picture(tmp_path / "data" / "ref.png"),),
        knowledge="Threads are \u2028 cut.",
        regions=(Region((0.5, 1.0, 40.0, 30.0), "crack", "a long crack", 0.25),),
        question=Question("Which?", {"A": "none", "B": "crack"}, "B", "Defect Type"),
        reasoning="There is a line.",
    )
    bare = Record(record_id="nut/bare", image_path=write_picture(tmp_path / "bare.png"))
    path = tmp_path / "lists" / "deep" / "records.jsonl"
    write_records(path, [full, bare])
    assert list(load_records(path)) == [full, bare]
    assert str(tmp_path) not in path.read_text(encoding="utf-8"), "paths are relative"


def test_a_moved_data_set_still_loads(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    write_records(folder / "records.jsonl", [make_record(folder)])
    folder.rename(tmp_path / "there")
    (loaded,) = load_records(tmp_path / "there" / "records.jsonl")
    assert loaded.image_path == tmp_path / "there" / "nut.png"


def test_relative_paths_are_taken_from_the_working_folder_when_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "nut.png")
    monkeypatch.chdir(tmp_path)
    write_records("records.jsonl", [Record("a", Path("nut.png"))])
    (loaded,) = load_records("records.jsonl")
    assert loaded.image_path == tmp_path / "nut.png"


def test_fields_at_their_default_are_left_out() -> None:
    values = record_to_json(Record("a", Path("/data/a.png")), Path("/data/lists"))
    assert values == {"record_id": "a", "image_path": "../a.png"}
    assert record_from_json(values, Path("/data/lists")) == Record("a", Path("/data/a.png"))


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path: Path) -> None:
    write_picture(tmp_path / "nut.png")
    path = tmp_path / "records.jsonl"
    line = '{"record_id": "a", "image_path": "nut.png"}\r\n'
    path.write_text("\ufeff\n" + line + "\n \n", encoding="utf-8")
    assert [record.record_id for record in load_records(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "is a JSON list"),
        ({"image_path": "nut.png"}, "record_id is missing"),
        ({"record_id": "a"}, "record a: image_path is missing"),
        ({**GOOD, "record_id": 7}, "record_id is 7, expected text"),
        ({**GOOD, "record_id": " "}, "record_id is ' ', expected text that is not empty"),
        ({**GOOD, "lable": "normal"}, "record a: unknown key lable; did you mean label?"),
        ({**GOOD, "label": "good"}, "record a: label is 'good', expected normal, anomalous"),
        ({**GOOD, "label": ["normal"]}, "expected normal, anomalous"),
        ({**GOOD, "reference_paths": "b.png"}, "expected a list of paths"),
        ({**GOOD, "regions": {}}, "expected a list of objects"),
        (
            {**GOOD, "regions": [[1, 2, 3, 4]]},
            r"regions\[0\] is \[1, 2, 3, 4\], expected an object",
        ),
        ({**GOOD, "regions": [{"box_xyxy": [1, 2, 3]}]}, r"regions\[0\].box_xyxy is \[1, 2, 3\]"),
        ({**GOOD, "regions": [{"box_xyxy": [1, 2, 3, True]}]}, r"regions\[0\].box_xyxy is"),
        ({**GOOD, "regions": [{}]}, r"regions\[0\].box_xyxy is missing"),
        ({**GOOD, "regions": [{"bbox": [1, 2, 3, 4]}]}, r"unknown key regions\[0\].bbox"),
        ({**GOOD, "question": "Which?"}, "expected an object"),
        ({**GOOD, "question": {"text": "Which?"}}, "question.options is missing"),
        (
            {**GOOD, "question": {"text": "Which?", "options": ["a", "b"]}},
            "question.options is .* expected an object from letters",
        ),
    ],
)
def test_a_malformed_line_is_named_with_its_number(tmp_path: Path, line: object, said: str) -> None:
    write_picture(tmp_path / "nut.png")
    path = write_lines(tmp_path, GOOD | {"record_id": "first"}, line)
    for validate in (True, False):
        with pytest.raises(InputError, match=said) as caught:
            list(load_records(path, validate=validate))
        assert str(caught.value).startswith(f"{path}:2: ")


def with_faults() -> list[tuple[str, Callable[[Path], Record], str]]:
    box = (1.0, 2.0, 3.0, 4.0)

    def boxed(*sides: float) -> Callable[[Path], Record]:
        return lambda folder: make_record(folder, regions=(Region(sides),))  # type: ignore[arg-type]

    def asked(answer: str, **options: str) -> Callable[[Path], Record]:
        return lambda folder: make_record(folder, question=Question("Which?", options, answer))

    return [
        (
            "missing picture",
            lambda folder: make_record(folder, image_path=folder / "gone.png"),
            r"picture .*gone\.png: no such file",
        ),
        (
            "cut-off png",
            lambda folder: make_record(folder, image_path=cut(write_picture(folder / "c.png"))),
            r"picture .*c\.png: damaged or cut off",
        ),
        (
            "cut-off jpeg",
            lambda folder: make_record(folder, image_path=cut(write_picture(folder / "c.jpg"))),
            r"picture .*c\.jpg: damaged or cut off",
        ),
        (
            "missing reference",
            lambda folder: make_record(folder, reference_paths=(folder / "ref.png",)),
            r"reference .*ref\.png: no such file",
        ),
        (
            "own reference",
            lambda folder: make_record(folder, reference_paths=(folder / "nut.png",)),
            "is its own reference",
        ),
        (
            "mask of another size",
            lambda folder: make_record(folder, mask_path=write_mask(folder / "m.png", (30, 40))),
            r"mask m\.png is 30x40, image nut\.png is 40x30",
        ),
        (
            "missing mask",
            lambda folder: make_record(folder, mask_path=folder / "m.png"),
            r"m\.png: no such file",
        ),
        (
            "mask without label",
            lambda folder: make_record(
                folder, label=None, regions=(), mask_path=write_mask(folder / "m.png")
            ),
            "has a mask but no label",
        ),
        (
            "regions without label",
            lambda folder: make_record(folder, label=None),
            "has regions but no label",
        ),
        (
            "normal with regions",
            lambda folder: make_record(folder, label="normal"),
            "is normal but has regions",
        ),
        (
            "normal with a mask that shows something",
            lambda folder: make_record(
                folder, label="normal", regions=(), mask_path=write_mask(folder / "m.png")
            ),
            "its mask .* is not blank",
        ),
        ("outside right", boxed(1, 2, 40.5, 4), r"regions\[0\] box \(1, 2, 40.5, 4\) reaches out"),
        ("outside below", boxed(1, 2, 3, 31), "outside the 40x30 picture"),
        ("outside left", boxed(-1, 2, 3, 4), "outside the 40x30 picture"),
        ("no width", boxed(3, 2, 3, 4), "has no area"),
        ("swapped", boxed(3, 4, 1, 2), "has no area"),
        ("not a number", boxed(float("nan"), 2, 3, 4), "is not finite"),
        ("infinite", boxed(1, 2, float("inf"), 4), "is not finite"),
        (
            "confidence",
            lambda folder: make_record(folder, regions=(Region(box, confidence=1.5),)),
            "confidence 1.5",
        ),
        ("answer", asked("C", A="yes", B="no"), r"answer 'C' is not among the options \(A, B\)"),
        ("answer in words", asked("yes", A="yes", B="no"), "answer 'yes' is not among"),
        ("no options", asked("A"), r"not among the options \(none\)"),
        ("option letter", asked("a", a="yes"), "option 'a' is not one capital letter"),
    ]


@pytest.mark.parametrize(
    ("build", "said"),
    [row[1:] for row in with_faults()],
    ids=[row[0] for row in with_faults()],
)
def test_a_faulty_record_is_refused_with_file_line_and_id(
    tmp_path: Path, build: Callable[[Path], Record], said: str
) -> None:
    record = build(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        validate_record(record)
    assert str(caught.value).startswith("record nut/0: ")
    path = tmp_path / "records.jsonl"
    write_records(path, [make_record(tmp_path, record_id="fine"), record])
    with pytest.raises(InputError, match=said) as caught:
        load_records(path)
    assert str(caught.value).startswith(f"{path}:2: record nut/0: ")
    assert len(load_records(path, validate=False)) == 2


def test_a_valid_record_passes(tmp_path: Path) -> None:
    question = Question("Which?", {"A": "yes", "B": "no"}, "B")
    validate_record(
        make_record(tmp_path, mask_path=write_mask(tmp_path / "m.png"), question=question)
    )
    blank = write_mask(tmp_path / "blank.png", value=0)
    validate_record(make_record(tmp_path, label="normal", regions=(), mask_path=blank))
    whole = Region((0.0, 0.0, 40.0, 30.0))
    validate_record(make_record(tmp_path, regions=(whole,)))


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    write_picture(tmp_path / "nut.png")
    path = write_lines(tmp_path, GOOD, "", GOOD)
    with pytest.raises(InputError, match=r":3: record a: id already used on line 1"):
        load_records(path)


def test_all_problems_come_at_once_up_to_twenty(tmp_path: Path) -> None:
    lines = [{"record_id": f"r{index}", "image_path": "gone.png"} for index in range(30)]
    path = write_lines(tmp_path, *lines, "{")
    with pytest.raises(InputError) as caught:
        load_records(path)
    shown = str(caught.value).splitlines()
    assert shown[0] == "31 problems:"
    assert shown[1].startswith(f"{path}:1: record r0: picture ")
    assert shown[20].startswith(f"{path}:20: record r19: ")
    assert shown[21:] == ["... and 11 more"]


def test_a_picture_that_many_records_name_is_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[Path] = []

    def check(path: Path) -> tuple[int, int]:
        opened.append(path)
        return (40, 30)

    monkeypatch.setattr("anomalyr1.data.record_checks.check_image", check)
    path = write_lines(tmp_path, *(GOOD | {"record_id": str(index)} for index in range(250)))
    assert len(load_records(path)) == 250
    assert opened == [tmp_path / "nut.png"]
    assert capsys.readouterr().out == "", "progress belongs on stderr"


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "holds no records"),
        (b"\n\n", "holds no records"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (None, "cannot be read"),
    ],
)
def test_a_file_without_records_is_refused_by_name(
    tmp_path: Path, payload: bytes | None, said: str
) -> None:
    path = tmp_path / "records.jsonl"
    if payload is not None:
        path.write_bytes(payload)
    with pytest.raises(InputError, match=said) as caught:
        load_records(path)
    assert str(path) in str(caught.value)
