"""Findings on disk: one JSON object a line, appended as they come, readable after any interruption.

A line is complete once its newline is on disk. A run that was killed may leave half a line at the
end; it is never read as a finding, and the next writer cuts it off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from anomalyr1.reporting.lines import LineWriter
from anomalyr1.types import Box, Defect, Finding, InputError

VERDICTS: tuple[str, ...] = ("normal", "anomalous", "unread")


def build_finding_line(finding: Finding) -> str:
    """The finding as one line of ASCII JSON, without the newline.

    ASCII because a model may write lone surrogates, which no encoding accepts. A score that is not
    a finite number is written as null: it is unknown. Raises InputError for a box that is not
    finite, which has no meaning as a place in a picture.

    >>> line = build_finding_line(Finding("a", "a.png", "normal", anomaly_score=0.25))
    >>> line[:71]
    '{"image": "a.png", "verdict": "normal", "anomaly_score": 0.25, "detecto'
    """
    fields = {
        "image": finding.image,
        "verdict": finding.verdict,
        "anomaly_score": _build_number(finding.anomaly_score),
        "detector_score": _build_number(finding.detector_score),
        "reasoning": finding.reasoning,
        "defects": [_build_defect(defect, finding.record_id) for defect in finding.defects],
        "raw_text": finding.raw_text,
        "status": finding.status,
        "model": finding.model,
        "weights_sha256": finding.weights_sha256,
        "seconds": _build_number(finding.seconds) or 0.0,
        "error": finding.error,
        "record_id": finding.record_id,
        "template_id": finding.template_id,
        "category": finding.category,
        "overlay": finding.overlay,
        "anomaly_map": finding.anomaly_map,
        "reference": finding.reference,
        "image_size_wh": None if finding.image_size_wh is None else list(finding.image_size_wh),
    }
    return json.dumps(fields, ensure_ascii=True, allow_nan=False)


def parse_finding_line(line: str) -> Finding:
    """Read back what `build_finding_line` wrote; fields a later version may add are ignored.

    Raises InputError saying which field is missing or what it holds instead.

    >>> parse_finding_line(build_finding_line(Finding("a", "a.png", "unread"))).verdict
    'unread'
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise InputError(f"a JSON object is expected, this is {type(fields).__name__}")
    verdict = _read_text(fields, "verdict")
    if verdict not in VERDICTS:
        raise InputError(f"verdict is {verdict!r}, one of {', '.join(VERDICTS)} is expected")
    defects = fields.get("defects", [])
    if not isinstance(defects, list):
        raise InputError(f"defects is {defects!r:.80}, a list is expected")
    image = _read_text(fields, "image")
    return Finding(
        record_id=_read_text(fields, "record_id", image),
        image=image,
        verdict=verdict,  # type: ignore[arg-type]
        anomaly_score=_read_number(fields, "anomaly_score"),
        detector_score=_read_number(fields, "detector_score"),
        reasoning=_read_text(fields, "reasoning", ""),
        defects=tuple(_parse_defect(defect) for defect in defects),
        raw_text=_read_text(fields, "raw_text", ""),
        status=_read_text(fields, "status", ""),
        model=_read_text(fields, "model", ""),
        weights_sha256=_read_text(fields, "weights_sha256", ""),
        template_id=_read_text(fields, "template_id", ""),
        category=_read_text(fields, "category", ""),
        seconds=_read_number(fields, "seconds") or 0.0,
        error=_read_optional_text(fields, "error"),
        overlay=_read_optional_text(fields, "overlay"),
        anomaly_map=_read_optional_text(fields, "anomaly_map"),
        reference=_read_optional_text(fields, "reference"),
        image_size_wh=_read_size_wh(fields),
    )


def load_findings(path: Path) -> list[Finding]:
    """The findings of a findings.jsonl, one a record, in the order the records first appear.

    A picture that failed and was tried again has several lines: the last one counts. A half last
    line (the run was killed while writing it) is left out. Anything else that cannot be read raises
    InputError naming file and line: a finding is never dropped quietly.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    lines = content.split(b"\n")
    findings: dict[str, Finding] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            finding = parse_finding_line(line.decode("utf-8"))
        except (InputError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise InputError(
                f"{path}, line {number}: {error}; remove or repair this line, "
                "the other lines stay usable"
            ) from error
        findings[finding.record_id] = finding
    return list(findings.values())


class FindingsWriter:
    """Appends findings to a file, each on disk before the next picture is looked at.

    A context manager; see `LineWriter`. Two writers on one file are refused.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self.path = path
        self._lines = LineWriter(path, _is_finding, sync=sync)

    def __enter__(self) -> FindingsWriter:
        self._lines.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.__exit__(kind, error, traceback)

    def write(self, finding: Finding) -> None:
        """Append one finding; when this returns, `load_findings` sees it."""
        self._lines.write(build_finding_line(finding))


def _is_finding(line: str) -> bool:
    try:
        parse_finding_line(line)
    except InputError:
        return False
    return True


def _build_number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _build_defect(defect: Defect, record_id: str) -> dict[str, object]:
    box = [float(side) for side in defect.box_xyxy]
    if len(box) != 4 or not all(math.isfinite(side) for side in box):
        raise InputError(
            f"{record_id}: the box of defect {defect.label!r} is {defect.box_xyxy}, four finite "
            "numbers are expected; leave the defect out or give it a box"
        )
    return {
        "label": defect.label,
        "description": defect.description,
        "box_xyxy": box,
        "mask": defect.mask,
        "confidence": _build_number(defect.confidence),
    }


def _parse_defect(fields: object) -> Defect:
    if not isinstance(fields, dict):
        raise InputError(f"a defect is {fields!r:.80}, an object is expected")
    return Defect(
        label=_read_text(fields, "label", ""),
        description=_read_text(fields, "description", ""),
        box_xyxy=_read_box(fields),
        mask=_read_optional_text(fields, "mask"),
        confidence=_read_number(fields, "confidence"),
    )


def _read_text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        found = "missing" if name not in fields else f"{value!r:.80}"
        raise InputError(f"{name} is {found}, a text is expected")
    return value


def _read_optional_text(fields: Mapping[str, Any], name: str) -> str | None:
    return None if fields.get(name) is None else _read_text(fields, name)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # An integer too long for a float.
        return False


def _read_number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise InputError(f"{name} is {value!r:.80}, a finite number or null is expected")
    return float(value)


def _read_box(fields: Mapping[str, Any]) -> Box:
    value = fields.get("box_xyxy")
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise InputError(f"box_xyxy is {value!r:.80}, four finite numbers are expected")
    left, top, right, bottom = (float(side) for side in value)
    return (left, top, right, bottom)


def _read_size_wh(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    value = fields.get("image_size_wh")
    if value is None:
        return None
    whole = isinstance(value, list) and all(type(side) is int and side > 0 for side in value)
    if not whole or len(value) != 2:
        raise InputError(f"image_size_wh is {value!r:.80}, two whole numbers above 0 are expected")
    return (value[0], value[1])
