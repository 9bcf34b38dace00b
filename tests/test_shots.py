"""K-shot references: the same for a category, repeated by their seed, never a test picture."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from anomalyr1.data.shots import draw_shots
from anomalyr1.types import InputError, Record


def make_records(category: str = "nut", num_train: int = 9) -> list[Record]:
    train = [
        Record(
            f"{category}/t{n}",
            Path(f"{category}/t{n}.png"),
            category=category,
            split="train",
            label="normal",
        )
        for n in range(num_train)
    ]
    tests = [
        Record(
            f"{category}/{n}",
            Path(f"{category}/{n}.png"),
            category=category,
            split="test",
            label="anomalous",
        )
        for n in range(3)
    ]
    return [*train, *tests]


def references(records: list[Record], shots: int, seed: int = 0) -> tuple[Path, ...]:
    (paths,) = {record.reference_paths for record in draw_shots(records, shots, seed)}
    return paths


def test_fewer_shots_are_among_more_and_seeds_differ() -> None:
    records = make_records()
    sets = [set(references(records, shots)) for shots in (1, 2, 4, 8)]
    assert [len(paths) for paths in sets] == [1, 2, 4, 8]
    assert all(few < many for few, many in pairwise(sets))
    assert references(records, 4) == references(list(reversed(records)), 4)
    assert len({references(records, 1, seed) for seed in range(8)}) > 1
    assert [record.record_id for record in draw_shots(records, 1, 0)] == ["nut/0", "nut/1", "nut/2"]


def test_validation_pictures_are_neither_judged_nor_drawn() -> None:
    held = Record("nut/v", Path("nut/v.png"), category="nut", split="val", label="normal")
    drawn = draw_shots([held, *make_records()], 8, 0)
    assert "nut/v" not in [record.record_id for record in drawn]
    assert all(held.image_path not in record.reference_paths for record in drawn)


def test_categories_draw_each_from_their_own() -> None:
    drawn = draw_shots([*make_records("nut"), *make_records("bolt")], 2, 0)
    for record in drawn:
        assert {path.parent.name for path in record.reference_paths} == {record.category}


def test_shared_references_are_the_pool_where_train_is_not_in_the_file() -> None:
    pool = tuple(Path(f"{n}.png") for n in range(8))
    records = [
        Record(f"{n}", Path(f"test{n}.png"), split="test", reference_paths=pool) for n in "ab"
    ]
    assert set(references(records, 4)) < set(pool)
    own = [*records, Record("c", Path("c.png"), split="test", reference_paths=pool[:1])]
    with pytest.raises(InputError, match="references of their own"):
        draw_shots(own, 1, 0)


def test_too_few_references_are_named_with_their_category() -> None:
    with pytest.raises(InputError, match="category nut has 3 normal reference pictures, 4 shots"):
        draw_shots(make_records(num_train=3), 4, 0)
