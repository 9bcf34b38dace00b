"""Reads a job's destination back: all rows, and a report of those that matter most."""

from __future__ import annotations

import heapq
import json
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.distributed.job import MANIFEST_FILE
from anomalyr1.distributed.shards import load_rows, parse_row
from anomalyr1.distributed.storage import exists, join, read_bytes
from anomalyr1.distributed.worker import fetch, name_shard
from anomalyr1.images import write_png_atomic
from anomalyr1.reporting.inspection import Summary, compute_rank, tell_time, write_report
from anomalyr1.types import Finding, InputError


def read_manifest(destination: str) -> dict[str, Any]:
    """A finished job's manifest. Raises InputError for a job that is not finished, or none."""
    place = join(destination, MANIFEST_FILE)
    if not exists(place):
        raise InputError(
            f"{destination} has no {MANIFEST_FILE}: it is no batch job, or one that is not "
            "finished; run anomalyr1 batch with the same arguments to continue it"
        )
    try:
        manifest = json.loads(read_bytes(place))
        if not isinstance(manifest["blocks"], int):
            raise TypeError("blocks is no number")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} cannot be read: {error}") from error
    return dict(manifest)


def iterate_rows(destination: str) -> Iterator[dict[str, Any]]:
    """All rows of a finished job, shard by shard in the order of the plan."""
    for number in range(read_manifest(destination)["blocks"]):
        yield from load_rows(join(destination, name_shard(number)))


def write_batch_report(destination: str, out_dir: Path, limit: int) -> Path:
    """Write `out_dir`/report.html: counts over all rows, and the `limit` highest ranks with their
    pictures, which are fetched where they lie behind a URL."""
    manifest = read_manifest(destination)
    seconds = array("f")
    models: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    top: list[tuple[float, int, dict[str, Any]]] = []
    for place, row in enumerate(iterate_rows(destination)):
        seconds.append(row["seconds"])
        models[row["model"]] += 1
        categories[row["category"]] += 1
        rank = compute_rank(Finding("", "", row["verdict"], anomaly_score=row["anomaly_score"]))
        entry = (rank, -place, row)  # the place is unique: rows are never compared
        if len(top) < limit:
            heapq.heappush(top, entry)
        else:
            heapq.heappushpop(top, entry)
    shown = [
        _unpack(row, number, out_dir)
        for number, (_, _, row) in enumerate(sorted(top, reverse=True), start=1)
    ]
    summary = Summary(
        n=manifest["rows"],
        n_shown=len(shown),
        n_anomalous=manifest["anomalous"],
        n_normal=manifest["normal"],
        n_unread=manifest["unread"],
        n_errors=manifest["errors"],
        median_seconds=float(np.median(seconds)) if seconds else None,
        models=tuple(sorted(name for name in models if name)),
        categories=tuple(sorted(name for name in categories if name)),
        written=tell_time(),
    )
    return write_report(out_dir, shown, manifest["settings"], summary=summary)


def _unpack(row: dict[str, Any], number: int, out_dir: Path) -> Finding:
    """A row's finding with its masks, and pictures from a store, as files in `out_dir`."""
    finding, masks = parse_row(row)
    defects = list(finding.defects)
    with_masks = [place for place, defect in enumerate(row["defects"]) if defect["mask"]]
    for place, mask in zip(with_masks, masks, strict=True):
        name = f"masks/{number:05d}_{place}.png"
        write_png_atomic(out_dir / name, mask)
        defects[place] = replace(defects[place], mask=name)
    folder = out_dir / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        image = str(fetch(finding.image, folder, number))
    except InputError:  # the report shows it as missing
        image = finding.image
    return replace(finding, image=image, defects=tuple(defects))
