"""Which pictures a job inspects, in which blocks: read from a source once, and kept as Parquet.

A block holds pictures of one category with the same references and knowledge, so that a worker
prepares those once. Everything streams: neither reading a source nor cutting it into blocks holds
more than the blocks that are being filled.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from anomalyr1.data.record_json import record_from_json
from anomalyr1.distributed.storage import is_url, join, opened, walk_pictures, write_whole
from anomalyr1.types import InputError

PLAN_FILE = "plan.json"
BLOCKS_A_FILE = 512
BLOCKS_A_ROW_GROUP = 16
MOST_OPEN_BLOCKS = 256
"""Blocks that may be half full at a time, while a source mixes its categories."""


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to inspect. `image` and `references` are local paths or fsspec URLs."""

    record_id: str
    image: str
    category: str = ""
    references: tuple[str, ...] = ()
    knowledge: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Pictures that share category, references and knowledge; `number` counts from 0."""

    number: int
    category: str
    references: tuple[str, ...]
    knowledge: str
    images: tuple[str, ...]
    record_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanSize:
    """How much a plan holds."""

    num_blocks: int
    num_pictures: int


def list_items(
    source: str, *, category: str = "", references: tuple[str, ...] = (), knowledge: str = ""
) -> Iterator[Item]:
    """The pictures of a source, one by one, in a fixed order.

    A .jsonl file holds records, a .parquet file has a column image_path and perhaps record_id,
    category, reference_paths and knowledge; anything else is a folder that is walked, whose first
    level of folders names the categories. What is given here holds where the source says nothing.
    Raises InputError for a source that cannot be read, naming the line or row.
    """
    if source.endswith(".jsonl"):
        items = _read_lines(source)
    elif source.endswith(".parquet"):
        items = _read_parquet(source)
    else:
        items = _walk(source)
    for item in items:
        yield Item(
            item.record_id,
            item.image,
            category or item.category,
            item.references or references,
            item.knowledge or knowledge,
        )


def _walk(source: str) -> Iterator[Item]:
    root = source.rstrip("/") + "/"
    for image in walk_pictures(source):
        inside = image.removeprefix(root) if is_url(source) else _below(image, source)
        folder, slash, _ = inside.partition("/")
        yield Item(image, image, folder if slash else "")


def _below(image: str, source: str) -> str:
    return Path(image).relative_to(source).as_posix()


def _read_lines(source: str) -> Iterator[Item]:
    folder = source.rpartition("/")[0]
    with opened(source) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line.decode("utf-8-sig"))
                if not isinstance(fields, dict):
                    raise InputError("is no JSON object")
                yield _build_item(fields, folder)
            except (ValueError, RecursionError) as error:  # InputError is a ValueError
                raise InputError(f"{source}:{number}: {error}") from error


def _read_parquet(source: str) -> Iterator[Item]:
    import pyarrow.parquet as pq

    folder = source.rpartition("/")[0]
    wanted = ("record_id", "image_path", "category", "reference_paths", "knowledge")
    with opened(source) as file:
        table = pq.ParquetFile(file)
        columns = [name for name in wanted if name in table.schema_arrow.names]
        if "image_path" not in columns:
            found = ", ".join(table.schema_arrow.names[:12])
            raise InputError(f"{source} has no column image_path; it has {found}")
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                number += 1
                fields = {name: value for name, value in row.items() if value is not None}
                fields.setdefault("record_id", fields.get("image_path"))
                try:
                    yield _build_item(fields, folder)
                except InputError as error:
                    raise InputError(f"{source}, row {number}: {error}") from error


def _build_item(fields: Mapping[str, Any], folder: str) -> Item:
    """Checked as a record is; its paths may be URLs, or relative to the source's folder."""
    record = record_from_json(fields, Path("/"))
    return Item(
        record.record_id,
        join(folder, fields["image_path"]),
        record.category,
        tuple(join(folder, path) for path in fields.get("reference_paths", ())),
        record.knowledge,
    )


def cut_blocks(items: Iterable[Item], size: int) -> Iterator[Block]:
    """Blocks of at most `size` pictures; each picture is in one. The order of items decides all."""
    filling: dict[tuple[str, tuple[str, ...], str], list[Item]] = {}
    number = 0
    for item in items:
        key = (item.category, item.references, item.knowledge)
        filling.setdefault(key, []).append(item)
        if len(filling[key]) == size or len(filling) > MOST_OPEN_BLOCKS:
            full = key if len(filling[key]) == size else next(iter(filling))
            yield _build_block(number, filling.pop(full))
            number += 1
    for rest in filling.values():
        yield _build_block(number, rest)
        number += 1


def _build_block(number: int, items: list[Item]) -> Block:
    first = items[0]
    return Block(
        number,
        first.category,
        first.references,
        first.knowledge,
        tuple(item.image for item in items),
        tuple(item.record_id for item in items),
    )


def write_plan(destination: str, blocks: Iterable[Block]) -> PlanSize:
    """Write the blocks below `destination`/plan, and plan.json when all are there."""
    num_blocks = num_pictures = 0
    lines: list[str] = []
    for block in blocks:
        # JSON in ASCII, since the name of a file may be no valid text.
        lines.append(json.dumps(asdict(block)))
        num_blocks += 1
        num_pictures += len(block.images)
        if len(lines) == BLOCKS_A_FILE:
            _write_plan_file(destination, num_blocks - len(lines), lines)
            lines = []
    if not num_blocks:
        raise InputError("the source holds no picture: check the folder or file that was named")
    if lines:
        _write_plan_file(destination, num_blocks - len(lines), lines)
    size = PlanSize(num_blocks, num_pictures)
    write_whole(join(destination, PLAN_FILE), json.dumps(asdict(size)).encode())
    return size


def _write_plan_file(destination: str, first: int, lines: list[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"block": lines}), buffer, row_group_size=BLOCKS_A_ROW_GROUP)
    write_whole(_name_plan_file(destination, first), buffer.getvalue())


def _name_plan_file(destination: str, number: int) -> str:
    return join(destination, f"plan/{number // BLOCKS_A_FILE:06d}.parquet")


def load_block(destination: str, number: int) -> Block:
    """A block of a plan by its number."""
    group = (number % BLOCKS_A_FILE) // BLOCKS_A_ROW_GROUP
    lines = _read_group(_name_plan_file(destination, number), group)
    fields = json.loads(lines[number % BLOCKS_A_ROW_GROUP])
    texts = ("references", "images", "record_ids")
    return Block(**fields | {name: tuple(fields[name]) for name in texts})


@lru_cache(maxsize=4)
def _read_group(place: str, group: int) -> list[str]:
    import pyarrow.parquet as pq

    with opened(place) as file:
        lines: list[str] = pq.ParquetFile(file).read_row_group(group)["block"].to_pylist()
        return lines
