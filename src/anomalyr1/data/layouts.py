"""Data sets as they lie on disk, one loader each, into records. Reads folders; writes nothing.

MVTec AD's layout (a category folder, or a folder of such)::

    bottle/train/good/000.png
    bottle/test/good/000.png
    bottle/test/broken_large/000.png
    bottle/ground_truth/broken_large/000_mask.png
    pcb/templates/000_temp.jpg        # optional: the defect-free twin of test picture 000_test
    pcb/boxes/000_test.txt            # optional, instead of a mask: lines of x1 y1 x2 y2 type
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import IMAGE_SUFFIXES, find_images, image_size, load_mask
from anomalyr1.types import InputError, Record, Region

NORMAL_FOLDER = "good"
DEEPPCB_DEFECT_TYPES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""DeepPCB's defect numbers 1 to 6 (github.com/tangsanli5201/DeepPCB)."""

_THREADS = min(8, os.cpu_count() or 1)


def load_mvtec(
    root: str | Path,
    *,
    category: str | None = None,
    max_references: int = 0,
    seed: int = 0,
    aligned_templates: bool = False,
    defect_types: Sequence[str] | None = None,
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
    classes: do not compare accuracy across them.

    Raises one InputError listing every defective test picture without mask or boxes and every mask
    or box file that does not fit; also for a folder of another shape.
    """
    if max_references < 0:
        raise InputError(f"max_references is {max_references}: give 0 or more")
    records: list[Record] = []
    problems: list[str] = []
    for folder in _find_categories(Path(root), category):
        references = _draw_references(folder, max_references, seed)
        for record in _list_records(folder, problems):
            drawn = references if record.split == "test" else ()
            if aligned_templates and record.split == "test":
                drawn = _find_template(folder, record.image_path) or drawn
            records.append(replace(record, reference_paths=drawn))
    records = _add_regions(records, defect_types, problems)
    if problems:
        raise InputError("\n".join([f"{root}: {len(problems)} problems:", *problems]))
    return records


def load_folder(root: str | Path) -> list[Record]:
    """Load every picture under a folder, of which nothing is known: label None, no split.

    Ids are the paths inside the folder, suffix included. Raises InputError where nothing is found.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")
    return [
        Record(
            record_id=path.relative_to(root).as_posix(),
            image_path=path,
            dataset=root.resolve().name,
        )
        for path in find_images([root])
    ]


LAYOUTS: dict[str, Callable[..., list[Record]]] = {
    "mvtec": load_mvtec,
    "deeppcb": partial(load_mvtec, aligned_templates=True, defect_types=DEEPPCB_DEFECT_TYPES),
    "folder": load_folder,
}
"""Layout name to loader; the first argument is the folder, all others are keywords."""


def _is_category(folder: Path) -> bool:
    return (folder / "train" / NORMAL_FOLDER).is_dir() or (folder / "test").is_dir()


def _find_categories(root: Path, category: str | None) -> list[Path]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")
    if _is_category(root):
        if category not in (None, root.resolve().name):
            raise InputError(f"{root} is category {root.resolve().name}, not {category}")
        return [root]
    folders = [
        entry
        for entry in sorted(root.iterdir())
        if entry.is_dir() and not entry.name.startswith(".") and _is_category(entry)
    ]
    if not folders:
        raise InputError(
            f"{root}: not in MVTec AD's layout; expected train/{NORMAL_FOLDER}, "
            "test/<defect> and ground_truth/<defect> here or one folder below"
        )
    if category is None:
        return folders
    chosen = [folder for folder in folders if folder.name == category]
    if not chosen:
        names = ", ".join(folder.name for folder in folders)
        raise InputError(f"{root}: no category {category}; there are {names}")
    return chosen


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]


