"""One import of a data set: load, mend, check every file, count, write. All of `data import`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyr1.coco_masks import EncodedMask, decode_mask
from anomalyr1.data.layouts import (
    LAYOUTS,
    compare_counts,
    count_records,
    describe_counts,
    load_segmented_coco,
)
from anomalyr1.data.mmad import PUBLISHED_COUNTS, Mmad, load_mmad, name_picture, name_subtask
from anomalyr1.data.record_checks import find_problems
from anomalyr1.data.records import write_records
from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import image_size, load_mask, write_bytes_atomic, write_png_atomic
from anomalyr1.types import InputError, Record, Region

RECORDS_FILE = "records.jsonl"
SUMMARY_FILE = "import.json"
INVERTED_SHARE = 0.75
"""A mask that marks more than this share of a picture and all of its edge seems inverted."""


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What to import: a layout's name or mmad, from where, to a folder or a .jsonl file."""

    layout: str
    source: Path
    out_path: Path
    split: str | None = None
    categories: tuple[str, ...] = ()
    max_references: int = 8
    only_with_references: bool = False
    seed: int = 0
    allow_missing: bool = False
    fix: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written, and what a user should know of it, a line each."""

    records_file: Path
    num_records: int
    notes: tuple[str, ...]


def import_records(plan: ImportPlan) -> Imported:
    """Do the import; raises InputError, before anything is written, for what cannot be used."""
    notes: list[str] = []
    mmad: Mmad | None = None
    masks: dict[str, EncodedMask] = {}
    if plan.layout == "mmad":
        mmad = load_mmad(plan.source, allow_missing=plan.allow_missing, fix=plan.fix)
        loaded = list(mmad.records)
        notes += [*mmad.faults, *mmad.mended, *_compare_mmad(mmad)]
    elif plan.layout == "coco":
        loaded, masks = load_segmented_coco(plan.source)
    else:
        load = LAYOUTS[plan.layout]
        loaded = load(plan.source, max_references=plan.max_references, seed=plan.seed)
    counts = count_records(loaded)
    differences = compare_counts(plan.layout, counts)
    if mmad is None:
        notes += describe_counts(plan.layout, counts)
    records = _choose(loaded, plan)
    missing = set(mmad.missing) if mmad is not None else set()
    records = _mend_masks(records, plan, missing, notes)
    _check_ids(records, plan.source)
    _check_files(records, missing)
    records = _write_masks(records, masks, plan, notes)
    is_file = plan.out_path.suffix == ".jsonl"
    records_file = plan.out_path if is_file else plan.out_path / RECORDS_FILE
    write_records(records_file, records)
    if not is_file:
        summary = {
            "plan": {**asdict(plan), "source": str(plan.source), "out_path": str(plan.out_path)},
            "records": len(records),
            "counts": counts,
            "differences": differences,
            "missing": [str(path) for path in sorted(missing)],
            "notes": notes,
        }
        text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
        write_bytes_atomic(plan.out_path / SUMMARY_FILE, text.encode())
    total = Counter[str]()
    for row in counts.values():
        total.update(row)
    words = ", ".join(f"{number} {name}" for name, number in total.items() if number)
    notes.insert(0, f"{len(counts)} categories: {words}")
    if missing:
        shown = [f"  {path}" for path in sorted(missing)]
        notes += [f"{len(missing)} files are missing:", *shown]
    return Imported(records_file, len(records), tuple(notes))


def _choose(records: Sequence[Record], plan: ImportPlan) -> list[Record]:
    chosen = [
        record
        for record in records
        if (plan.split is None or record.split == plan.split)
        and (not plan.categories or record.category in plan.categories)
        and (not plan.only_with_references or record.reference_paths)
    ]
    if not chosen:
        wanted = "" if plan.split is None else f" of split {plan.split!r}"
        which = " with references" if plan.only_with_references else ""
        which += f" of {', '.join(plan.categories)}" if plan.categories else ""
        raise InputError(f"{plan.source} has no records{wanted}{which}")
    return chosen


def _compare_mmad(mmad: Mmad) -> list[str]:
    found = {
        "questions": len(mmad.records),
        "pictures": len({name_picture(record) for record in mmad.records}),
        "products": len({(record.dataset, record.category) for record in mmad.records}),
    }
    subtasks = Counter(
        name_subtask(record.question.question_type) for record in mmad.records if record.question
    )
    lines = [", ".join(f"{number} {name}" for name, number in sorted(subtasks.items()))]
    datasets = {record.dataset for record in mmad.records}
    name = datasets.pop() if len(datasets) == 1 else "MMAD"
    name = name if name in PUBLISHED_COUNTS else "MMAD"
    expected = PUBLISHED_COUNTS[name]
    if found == expected:
        lines.append(f"counts agree with {name}'s published ones")
    else:
        lines.append(
            f"counts differ from {name}'s published ones: "
            + ", ".join(f"{found[kind]} {kind} ({expected[kind]})" for kind in found)
        )
    return lines


def _check_ids(records: Sequence[Record], source: Path) -> None:
    counts = Counter(record.record_id for record in records)
    if repeated := [name for name, count in counts.items() if count > 1]:
        more = f", and {len(repeated) - 20} more" if len(repeated) > 20 else ""
        raise InputError(
            f"{source}: {len(repeated)} records are listed more than once: "
            f"{', '.join(repeated[:20])}{more}; keep one of each, under a name of its own"
        )


def _check_files(records: Sequence[Record], missing: set[Path]) -> None:
    """Every file but the missing ones, which were allowed, a record a picture."""
    checked = {
        (record.image_path, record.mask_path, record.reference_paths): replace(
            record,
            mask_path=None if record.mask_path in missing else record.mask_path,
            reference_paths=tuple(
                path
                for path in (*record.reference_paths, *record.similar_paths, *record.random_paths)
                if path not in missing
            ),
        )
        for record in records
        if record.image_path not in missing
    }
    found = zip(checked.values(), find_problems(checked.values(), len(checked)), strict=True)
    problems = [f"{record.record_id}: {text}" for record, texts in found for text in texts]
    if problems:
        more = [f"... and {len(problems) - 20} more problems"] if len(problems) > 20 else []
        raise InputError("\n".join([*problems[:20], *more]))


def _write_masks(
    records: list[Record], masks: dict[str, EncodedMask], plan: ImportPlan, notes: list[str]
) -> list[Record]:
    """Records with their masks by record id, written as PNG."""
    if not masks:
        return records
    if plan.out_path.suffix == ".jsonl":
        raise InputError(f"{plan.source} holds masks: it needs a folder as --out for them")
    paths = {name: plan.out_path / "masks" / f"{name}.png" for name in masks}
    for name, path in paths.items():
        write_png_atomic(path, decode_mask(masks[name]))
    left = sum(one.label == "anomalous" and one.record_id not in masks for one in records)
    if left:
        notes.append(f"{left} anomalous pictures have no mask: a defect of theirs has a box alone")
    return [replace(record, mask_path=paths.get(record.record_id)) for record in records]


def _mend_masks(
    records: list[Record], plan: ImportPlan, missing: set[Path], notes: list[str]
) -> list[Record]:
    """Records with the boxes of their masks, each read once, however many questions it has. Masks
    of all of a picture and those that seem inverted are told, or the latter with --fix replaced by
    copies the other way round."""
    read: dict[Path, Record] = {}
    mended: list[Record] = []
    for record in records:
        path = record.mask_path
        if record.label != "anomalous" or path is None or {path, record.image_path} & missing:
            mended.append(record)
            continue
        if path not in read:
            read[path] = _mend_mask(record, path, plan, notes)
        found = read[path]
        mended.append(
            replace(
                record,
                mask_path=found.mask_path,
                mask_threshold=found.mask_threshold,
                regions=found.regions,
            )
        )
    return mended


def _mend_mask(record: Record, path: Path, plan: ImportPlan, notes: list[str]) -> Record:
    try:
        size_wh = image_size(record.image_path)
        mask = load_mask(path, size_wh, record.mask_threshold, image_name=path.name)
    except InputError:  # said by the check of every file, with all others
        return record
    if mask.all():
        notes.append(f"{path}: marks all of the picture; draw the defect alone if it is not so")
    if not seems_inverted(mask):
        return record if record.regions else replace(record, regions=_find_regions(record, mask))
    if not plan.fix:
        notes.append(f"{path}: marks nearly all of the picture, inverted? --fix turns it round")
        return record
    if plan.out_path.suffix == ".jsonl":
        raise InputError(f"{path} seems inverted: --fix needs a folder as --out for its copy")
    name = blake2b(str(path).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    copy = plan.out_path / "masks" / f"{name}.png"
    write_png_atomic(copy, ~mask)
    notes.append(f"{path}: turned round as {copy}")
    regions = _find_regions(record, ~mask)
    return replace(record, mask_path=copy, regions=regions, mask_threshold=127)


def _find_regions(record: Record, mask: NDArray[np.bool_]) -> tuple[Region, ...]:
    return tuple(Region(box, record.defect_type) for box in boxes_from_mask(mask))


def seems_inverted(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask, bool (H, W), marks more than three quarters and the whole edge, not all."""
    edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(edge.all() and mask.mean() > INVERTED_SHARE and not mask.all())
