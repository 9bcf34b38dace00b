"""What a batch job looks at: sources, lists, and the blocks of its plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_batch import fill, upload

from anomalyr1.distributed import plan
from anomalyr1.distributed.plan import (
    Item,
    PlanSize,
    cut_blocks,
    list_items,
    load_block,
    write_plan,
)
from anomalyr1.distributed.storage import walk_pictures, write_whole
from anomalyr1.types import InputError


def test_a_folder_is_its_pictures_and_its_first_folders_are_categories(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "nut/b.png",
        "nut/deep/a.jpg",
        "gear/c.png",
        "d.png",
        ".hidden/e.png",
        "nut/f.txt.png",
    )
    (tmp_path / "nut" / "notes.txt").write_text("no picture")
    items = list(list_items(str(tmp_path)))
    assert [(Path(item.image).name, item.category) for item in items] == [
        ("d.png", ""), ("c.png", "gear"), ("b.png", "nut"), ("a.jpg", "nut"), ("f.txt.png", "nut"),
    ]  # fmt: skip
    assert all(item.record_id == item.image for item in items)
    given = list(list_items(str(tmp_path), category="part", references=("r.png",), knowledge="six"))
    assert {(item.category, item.references, item.knowledge) for item in given} == {
        ("part", ("r.png",), "six")
    }


def test_a_store_lists_as_a_folder_does(tmp_path: Path, bucket: str) -> None:
    fill(tmp_path, "nut/b.png", "nut/deep/a.png", "gear/c.png", "d.png", ".hidden/e.png")
    upload(bucket, tmp_path)
    local = [Path(image).relative_to(tmp_path).as_posix() for image in walk_pictures(str(tmp_path))]
    stored = list(walk_pictures(bucket))
    assert sorted(stored) == [f"memory://bucket/{name}" for name in sorted(local)]
    categories = {item.image.rpartition("/")[2]: item.category for item in list_items(bucket)}
    assert categories == {"a.png": "nut", "b.png": "nut", "c.png": "gear", "d.png": ""}


def test_records_and_parquet_name_pictures_beside_them_or_by_url(
    tmp_path: Path, bucket: str
) -> None:
    rows = [
        {"record_id": "1", "image_path": "a.png", "category": "nut", "reference_paths": ["r.png"]},
        {"record_id": "2", "image_path": "s3://other/b.png", "knowledge": "six sides"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    write_whole(f"{bucket}/lists/all.jsonl", lines.encode())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "all.parquet")
    stored = list(list_items(f"{bucket}/lists/all.jsonl", category="", references=("x.png",)))
    assert stored == [
        Item("1", "memory://bucket/lists/a.png", "nut", ("memory://bucket/lists/r.png",)),
        Item("2", "s3://other/b.png", "", ("x.png",), "six sides"),
    ]
    local = list(list_items(str(tmp_path / "all.parquet")))
    assert local[0].image == str(tmp_path / "a.png")
    assert local[0].references == (str(tmp_path / "r.png"),)
    assert (local[1].image, local[1].category) == ("s3://other/b.png", "")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"record_id": "1"}\n', r"a\.jsonl:1: .*image_path is missing"),
        ("a.jsonl", b'\n{"image_path": 3, "record_id": "x"}\n', r"a\.jsonl:2: "),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1: "),
        ("a.jsonl", b"\xff\n", r"a\.jsonl:1: "),
        ("a.parquet", b"no parquet", r"a\.parquet: cannot be reached"),
        ("missing.jsonl", None, r"missing\.jsonl: no such file"),
        ("missing", None, "no such folder"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        list(list_items(str(tmp_path / name)))


def test_a_list_without_pictures_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.png"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column image_path; it has path"):
        list(list_items(str(tmp_path / "a.parquet")))
    with pytest.raises(InputError, match="holds no picture"):
        write_plan(str(tmp_path / "out"), [])
    with pytest.raises(InputError, match="cannot be opened"):
        list(walk_pictures("nosuch://bucket/a"))


def test_blocks_hold_one_category_each_and_every_picture_once() -> None:
    items = [Item(str(n), f"{n}.png", f"c{n % 3}", (f"r{n % 3}.png",)) for n in range(100)]
    blocks = list(cut_blocks(items, 8))
    assert [block.number for block in blocks] == list(range(len(blocks)))
    assert sorted(int(id_) for block in blocks for id_ in block.record_ids) == list(range(100))
    for block in blocks:
        assert len(block.images) <= 8
        assert {f"c{int(id_) % 3}" for id_ in block.record_ids} == {block.category}
    assert len(blocks) == 15  # 34, 33 and 33 pictures
    assert blocks == list(cut_blocks(items, 8))


def test_a_source_where_every_picture_has_its_own_reference_keeps_few_blocks_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "MOST_OPEN_BLOCKS", 4)
    drawn: list[int] = []

    def items() -> Iterator[Item]:
        for n in range(40):
            drawn.append(n)
            yield Item(str(n), f"{n}.png", "board", (f"r{n}.png",))

    blocks = cut_blocks(items(), 8)
    next(blocks)
    assert len(drawn) == 5
    assert [block.record_ids for block in blocks] == [(str(n),) for n in range(1, 40)]


def test_a_plan_is_read_back_block_by_block(tmp_path: Path) -> None:
    odd = "bad\udcff\u2028.png"  # a file's name that is no UTF-8
    items = [Item(f"{n}{odd}", f"{n}{odd}") for n in range(1100)]
    size = write_plan(str(tmp_path), cut_blocks(items, 1))
    assert size == PlanSize(1100, 1100)
    for number in (0, 15, 16, 511, 512, 1099):
        assert load_block(str(tmp_path), number).record_ids == (f"{number}{odd}",)
