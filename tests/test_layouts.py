"""Data sets in miniature, in the shapes they have on disk, become records."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from anomalyr1.data.layouts import DEEPPCB_DEFECT_TYPES, LAYOUTS, load_folder, load_mvtec
from anomalyr1.data.records import load_records, write_records
from anomalyr1.types import InputError, Region


def write_picture(path: Path, size_wh: tuple[int, int] = (32, 24), value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size_wh, value).save(path)
    return path


def write_mask(path: Path, *boxes: tuple[int, int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (32, 24))
    for box in boxes:
        mask.paste(255, box)
    mask.save(path)
    return path


def write_category(folder: Path, *, num_train: int = 4) -> Path:
    for index in range(num_train):
        write_picture(folder / "train" / "good" / f"{index:03}.png")
    write_picture(folder / "test" / "good" / "000.png")
    write_picture(folder / "test" / "crack" / "000.png")
    write_mask(folder / "ground_truth" / "crack" / "000_mask.png", (2, 3, 8, 9), (20, 10, 30, 20))
    return folder


def test_a_category_folder_becomes_records_with_boxes_from_its_masks(tmp_path: Path) -> None:
    folder = write_category(tmp_path / "parts" / "nut")
    records = load_mvtec(folder)
    assert [record.record_id for record in records] == [
        *(f"nut/train/good/{index:03}" for index in range(4)),
        "nut/test/crack/000",
        "nut/test/good/000",
    ]
    crack, good = records[-2:]
    assert {record.dataset for record in records} == {"parts"}
    assert (crack.category, crack.split, crack.label, crack.defect_type) == (
        "nut",
        "test",
        "anomalous",
        "crack",
    )
    assert crack.mask_path == folder / "ground_truth" / "crack" / "000_mask.png"
    assert sorted(region.box_xyxy for region in crack.regions) == [(2, 3, 8, 9), (20, 10, 30, 20)]
    assert {region.defect_type for region in crack.regions} == {"crack"}
    assert (good.label, good.defect_type, good.mask_path, good.regions) == ("normal", "", None, ())


def test_loaded_records_are_valid_and_survive_the_file(tmp_path: Path) -> None:
    records = load_mvtec(write_category(tmp_path / "nut"), max_references=2)
    write_records(tmp_path / "records.jsonl", records)
    assert list(load_records(tmp_path / "records.jsonl")) == records


def test_a_folder_of_categories_gives_all_or_the_one_named(tmp_path: Path) -> None:
    write_category(tmp_path / "nut")
    write_category(tmp_path / "bolt")
    (tmp_path / "licence").mkdir()
    assert [record.category for record in load_mvtec(tmp_path)] == ["bolt"] * 6 + ["nut"] * 6
    assert {record.category for record in load_mvtec(tmp_path, category="nut")} == {"nut"}
    with pytest.raises(InputError, match="no category gear; there are bolt, nut"):
        load_mvtec(tmp_path, category="gear")
    with pytest.raises(InputError, match="is category nut, not bolt"):
        load_mvtec(tmp_path / "nut", category="bolt")


def test_references_are_train_pictures_drawn_once_a_category(tmp_path: Path) -> None:
    write_category(tmp_path / "nut", num_train=12)
    write_category(tmp_path / "bolt", num_train=12)
    records = load_mvtec(tmp_path, max_references=3, seed=1)
    nuts = {record.reference_paths for record in records if record.record_id.startswith("nut/test")}
    assert len(nuts) == 1
    (paths,) = nuts
    assert len(set(paths)) == 3
    assert list(paths) == sorted(paths)
    assert {path.parent for path in paths} == {tmp_path / "nut" / "train" / "good"}
    assert not any(record.reference_paths for record in records if record.split == "train")
    alone = load_mvtec(tmp_path / "nut", max_references=3, seed=1)[-1]
    assert alone.reference_paths == paths, "the draw does not depend on the other categories"
    draws = {
        load_mvtec(tmp_path / "nut", max_references=3, seed=seed)[-1].reference_paths
        for seed in range(5)
    }
    assert len(draws) > 1
    assert len(load_mvtec(tmp_path / "nut", max_references=99)[-1].reference_paths) == 12


def test_references_without_train_pictures_are_an_error(tmp_path: Path) -> None:
    write_category(tmp_path / "nut", num_train=0)
    assert len(load_mvtec(tmp_path / "nut")) == 2
    with pytest.raises(InputError, match="no picture in train/good"):
        load_mvtec(tmp_path / "nut", max_references=1)
    with pytest.raises(InputError, match="max_references is -1"):
        load_mvtec(tmp_path / "nut", max_references=-1)


def test_every_missing_or_unfit_mask_is_listed(tmp_path: Path) -> None:
    folder = write_category(tmp_path / "nut")
    write_picture(folder / "test" / "crack" / "001.png")
    write_picture(folder / "test" / "dent" / "000.png")
    write_picture(folder / "test" / "dent" / "001.png", (64, 64))
    write_mask(folder / "ground_truth" / "dent" / "001_mask.png", (0, 0, 9, 9))
    with pytest.raises(InputError) as caught:
        load_mvtec(folder)
    message = str(caught.value)
    assert "3 problems" in message
    assert "no mask; expected ground_truth/crack/001_mask.png" in message
    assert "no mask; expected ground_truth/dent/000_mask.png" in message
    assert "mask 001_mask.png is 32x24, image 001.png is 64x64" in message


@pytest.mark.parametrize("name", ["crack/007_mask.png", "crack/007.png", "hole/000_mask.png"])
def test_a_mask_without_its_picture_is_named(tmp_path: Path, name: str) -> None:
    nut = write_category(tmp_path / "nut")
    write_mask(nut / "ground_truth" / name)
    said = rf"1 problems:\n.*{name}: has no picture in test/{Path(name).parent}; add it or remove"
    with pytest.raises(InputError, match=said):
        load_mvtec(nut)


def test_two_pictures_of_one_stem_are_an_error(tmp_path: Path) -> None:
    folder = write_category(tmp_path / "nut")
    write_picture(folder / "test" / "good" / "000.jpg")
    with pytest.raises(InputError, match="has the same stem"):
        load_mvtec(folder)


def test_other_train_folders_are_refused_instead_of_skipped(tmp_path: Path) -> None:
    folder = write_category(tmp_path / "nut")
    write_picture(folder / "train" / "crack" / "000.png")
    with pytest.raises(InputError, match="only train/good is read"):
        load_mvtec(folder)


def test_a_folder_of_another_shape_is_refused_with_the_shape_expected(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match="not in MVTec AD's layout; expected train/good"):
        load_mvtec(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_mvtec(tmp_path / "absent")
    (tmp_path / "nut" / "test").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no pictures"):
        load_mvtec(tmp_path / "nut")


def write_pcb(folder: Path, lines: str = "1 2 9 8 2\n\n10,3,20,9,6\n") -> Path:
    for index in range(3):
        write_picture(folder / "train" / "good" / f"{index}_temp.jpg")
    write_picture(folder / "test" / "good" / "7_temp.jpg")
    write_picture(folder / "test" / "defect" / "8_test.jpg")
    write_picture(folder / "templates" / "8_temp.jpg")
    (folder / "boxes").mkdir()
    (folder / "boxes" / "8_test.txt").write_text(lines)
    return folder


def test_aligned_templates_and_box_files_are_used(tmp_path: Path) -> None:
    folder = write_pcb(tmp_path / "pcb")
    records = LAYOUTS["deeppcb"](folder, max_references=2)
    defect, good = records[-2:]
    assert defect.reference_paths == (folder / "templates" / "8_temp.jpg",)
    assert len(good.reference_paths) == 2
    assert defect.regions == (
        Region((1.0, 2.0, 9.0, 8.0), "short"),
        Region((10.0, 3.0, 20.0, 9.0), "pin-hole"),
    )


def test_an_aligned_template_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = write_pcb(tmp_path / "pcb")
    Image.new("RGB", (20, 10)).save(folder / "templates" / "8_temp.jpg")
    with pytest.raises(InputError, match=r"8_temp.jpg is 20x10, 8_test.jpg is .* aligned template"):
        LAYOUTS["deeppcb"](folder, max_references=2)


def test_templates_and_types_are_used_only_when_asked_for(tmp_path: Path) -> None:
    defect = load_mvtec(write_pcb(tmp_path / "pcb"))[-2]
    assert defect.reference_paths == ()
    assert [region.defect_type for region in defect.regions] == ["defect", "defect"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1 2 9 8 7", "defect type 7, expected 1 to 6"),
        ("1 2 9 8 0", "defect type 0, expected 1 to 6"),
        ("1 2 9", "expected x1 y1 x2 y2 type"),
        ("a b c d 1", "expected x1 y1 x2 y2 type"),
        ("1 2 33 8 1", "is not inside 32x24"),
        ("9 2 1 8 1", "is not inside 32x24"),
        ("nan 2 1 8 1", "is not inside 32x24"),
    ],
)
def test_a_faulty_box_line_is_named_with_its_number(tmp_path: Path, lines: str, said: str) -> None:
    folder = write_pcb(tmp_path / "pcb", "1 2 9 8 1\n" + lines)
    with pytest.raises(InputError, match=said) as caught:
        load_mvtec(folder, defect_types=DEEPPCB_DEFECT_TYPES)
    assert "8_test.txt:2: " in str(caught.value)


def test_a_plain_folder_gives_pictures_of_which_nothing_is_known(tmp_path: Path) -> None:
    write_picture(tmp_path / "line 1" / "b.jpg")
    write_picture(tmp_path / "line 1" / "b.png")
    write_picture(tmp_path / "a.png")
    records = load_folder(tmp_path)
    assert [record.record_id for record in records] == ["a.png", "line 1/b.jpg", "line 1/b.png"]
    assert {(record.label, record.split) for record in records} == {(None, "")}
    with pytest.raises(InputError, match="no such folder"):
        load_folder(tmp_path / "absent")
