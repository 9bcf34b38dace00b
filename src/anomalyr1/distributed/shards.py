"""Findings as Parquet: one row a picture, masks as COCO RLE, counts in the file's metadata."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyr1.coco_masks import decode_mask, encode_mask
from anomalyr1.distributed.storage import opened
from anomalyr1.reporting.findings import build_finding_line, parse_finding_line
from anomalyr1.types import Finding, InputError

_COUNTS = b"anomalyr1"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEFT_OUT = ("overlay", "anomaly_map")
"""Of a finding: files that a batch does not write."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a block's rows hold; `errors` are pictures that could not be inspected."""

    rows: int
    anomalous: int
    normal: int
    unread: int
    errors: int


def count_rows(rows: Iterable[Mapping[str, Any]]) -> Counts:
    """Counts of rows as `build_row` makes them."""
    rows = list(rows)
    verdicts = Counter(row["verdict"] for row in rows)
    errors = sum(row["error"] is not None for row in rows)
    return Counts(len(rows), verdicts["anomalous"], verdicts["normal"], verdicts["unread"], errors)


def build_schema() -> Any:
    """The columns of a shard, as a pyarrow schema. Boxes are xyxy in pixels of the original."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", text)])
    defect = pa.struct(
        [
            ("label", text),
            ("description", text),
            ("box_xyxy", pa.list_(number)),
            ("confidence", number),
            ("mask", mask),
        ]
    )
    return pa.schema(
        [
            *((name, text) for name in ("record_id", "image", "category", "verdict")),
            *((name, number) for name in ("anomaly_score", "detector_score")),
            ("defects", pa.list_(defect)),
            *((name, text) for name in ("reasoning", "raw_text", "status", "error")),
            *((name, text) for name in ("model", "weights_sha256", "template_id", "reference")),
            ("image_size_wh", pa.list_(pa.int32())),
            ("seconds", number),
        ]
    )


def build_row(finding: Finding, masks: Sequence[NDArray[np.bool_]] = ()) -> dict[str, Any]:
    """A finding as a row; `masks` bool (H, W) in pixels of the original, one a defect or none."""
    fields = json.loads(build_finding_line(finding))
    for name in _LEFT_OUT:
        del fields[name]
    for place, defect in enumerate(fields["defects"]):
        defect["mask"] = encode_mask(masks[place]) if place < len(masks) else None
    cleaned: dict[str, Any] = _clean(fields)
    return cleaned


def parse_row(row: Mapping[str, Any]) -> tuple[Finding, list[NDArray[np.bool_]]]:
    """The finding of a row, and the masks of its defects where each has one."""
    encoded = [defect["mask"] for defect in row["defects"]]
    bare = [{**defect, "mask": None} for defect in row["defects"]]
    finding = parse_finding_line(json.dumps({**row, "defects": bare}))
    return finding, [decode_mask(mask) for mask in encoded if mask is not None]


def build_shard(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts = json.dumps(asdict(count_rows(rows))).encode()
    schema = build_schema().with_metadata({_COUNTS: counts})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema), buffer, compression="zstd")
    return buffer.getvalue()


def read_counts(place: str) -> Counts:
    """The counts of a shard, from its footer alone. Raises InputError for a file that is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(place) as file:
        try:
            metadata = pq.read_schema(file).metadata or {}
            return Counts(**json.loads(metadata[_COUNTS]))
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place} is no shard of findings: remove it ({error})") from error


def load_rows(place: str) -> list[dict[str, Any]]:
    """All rows of a shard."""
    import pyarrow.parquet as pq

    with opened(place) as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        return rows


def _clean(value: Any) -> Any:
    """The value with lone surrogates, which no encoding accepts, as U+FFFD."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {name: _clean(item) for name, item in value.items()}
    return value
