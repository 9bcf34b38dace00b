"""Reviewed pictures become lessons, and none of them is one that the result is measured on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from builders import make_picture, make_record
from PIL import Image

from anomalyr1.data.corrections import lay_out_lessons, mark_defects
from anomalyr1.images import load_mask
from anomalyr1.types import Record, Region


def make_noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def make_reviewed(folder: Path, seeds: range, **fields: object) -> list[Record]:
    return [make_record(make_noise(folder / f"{seed}.png", seed), **fields) for seed in seeds]


def test_nothing_that_looks_like_a_held_out_picture_is_learned_from(tmp_path: Path) -> None:
    (held_out,) = make_reviewed(tmp_path / "in", range(1), label="normal", category="nut")
    with Image.open(held_out.image_path) as picture:
        picture.save(tmp_path / "in" / "again.bmp")
    again = make_record(tmp_path / "in" / "again.bmp", label="normal", category="nut")
    others = make_reviewed(
        tmp_path / "in",
        range(1, 7),
        label="normal",
        category="nut",
        reference_paths=(held_out.image_path, again.image_path),
    )
    lessons = lay_out_lessons([again, *others], [held_out], tmp_path / "out")
    assert [record.image_path.name for record in lessons.records] == [
        record.image_path.name for record in others
    ]
    assert all(record.reference_paths == () for record in lessons.records)
    copied = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert copied == {record.image_path.name for record in others}
    assert any("2 pictures look like held-out ones" in note for note in lessons.notes)


def test_products_lie_apart_each_with_its_own_references(tmp_path: Path) -> None:
    records, references = [], {}
    for number, name in enumerate(("nut", "../bolt")):
        shown = [make_noise(tmp_path / f"r{number}-{n}.png", 100 + 10 * number + n) for n in (0, 1)]
        references[name] = {path.name for path in shown}
        records += make_reviewed(
            tmp_path / f"p{number}",
            range(10 * number, 10 * number + 4),
            label="normal",
            category=name,
            reference_paths=tuple(shown),
        )
    lessons = lay_out_lessons(records, [], tmp_path / "out")
    assert len({product.folder for product in lessons.products}) == 2
    for record in lessons.records:
        assert {path.name for path in record.reference_paths} == references[record.category]
        assert (tmp_path / "out") in record.image_path.parents
    folders = {record.category: record.image_path.parent for record in lessons.records}
    assert len(set(folders.values())) == 2, "the detector's head takes a folder as one product"


def test_a_product_with_few_normal_pictures_is_not_painted_on_but_learned_from(
    tmp_path: Path,
) -> None:
    records = make_reviewed(tmp_path / "in", range(3), label="normal", category="nut")
    lessons = lay_out_lessons(records, [], tmp_path / "out")
    assert lessons.products == ()
    assert len(lessons.records) == 3
    assert "nut: 3 normal pictures" in lessons.notes[0]


def test_a_boxed_defect_gets_a_mask_and_one_without_place_is_left_out(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48))
    boxed = make_record(path, label="anomalous", regions=(Region((10.2, 5.0, 20.0, 9.5)),))
    nowhere = make_record(path, label="anomalous")
    marked, num_unmarked = mark_defects([boxed, nowhere], tmp_path / "masks")
    assert (len(marked), num_unmarked) == (1, 1)
    assert marked[0].mask_path is not None
    mask = load_mask(marked[0].mask_path, (64, 48))
    assert mask.sum() == 10 * 5
    assert mask[5:10, 10:20].all()
