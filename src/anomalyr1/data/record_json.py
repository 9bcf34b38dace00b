"""Records as JSON values, and back: keys are the fields of `Record`, defaults are left out."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from anomalyr1.types import InputError, Label, MaskPart, Question, Record, Region

PATH_LISTS = ("reference_paths", "similar_paths", "random_paths")
"""Fields of a record that list pictures."""

_LABELS: tuple[str, ...] = get_args(Label)


def record_to_json(record: Record, folder: Path) -> dict[str, Any]:
    """Return a record as JSON values, paths relative to `folder`, fields at their default left out.

    Regions and the question become objects with their own fields' names.
    """
    values = _set_fields(record)
    values["image_path"] = _relative(record.image_path, folder)
    if record.mask_path is not None:
        values["mask_path"] = _relative(record.mask_path, folder)
    for name in PATH_LISTS:
        if name in values:
            values[name] = [_relative(path, folder) for path in values[name]]
    if record.mask_parts:
        values["mask_parts"] = [
            {**_set_fields(part), "mask_path": _relative(part.mask_path, folder)}
            for part in record.mask_parts
        ]
    if record.regions:
        values["regions"] = [
            {**_set_fields(region), "box_xyxy": list(region.box_xyxy)} for region in record.regions
        ]
    if record.question is not None:
        values["question"] = _set_fields(record.question)
    return values


def record_from_json(data: Mapping[str, Any], folder: Path) -> Record:
    """Build a record from JSON values; relative paths are taken from `folder`, results absolute.

    Raises one InputError naming the record and every unknown key, missing key and value of a wrong
    type. Opens no file.
    """
    return build_record(data, folder.resolve())


def build_record(data: Mapping[str, Any], root: Path) -> Record:
    """As `record_from_json`, for many records of one folder whose real path is known already."""
    problems: list[str] = []
    values = _checked(data, _RECORD_KINDS, ("record_id", "image_path"), "", problems)
    regions = tuple(
        Region(**region | {"box_xyxy": tuple(map(float, region["box_xyxy"]))})
        for region in _checked_items(values, "regions", _REGION_KINDS, ("box_xyxy",), problems)
    )
    required = ("mask_path", "saturation_area")
    parts = tuple(
        MaskPart(**part | {"mask_path": _absolute(root, part["mask_path"])})
        for part in _checked_items(values, "mask_parts", _PART_KINDS, required, problems)
    )
    question = values.pop("question", None)
    if question is not None:
        question = _checked(question, _QUESTION_KINDS, ("text", "options"), "question.", problems)
    if problems:
        shown = data.get("record_id")
        prefix = f"record {shown}: " if isinstance(shown, str) and shown else ""
        raise InputError(prefix + "; ".join(problems))
    for key in ("image_path", "mask_path"):
        if values.get(key) is not None:
            values[key] = _absolute(root, values[key])
    for key in PATH_LISTS:
        values[key] = tuple(_absolute(root, text) for text in values.get(key, ()))
    return Record(
        **values,
        regions=regions,
        mask_parts=parts,
        question=Question(**question) if question else None,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_grey(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 255


Kind = tuple[Callable[[object], bool], str]
_TEXT: Kind = (_is_text, "text")
_NAME: Kind = (_is_name, "text that is not empty")
_PATHS: Kind = (
    lambda value: isinstance(value, list) and all(map(_is_name, value)),
    "a list of paths",
)
_RECORD_KINDS: dict[str, Kind] = {
    "record_id": _NAME,
    "image_path": _NAME,
    "dataset": _TEXT,
    "category": _TEXT,
    "split": _TEXT,
    "label": (lambda value: value is None or value in _LABELS, "normal, anomalous or null"),
    "defect_type": _TEXT,
    "mask_path": (lambda value: value is None or _is_name(value), "a path or null"),
    **dict.fromkeys(PATH_LISTS, _PATHS),
    "mask_threshold": (_is_grey, "a whole number from 0 to 254"),
    "mask_parts": (lambda value: isinstance(value, list), "a list of objects"),
    "knowledge": _TEXT,
    "regions": (lambda value: isinstance(value, list), "a list of objects"),
    "question": (lambda value: value is None or isinstance(value, dict), "an object or null"),
    "reasoning": _TEXT,
}
_REGION_KINDS: dict[str, Kind] = {
    "box_xyxy": (_is_box, "four numbers x1, y1, x2, y2"),
    "defect_type": _TEXT,
    "description": _TEXT,
    "confidence": (lambda value: value is None or _is_number(value), "a number or null"),
}
_PART_KINDS: dict[str, Kind] = {
    "mask_path": _NAME,
    "saturation_area": (_is_count, "a number of pixels"),
    "defect_type": _TEXT,
}
_QUESTION_KINDS: dict[str, Kind] = {
    "text": _NAME,
    "options": (_is_options, "an object from letters to texts"),
    "answer": (lambda value: value is None or _is_text(value), "a letter or null"),
    "question_type": _TEXT,
    "is_verified": (lambda value: value is None or isinstance(value, bool), "true, false or null"),
}


def _checked(
    data: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    required: Sequence[str],
    where: str,
    problems: list[str],
) -> dict[str, Any]:
    """Return the entries of the right kind; add to `problems` what is unknown, wrong or missing."""
    good: dict[str, Any] = {}
    for key, value in data.items():
        if key not in kinds:
            close = difflib.get_close_matches(key, kinds, n=1)
            advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(kinds)}"
            problems.append(f"unknown key {where}{key}; {advice}")
        elif not kinds[key][0](value):
            problems.append(f"{where}{key} is {value!r}, expected {kinds[key][1]}")
        else:
            good[key] = value
    problems.extend(f"{where}{key} is missing" for key in required if key not in data)
    return good


def _checked_items(
    values: dict[str, Any],
    name: str,
    kinds: Mapping[str, Kind],
    required: Sequence[str],
    problems: list[str],
) -> list[dict[str, Any]]:
    """Take the list `name` out of `values` and return those of its objects that can be built."""
    good = []
    for index, item in enumerate(values.pop(name, ())):
        if not isinstance(item, dict):
            wanted = " and ".join(required)
            problems.append(f"{name}[{index}] is {item!r}, expected an object with {wanted}")
            continue
        entry = _checked(item, kinds, required, f"{name}[{index}].", problems)
        if all(key in entry for key in required):
            good.append(entry)
    return good


def _set_fields(value: Record | Region | Question | MaskPart) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their default, in order."""
    return {
        field.name: getattr(value, field.name)
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    }


def _relative(path: Path, folder: Path) -> str:
    # Only the folders are resolved: a picture that is a link keeps its own name.
    absolute = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(absolute, folder.resolve())).as_posix()
    except ValueError:  # another drive, on Windows
        return absolute.as_posix()


def _absolute(root: Path, text: str) -> Path:
    return Path(os.path.normpath(root / text))
