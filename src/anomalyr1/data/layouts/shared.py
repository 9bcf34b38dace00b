"""What the layouts have in common: folders listed, masks found and read, references drawn."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import IMAGE_SUFFIXES, image_size, load_mask
from anomalyr1.types import InputError, Record, Region

_THREADS = min(8, os.cpu_count() or 1)


def check_folder(root: str | Path) -> Path:
    """The folder, or InputError where there is none."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; check the path")
    return root


def read_text(path: Path) -> str:
    """A file's text, or InputError where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error


def is_inside(text: object) -> bool:
    """Whether a path that a set's file names is relative and does not climb out of the set.

    >>> is_inside("candle/Data/0001.JPG"), is_inside("../0001.JPG"), is_inside("/etc/passwd")
    (True, False, False)
    """
    if not isinstance(text, str) or not text or "\\" in text:
        return False
    path = PurePosixPath(text)
    return not path.is_absolute() and ".." not in path.parts


def list_subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones; none where it is missing."""
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not entry.name.startswith(".")
    ]


def list_pictures(folder: Path) -> list[Path]:
    """Pictures in a folder, sorted, without hidden ones; none where it is missing."""
    if not folder.is_dir():
        return []
    return [
        entry
        for entry in sorted(folder.iterdir())
        if entry.suffix.lower() in IMAGE_SUFFIXES and not entry.name.startswith(".")
    ]


def find_named(folder: Path, stem: str) -> Path | None:
    """The picture of that stem in a folder, PNG first, in lower or upper case; None without one."""
    suffixes = (".png", *sorted(IMAGE_SUFFIXES))
    names = (folder / (stem + case) for suffix in suffixes for case in (suffix, suffix.upper()))
    return next((path for path in names if path.is_file()), None)


def attach_references(records: Sequence[Record], max_references: int, seed: int) -> list[Record]:
    """Records in which those outside of train refer to up to `max_references` normal pictures of
    their category's train split, drawn with `seed`, the same for a whole category, sorted.

    Raises InputError for a category without such pictures where some are wanted.
    """
    if max_references < 0:
        raise InputError(f"max_references is {max_references}: give 0 or more")
    pools: dict[str, list[Path]] = {record.category: [] for record in records}
    for record in records:
        if record.split == "train" and record.label == "normal":
            pools[record.category].append(record.image_path)
    drawn = {}
    for category, pool in pools.items():
        if max_references and not pool:
            raise InputError(
                f"category {category}: no picture in train/good to take references from; "
                "give --max-references 0"
            )
        # Seeded by the name too, so that a draw does not depend on which others are loaded.
        chance = random.Random(f"{seed}:{category}")
        drawn[category] = tuple(sorted(chance.sample(pool, min(max_references, len(pool)))))
    return [
        record
        if record.split == "train"
        else replace(record, reference_paths=drawn[record.category])
        for record in records
    ]


def read_mask_regions(record: Record) -> tuple[Region, ...]:
    """Boxes of the mask's connected components; InputError where the mask is missing or unfit."""
    if record.mask_path is None:
        raise InputError(f"{record.image_path}: is defective, but has no mask")
    mask = load_mask(
        record.mask_path,
        image_size(record.image_path),
        record.mask_threshold,
        image_name=record.image_path.name,
    )
    if not mask.any():
        raise InputError(f"{record.mask_path}: marks no defect of {record.image_path.name}")
    return tuple(Region(box, record.defect_type) for box in boxes_from_mask(mask))


def add_regions(
    records: Sequence[Record],
    problems: list[str],
    read: Callable[[Record], tuple[Region, ...]] = read_mask_regions,
) -> list[Record]:
    """Records, the anomalous ones with what `read` finds; what does not fit goes to `problems`."""

    def read_regions(record: Record) -> tuple[Region, ...] | InputError:
        if record.label != "anomalous":
            return ()
        try:
            return read(record)
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


def finish(root: Path, records: list[Record], problems: Sequence[str]) -> list[Record]:
    """The records; one InputError that lists all problems, or says that there is no picture."""
    if problems:
        raise InputError("\n".join([f"{root}: {len(problems)} problems:", *problems]))
    if not records:
        raise InputError(f"{root}: holds no pictures where this layout has them")
    return records
