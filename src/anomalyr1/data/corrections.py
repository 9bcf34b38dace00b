"""Reviewed pictures, laid out so that they can be learned from: nothing that is held out to measure
on, nor anything that shows nearly the same, is among them.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from anomalyr1.data.near_duplicates import find_near_duplicates, load_fingerprints
from anomalyr1.images import image_size, write_png_atomic
from anomalyr1.types import Record

LEAST_NORMALS = 5
"""Normal pictures: with fewer, a picture's references would be the picture itself."""

_MOST_REFERENCES = 16


@dataclass(frozen=True, slots=True)
class NormalProduct:
    """A product to paint defects on: its name, a folder of its normal pictures, what is known."""

    name: str
    folder: Path
    knowledge: str = ""


@dataclass(frozen=True, slots=True)
class Lessons:
    """What can be learned from: products with enough normal pictures to paint on, labelled records
    (each product's pictures in a folder of their own, every defect with a mask), and notes of what
    was left out and why."""

    products: tuple[NormalProduct, ...]
    records: tuple[Record, ...]
    notes: tuple[str, ...]


def lay_out_lessons(records: Sequence[Record], held_out: Sequence[Record], out: Path) -> Lessons:
    """Copy what may be learned from below `out`, a folder a product.

    A record's references are those of its product and normal too. Left out are pictures that are
    near-duplicates of a held-out one, records that are a reference already, and anomalous ones
    without a box: a detector would learn that their whole picture is normal.
    """
    hidden = _find_duplicates(records, held_out)
    products, lessons, notes = [], [], []
    num_unmarked = 0
    if hidden:
        notes.append(f"{len(hidden)} pictures look like held-out ones and are left out")

    def name_product(record: Record) -> str:
        return record.category

    grouped = groupby(sorted(records, key=name_product), key=name_product)
    for number, (name, group) in enumerate(grouped):
        reviewed = list(group)
        folder = out / "normal" / f"product-{number}"
        references = _unique(path for record in reviewed for path in record.reference_paths)
        references = [path for path in references if path not in hidden]
        reviewed = [
            record
            for record in reviewed
            if record.image_path not in hidden and record.image_path not in references
        ]
        normal = [record.image_path for record in reviewed if record.label == "normal"]
        kept = [_copy(path, folder) for path in _unique([*references, *normal])]
        if len(kept) >= LEAST_NORMALS:
            products.append(NormalProduct(name, folder, reviewed[0].knowledge if reviewed else ""))
        else:
            notes.append(
                f"{name or 'no product'}: {len(kept)} normal pictures, no defects are painted on "
                f"fewer than {LEAST_NORMALS}"
            )
        shown = tuple(kept[: min(len(references), _MOST_REFERENCES)])
        judged = out / "judged" / f"product-{number}"
        marked, unmarked = mark_defects(
            [
                replace(record, image_path=_copy(record.image_path, judged), reference_paths=shown)
                for record in reviewed
            ],
            out / "masks" / f"product-{number}",
        )
        lessons += marked
        num_unmarked += unmarked
    if num_unmarked:
        notes.append(f"{num_unmarked} anomalous pictures without a box are left out")
    return Lessons(tuple(products), tuple(lessons), tuple(notes))


def mark_defects(records: Iterable[Record], folder: Path) -> tuple[list[Record], int]:
    """Records with a mask for every defect, and how many anomalous ones had neither mask nor box
    and are left out. Where only boxes are known the mask is the filled boxes, in a PNG of `folder`.
    """
    marked, unmarked = [], 0
    for number, record in enumerate(records):
        if record.label != "anomalous" or record.mask_path is not None:
            marked.append(record)
        elif record.regions:
            path = folder / f"{number}.png"
            _write_boxes(record, path)
            marked.append(replace(record, mask_path=path))
        else:
            unmarked += 1
    return marked, unmarked


def _write_boxes(record: Record, path: Path) -> None:
    width, height = image_size(record.image_path)
    mask = np.zeros((height, width), np.uint8)
    for region in record.regions:
        left, top, right, bottom = region.box_xyxy
        mask[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png_atomic(path, mask)


def _find_duplicates(records: Sequence[Record], held_out: Sequence[Record]) -> set[Path]:
    """Pictures of `records`, references too, that are or nearly show a held-out picture."""
    apart = _unique(record.image_path for record in held_out)
    shown = _unique(
        path for record in records for path in (record.image_path, *record.reference_paths)
    )
    paths = [*apart, *shown]
    return {
        paths[pair.second]
        for pair in find_near_duplicates(load_fingerprints(paths))
        if pair.first < len(apart) <= pair.second
    }


def _copy(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(path, folder / path.name))


def _unique(paths: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(paths))
