"""Synthetic records: the same bytes from the same plan, truthful masks, products kept apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyr1.data.records import load_records
from anomalyr1.data.synthesis import (
    HELD_OUT_CATEGORIES,
    HELD_OUT_KINDS,
    SPLITS,
    Synthesis,
    draw_contact_sheet,
    make_product,
    synthesize,
    write_splits,
)
from anomalyr1.images import load_image, load_mask
from anomalyr1.types import InputError, Record


def make_plan(out: Path, **changes: object) -> Synthesis:
    settings: dict[str, object] = {
        "num_products": 4,
        "num_references": 1,
        "num_queries": 2,
        "size": 96,
        "seed": 3,
        "categories": ("washer", "leather", "carpet"),
    }
    return Synthesis(out, **{**settings, **changes})  # type: ignore[arg-type]


def make_photographs(folder: Path, count: int = 2, size: int = 150) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(60, 200, (size, size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"material {number}.png")
    return folder


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Synthesis, list[Record]]:
    plan = make_plan(tmp_path_factory.mktemp("made"))
    records = [record for product in synthesize(plan) for record in product]
    write_splits(plan, records)
    return plan, records


def test_the_same_plan_gives_the_same_bytes_with_one_and_two_workers(
    made: tuple[Synthesis, list[Record]], tmp_path: Path
) -> None:
    plan, records = made
    again = make_plan(tmp_path)
    others = [record for product in synthesize(again, num_workers=2) for record in product]
    write_splits(again, others)
    assert [record.record_id for record in others] == [record.record_id for record in records]
    assert read_bytes(plan.out) == read_bytes(tmp_path)


def test_another_seed_gives_other_pictures(
    made: tuple[Synthesis, list[Record]], tmp_path: Path
) -> None:
    other = make_product(make_plan(tmp_path, seed=4), 0)[0]
    assert other.image_path.read_bytes() != made[1][0].image_path.read_bytes()


def test_half_of_the_pictures_are_anomalous_and_only_those_have_masks_and_words(
    made: tuple[Synthesis, list[Record]],
) -> None:
    labels = [record.label for record in made[1]]
    assert labels.count("anomalous") == labels.count("normal") == 4
    for record in made[1]:
        anomalous = record.label == "anomalous"
        assert bool(record.regions) == anomalous == (record.mask_path is not None)
        assert bool(record.defect_type) == anomalous
        assert all(region.description and region.defect_type for region in record.regions)
        assert len(record.reference_paths) == 1 and record.reference_paths[0].is_file()


def test_masks_lie_in_the_boxes_of_their_regions(made: tuple[Synthesis, list[Record]]) -> None:
    for record in made[1]:
        if record.mask_path is None:
            continue
        with Image.open(record.image_path) as picture:
            size_wh = picture.size
        mask = load_mask(record.mask_path, size_wh)
        inside = np.zeros_like(mask)
        for region in record.regions:
            left, top, right, bottom = (int(side) for side in region.box_xyxy)
            assert mask[top:bottom, left:right].any(), "a box without a defect"
            inside[top:bottom, left:right] = True
        assert (mask & ~inside).sum() <= 0.05 * mask.sum(), "specks below the least area only"


def test_splits_are_written_and_read_back(made: tuple[Synthesis, list[Record]]) -> None:
    plan, records = made
    counts = {
        split: len(load_records(path))
        for split in SPLITS
        if (path := plan.out / f"{split}.jsonl").is_file()
    }
    assert sum(counts.values()) == len(records) and "test_held_out" in counts
    assert (plan.out / "manifest.json").is_file()


def test_held_out_categories_and_kinds_are_never_in_train(tmp_path: Path) -> None:
    plan = make_plan(
        tmp_path,
        num_products=24,
        num_references=0,
        size=64,
        categories=("gear", "carpet", "bottle_cap"),
    )
    splits: dict[str, str] = {}
    for product in synthesize(plan):
        for record in product:
            assert splits.setdefault(str(record.image_path.parent), record.split) == record.split
            held_out = record.category in HELD_OUT_CATEGORIES
            assert held_out == (record.split == "test_held_out")
            if not held_out:
                kinds = {region.defect_type for region in record.regions}
                assert not kinds & set(HELD_OUT_KINDS)
    assert {"train", "test_held_out"} <= set(splits.values())


def test_a_users_own_normal_pictures_are_one_product(tmp_path: Path) -> None:
    folder = make_photographs(tmp_path / "my part", 3)
    plan = make_plan(tmp_path / "out", normal=folder, categories=())
    records = [record for product in synthesize(plan) for record in product]
    assert {record.category for record in records} == {"my part"}
    assert {record.label for record in records} == {"normal", "anomalous"}


@pytest.mark.parametrize(("index", "same"), [(0, True), (1, False), (3, True)])
def test_some_designs_show_one_part_beside_its_own_template(
    tmp_path: Path, index: int, same: bool
) -> None:
    folder = make_photographs(tmp_path / "boards", 6, 5)
    for path in folder.iterdir():
        Image.open(path).resize((150, 150)).save(path)
    plan = make_plan(tmp_path / "out", normal=folder, categories=(), num_queries=2)
    records = make_product(plan, index)
    (normal,) = (record for record in records if record.label == "normal")
    first, second = (load_image(path) for path in (normal.image_path, normal.reference_paths[0]))
    alike = np.corrcoef(np.asarray(first).ravel(), np.asarray(second).ravel())[0, 1]
    assert (alike > 0.5) == same, alike


def test_materials_are_cropped_into_products(tmp_path: Path) -> None:
    folder = make_photographs(tmp_path / "materials")
    plan = make_plan(tmp_path / "out", material=folder, categories=(), num_products=3)
    records = [record for product in synthesize(plan) for record in product]
    assert [record.category for record in records[::2]] == [
        "photo material 0",
        "photo material 1",
        "photo material 0",
    ]
    with Image.open(records[0].image_path) as picture:
        assert picture.size == (96, 96)


@pytest.mark.parametrize("size", [1, 2])
def test_a_photograph_too_small_to_crop_is_refused(tmp_path: Path, size: int) -> None:
    folder = make_photographs(tmp_path / "dots", 1, size)
    with pytest.raises(InputError, match="too small"):
        make_product(make_plan(tmp_path / "out", material=folder), 0)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        list(synthesize(make_plan(tmp_path / "out", normal=tmp_path)))


@pytest.mark.parametrize(
    "changes", [{"num_products": 0}, {"num_queries": 0}, {"num_references": -1}]
)
def test_a_plan_for_nothing_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(InputError):
        list(synthesize(make_plan(tmp_path, **changes)))


def test_an_unknown_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spoon"):
        list(synthesize(make_plan(tmp_path, categories=("spoon",))))


def test_the_contact_sheet_shows_every_record(
    made: tuple[Synthesis, list[Record]], tmp_path: Path
) -> None:
    path = tmp_path / "sheet.png"
    draw_contact_sheet(made[1], path, columns=3)
    with Image.open(path) as sheet:
        assert sheet.size == (3 * 160, 3 * 160)
        pixels = np.asarray(sheet)
    outlined = (pixels == (255, 0, 200)).all(axis=2)
    assert outlined.any()
