"""What a batch job stores and holds: bytes a row, bytes of plan and driver memory a picture.

    python benchmarks/batch_sizes.py sizes.json RUN_FOLDER

RUN_FOLDER is an --out folder of `inspect` or `evaluate records`: its findings and masks are packed
into shards of 64 rows as a batch job does. Plans of 2,000, 20,000 and 200,000 made-up pictures are
written by a process each, whose peak memory and CPU time are read. Needs no Ray and no model.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCK_SIZE = 64
COUNTS = (2_000, 20_000, 200_000)

PLANNER = """
import resource, sys
from anomalyr1.distributed.plan import Item, cut_blocks, load_block, write_plan
count, folder = int(sys.argv[1]), sys.argv[2]
names = (f"s3://bucket/line-7/2026-11/{n:09d}.png" for n in range(count))
items = (Item(name, name, f"part {n % 20}") for n, name in enumerate(names))
size = write_plan(folder, cut_blocks(items, 64))
load_block(folder, size.num_blocks - 1)
used = resource.getrusage(resource.RUSAGE_SELF)
print(size.num_blocks, used.ru_maxrss // 1024, used.ru_utime + used.ru_stime)
"""


def measure_rows(run: Path) -> dict[str, float]:
    """Bytes a row, with and without what the model wrote, and masks a row."""
    import numpy as np

    from anomalyr1.distributed.shards import build_row, build_shard
    from anomalyr1.images import load_image
    from anomalyr1.reporting.findings import load_findings

    rows: list[dict[str, Any]] = []
    for finding in load_findings(run / "findings.jsonl"):
        paths = [defect.mask for defect in finding.defects if defect.mask is not None]
        masks = [np.asarray(load_image(run / path).convert("L")) > 127 for path in paths]
        rows.append(build_row(finding, masks))
    shards = [
        build_shard(rows[start : start + BLOCK_SIZE]) for start in range(0, len(rows), BLOCK_SIZE)
    ]
    bare = [{**row, "defects": []} for row in rows]
    without = sum(
        len(build_shard(bare[start : start + BLOCK_SIZE]))
        for start in range(0, len(bare), BLOCK_SIZE)
    )
    return {
        "rows": len(rows),
        "masks_a_row": sum(len(row["defects"]) for row in rows) / len(rows),
        "bytes_a_row": sum(map(len, shards)) / len(rows),
        "bytes_a_row_without_defects": without / len(rows),
    }


def measure_plan(count: int) -> dict[str, float]:
    """Bytes of a plan a picture, and the peak memory in MiB of the process that wrote it."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", PLANNER, str(count), folder],
            capture_output=True,
            text=True,
            check=True,
        )
        num_blocks, peak, seconds = done.stdout.split()
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return {
        "pictures": count,
        "blocks": int(num_blocks),
        "plan_bytes_a_picture": size / count,
        "peak_mib": int(peak),
        "cpu_seconds": float(seconds),
    }


def main() -> None:
    """Measure and print."""
    target, run = Path(sys.argv[1]), Path(sys.argv[2])
    result = {"rows": measure_rows(run), "plans": [measure_plan(count) for count in COUNTS]}
    target.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
