"""A run folder: findings, masks, overlays and maps written as they come, then a report.

A finding is written after its pictures, so that a line in findings.jsonl never names a file that
is not there; a run that was killed continues behind the last whole line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.images import load_image, write_bytes_atomic, write_png_atomic
from anomalyr1.inspector import Inspection
from anomalyr1.prompts import INSPECTION_TEMPLATE_ID
from anomalyr1.reporting.environment import describe_environment
from anomalyr1.reporting.findings import FindingsWriter, load_findings
from anomalyr1.reporting.maps import read_map, write_map
from anomalyr1.reporting.overlays import draw_overlay
from anomalyr1.types import Finding, InputError, Record

FINDINGS_FILE = "findings.jsonl"
CONFIG_FILE = "config.json"
PICTURE_FOLDERS = ("masks", "overlays", "maps")
"""Where a run folder keeps what was drawn for its findings."""


def claim_folder(folder: Path, settings: Mapping[str, object], data_file: str) -> None:
    """Make a run's folder and write config.json and environment.json into it.

    Raises InputError where it cannot be written, and where it holds a run with other settings or a
    `data_file` whose settings nobody knows.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the output folder {folder}: {error}") from error
    path = folder / CONFIG_FILE
    config = build_config(settings)
    environment = json.dumps(describe_environment(), indent=2) + "\n"
    try:
        # Data whose settings nobody knows must not be mixed with new ones.
        if path.is_file() or (folder / data_file).is_file():
            check_config(folder, path.read_bytes() if path.is_file() else b"", config)
        write_bytes_atomic(path, config)
        write_bytes_atomic(folder / "environment.json", environment.encode("ascii"))
    except OSError as error:
        raise InputError(
            f"cannot write to the output folder {folder}: {error}; "
            "choose a folder you may write to, on a disk with space"
        ) from error


def build_config(settings: Mapping[str, object]) -> bytes:
    """A run's config.json: its settings, and the package's version, since another one may decode or
    read otherwise."""
    agreed = {**settings, "anomalyr1": describe_environment()["anomalyr1"]}
    return (json.dumps(agreed, indent=2, sort_keys=True) + "\n").encode("ascii")


def check_config(folder: Path | str, known: bytes, config: bytes) -> None:
    """Raise InputError, naming what differs, where a folder's config.json holds `known` and the run
    that is to go on in it has `config`."""
    changes = _name_changes(known, config)
    if changes:
        raise InputError(
            f"{folder} holds a run with other settings ({changes}): "
            "choose another --out, or remove the folder"
        )


def _name_changes(known: bytes, config: bytes) -> str:
    """Which settings are not those of `config`, with both values; empty where all are.

    Weights that were not on this machine when the run began may have come since: it fetched them.
    """
    new = json.loads(config)
    try:
        old = json.loads(known)
        changed = [
            name
            for name in old | new
            if old.get(name) != new.get(name)
            and not (name.endswith("weights_sha256") and old.get(name, "") is None)
        ]
    except (ValueError, TypeError, AttributeError):
        return f"{CONFIG_FILE} is not there, or cannot be read"
    shown = [f"{name} was {old.get(name)!r:.60}, is {new.get(name)!r:.60}" for name in changed]
    return "; ".join(shown[:4] + ["..."] * (len(shown) > 4))


class RunFolder:
    """Use as a context manager. Findings of an earlier run with the same settings are kept."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        self._settings = {**settings, "prompt": INSPECTION_TEMPLATE_ID}
        self._writer = FindingsWriter(folder / FINDINGS_FILE)

    def __enter__(self) -> RunFolder:
        claim_folder(self.folder, self._settings, FINDINGS_FILE)
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def finished(self) -> dict[str, Finding]:
        """Findings already there without an error, by record id; failed ones are tried again."""
        path = self.folder / FINDINGS_FILE
        findings = load_findings(path) if path.is_file() else []
        return {finding.record_id: finding for finding in findings if finding.error is None}

    def write(self, inspection: Inspection) -> Finding:
        """Write the pictures of an inspection and then its line; returns it with its paths."""
        finding = inspection.finding
        try:
            if inspection.picture is not None:
                finding = self._write_pictures(inspection)
        except OSError as error:
            raise InputError(
                f"cannot write the pictures of {finding.record_id} to {self.folder}: {error}; "
                "what is already written stays readable, run the same command again to continue"
            ) from error
        self._writer.write(finding)
        return finding

    def _write_pictures(self, inspection: Inspection) -> Finding:
        finding = inspection.finding
        assert inspection.picture is not None
        stem = build_stem(finding)
        defects = list(finding.defects)
        for number, mask in enumerate(inspection.masks):
            name = f"masks/{stem}_{number}.png"
            self._write_png(name, mask.astype(np.uint8) * 255)
            defects[number] = replace(defects[number], mask=name)
        overlay = f"overlays/{stem}.png"
        drawn = draw_overlay(
            inspection.picture,
            inspection.masks,
            [defect.box_xyxy for defect in defects],
            [defect.label for defect in defects],
            finding.verdict,
            finding.anomaly_score,
        )
        self._write_png(overlay, drawn)
        anomaly_map = None
        if inspection.anomaly_map is not None:
            anomaly_map = f"maps/{stem}.png"
            write_map(self.folder / anomaly_map, inspection.anomaly_map)
        return replace(finding, defects=tuple(defects), overlay=overlay, anomaly_map=anomaly_map)

    def _write_png(self, name: str, picture: Image.Image | NDArray[np.uint8]) -> None:
        write_png_atomic(self.folder / name, picture)


def build_stem(finding: Finding) -> str:
    """A file stem for a finding's pictures: readable, and unique by the record's id."""
    readable = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "_"
        for letter in Path(finding.image).stem
    )[:60]
    digest = blake2b(finding.record_id.encode("utf-8", "surrogatepass"), digest_size=4)
    return f"{readable}_{digest.hexdigest()}"


def inspect_into(
    run: RunFolder, records: Iterable[Record], inspections: Iterator[Inspection]
) -> Iterator[Finding]:
    """Findings of `records` in order: those already in the folder, or the next inspection's."""
    done = run.finished()
    for record in records:
        if record.record_id in done:
            yield done[record.record_id]
        else:
            yield run.write(next(inspections))


def load_map(folder: Path, finding: Finding) -> NDArray[np.float32] | None:
    """A finding's anomaly map, float32 (h, w) in [0, 1], None where it has none."""
    if finding.anomaly_map is None:
        return None
    return read_map(folder / finding.anomaly_map)


def load_united_mask(folder: Path, finding: Finding) -> NDArray[np.bool_] | None:
    """All masks of a finding as one, bool (H, W) in original pixels, None where it has none."""
    united: NDArray[np.bool_] | None = None
    for defect in finding.defects:
        if defect.mask is not None:
            mask = np.asarray(load_image(folder / defect.mask).convert("L")) > 127
            united = mask if united is None else united | mask
    return united
