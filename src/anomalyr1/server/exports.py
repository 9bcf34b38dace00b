"""Inspections for other programs: CSV, COCO, and records with pictures."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from anomalyr1.data.record_json import record_to_json
from anomalyr1.data.records import write_records
from anomalyr1.server.products import load_product
from anomalyr1.server.search import Filter, describe, find_inspections
from anomalyr1.server.store import Store
from anomalyr1.types import InputError, Record, Region

COLUMNS = (
    "id", "name", "product", "created_at", "state", "verdict", "decision", "anomaly_score",
    "detector_score", "seconds", "model", "weights_sha256", "template_id",
    "error",
)  # fmt: skip
TEST_SHARE = 5
"""One reviewed picture in so many is held out."""


def is_held_out(sha256: str, seed: int = 0) -> bool:
    """Whether a picture is kept to measure on: by its content and the seed alone, so that it stays
    on its side whatever else is reviewed, under whatever name and product it comes."""
    digest = blake2b(f"{seed} {sha256}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % TEST_SHARE == 0


def write_csv(found: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """A line an inspection, its review behind it. A text that a spreadsheet would run as a formula
    gets an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow([*COLUMNS, "defects", "reviewer", "review_verdict", "review_comment"])
    for item in found:
        review = item["review"] or {}
        defects = "; ".join(defect["label"] for defect in item["defects"])
        values = [item[name] for name in COLUMNS]
        values += [defects, *(review.get(name) for name in ("reviewer", "verdict", "comment"))]
        writer.writerow([_defuse(value) for value in values])
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def write_coco(found: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """COCO detection JSON; a reviewer's boxes where there are, the model's elsewhere."""
    boxed = [(item, region) for item in found for region in _regions(item)]
    labels = sorted({region["label"] or "defect" for _, region in boxed})
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    annotations = []
    for number, (item, region) in enumerate(boxed, start=1):
        left, top, right, bottom = region["box_xyxy"]
        annotations.append(
            {
                "id": number,
                "image_id": item["id"],
                "category_id": numbers[region["label"] or "defect"],
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
        )
    document = {
        "images": [
            {
                "id": item["id"],
                "file_name": item["name"],
                "width": item["size_wh"][0],
                "height": item["size_wh"][1],
            }
            for item in found
        ],
        "categories": [{"id": number, "name": label} for label, number in numbers.items()],
        "annotations": annotations,
    }
    yield json.dumps(document).encode()


def write_records_zip(store: Store, found: Sequence[dict[str, Any]]) -> Iterator[bytes]:
    """A ZIP of `records.jsonl` and `pictures/`: what was reviewed, as `train` takes it."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            lines, names = [], set()
            for item in found:
                if item["review"] is None:
                    continue
                record = build_record(store, item)
                moved = _move_record(record, Path("/export/pictures"))
                lines.append(json.dumps(record_to_json(moved, Path("/export"))))
                for source in (record.image_path, *record.reference_paths):
                    if source.name not in names:
                        names.add(source.name)
                        archive.write(source, f"pictures/{source.name}")
            archive.writestr("records.jsonl", "".join(line + "\n" for line in lines))
        file.seek(0)
        while chunk := file.read(1 << 20):
            yield chunk


def export_reviewed(store: Store, out_dir: Path, *, seed: int = 0) -> dict[str, int]:
    """Write `records.jsonl`, `train.jsonl`, `test.jsonl` and `pictures/` of all reviewed pictures;
    returns the records a file. Raises InputError where nothing is reviewed.

    The split is `is_held_out`'s; a picture that it holds out is no reference in `train.jsonl`.
    """
    folder = out_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for record in load_reviewed(store, seed=seed):
        for path in (record.image_path, *record.reference_paths):
            shutil.copyfile(path, folder / path.name)
        records.append(_move_record(record, folder))
    splits = {
        "records.jsonl": records,
        "train.jsonl": [record for record in records if record.split == "train"],
        "test.jsonl": [record for record in records if record.split == "test"],
    }
    for name, chosen in splits.items():
        write_records(out_dir / name, chosen)
    return {name: len(chosen) for name, chosen in splits.items()}


def load_reviewed(store: Store, *, seed: int = 0) -> list[Record]:
    """A record of every reviewed picture, in the store's folder; the latest of equal pictures.

    Raises InputError where nothing is reviewed."""
    _, rows = find_inspections(
        store, Filter(reviewed=True, state="done", sort="oldest"), page_size=10_000_000
    )
    if not rows:
        raise InputError("nothing is reviewed yet: review inspections first")
    latest = {row.picture: row for row in rows}
    return [build_record(store, describe(row), seed=seed) for row in latest.values()]


def build_record(store: Store, item: dict[str, Any], *, seed: int = 0) -> Record:
    """A reviewed inspection as a record of the store's pictures. Its references are those of its
    product today."""
    review = item["review"]
    picture = store.find_picture(item["picture"])
    assert picture is not None
    is_test = is_held_out(item["picture"], seed)
    references: list[Path] = []
    knowledge = ""
    if item["product_id"] is not None:
        product, rows = load_product(store, item["product_id"])
        knowledge = product.knowledge
        references = [
            store.folder.find(row.picture, row.suffix)
            for row in rows
            if row.picture != item["picture"] and (is_test or not is_held_out(row.picture, seed))
        ]
    regions = tuple(
        Region(tuple(region["box_xyxy"]), region["label"], region.get("description", ""))
        for region in (_regions(item) if review["verdict"] == "anomalous" else [])
    )
    return Record(
        f"inspection-{item['id']}",
        picture,
        dataset="station",
        category=item["product"],
        split="test" if is_test else "train",
        label=review["verdict"],
        defect_type=regions[0].defect_type if regions else "",
        reference_paths=tuple(references),
        knowledge=knowledge,
        regions=regions,
    )


def _move_record(record: Record, folder: Path) -> Record:
    return replace(
        record,
        image_path=folder / record.image_path.name,
        reference_paths=tuple(folder / path.name for path in record.reference_paths),
    )


def _regions(item: dict[str, Any]) -> list[dict[str, Any]]:
    review = item["review"]
    found: list[dict[str, Any]] = item["defects"] if review is None else review["regions"]
    return found


def _defuse(value: object) -> object:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