def _draw_references(folder: Path, max_references: int, seed: int) -> tuple[Path, ...]:
    pool = _pictures(folder / "train" / NORMAL_FOLDER)
    if max_references and not pool:
        raise InputError(f"{folder}: no picture in train/{NORMAL_FOLDER} to take references from")
    # Seeded by the name too, so that a category's draw does not depend on which others are loaded.
    generator = random.Random(f"{seed}:{folder.resolve().name}")
    return tuple(sorted(generator.sample(pool, min(max_references, len(pool)))))


def _list_records(folder: Path, problems: list[str]) -> list[Record]:
    """Return a category's records without regions and references, sorted."""
    category, dataset = folder.resolve().name, folder.resolve().parent.name
    records: dict[str, Record] = {}
    for split in ("train", "test"):
        for kind_folder in _subfolders(folder / split):
            kind = kind_folder.name
            if split == "train" and kind != NORMAL_FOLDER:
                problems.append(
                    f"{kind_folder}: only train/{NORMAL_FOLDER} is read; move it under test"
                )
                continue
            for path in _pictures(kind_folder):
                record_id = f"{category}/{split}/{kind}/{path.stem}"
                if record_id in records:
                    problems.append(
                        f"{path}: {records[record_id].image_path.name} has the same stem; "
                        "rename one"
                    )
                is_normal = kind == NORMAL_FOLDER
                records[record_id] = Record(
                    record_id=record_id,
                    image_path=path,
                    dataset=dataset,
                    category=category,
                    split=split,
                    label="normal" if is_normal else "anomalous",
                    defect_type="" if is_normal else kind,
                    mask_path=None if is_normal else _find_mask(folder, kind, path.stem),
                )
    if not records and not problems:
        problems.append(f"{folder}: holds no pictures under train or test")
    return list(records.values())


def _find_named(folder: Path, stem: str) -> Path | None:
    names = (folder / (stem + suffix) for suffix in (".png", *sorted(IMAGE_SUFFIXES)))
    return next((path for path in names if path.is_file()), None)


def _find_mask(folder: Path, kind: str, stem: str) -> Path | None:
    masks = folder / "ground_truth" / kind
    return _find_named(masks, f"{stem}_mask") or _find_named(masks, stem)


def _find_template(folder: Path, image_path: Path) -> tuple[Path, ...]:
    stem = image_path.stem.removesuffix("_test")
    template = _find_named(folder / "templates", f"{stem}_temp")
    return (template,) if template else ()


def _add_regions(
    records: list[Record], defect_types: Sequence[str] | None, problems: list[str]
) -> list[Record]:
    """Return the records, defective ones with their regions; what does not fit goes to problems."""

    def read_regions(record: Record) -> tuple[Region, ...] | InputError:
        try:
            return _read_regions(record, defect_types)
        except InputError as error:
            return error

    finished: list[Record] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for record, regions in zip(records, pool.map(read_regions, records), strict=True):
            if isinstance(regions, InputError):
                problems.append(str(regions))
            else:
                finished.append(replace(record, regions=regions))
    return finished


def _read_regions(record: Record, defect_types: Sequence[str] | None) -> tuple[Region, ...]:
    if record.label != "anomalous":
        return ()
    path = record.image_path
    boxes_path = path.parent.parent.parent / "boxes" / f"{path.stem}.txt"
    if boxes_path.is_file():
        return _read_box_file(boxes_path, image_size(path), record.defect_type, defect_types)
    if record.mask_path is None:
        raise InputError(
            f"{path}: no mask; expected ground_truth/{record.defect_type}/{path.stem}_mask.png"
        )
    mask = load_mask(
        record.mask_path, image_size(path), record.mask_threshold, image_name=path.name
    )
    return tuple(Region(box, record.defect_type) for box in boxes_from_mask(mask))


def _read_box_file(
    path: Path,
    size_wh: tuple[int, int],
    defect_type: str,
    defect_types: Sequence[str] | None,
) -> tuple[Region, ...]:
    width, height = size_wh
    regions = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
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
