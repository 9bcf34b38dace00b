"""MVTec AD and the data sets that share its shape. Reads folders; writes nothing.

A category folder, or a folder of such::

    bottle/train/good/000.png
    bottle/test/good/000.png
    bottle/test/broken_large/000.png
    bottle/ground_truth/broken_large/000_mask.png
    pcb/templates/000_temp.jpg        # optional: the defect-free twin of test picture 000_test
    pcb/boxes/000_test.txt            # optional, instead of a mask: lines of x1 y1 x2 y2 type

- MVTec AD (Bergmann et al., CVPR 2019), CC BY-NC-SA 4.0:
  https://www.mvtec.com/company/research/datasets/mvtec-ad
- GoodsAD (Zhang et al., RA-L 2024), no licence stated: https://github.com/jianzhang96/GoodsAD.
  Pictures are JPEG, masks PNG of the same stem.
- MPDD (Jezek et al., ICUMT 2021), CC BY-NC-SA 4.0: https://github.com/stepanje/MPDD
- BTAD (Mishra et al., ISIE 2021), CC BY-NC-SA 4.0: http://avires.dimi.uniud.it/papers/btad/btad.zip.
  Folders are named ok and ko; categories 01 and 03 hold BMP, masks have the picture's stem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from anomalyr1.data.layouts.shared import (
    add_regions,
    attach_references,
    check_folder,
    find_named,
    list_pictures,
    list_subfolders,
    read_mask_regions,
    read_text,
)
from anomalyr1.images import image_size
from anomalyr1.types import InputError, Record, Region

NORMAL_FOLDER = "good"
DEEPPCB_DEFECT_TYPES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""DeepPCB's defect numbers 1 to 6 (github.com/tangsanli5201/DeepPCB)."""


def load_mvtec(
    root: str | Path,
    *,
    category: str | None = None,
    max_references: int = 0,
    seed: int = 0,
    aligned_templates: bool = False,
    defect_types: Sequence[str] | None = None,
    normal_folder: str = NORMAL_FOLDER,
    mask_threshold: int = 127,
) -> list[Record]:
    """Load one category folder, or all categories (or the one named) in a folder of them.

    Records come sorted: train/good, then each test folder; ids are `category/split/folder/stem`.
    `defect_type` is the test folder's name, empty for normal pictures. The regions of a defective
    picture are the boxes of its mask's connected components, or the lines of its file in `boxes/`
    where there is one, whose type n is `defect_types[n - 1]` (without the list: the folder's name).

    Test records get up to `max_references` pictures of train/good, drawn with `seed` and the same
    for a whole category, sorted. With `aligned_templates`, a test picture `<name>_test` that has
    `templates/<name>_temp` gets that one as its only reference; the others keep the drawn ones.
    Where only defective pictures have templates, as in DeepPCB, references then differ between the
    classes: do not compare accuracy across them. `normal_folder` is what the folders of normal
    pictures are called; a mask's pixels above `mask_threshold` are defect.

    Raises one InputError listing every defective test picture without mask or boxes, every mask
    without a picture, and every mask, box file or template that does not fit; also for a folder of
    another shape.
    """
    records: list[Record] = []
    problems: list[str] = []
    folders = _find_categories(Path(root), category, normal_folder)
    for folder in folders:
        records += _list_records(folder, normal_folder, mask_threshold, problems)
    records = attach_references(records, max_references, seed)
    if aligned_templates:
        records = [_prefer_template(record, problems) for record in records]
    records = add_regions(records, problems, partial(_read_regions, defect_types=defect_types))
    if problems:
        raise InputError("\n".join([f"{root}: {len(problems)} problems:", *problems]))
    return records


def _prefer_template(record: Record, problems: list[str]) -> Record:
    template = None
    if record.split == "test":
        folder = record.image_path.parents[2] / "templates"
        template = find_named(folder, f"{record.image_path.stem.removesuffix('_test')}_temp")
    if template is None:
        return record
    try:
        check_template(template, record.image_path)
    except InputError as error:
        problems.append(str(error))
    return replace(record, reference_paths=(template,))


def check_template(template: Path, picture: Path) -> None:
    """Raise InputError where an aligned template has another size than its picture."""
    sizes = [image_size(path) for path in (template, picture)]
    if sizes[0] != sizes[1]:
        (width, height), (expected_width, expected_height) = sizes
        raise InputError(
            f"template {template} is {width}x{height}, {picture.name} is "
            f"{expected_width}x{expected_height}; an aligned template has its picture's size"
        )


