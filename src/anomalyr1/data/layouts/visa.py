"""VisA (Zou et al., ECCV 2022), CC BY 4.0.

From https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar::

    split_csv/1cls.csv                      # object,split,label,image,mask
    split_csv/2cls_fewshot.csv
    split_csv/2cls_highshot.csv
    candle/Data/Images/Normal/0000.JPG
    candle/Data/Images/Anomaly/000.JPG
    candle/Data/Masks/Anomaly/000.png       # numbers of the kinds of defect, not 255
    candle/image_anno.csv                   # image,label,mask; label: kinds of defect or normal
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from anomalyr1.data.layouts.shared import (
    add_regions,
    attach_references,
    check_folder,
    finish,
    is_inside,
    read_text,
)
from anomalyr1.types import InputError, Record

COLUMNS = ("object", "split", "label", "image", "mask")


def load_visa(
    root: str | Path, *, max_references: int = 0, seed: int = 0, protocol: str = "1cls"
) -> list[Record]:
    """Records of one of the published splits: "1cls", "2cls_fewshot" or "2cls_highshot".

    `defect_type` comes from the category's image_anno.csv, where it is. Raises one InputError for
    rows that name no picture or no mask, or one outside of the folder.
    """
    root = check_folder(root)
    path = root / "split_csv" / f"{protocol}.csv"
    kinds: dict[str, str] = {}
    for details in sorted(root.glob("*/image_anno.csv")):
        for row in _read_rows(details, ("image", "label")):
            kinds[row["image"]] = row["label"]
    records: list[Record] = []
    problems: list[str] = []
    for number, row in enumerate(_read_rows(path, COLUMNS), start=2):
        is_normal = row["label"] == "normal"
        if row["label"] not in ("normal", "anomaly") or row["split"] not in ("train", "test"):
            problems.append(f"{path}:{number}: split {row['split']!r}, label {row['label']!r}")
            continue
        for column in ("image", "mask"):
            if row[column] and not is_inside(row[column]):
                problems.append(f"{path}:{number}: {row[column]} leads out of {root}")
            elif row[column] and not (root / row[column]).is_file():
                problems.append(f"{path}:{number}: {row[column]} is not in {root}")
        kind = "" if is_normal else kinds.get(row["image"], "anomaly")
        records.append(
            Record(
                record_id=f"{row['object']}/{row['split']}/{Path(row['image']).parent.name}/"
                f"{Path(row['image']).stem}",
                image_path=root / row["image"],
                dataset=root.resolve().name,
                category=row["object"],
                split=row["split"],
                label="normal" if is_normal else "anomalous",
                defect_type=kind,
                mask_path=root / row["mask"] if row["mask"] and not is_normal else None,
                mask_threshold=0,
            )
        )
    if problems:
        return finish(root, [], problems)
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems), problems)


def _read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(read_text(path).splitlines())
    if not set(columns) <= set(reader.fieldnames or ()):
        raise InputError(f"{path}: expected the columns {', '.join(columns)}")
    for row in reader:
        yield {column: (row[column] or "").strip() for column in columns}
