"""Your own annotations: COCO's JSON, and YOLO's text files. Boxes become the records' regions, and
COCO's segmentations their masks.

COCO: one JSON file (or a folder with one) whose `file_name`s lie beside it, in images/ there, or
in a folder of the file's own name without "instances_". YOLO::

    data.yaml or classes.txt                # names of the classes
    images/train/a.jpg    labels/train/a.txt        # or train/images/a.jpg, train/labels/a.txt
    images/a.jpg          labels/a.txt              # lines: class cx cy width height, in 0..1,
                                                    # or class x1 y1 x2 y2 x3 y3 ...
A picture without annotations is normal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalyr1.coco_masks import EncodedMask, count_pixels, encode_segmentation, unite_masks
from anomalyr1.data.layouts.shared import check_folder, finish, read_text
from anomalyr1.images import find_images, image_size
from anomalyr1.types import InputError, Record, Region

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Annotation:
    """Of a COCO file, as it stands there."""

    annotation_id: object
    box: Any
    defect_type: str
    segmentation: object


def load_coco(source: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of a COCO file, as in `load_segmented_coco`, without masks."""
    return load_segmented_coco(source)[0]


def load_segmented_coco(source: str | Path) -> tuple[list[Record], dict[str, EncodedMask]]:
    """Records of a COCO file, and by record id their masks, from one reading of it.

    An annotation's `bbox` (x, y, width, height) is a region; a picture's mask is the union of its
    `segmentation`s. A picture one of whose annotations is a box alone has none, since a mask would
    call that defect normal. Crowds count as any other annotation, keypoints are not read. There are
    no references: split by `data fewshot`.

    Raises one InputError with all that is wrong: pictures that are missing or listed twice, boxes
    and segmentations that cannot be read, masks that would mark nothing.
    """
    path = _find_coco_file(Path(source))
    images, annotations, problems = _read_coco_file(path)
    problems += [
        f"{path}: annotations of image {key}, which is not listed"
        for key in annotations
        if key not in images
    ]
    records: list[Record] = []
    masks: dict[str, EncodedMask] = {}
    for key, name in images.items():
        picture = _find_picture(path, name)
        if picture is None:
            problems.append(f"{path}: picture {name} is not beside it, nor in images/")
            continue
        found = annotations.get(key, [])
        boxes = [(one.box, one.defect_type) for one in found]
        regions = _build_regions(f"{path}: {name}", boxes, picture, problems)
        records.append(_build_record(name, picture, path.parent.resolve().name, "", regions))
        mask = _unite_segmentations(name, found, image_size(picture), problems)
        if mask is not None:
            masks[name] = mask
    return finish(path, records, problems), masks


def load_yolo(root: str | Path, *, max_references: int = 0, seed: int = 0) -> list[Record]:
    """Records of a YOLO folder, with the names of data.yaml or classes.txt for its classes."""
    root = check_folder(root)
    names = _read_class_names(root)
    records: list[Record] = []
    problems: list[str] = []
    expected: set[Path] = set()
    for picture in find_images([root]):
        parts = list(picture.relative_to(root).parts)
        if "images" not in parts[:-1]:
            continue
        split = next((SPLIT_NAMES[part] for part in parts if part in SPLIT_NAMES), "")
        parts[parts.index("images")] = "labels"
        labels = root.joinpath(*parts).with_suffix(".txt")
        expected.add(labels)
        regions = _read_yolo_file(labels, names, picture, problems)
        name = picture.relative_to(root).as_posix()
        records.append(_build_record(name, picture, root.resolve().name, split, regions))
    found = {path for folder in {path.parent for path in expected} for path in folder.glob("*.txt")}
    problems += [
        f"{path}: has no picture in images/; add it, or remove this file"
        for path in sorted(found - expected)
        if path.name != "classes.txt"
    ]
    return finish(root, records, problems)


def _build_record(
    name: str, picture: Path, dataset: str, split: str, regions: tuple[Region, ...]
) -> Record:
    kinds = {region.defect_type for region in regions}
    return Record(
        record_id=name,
        image_path=picture,
        dataset=dataset,
        split=split,
        label="anomalous" if regions else "normal",
        defect_type=kinds.pop() if len(kinds) == 1 else "combined" if kinds else "",
        regions=regions,
    )


def _find_coco_file(source: Path) -> Path:
    if source.is_file():
        return source
    found = sorted(check_folder(source).glob("*.json")) + sorted(source.glob("annotations/*.json"))
    if len(found) != 1:
        raise InputError(f"{source}: holds {len(found)} JSON files; name the one to read")
    return found[0]


