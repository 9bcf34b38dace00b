"""KolektorSDD and KolektorSDD2, CC BY-NC-SA 4.0.

KolektorSDD (Tabernik et al., 2020), https://www.vicos.si/resources/kolektorsdd/::

    kos01/Part0.jpg
    kos01/Part0_label.bmp        # black where the part is whole

KolektorSDD2 (Bozic et al., 2021), https://www.vicos.si/resources/kolektorsdd2/::

    train/10000.png
    train/10000_GT.png
    test/20000.png
"""

from __future__ import annotations

from pathlib import Path

from anomalyr1.data.layouts.shared import (
    add_regions,
    attach_references,
    check_folder,
    find_named,
    finish,
    list_pictures,
    list_subfolders,
)
from anomalyr1.images import image_size, load_mask
from anomalyr1.types import InputError, Record

TRAIN_ITEMS = 25
"""KolektorSDD has folds, but no split for one-class methods: here, the whole parts of the first 25
items are train, all others test."""


def load_kolektor_sdd(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of KolektorSDD; what is defective is told by the masks alone."""
    root = check_folder(root)
    records: list[Record] = []
    problems: list[str] = []
    for number, folder in enumerate(list_subfolders(root)):
        for path in list_pictures(folder):
            if path.stem.endswith("_label"):
                continue
            mask = find_named(folder, f"{path.stem}_label")
            split = "train" if number < TRAIN_ITEMS else "test"
            records += _judge(path, mask, "kolektor", split, f"{folder.name}/{path.stem}", problems)
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems), problems)


def load_kolektor_sdd2(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of KolektorSDD2 with its own split; its train holds defective parts too."""
    root = check_folder(root)
    records: list[Record] = []
    problems: list[str] = []
    for split in ("train", "test"):
        for path in list_pictures(root / split):
            if path.stem.endswith("_GT"):
                continue
            mask = find_named(path.parent, f"{path.stem}_GT")
            found = _judge(path, mask, "kolektor2", split, f"{split}/{path.stem}", problems)
            records += found
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems), problems)


def _judge(
    path: Path, mask: Path | None, category: str, split: str, name: str, problems: list[str]
) -> list[Record]:
    if mask is None:
        problems.append(f"{path}: has no mask beside it")
        return []
    try:
        is_defective = bool(load_mask(mask, image_size(path), 0, image_name=path.name).any())
    except InputError as error:
        problems.append(str(error))
        return []
    if is_defective and category == "kolektor":
        split = "test"
    return [
        Record(
            record_id=name,
            image_path=path,
            dataset=path.parents[1].resolve().name,
            category=category,
            split=split,
            label="anomalous" if is_defective else "normal",
            defect_type="defect" if is_defective else "",
            mask_path=mask if is_defective else None,
            mask_threshold=0,
        )
    ]
