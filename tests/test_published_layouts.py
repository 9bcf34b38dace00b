"""Each public data set, in miniature and in the folder shape in which it is published."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_miniatures import (
    BOX,
    SIZE_WH,
    WRITERS,
    mask,
    picture,
    write_coco,
    write_csv,
    write_dagm,
    write_deeppcb,
    write_loco,
    write_mvtec,
    write_visa,
    write_yolo,
)

from anomalyr1.data.importing import ImportPlan, import_records, seems_inverted
from anomalyr1.data.layouts import (
    LAYOUTS,
    PUBLISHED,
    TOTALS,
    compare_counts,
    count_records,
    describe_counts,
)
from anomalyr1.data.records import load_records
from anomalyr1.images import load_mask
from anomalyr1.types import InputError, Record, Region

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "images"


def load(layout: str, root: Path, **options: int) -> list[Record]:
    write, name, _ = WRITERS[layout]
    root.mkdir()
    write(root)
    return LAYOUTS[layout](root / name if name else root, **options)


def test_every_layout_has_its_miniature() -> None:
    assert set(WRITERS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", WRITERS)
def test_a_set_as_it_is_published_becomes_checked_records(tmp_path: Path, layout: str) -> None:
    write, name, (train, normal, anomalous) = WRITERS[layout]
    source = tmp_path / "set"
    source.mkdir()
    write(source)
    plan = ImportPlan(layout, source / name, tmp_path / "out", max_references=0)
    done = import_records(plan)
    records = load_records(done.records_file)
    counts = count_records(records).values()
    assert sum(row["train"] for row in counts) == train
    assert sum(row["normal"] for row in counts) == normal
    assert sum(row["anomalous"] for row in counts) == anomalous
    assert done.num_records == len(records)
    summary = json.loads((tmp_path / "out/import.json").read_text())
    assert summary["records"] == len(records)
    assert bool(summary["differences"]) == (layout in PUBLISHED or layout in TOTALS)
    for record in records:
        if record.label == "anomalous":
            assert record.regions
            assert record.defect_type
        if record.mask_path is not None:
            assert load_mask(record.mask_path, SIZE_WH, record.mask_threshold).any()


@pytest.mark.parametrize(
    "layout",
    ["mvtec", "loco", "visa", "goodsad", "btad", "mpdd", "kolektorsdd2", "dagm", "realiad"],
)
def test_references_are_normal_pictures_of_train(tmp_path: Path, layout: str) -> None:
    records = load(layout, tmp_path / "set", max_references=4)
    train = {
        record.image_path
        for record in records
        if record.split == "train" and record.label == "normal"
    }
    for record in records:
        if record.split == "test":
            assert record.reference_paths
            assert set(record.reference_paths) <= train


def test_loco_masks_saturate_as_their_config_says(tmp_path: Path) -> None:
    records = load("loco", tmp_path / "set")
    assert {record.split for record in records} == {"train", "val", "test"}
    bad = next(record for record in records if record.label == "anomalous")
    assert [(part.defect_type, part.saturation_area) for part in bad.mask_parts] == [
        ("missing_screw", 50),
        ("long_screw", 25),
    ]
    assert bad.mask_path is not None
    assert load_mask(bad.mask_path, SIZE_WH, 0).sum() == 80 + 100
    assert [region.defect_type for region in bad.regions] == ["missing_screw", "long_screw"]


@pytest.mark.parametrize(
    ("threshold", "is_relative", "said"),
    [
        ("NaN", "true", "of dent is nan, no share"),
        ("1.5", "true", "of dent is 1.5, no share"),
        ("-3", "false", "of dent is -3.0, no number of pixels"),
        ("Infinity", "false", "of dent is inf, no number of pixels"),
    ],
)
def test_a_loco_saturation_that_means_nothing_is_refused(
    tmp_path: Path, threshold: str, is_relative: str, said: str
) -> None:
    write_loco(tmp_path)
    config = next(tmp_path.glob("*/defects_config.json"))
    config.write_text(
        '[{"defect_name": "dent", "pixel_value": 255, '
        f'"saturation_threshold": {threshold}, "relative_saturation": {is_relative}}}]'
    )
    with pytest.raises(InputError, match=rf"defects_config.json: cannot be read .*{said}"):
        LAYOUTS["loco"](tmp_path)


def test_loco_masks_that_name_no_defect_are_refused(tmp_path: Path) -> None:
    write_loco(tmp_path)
    mask(tmp_path / "screw_bag/ground_truth/logical_anomalies/000/001.png", 17)
    with pytest.raises(InputError, match=r"001.png: holds the values \[17\]; expected one of"):
        LAYOUTS["loco"](tmp_path)


def test_visa_takes_kinds_of_defect_from_its_annotations(tmp_path: Path) -> None:
    bad = load("visa", tmp_path / "set")[-1]
    assert bad.defect_type == "wax melded out, chunk"
    assert bad.regions[0].box_xyxy == BOX


def test_visa_rows_without_their_picture_are_listed(tmp_path: Path) -> None:
    write_visa(tmp_path)
    (tmp_path / "candle/Data/Images/Normal/0002.JPG").unlink()
    with pytest.raises(InputError, match=r"1cls.csv:3: candle/Data/Images/Normal/0002.JPG is not"):
        LAYOUTS["visa"](tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "old", "said"),
    [
        ("visa", "split_csv/1cls.csv", "candle/Data/Images/Normal/0002.JPG", r"1cls.csv:3: "),
        ("visa", "split_csv/1cls.csv", "candle/Data/Masks/Anomaly/000.png", r"1cls.csv:4: "),
        (
            "realiad",
            "realiad_jsons/realiad_jsons/audiojack.json",
            "OK/S0002/audiojack_0002_OK_C1_1.jpg",
            r"audiojack.json: entry .* of test: ",
        ),
        ("deeppcb", "PCBData/test.txt", "group00041/00041/00041001.jpg", r"test.txt:1: "),
    ],
)
def test_a_path_that_leads_out_of_a_set_is_refused_with_its_row(
    tmp_path: Path, layout: str, name: str, old: str, said: str
) -> None:
    WRITERS[layout][0](tmp_path / "set")
    for suffix in ("", "_test", "_temp"):
        picture(tmp_path / f"outside{suffix}.jpg")
    path = tmp_path / "set" / name
    for outside in ("../outside.jpg", str(tmp_path / "outside.jpg")):
        path.write_text(path.read_text().replace(old, outside))
        with pytest.raises(InputError, match=rf"{said}{outside} leads out of"):
            LAYOUTS[layout](tmp_path / "set")
        old = outside


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("visa", "split_csv/1cls.csv"),
        ("yolo", "labels/test/b.txt"),
        ("yolo", "data.yaml"),
        ("deeppcb", "PCBData/test.txt"),
    ],
)
def test_an_annotation_file_that_is_no_utf8_text_is_named(
    tmp_path: Path, layout: str, name: str
) -> None:
    WRITERS[layout][0](tmp_path)
    (tmp_path / name).write_bytes("0 ä".encode("utf-16"))
    with pytest.raises(InputError, match=rf"{Path(name).name}: is not UTF-8 text"):
        LAYOUTS[layout](tmp_path)


def test_a_picture_that_is_listed_twice_stops_the_import(tmp_path: Path) -> None:
    write_csv(tmp_path)
    path = tmp_path / "parts.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(InputError, match=r"parts.csv: 1 records are listed more than once: b.png"):
        import_records(ImportPlan("csv", path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_dagm_labels_that_contradict_the_masks_are_told(tmp_path: Path) -> None:
    write_dagm(tmp_path)
    (tmp_path / "Class1/Train/Label/0577_label.PNG").unlink()
    with pytest.raises(InputError, match=r"0577.PNG: Labels.txt calls it defective, but has no"):
        LAYOUTS["dagm"](tmp_path)


def test_dagm_labels_of_a_picture_that_is_missing_are_named(tmp_path: Path) -> None:
    write_dagm(tmp_path)
    (tmp_path / "Class1/Train/0577.PNG").unlink()
    with pytest.raises(InputError, match=r"1 problems:\n.*Labels.txt: names 0577.png, which is"):
        LAYOUTS["dagm"](tmp_path)


def test_deeppcb_boards_refer_to_their_own_template(tmp_path: Path) -> None:
    train, test = load("deeppcb", tmp_path / "set")
    assert [path.name for path in test.reference_paths] == ["00041001_temp.jpg"]
    assert test.regions == (Region((4.0, 5.0, 14.0, 13.0), "mousebite"),)
    assert train.split == "train"


def test_a_deeppcb_template_of_another_size_is_refused(tmp_path: Path) -> None:
    write_deeppcb(tmp_path)
    template = tmp_path / "PCBData/group00041/00041/00041001_temp.jpg"
    Image.new("RGB", (40, 30)).save(template)
    said = r"00041001_temp.jpg is 40x30, 00041001_test.jpg is 32x24; an aligned template"
    with pytest.raises(InputError, match=rf"1 problems:\ntemplate .*{said}"):
        LAYOUTS["deeppcb"](tmp_path)


def test_coco_and_yolo_boxes_land_where_they_were_drawn(tmp_path: Path) -> None:
    (region,) = load("coco", tmp_path / "coco")[1].regions
    assert region == Region((4.0, 5.0, 14.0, 13.0), "scratch")
    box, polygon = (record.regions[0] for record in load("yolo", tmp_path / "yolo")[:2])
    assert box.box_xyxy == pytest.approx((4, 5, 14, 13))
    assert box.defect_type == "scratch"
    assert polygon == Region((4.0, 6.0, 16.0, 18.0), "dent")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("9 0.5 0.5 0.1 0.1", "no box of 2 classes"),
        ("0 0.5 0.5 0.1", "no box of 2 classes"),
        ("0 0.9 0.5 0.9 0.1", "is not inside 32x24"),
        ("0 x 0.5 0.1 0.1", "no box of 2 classes"),
        ("-1 0.5 0.5 0.1 0.1", "no box of 2 classes"),
    ],
)
def test_a_faulty_yolo_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels/test/b.txt").write_text(line)
    with pytest.raises(InputError, match=said):
        LAYOUTS["yolo"](tmp_path)


def test_a_yolo_label_file_without_its_picture_is_named(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels/test/classes.txt").write_text("dent\nscratch\n")
    assert len(LAYOUTS["yolo"](tmp_path)) == 3
    (tmp_path / "images/test/b.jpg").unlink()
    with pytest.raises(InputError, match=r"labels/test/b.txt: has no picture in images/"):
        LAYOUTS["yolo"](tmp_path)


def test_a_coco_file_that_is_cut_off_or_names_absent_pictures_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path)
    path = tmp_path / "instances.json"
    whole = path.read_text()
    (tmp_path / "images/a.jpg").unlink()
    with pytest.raises(InputError, match=r"picture a.jpg is not beside it"):
        LAYOUTS["coco"](tmp_path)
    path.write_text(whole[:-9])
    with pytest.raises(InputError, match="is not a whole COCO file"):
        LAYOUTS["coco"](path)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"id": 3, "file_name": "a.jpg"}, r"images 1 and 3 are both a\.jpg"),
        ({"id": 1, "file_name": "a.jpg"}, r"images 1 and 1 are both a\.jpg"),
        ({"id": 1, "file_name": "c.jpg"}, r"a\.jpg and c\.jpg both have the id 1"),
    ],
)
def test_a_coco_image_that_is_listed_twice_is_refused_at_import(
    tmp_path: Path, image: dict[str, object], said: str
) -> None:
    write_coco(tmp_path)
    path = tmp_path / "instances.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"images": [*document["images"], image]}))
    with pytest.raises(InputError, match=rf"instances\.json: {said}"):
        import_records(ImportPlan("coco", path, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("picture,label\na.png,normal\n", "expected image and any of"),
        ("image,lable\na.png,normal\n", "the columns are image, lable"),
        ("image,label\na.png,good\n", "parts.csv:2: image 'a.png', label 'good'"),
        ("image,label\na.png,good\n", "expected a picture, and normal, anomalous or nothing"),
        ("image,label,mask\na.png,anomalous,none.png\n", "none.png: no such file"),
        ("image,knowledge\na.png,round, flat\n", "parts.csv:2: 'flat' is beyond the last column"),
    ],
)
def test_a_faulty_csv_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    write_csv(tmp_path)
    (tmp_path / "parts.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        LAYOUTS["csv"](tmp_path / "parts.csv")


def test_a_cell_of_two_lines_keeps_them(tmp_path: Path) -> None:
    write_csv(tmp_path)
    path = tmp_path / "parts.csv"
    path.write_bytes(b'image,knowledge\r\na.png,"round,\nflat"\r\nb.png,x\r\n')
    assert [one.knowledge for one in LAYOUTS["csv"](path)] == ["round,\nflat", "x"]


def test_published_counts_add_up_to_the_published_totals() -> None:
    def total(layout: str, column: int) -> int:
        return sum(row[column] for row in PUBLISHED[layout].values())

    assert [total("mvtec", column) for column in range(3)] == [3629, 467, 1258]
    assert [total("visa", column) for column in range(3)] == [8659, 962, 1200]
    assert [total("goodsad", column) for column in range(3)] == [3136, 1328, 1660]
    assert [total("mpdd", column) for column in range(3)] == [888, 176, 282]
    assert [total("btad", column) for column in range(3)] == [1799, 451, 290]
    assert total("loco", 0) == 1778 and total("loco", 1) + total("loco", 2) == 1568
    assert total("kolektorsdd2", 0) == 246 + 2085


def test_what_differs_from_the_published_counts_is_said() -> None:
    def count(train: int, normal: int, anomalous: int) -> dict[str, int]:
        row = {"train": train, "val": 0, "normal": normal, "anomalous": anomalous}
        return row | {"unlabelled": 0}

    counts = {"01": count(400, 21, 48), "02": count(399, 30, 200)}
    lines = compare_counts("btad", counts)
    assert "400 train, 21 normal and 48 anomalous test; published 400, 21 and 49" in lines[0]
    assert lines[1:] == ["1 categories are not here: 03"]
    assert compare_counts("btad", {"02": counts["02"]}) == [], "a category alone is no fault"
    assert compare_counts("mvtec", counts) == [], "a set of one's own in MVTec AD's shape"
    assert compare_counts("csv", counts) == []


def test_counts_that_agree_and_counts_that_nobody_published_are_told_apart() -> None:
    goods = {name: dict(zip(("train", "normal", "anomalous"), row, strict=True)) | {"val": 0}
             for name, row in PUBLISHED["goodsad"].items()}  # fmt: skip
    assert describe_counts("goodsad", goods) == ["counts agree with the published ones"]
    assert describe_counts("csv", goods) == ["no published counts are known to compare with"]
    (said, unsure) = describe_counts("dagm", {"Class1": goods["food_box"]})
    assert said == "counts differ from the published ones: 829 pictures; published 16100"
    assert unsure.startswith("of the published counts, not confirmed: the total")


def test_inverted_masks_are_told_and_turned_round_when_asked(tmp_path: Path) -> None:
    source = tmp_path / "set"
    write_mvtec(source)
    path = source / "bottle/ground_truth/broken_large/000_mask.png"
    Image.eval(Image.open(path), lambda value: 255 - value).save(path)
    told = import_records(ImportPlan("mvtec", source, tmp_path / "told"))
    assert any("inverted? --fix" in note for note in told.notes)
    mended = import_records(ImportPlan("mvtec", source, tmp_path / "mended", fix=True))
    bad = next(one for one in load_records(mended.records_file) if one.label == "anomalous")
    assert bad.mask_path is not None
    assert bad.mask_path.parent == tmp_path / "mended/masks"
    assert load_mask(bad.mask_path, SIZE_WH).sum() == 80
    assert bad.regions[0].box_xyxy == BOX
    with pytest.raises(InputError, match="--fix needs a folder"):
        import_records(ImportPlan("mvtec", source, tmp_path / "a.jsonl", fix=True))
    assert not seems_inverted(np.ones((4, 4), bool)), "a picture that is all defect stays so"


def test_a_mask_of_all_of_its_picture_is_told_and_kept(tmp_path: Path) -> None:
    source = tmp_path / "set"
    write_mvtec(source)
    mask(source / "bottle/ground_truth/broken_large/000_mask.png", box=(0, 0, *SIZE_WH))
    done = import_records(ImportPlan("mvtec", source, tmp_path / "out", fix=True))
    assert sum("000_mask.png: marks all of the picture" in note for note in done.notes) == 1
    bad = next(one for one in load_records(done.records_file) if one.label == "anomalous")
    assert bad.regions[0].box_xyxy == (0, 0, *SIZE_WH)


def test_soft_and_palette_masks_are_read_and_those_of_another_size_refused(tmp_path: Path) -> None:
    write_mvtec(tmp_path)
    path = tmp_path / "bottle/ground_truth/broken_large/000_mask.png"
    soft = np.zeros((24, 32), np.uint8)
    soft[5:13, 4:14] = 100
    soft[6:12, 5:13] = 255
    Image.fromarray(soft).save(path)
    assert LAYOUTS["mvtec"](tmp_path)[1].regions[0].box_xyxy == (5, 6, 13, 12)
    palette = Image.fromarray((soft > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 90, 0, 0])
    palette.save(path)
    assert LAYOUTS["mvtec"](tmp_path)[1].regions[0].box_xyxy == BOX
    Image.new("L", (16, 12), 255).save(path)
    with pytest.raises(InputError, match=r"mask 000_mask.png is 16x12, image 000.png is 32x24"):
        LAYOUTS["mvtec"](tmp_path)


@pytest.mark.parametrize(
    ("layout", "name", "counts"),
    [
        ("mvtec", "magnetic_tile", (40, 30, 60)),
        ("mvtec", "otx_hazelnut", (28, 6, 17)),
        ("deeppcb", "deeppcb", (40, 30, 60)),
    ],
)
def test_real_pictures_are_read_whole(
    tmp_path: Path, layout: str, name: str, counts: tuple[int, int, int]
) -> None:
    if not (REAL / name).is_dir():
        pytest.skip(f"{REAL / name} is absent")
    done = import_records(ImportPlan(layout, REAL / name, tmp_path / "out"))
    (row,) = count_records(load_records(done.records_file, validate=False)).values()
    assert (row["train"], row["normal"], row["anomalous"]) == counts
