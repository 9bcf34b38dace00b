"""DAGM 2007 (Wieler and Hahn), weakly labelled drawn textures; CDLA-Sharing-1.0 as Zenodo states.

From https://conferences.mpi-inf.mpg.de/dagm/2007/prizes.html or https://zenodo.org/records/12750201
(its split into Train and Test)::

    Class1/Train/0576.PNG
    Class1/Train/Label/Labels.txt           # lines of number, 0 or 1, picture, 0, mask or 0
    Class1/Train/Label/0600_label.PNG       # an ellipse around the defect
    Class1/Test/0001.PNG
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
from anomalyr1.types import Record


def load_dagm(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of a class folder or a folder of such; Train holds defective pictures too.

    Labels.txt, where it is, must agree with the pictures and masks that are there.
    """
    root = check_folder(root)
    folders = [root] if (root / "Train").is_dir() else list_subfolders(root)
    records: list[Record] = []
    problems: list[str] = []
    for folder in folders:
        for split in ("Train", "Test"):
            labels = folder / split / "Label"
            flags = _read_flags(labels / "Labels.txt")
            pictures = list_pictures(folder / split)
            absent = flags.keys() - {path.name.lower() for path in pictures}
            problems += [
                f"{labels / 'Labels.txt'}: names {name}, which is not in {folder / split}"
                for name in sorted(absent)
            ]
            for path in pictures:
                mask = find_named(labels, f"{path.stem}_label")
                flag = flags.get(path.name.lower(), mask is not None)
                if flag != (mask is not None):
                    said = "defective, but has no mask" if flag else "whole, but has a mask"
                    problems.append(f"{path}: Labels.txt calls it {said}")
                    continue
                records.append(
                    Record(
                        record_id=f"{folder.name}/{split.lower()}/{path.stem}",
                        image_path=path,
                        dataset=folder.resolve().parent.name,
                        category=folder.resolve().name,
                        split=split.lower(),
                        label="anomalous" if mask else "normal",
                        defect_type="defect" if mask else "",
                        mask_path=mask,
                        mask_threshold=0,
                    )
                )
    records = attach_references(records, max_references, seed)
    return finish(root, add_regions(records, problems), problems)


def _read_flags(path: Path) -> dict[str, bool]:
    """Whether each picture that Labels.txt names is defective; lines of other shapes are heads."""
    if not path.is_file():
        return {}
    flags = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) == 5 and words[1] in ("0", "1"):
            flags[words[2].lower()] = words[1] == "1"
    return flags
