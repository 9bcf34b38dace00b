"""Real-IAD (Wang et al., CVPR 2024), CC BY-NC-SA 4.0, after a request to its authors.

From https://realiad4ad.github.io/Real-IAD/ or https://huggingface.co/datasets/Real-IAD/Real-IAD::

    realiad_1024/audiojack/OK/S0001/audiojack_0001_OK_C1_20231023112548.jpg
    realiad_1024/audiojack/NG/BX/S0001/audiojack_0001_NG_BX_C1_20230925143515.jpg
    realiad_1024/audiojack/NG/BX/S0001/audiojack_0001_NG_BX_C1_20230925143515_mask.png
    realiad_jsons/realiad_jsons/audiojack.json      # {"train": [...], "test": [...]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anomalyr1.data.layouts.shared import (
    add_regions,
    attach_references,
    check_folder,
    finish,
    is_inside,
)
from anomalyr1.types import InputError, Record

PICTURE_FOLDERS = ("realiad_raw", "realiad_1024", "realiad_512", "realiad_256")
JSON_FOLDERS = ("realiad_jsons/realiad_jsons", "realiad_jsons")
DEFECT_TYPES = {
    "AK": "pit",
    "BX": "deformation",
    "CH": "abrasion",
    "HS": "scratch",
    "PS": "damage",
    "QS": "missing parts",
    "YW": "foreign objects",
    "ZW": "contamination",
}


def load_realiad(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of the multi-view split, from the largest pictures that are there."""
    root = check_folder(root)
    pictures = next((root / name for name in PICTURE_FOLDERS if (root / name).is_dir()), None)
    lists = next((root / name for name in JSON_FOLDERS if any((root / name).glob("*.json"))), None)
    if pictures is None or lists is None:
        raise InputError(
            f"{root}: expected realiad_1024/ (or _512, _256, _raw) and realiad_jsons/realiad_jsons/"
        )
    records: list[Record] = []
    problems: list[str] = []
    for path in sorted(lists.glob("*.json")):
        folder = pictures / path.stem
        if not folder.is_dir():
            continue  # categories are downloaded one by one
        for split, entries in _read_lists(path).items():
            records += [_build_record(folder, split, entry, path) for entry in entries]
    for record in records:
        for file in (record.image_path, record.mask_path):
            if file is not None and not file.is_file():
                problems.append(f"{file}: is missing")
    if problems:
        return finish(root, [], problems)
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems), problems)


def _read_lists(path: Path) -> dict[str, list[Any]]:
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        return {split: list(lists[split]) for split in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from error


def _build_record(folder: Path, split: str, entry: Any, path: Path) -> Record:
    try:
        image, kind, mask = entry["image_path"], entry["anomaly_class"], entry.get("mask_path")
        if outside := [text for text in (image, mask) if text and not is_inside(text)]:
            raise InputError(
                f"{path}: entry {entry!r} of {split}: {outside[0]} leads out of {folder}"
            )
        code = DEFECT_TYPES.get(kind, kind)
        return Record(
            record_id=f"{folder.name}/{split}/{Path(image).with_suffix('').as_posix()}",
            image_path=folder / image,
            dataset="Real-IAD",
            category=folder.name,
            split=split,
            label="normal" if kind == "OK" else "anomalous",
            defect_type="" if kind == "OK" else code,
            mask_path=folder / mask if mask and kind != "OK" else None,
            mask_threshold=0,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: entry {entry!r} of {split} lacks {error}") from error
