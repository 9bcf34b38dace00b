"""Tables of scores as files: scores.csv as MMAD publishes its tables, scores.json with the rest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalyr1.evaluation.mmad_scores import Cell, Table
from anomalyr1.images import write_bytes_atomic

DEFINITIONS = {
    "mmad": (
        "the published arithmetic with its faults: answers that are no letter A to E are dropped, "
        "and so is the answer behind each; a subtask without a question is 0; normal is a path "
        'that contains "good"'
    ),
    "strict": (
        "unread answers are wrong; normal and anomalous come from the truth; empty cells are left "
        "out of the means"
    ),
}


def write_scores(
    out_dir: Path,
    table: Table,
    *,
    settings: Mapping[str, object],
    faults: Sequence[str] = (),
    stem: str = "scores",
) -> Path:
    """Write `stem`.csv and `stem`.json into a folder; returns the path of the table.

    The same answers and settings give the same bytes. An undefined cell is empty, null in JSON.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *table.columns])
    for name, cells in table.rows.items():
        values = (cells[column].value for column in table.columns)
        writer.writerow([name, *("" if value is None else repr(value) for value in values)])
    path = out_dir / f"{stem}.csv"
    write_bytes_atomic(path, text.getvalue().encode())
    document = {
        "protocol": table.protocol,
        "definition": DEFINITIONS[table.protocol],
        "unit": "per cent",
        "settings": dict(settings),
        "faults": list(faults),
        "scores": {name: _describe_row(cells) for name, cells in table.rows.items()},
    }
    content = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)
    write_bytes_atomic(out_dir / f"{stem}.json", (content + "\n").encode())
    return path


def _describe_row(cells: Mapping[str, Cell]) -> dict[str, Any]:
    described = {column: _describe(cell) for column, cell in cells.items()}
    overkill = cells["Overkill"]
    flipped = [
        None if number is None else 100 - number
        for number in (overkill.value, overkill.ci_high, overkill.ci_low)
    ]
    described["TPR"] = described["Recall"]
    described["TNR"] = described["Overkill"] | {
        "value": flipped[0], "ci_low": flipped[1], "ci_high": flipped[2],
    }  # fmt: skip
    return described


def _describe(cell: Cell) -> dict[str, Any]:
    return {
        "value": cell.value,
        "n": cell.n,
        "unread": cell.num_unread,
        "skipped": cell.num_skipped,
        "ci_low": cell.ci_low,
        "ci_high": cell.ci_high,
    }
