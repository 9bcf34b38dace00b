"""Data sets as they are published, one file each, into records; and what they should hold.

A layout is a function of its folder, `max_references` and `seed`; nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from anomalyr1.data.layouts.annotations import load_coco, load_segmented_coco, load_yolo
from anomalyr1.data.layouts.dagm import load_dagm
from anomalyr1.data.layouts.deeppcb import load_deeppcb
from anomalyr1.data.layouts.kolektor import load_kolektor_sdd, load_kolektor_sdd2
from anomalyr1.data.layouts.loco import load_loco
from anomalyr1.data.layouts.mvtec import DEEPPCB_DEFECT_TYPES, load_mvtec
from anomalyr1.data.layouts.realiad import load_realiad
from anomalyr1.data.layouts.tables import load_classes, load_csv, load_folder
from anomalyr1.data.layouts.visa import load_visa
from anomalyr1.types import Record

__all__ = [
    "DEEPPCB_DEFECT_TYPES",
    "LAYOUTS",
    "PUBLISHED",
    "compare_counts",
    "count_records",
    "describe_counts",
    "load_folder",
    "load_mvtec",
    "load_segmented_coco",
]

LAYOUTS: dict[str, Callable[..., list[Record]]] = {
    "mvtec": load_mvtec,
    "loco": load_loco,
    "visa": load_visa,
    "visa-2cls-fewshot": partial(load_visa, protocol="2cls_fewshot"),
    "visa-2cls-highshot": partial(load_visa, protocol="2cls_highshot"),
    "goodsad": partial(load_mvtec, mask_threshold=0),
    "btad": partial(load_mvtec, normal_folder="ok", mask_threshold=0),
    "mpdd": load_mvtec,
    "kolektorsdd": load_kolektor_sdd,
    "kolektorsdd2": load_kolektor_sdd2,
    "dagm": load_dagm,
    "deeppcb": load_deeppcb,
    "realiad": load_realiad,
    "coco": load_coco,
    "yolo": load_yolo,
    "csv": load_csv,
    "classes": load_classes,
    "folder": load_folder,
}
"""Layout name to loader; the first argument is the folder, or the file of coco and csv."""

Counts = dict[str, int]

PUBLISHED: dict[str, dict[str, tuple[int, int, int]]] = {
    "mvtec": {
        "bottle": (209, 20, 63),
        "cable": (224, 58, 92),
        "capsule": (219, 23, 109),
        "carpet": (280, 28, 89),
        "grid": (264, 21, 57),
        "hazelnut": (391, 40, 70),
        "leather": (245, 32, 92),
        "metal_nut": (220, 22, 93),
        "pill": (267, 26, 141),
        "screw": (320, 41, 119),
        "tile": (230, 33, 84),
        "toothbrush": (60, 12, 30),
        "transistor": (213, 60, 40),
        "wood": (247, 19, 60),
        "zipper": (240, 32, 119),
    },
    "loco": {
        "breakfast_box": (351, 102, 173),
        "juice_bottle": (335, 94, 236),
        "pushpins": (372, 138, 172),
        "screw_bag": (360, 122, 219),
        "splicing_connectors": (360, 119, 193),
    },
    "visa": {
        "candle": (900, 100, 100),
        "capsules": (542, 60, 100),
        "cashew": (450, 50, 100),
        "chewinggum": (453, 50, 100),
        "fryum": (450, 50, 100),
        "macaroni1": (900, 100, 100),
        "macaroni2": (900, 100, 100),
        "pcb1": (904, 100, 100),
        "pcb2": (901, 100, 100),
        "pcb3": (905, 101, 100),
        "pcb4": (904, 101, 100),
        "pipe_fryum": (450, 50, 100),
    },
    "goodsad": {
        "cigarette_box": (183, 183, 246),
        "drink_bottle": (733, 356, 425),
        "drink_can": (234, 147, 147),
        "food_bottle": (1014, 243, 361),
        "food_box": (432, 146, 251),
        "food_package": (540, 253, 230),
    },
    "btad": {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)},
    "mpdd": {
        "bracket_black": (289, 32, 47),
        "bracket_brown": (185, 26, 51),
        "bracket_white": (110, 30, 30),
        "connector": (128, 30, 14),
        "metal_plate": (54, 26, 71),
        "tubes": (122, 32, 69),
    },
    "kolektorsdd2": {"kolektor2": (2331, 894, 110)},
    "deeppcb": {"pcb": (1000, 0, 500)},
}
"""Published numbers of pictures: train, and in test normal and anomalous."""

TOTALS: dict[str, int] = {"kolektorsdd": 399, "dagm": 16_100, "realiad": 151_050}
"""Published numbers of all pictures, where those of categories or splits are not."""


UNCONFIRMED: dict[str, str] = {
    "mvtec": "single categories (their sums are)",
    "loco": "single categories (their sums are, of the pictures as released; the paper has 1,772 "
    "for train instead of 1,778)",
    "visa": "single categories (their sums are)",
    "btad": "single categories (their sums are; the paper speaks of 2,830 pictures in all, the "
    "archive holds 2,540)",
    "mpdd": "single categories (their sums are)",
    "kolektorsdd": "the total",
    "dagm": "the total, but by adding up 1,150 pictures of six classes and 2,300 of four",
}
"""What of the published numbers could not be looked up at its source or in a second one."""


def count_records(records: Sequence[Record]) -> dict[str, Counts]:
    """Per category: pictures of train and of val, and normal, anomalous and unlabelled others."""
    counts: dict[str, Counts] = {}
    for record in records:
        row = counts.setdefault(
            record.category or "all",
            {"train": 0, "val": 0, "normal": 0, "anomalous": 0, "unlabelled": 0},
        )
        in_split = record.split in ("train", "val")
        row[record.split if in_split else record.label or "unlabelled"] += 1
    return counts


def compare_counts(layout: str, counts: dict[str, Counts]) -> list[str]:
    """What differs from the published counts, a line a category; empty where all agrees, or
    where none are published. One category alone, of several, is compared and not complained of."""
    published = _find_published(layout, counts)
    lines = []
    for category, row in sorted(counts.items()):
        found = (row["train"], row["normal"], row["anomalous"])
        expected = published.get(category)
        if expected is not None and found != expected:
            lines.append(
                f"{category}: {found[0]} train, {found[1]} normal and {found[2]} anomalous test; "
                f"published {expected[0]}, {expected[1]} and {expected[2]}"
            )
        elif published and expected is None:
            lines.append(f"{category}: is not among the published categories")
    absent = [category for category in published if category not in counts]
    if absent and len(counts) > 1:
        lines.append(f"{len(absent)} categories are not here: {', '.join(absent)}")
    total = sum(sum(row.values()) for row in counts.values())
    if layout in TOTALS and total != TOTALS[layout]:
        lines.append(f"{total} pictures; published {TOTALS[layout]}")
    return lines


def describe_counts(layout: str, counts: dict[str, Counts]) -> list[str]:
    """What a user is told of the counts: that they agree, what differs, or that none are known."""
    differences = compare_counts(layout, counts)
    lines = [f"counts differ from the published ones: {line}" for line in differences]
    if not differences:
        if layout not in TOTALS and not _find_published(layout, counts):
            return ["no published counts are known to compare with"]
        lines = ["counts agree with the published ones"]
    if layout in UNCONFIRMED:
        lines.append(f"of the published counts, not confirmed: {UNCONFIRMED[layout]}")
    return lines


def _find_published(layout: str, counts: dict[str, Counts]) -> dict[str, tuple[int, int, int]]:
    """The published counts of a layout; none for a set of one's own in a public set's shape."""
    published = PUBLISHED.get(layout, {})
    return published if published.keys() & counts.keys() else {}
