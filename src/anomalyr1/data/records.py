"""Records as JSON Lines: write them, read them, and refuse a faulty file before any model loads.

One JSON object a line, its keys the fields of `Record`, defaults left out; paths are relative to
the file's folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from anomalyr1.data.record_checks import find_problems
from anomalyr1.images import write_bytes_atomic
from anomalyr1.types import InputError, Label, MaskPart, Question, Record, Region

MAX_PROBLEMS = 20
PATH_LISTS = ("reference_paths", "similar_paths", "random_paths")
"""Fields of a record that list pictures."""

_LABELS: tuple[str, ...] = get_args(Label)


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSON Lines, whole or not at all; paths relative to the file's folder."""
    path = Path(path)
    lines = [
        json.dumps(record_to_json(record, path.parent), ensure_ascii=False) for record in records
    ]
    write_bytes_atomic(path, "".join(line + "\n" for line in lines).encode())


def load_records(path: str | Path, *, validate: bool = True) -> list[Record]:
    """Read records from JSON Lines, their paths made absolute; blank lines are skipped.

    Raises one InputError that lists up to `MAX_PROBLEMS` problems, each with file, line number
    and record id, and the number of further ones. Malformed lines and repeated ids are always
    found; `validate` also opens every picture and mask (see `validate_record`), in threads, with a
    progress bar on stderr for more than 200 records.
    """
    path = Path(path)
    records: list[Record] = []
    line_numbers: list[int] = []
    problems: list[tuple[int, str]] = []
    first_lines: dict[str, int] = {}
    for number, line in enumerate(_read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = record_from_json(_parse_line(line), path.parent)
        except InputError as error:
            problems.append((number, str(error)))
            continue
        earlier = first_lines.setdefault(record.record_id, number)
        if earlier != number:
            problems.append(
                (number, f"record {record.record_id}: id already used on line {earlier}; rename it")
            )
        records.append(record)
        line_numbers.append(number)
    if not records and not problems:
        raise InputError(f"{path}: holds no records; write one JSON object a line")
    if validate:
        for number, record, found in zip(
            line_numbers, records, find_problems(records), strict=True
        ):
            problems.extend((number, f"record {record.record_id}: {text}") for text in found)
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise InputError(_summary([f"{path}:{number}: {text}" for number, text in problems]))
    return records


def validate_record(record: Record) -> None:
    """Raise one InputError with all that is wrong with a record and its files.

    Found: a missing, damaged or cut-off picture or reference; an unreadable mask or one of another
    size; a box outside the picture or without area; a mask or regions without a label; a normal
    record with regions or a mask that is not blank; a picture that is its own reference; a
    question's answer not among its options. Pictures are checked by `images.check_image`, which
    finds cut-off files without a full decode; masks are read in full.
    """
    problems = find_problems([record])[0]
    if problems:
        raise InputError(_summary([f"record {record.record_id}: {text}" for text in problems]))


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
    problems: list[str] = []
    root = folder.resolve()
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


def _read_lines(path: Path) -> list[str]:
    try:
        # Split on "\n" alone: str.splitlines would also cut at U+2028, which JSON text may hold.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error}); give a JSON Lines file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _parse_line(line: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not JSON ({error}); write one JSON object a line") from error
    if not isinstance(data, dict):
        raise InputError(f"is a JSON {type(data).__name__}; write one JSON object a line")
    return data


def _summary(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} problems:", *problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"... and {len(problems) - MAX_PROBLEMS} more")
    return "\n".join(lines)


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
