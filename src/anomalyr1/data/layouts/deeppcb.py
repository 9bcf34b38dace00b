"""DeepPCB (Tang et al., 2019), for research use as its authors state; its repository is MIT.

From https://github.com/tangsanli5201/DeepPCB::

    PCBData/trainval.txt                    # lines: picture without _test, box file
    PCBData/test.txt
    PCBData/group00041/00041/00041000_test.jpg
    PCBData/group00041/00041/00041000_temp.jpg      # aligned, without defects
    PCBData/group00041/00041_not/00041000.txt       # lines of x1 y1 x2 y2 type

A folder in MVTec AD's shape with templates/ and boxes/ is read too. Every tested board is
defective, so there is no verdict figure; the aligned template is each one's reference.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from anomalyr1.data.layouts.mvtec import (
    DEEPPCB_DEFECT_TYPES,
    check_template,
    load_mvtec,
    read_box_file,
)
from anomalyr1.data.layouts.shared import add_regions, check_folder, finish, is_inside, read_text
from anomalyr1.images import image_size
from anomalyr1.types import InputError, Record, Region

LISTS = {"trainval.txt": "train", "test.txt": "test"}


def load_deeppcb(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of the published folder or of one in MVTec AD's shape.

    In the published one, `max_references` has no say: a board has its own template.
    """
    root = check_folder(root)
    data = root / "PCBData" if (root / "PCBData").is_dir() else root
    if not (data / "test.txt").is_file():
        return load_mvtec(
            root,
            max_references=max_references,
            seed=seed,
            aligned_templates=True,
            defect_types=DEEPPCB_DEFECT_TYPES,
        )
    records: list[Record] = []
    problems: list[str] = []
    boxes: dict[str, Path] = {}
    for name, split in LISTS.items():
        if not (data / name).is_file():
            problems.append(f"{data / name}: is missing")
            continue
        for number, line in enumerate(read_text(data / name).splitlines(), start=1):
            words = line.split()
            if len(words) != 2:
                if words:
                    problems.append(f"{data / name}:{number}: is {line!r}, expected two paths")
                continue
            if outside := [text for text in words if not is_inside(text)]:
                problems.append(f"{data / name}:{number}: {outside[0]} leads out of {data}")
                continue
            stem = (data / words[0]).with_suffix("")
            test, template = (
                stem.with_name(f"{stem.name}_{kind}.jpg") for kind in ("test", "temp")
            )
            for path in (test, template, data / words[1]):
                if not path.is_file():
                    problems.append(f"{data / name}:{number}: {path} is missing")
            boxes[stem.name] = data / words[1]
            records.append(
                Record(
                    record_id=stem.name,
                    image_path=test,
                    dataset=root.resolve().name,
                    category="pcb",
                    split=split,
                    label="anomalous",
                    defect_type="defect",
                    reference_paths=(template,),
                )
            )
    if problems:
        return finish(root, [], problems)
    return finish(root, add_regions(records, problems, partial(_read_boxes, boxes=boxes)), problems)


def _read_boxes(record: Record, boxes: dict[str, Path]) -> tuple[Region, ...]:
    path = boxes[record.record_id]
    check_template(record.reference_paths[0], record.image_path)
    regions = read_box_file(path, image_size(record.image_path), "", DEEPPCB_DEFECT_TYPES)
    if not regions:
        raise InputError(f"{path}: holds no box of {record.image_path.name}")
    return regions