def _read_coco_file(
    path: Path,
) -> tuple[dict[Any, str], dict[Any, list[_Annotation]], list[str]]:
    """File names by image id, annotations by image id, and what is listed twice."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        names = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        listed = [(entry["id"], str(entry["file_name"])) for entry in document["images"]]
        images = dict(listed)
        annotations: dict[Any, list[_Annotation]] = {}
        for entry in document["annotations"]:
            kind = names[entry["category_id"]]
            one = _Annotation(entry.get("id"), entry["bbox"], kind, entry.get("segmentation"))
            annotations.setdefault(entry["image_id"], []).append(one)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is not a whole COCO file ({error}); it needs images, annotations, categories"
        ) from error
    return images, annotations, _find_repeats(path, listed)


def _find_repeats(path: Path, listed: list[tuple[Any, str]]) -> list[str]:
    """Images that share a name, as two records would their id, or an id."""
    problems = []
    names: dict[Any, str] = {}
    keys: dict[str, Any] = {}
    for key, name in listed:
        if name in keys:
            problems.append(
                f"{path}: images {keys[name]} and {key} are both {name}; list it once, with the "
                "annotations of both"
            )
        elif key in names:
            problems.append(
                f"{path}: {names[key]} and {name} both have the id {key}; give each its own"
            )
        names.setdefault(key, name)
        keys.setdefault(name, key)
    return problems


def _unite_segmentations(
    name: str, annotations: list[_Annotation], size_wh: tuple[int, int], problems: list[str]
) -> EncodedMask | None:
    """The mask of a picture of `size_wh`, None where an annotation is a box alone or none can be
    read; what cannot goes to `problems`."""
    if not all(one.segmentation for one in annotations):
        return None
    parts = []
    for one in annotations:
        try:
            parts.append(encode_segmentation(one.segmentation, size_wh))
        except InputError as error:
            problems.append(
                f"annotation {one.annotation_id} of {name}: segmentation: {error}; "
                "correct it, or remove it to import the box alone"
            )
    if not parts:
        return None
    mask = unite_masks(parts)
    if not count_pixels(mask):
        problems.append(f"{name}: its segmentations mark no pixel; draw them")
    return mask


def _find_picture(path: Path, name: str) -> Path | None:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        return None
    own = path.stem.removeprefix("instances_")
    bases = (path.parent, path.parent.parent)
    folders = [base / part for base in bases for part in ("", "images", own, f"images/{own}")]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _build_regions(
    where: str, boxes: list[tuple[Any, str]], picture: Path, problems: list[str]
) -> tuple[Region, ...]:
    regions = []
    width, height = image_size(picture)
    for box, name in boxes:
        try:
            left, top, across, down = map(float, box)
        except (TypeError, ValueError):
            problems.append(f"{where}: bbox is {box!r}, expected x, y, width, height")
            continue
        # Tools round: up to a pixel beyond the edge is cut, more is a fault.
        fits = left >= -1 and top >= -1 and left + across <= width + 1 and top + down <= height + 1
        if not (across > 0 and down > 0 and fits):
            problems.append(f"{where}: bbox {box!r} is not inside {width}x{height}")
            continue
        right, bottom = min(left + across, width), min(top + down, height)
        regions.append(Region((max(left, 0.0), max(top, 0.0), right, bottom), name))
    return tuple(regions)


def _read_class_names(root: Path) -> list[str]:
    if (root / "classes.txt").is_file():
        return read_text(root / "classes.txt").splitlines()
    path = root / "data.yaml"
    if not path.is_file():
        raise InputError(f"{root}: expected data.yaml or classes.txt with the classes' names")
    import yaml

    try:
        names = yaml.safe_load(read_text(path))["names"]
        return (
            [str(names[key]) for key in sorted(names)] if isinstance(names, dict) else list(names)
        )
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds no `names` of classes ({error})") from error


def _read_yolo_file(
    path: Path, names: list[str], picture: Path, problems: list[str]
) -> tuple[Region, ...]:
    if not path.is_file():
        return ()
    width, height = image_size(picture)
    boxes: list[tuple[Any, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            number_of_class, sides = int(words[0]), list(map(float, words[1:]))
            if number_of_class < 0:
                raise ValueError(f"class {number_of_class}")
            name = names[number_of_class]
            if len(sides) == 4:
                across, down = sides[2] * width, sides[3] * height
                corner = (sides[0] * width - across / 2, sides[1] * height - down / 2)
            elif len(sides) >= 6 and len(sides) % 2 == 0:
                xs, ys = [x * width for x in sides[::2]], [y * height for y in sides[1::2]]
                corner, across, down = (min(xs), min(ys)), max(xs) - min(xs), max(ys) - min(ys)
            else:
                raise ValueError(f"{len(sides)} numbers")
        except (ValueError, IndexError) as error:
            problems.append(
                f"{path}:{number}: {line!r} is no box of {len(names)} classes ({error})"
            )
            continue
        boxes.append(((*corner, across, down), name))
    return _build_regions(str(path), boxes, picture, problems)
