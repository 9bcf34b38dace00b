"""COCO's ways to write a mask: what they mark, by hand, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_miniatures import SIZE_WH, picture

from anomalyr1.coco_masks import decode_mask, encode_mask, encode_segmentation, unite_masks
from anomalyr1.data.importing import Imported, ImportPlan, import_records
from anomalyr1.data.records import load_records
from anomalyr1.images import load_mask
from anomalyr1.types import InputError, Record

BOX = [4, 5, 10, 8]
SQUARE = [4, 5, 14, 5, 14, 13, 4, 13]
BLANK = {"size": [24, 32], "counts": [768]}


def import_coco(tmp_path: Path, segmentations: dict[str, list[Any]], out: str = "out") -> Imported:
    """Imports one picture for each name, with an annotation for each of its segmentations."""
    annotations: list[dict[str, Any]] = []
    for number, (name, found) in enumerate(segmentations.items()):
        picture(tmp_path / "set/images" / name)
        for one in found:
            fields = {"id": len(annotations) + 1, "image_id": number, "category_id": 7}
            annotations.append({**fields, "bbox": BOX, "segmentation": one})
    images = [{"id": number, "file_name": name} for number, name in enumerate(segmentations)]
    categories = [{"id": 7, "name": "scratch"}]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "set/instances.json").write_text(json.dumps(document))
    return import_records(ImportPlan("coco", tmp_path / "set", tmp_path / out))


def load(record: Record) -> Any:
    assert record.mask_path is not None
    return load_mask(record.mask_path, SIZE_WH)


def test_masks_are_the_run_lengths_that_coco_defines() -> None:
    # Column by column, zeros first: 2 zeros, 3 ones, 1 zero, in COCO's characters.
    assert decode_mask({"size": [2, 3], "counts": "231"}).tolist() == [
        [False, True, True],
        [False, True, False],
    ]


def test_run_lengths_as_a_list_and_as_a_text_mark_the_same_pixels() -> None:
    expected = [[False, True, True], [False, True, False]]
    for counts in ([2, 3, 1], "231"):
        mask = encode_segmentation({"size": [2, 3], "counts": counts}, (3, 2))
        assert decode_mask(mask).tolist() == expected
    noise = np.random.default_rng(0).random((50, 70)) < 0.5
    noise[:, 20:60] = True  # runs long enough for several characters, and falling differences
    text = encode_mask(noise)
    assert np.array_equal(decode_mask(encode_segmentation(text, (70, 50))), noise)


def test_polygons_mark_what_lies_within_their_corners_half_open() -> None:
    mask = decode_mask(encode_segmentation([SQUARE, [0, 0, 2, 0, 2, 1, 0, 1]], SIZE_WH))
    expected = np.zeros((24, 32), bool)
    expected[5:13, 4:14] = True
    expected[0, 0:2] = True
    assert np.array_equal(mask, expected)
    triangle = decode_mask(encode_segmentation([[0, 0, 3, 0, 0, 3]], (4, 4)))
    assert triangle.astype(int).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    over = decode_mask(encode_segmentation([[-0.5, 0, 4.9, 0, 4.9, 4.2, -0.5, 4.2]], (4, 4)))
    assert over.all(), "tools round: up to a pixel beyond the edge is cut"


def test_a_union_marks_what_any_of_its_masks_marks() -> None:
    masks = [
        encode_segmentation({"size": [1, 4], "counts": c}, (4, 1)) for c in ([0, 2, 2], [1, 2, 1])
    ]
    assert decode_mask(unite_masks(masks)).tolist() == [[True, True, True, False]]


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([SQUARE[:-1]], "polygon has 7 numbers, x and y of three corners or more"),
        ([[4, 5, 14, 5]], "polygon has 4 numbers"),
        (SQUARE, "polygon is 4, a list of numbers"),
        ([[4, 5, 14, "5", 14, 13]], "a list of numbers is expected"),
        ([[4, 5, 14, 5, 14, float("nan")]], "is not inside 32x24"),
        ([[4, 5, 40, 5, 40, 13]], r"polygon from \(4, 5\) to \(40, 13\) is not inside 32x24"),
        ({"size": [24, 32], "counts": [700, 67]}, "add up to 767, 32x24 are 768 pixels"),
        ({"size": [24, 32], "counts": [700, 69]}, "add up to 769, 32x24 are 768 pixels"),
        ({"size": [24, 32], "counts": [-1, 769]}, "run lengths are expected"),
        ({"size": [24, 32], "counts": "231"}, "add up to 6, 32x24 are 768 pixels"),
        ({"size": [24, 32], "counts": "23o"}, "counts is '23o', run lengths are expected"),
        ({"size": [24, 32], "counts": "2 31"}, "run lengths are expected"),
        (
            {"size": [32, 24], "counts": [768]},
            r"size is \[32, 24\], height and width are \[24, 32\]",
        ),
        ({"counts": [768]}, "size is None"),
        ("polygon", "polygons or run lengths are expected"),
        (BLANK, "b.jpg: its segmentations mark no pixel"),
    ],
)
def test_a_faulty_segmentation_is_named_and_nothing_is_written(
    tmp_path: Path, segmentation: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        import_coco(tmp_path, {"b.jpg": [segmentation]})
    assert "instances.json: 1 problems:" in str(caught.value)
    if segmentation is not BLANK:
        assert "annotation 1 of b.jpg" in str(caught.value)
        assert "remove it to import the box alone" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_segmented_coco_file_becomes_records_with_masks(tmp_path: Path) -> None:
    corner = {"size": [24, 32], "counts": [0, 3, 765]}  # the first three pixels of the first column
    done = import_coco(
        tmp_path, {"a.jpg": [], "top/b.jpg": [[SQUARE], corner], "side/b.jpg": [[SQUARE]]}
    )
    normal, both, square = load_records(done.records_file)
    assert (normal.label, normal.mask_path) == ("normal", None)
    expected = np.zeros((24, 32), bool)
    expected[5:13, 4:14] = True
    assert np.array_equal(load(square), expected)
    expected[0:3, 0] = True
    assert np.array_equal(load(both), expected)
    assert [region.box_xyxy for region in both.regions] == [(4, 5, 14, 13)] * 2
    assert not any("no mask" in note for note in done.notes)


def test_a_picture_with_a_box_alone_has_no_mask_and_is_told(tmp_path: Path) -> None:
    done = import_coco(tmp_path, {"a.jpg": [[SQUARE]], "b.jpg": [[SQUARE], []], "c.jpg": [None]})
    masked, mixed, boxed = load_records(done.records_file)
    assert load(masked).sum() == 80
    assert (mixed.mask_path, len(mixed.regions), boxed.mask_path) == (None, 2, None)
    assert any("2 anomalous pictures have no mask" in note for note in done.notes)


def test_masks_need_a_folder_and_boxes_alone_do_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds masks: it needs a folder as --out"):
        import_coco(tmp_path, {"a.jpg": [[SQUARE]]}, "a.jsonl")
    done = import_coco(tmp_path, {"a.jpg": [[]]}, "b.jsonl")
    assert not any("no mask" in note for note in done.notes)
    assert not (tmp_path / "masks").exists()