def _find_categories(root: Path, category: str | None, normal_folder: str) -> list[Path]:
    def is_category(folder: Path) -> bool:
        return (folder / "train" / normal_folder).is_dir() or (folder / "test").is_dir()

    check_folder(root)
    if is_category(root):
        if category not in (None, root.resolve().name):
            raise InputError(f"{root} is category {root.resolve().name}, not {category}")
        return [root]
    folders = [entry for entry in list_subfolders(root) if is_category(entry)]
    if not folders:
        raise InputError(
            f"{root}: not in MVTec AD's layout; expected train/{normal_folder}, "
            "test/<defect> and ground_truth/<defect> here or one folder below"
        )
    if category is None:
        return folders
    chosen = [folder for folder in folders if folder.name == category]
    if not chosen:
        names = ", ".join(folder.name for folder in folders)
        raise InputError(f"{root}: no category {category}; there are {names}")
    return chosen


def _list_records(
    folder: Path, normal_folder: str, mask_threshold: int, problems: list[str]
) -> list[Record]:
    """Return a category's records without regions and references, sorted."""
    category, dataset = folder.resolve().name, folder.resolve().parent.name
    records: dict[str, Record] = {}
    for split in ("train", "test"):
        for kind_folder in list_subfolders(folder / split):
            kind = kind_folder.name
            if split == "train" and kind != normal_folder:
                problems.append(
                    f"{kind_folder}: only train/{normal_folder} is read; move it under test"
                )
                continue
            for path in list_pictures(kind_folder):
                record_id = f"{category}/{split}/{kind}/{path.stem}"
                if record_id in records:
                    problems.append(
                        f"{path}: {records[record_id].image_path.name} has the same stem; "
                        "rename one"
                    )
                is_normal = kind == normal_folder
                records[record_id] = Record(
                    record_id=record_id,
                    image_path=path,
                    dataset=dataset,
                    category=category,
                    split=split,
                    label="normal" if is_normal else "anomalous",
                    defect_type="" if is_normal else kind,
                    mask_path=None if is_normal else _find_mask(folder, kind, path.stem),
                    mask_threshold=mask_threshold,
                )
    if not records and not problems:
        problems.append(f"{folder}: holds no pictures under train or test")
    for kind_folder in list_subfolders(folder / "ground_truth"):
        kind = kind_folder.name
        for path in list_pictures(kind_folder):
            stems = (path.stem, path.stem.removesuffix("_mask"))
            if not any(f"{category}/test/{kind}/{stem}" in records for stem in stems):
                problems.append(f"{path}: has no picture in test/{kind}; add it or remove this")
    return list(records.values())


def _find_mask(folder: Path, kind: str, stem: str) -> Path | None:
    masks = folder / "ground_truth" / kind
    return find_named(masks, f"{stem}_mask") or find_named(masks, stem)


def _read_regions(record: Record, defect_types: Sequence[str] | None) -> tuple[Region, ...]:
    path = record.image_path
    boxes_path = path.parent.parent.parent / "boxes" / f"{path.stem}.txt"
    if boxes_path.is_file():
        return read_box_file(boxes_path, image_size(path), record.defect_type, defect_types)
    if record.mask_path is None:
        raise InputError(
            f"{path}: no mask; expected ground_truth/{record.defect_type}/{path.stem}_mask.png"
        )
    return read_mask_regions(record)


def read_box_file(
    path: Path,
    size_wh: tuple[int, int],
    defect_type: str,
    defect_types: Sequence[str] | None,
) -> tuple[Region, ...]:
    """Regions of a file with lines of x1 y1 x2 y2 type, commas or spaces between.

    The picture is `size_wh`. Raises InputError, with file and line, for what does not fit.
    """
    width, height = size_wh
    regions = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        try:
            x1, y1, x2, y2 = map(float, words[:4])
            type_number = int(words[4]) if len(words) > 4 else None
        except ValueError as error:
            raise InputError(f"{path}:{number}: is {line!r}, expected x1 y1 x2 y2 type") from error
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise InputError(f"{path}:{number}: box {line!r} is not inside {width}x{height}")
        if defect_types is not None and type_number is not None:
            if not 1 <= type_number <= len(defect_types):
                raise InputError(
                    f"{path}:{number}: defect type {type_number}, expected 1 to {len(defect_types)}"
                )
            regions.append(Region((x1, y1, x2, y2), defect_types[type_number - 1]))
        else:
            regions.append(Region((x1, y1, x2, y2), defect_type))
    return tuple(regions)
