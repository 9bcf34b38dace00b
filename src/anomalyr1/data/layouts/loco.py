"""MVTec LOCO AD (Bergmann et al., IJCV 2022), CC BY-NC-SA 4.0.

From https://www.mvtec.com/company/research/datasets/mvtec-loco; a category, or a folder of such::

    breakfast_box/defects_config.json
    breakfast_box/train/good/000.png
    breakfast_box/validation/good/000.png
    breakfast_box/test/good/000.png
    breakfast_box/test/logical_anomalies/000.png
    breakfast_box/ground_truth/logical_anomalies/000/000.png    # one picture a defect

A mask's grey value names its defect in defects_config.json, which says with how many pixels, or
with what share of them, the defect counts as found (saturation, for sPRO).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from anomalyr1.data.layouts.shared import (
    add_regions,
    attach_references,
    check_folder,
    finish,
    list_pictures,
    list_subfolders,
)
from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import image_size, load_image, load_mask
from anomalyr1.types import InputError, MaskPart, Record, Region

SPLITS = {"train": "train", "validation": "val", "test": "test"}
CONFIG_FILE = "defects_config.json"
Saturation = tuple[str, float, bool]
"""Name of a defect, its threshold, and whether that is a share of the defect's own area."""


def load_loco(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records with `mask_parts`; `mask_path` is the folder of a picture's masks, which are united.

    Raises one InputError with all masks that are missing or name no defect of the config.
    """
    root = check_folder(root)
    folders = [root] if (root / CONFIG_FILE).is_file() else list_subfolders(root)
    records: list[Record] = []
    problems: list[str] = []
    for folder in folders:
        if not (folder / "test").is_dir():
            continue
        config = _read_config(folder / CONFIG_FILE)
        for record in _list_records(folder):
            records.append(_add_parts(record, config, problems))
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems, _read_part_regions), problems)


def _read_config(path: Path) -> dict[int, Saturation]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        config = {
            int(entry["pixel_value"]): (
                str(entry["defect_name"]),
                float(entry["saturation_threshold"]),
                bool(entry["relative_saturation"]),
            )
            for entry in entries
        }
        for name, threshold, is_relative in config.values():
            if not 0 < threshold <= (1 if is_relative else sys.maxsize):
                unit = "share" if is_relative else "number of pixels"
                raise ValueError(f"saturation_threshold of {name} is {threshold}, no {unit}")
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); it comes with MVTec LOCO, a category each"
        ) from error


def _list_records(folder: Path) -> list[Record]:
    category = folder.resolve().name
    records = []
    for split_folder, split in SPLITS.items():
        for kind_folder in list_subfolders(folder / split_folder):
            kind = kind_folder.name
            is_normal = kind == "good"
            for path in list_pictures(kind_folder):
                masks = folder / "ground_truth" / kind / path.stem
                records.append(
                    Record(
                        record_id=f"{category}/{split}/{kind}/{path.stem}",
                        image_path=path,
                        dataset=folder.resolve().parent.name,
                        category=category,
                        split=split,
                        label="normal" if is_normal else "anomalous",
                        defect_type="" if is_normal else kind,
                        mask_path=None if is_normal else masks,
                        mask_threshold=0,
                    )
                )
    return records


def _add_parts(record: Record, config: dict[int, Saturation], problems: list[str]) -> Record:
    if record.mask_path is None:
        return record
    parts = []
    for path in list_pictures(record.mask_path):
        try:
            values = np.asarray(load_image(path).convert("L"))
        except InputError as error:
            problems.append(str(error))
            continue
        found = [value for value in np.unique(values).tolist() if value]
        if len(found) != 1 or found[0] not in config:
            problems.append(
                f"{path}: holds the values {found}; expected one of {sorted(config)}, which "
                f"{CONFIG_FILE} names"
            )
            continue
        name, threshold, is_relative = config[found[0]]
        area = int(np.count_nonzero(values))
        saturation = int(threshold * area) if is_relative else min(int(threshold), area)
        parts.append(MaskPart(path, max(1, saturation), name))
    if not parts and not problems:
        problems.append(f"{record.image_path}: has no mask in {record.mask_path}")
    return replace(record, mask_parts=tuple(parts))


def _read_part_regions(record: Record) -> tuple[Region, ...]:
    size_wh = image_size(record.image_path)
    regions: list[Region] = []
    for part in record.mask_parts:
        mask = load_mask(part.mask_path, size_wh, 0, image_name=record.image_path.name)
        regions.extend(Region(box, part.defect_type) for box in boxes_from_mask(mask))
    return tuple(regions)
