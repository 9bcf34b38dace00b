"""Your own pictures: a CSV, a folder a class, or a plain folder.

CSV: a head line with `image` and any of label, mask, category, split, defect_type, references,
knowledge; paths are relative to the file, references are separated by ";"; label is normal or
anomalous. A folder a class::

    good/a.png                          # or normal/, ok/
    scratch/b.png                       # every other folder is a kind of defect
    ground_truth/scratch/b.png          # optional masks, or b_mask.png
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from anomalyr1.data.layouts.shared import (
    check_folder,
    find_named,
    finish,
    list_pictures,
    list_subfolders,
    read_mask_regions,
    read_text,
)
from anomalyr1.images import find_images
from anomalyr1.types import InputError, Label, Record

NORMAL_NAMES = ("good", "normal", "ok")
COLUMNS = (
    "image",
    "label",
    "mask",
    "category",
    "split",
    "defect_type",
    "references",
    "knowledge",
)
LABELS: dict[str, Label | None] = {"": None, "normal": "normal", "anomalous": "anomalous"}


def load_folder(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Load every picture under a folder, of which nothing is known: label None, no split.

    Ids are the paths inside the folder, suffix included. Raises InputError where nothing is found.
    """
    root = check_folder(root)
    return [
        Record(
            record_id=path.relative_to(root).as_posix(),
            image_path=path,
            dataset=root.resolve().name,
        )
        for path in find_images([root])
    ]


def load_classes(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Load a folder whose folders are classes: the normal one and a kind of defect each."""
    root = check_folder(root)
    records: list[Record] = []
    problems: list[str] = []
    for folder in list_subfolders(root):
        kind = folder.name
        if kind == "ground_truth":
            continue
        is_normal = kind.lower() in NORMAL_NAMES
        for path in list_pictures(folder):
            masks = root / "ground_truth" / kind
            record = Record(
                record_id=f"{kind}/{path.name}",
                image_path=path,
                dataset=root.resolve().name,
                category=root.resolve().name,
                label="normal" if is_normal else "anomalous",
                defect_type="" if is_normal else kind,
                mask_path=find_named(masks, f"{path.stem}_mask") or find_named(masks, path.stem),
            )
            records.append(_with_regions(record, problems))
    if not any(record.label == "normal" for record in records):
        problems.append(f"{root}: has no folder good, normal or ok with pictures")
    return finish(root, records, problems)


def load_csv(path: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Load the rows of a CSV; every fault is listed with its line."""
    path = Path(path)
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    heads = [head for head in reader.fieldnames or () if head]
    unknown = sorted(set(heads) - set(COLUMNS))
    if "image" not in heads or unknown:
        raise InputError(
            f"{path}: the columns are {', '.join(heads) or 'none'}; expected image and any of "
            f"{', '.join(COLUMNS[1:])}"
        )
    records: list[Record] = []
    problems: list[str] = []
    for row in reader:
        cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
        where = f"{path}:{reader.line_num}"
        if beyond := "".join(row.get(None, ())).strip():
            problems.append(
                f"{where}: {beyond!r} is beyond the last column; put a text with commas in quotes"
            )
            continue
        if not cells["image"] or cells["label"] not in LABELS:
            problems.append(
                f"{where}: image {cells['image']!r}, label {cells['label']!r}; expected a picture, "
                "and normal, anomalous or nothing"
            )
            continue
        record = Record(
            record_id=cells["image"],
            image_path=path.parent / cells["image"],
            dataset=path.stem,
            category=cells["category"],
            split=cells["split"],
            label=LABELS[cells["label"]],
            defect_type=cells["defect_type"],
            mask_path=path.parent / cells["mask"] if cells["mask"] else None,
            reference_paths=tuple(
                path.parent / text.strip()
                for text in cells["references"].split(";")
                if text.strip()
            ),
            knowledge=cells["knowledge"],
        )
        records.append(_with_regions(record, problems))
    return finish(path, records, problems)


def _with_regions(record: Record, problems: list[str]) -> Record:
    if record.label != "anomalous" or record.mask_path is None:
        return record
    try:
        return replace(record, regions=read_mask_regions(record))
    except InputError as error:
        problems.append(str(error))
        return record
