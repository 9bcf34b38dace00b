"""Memory and time of the pixel figures: many pictures of a megapixel, streamed.

    python benchmarks/pixel_memory.py --pictures 1000 --side 1024 --out pixel_memory.json

Maps are drawn as they are asked for, masks are read from files, as in an evaluation; prints one
line and writes it as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from anomalyr1.evaluation.records import compute_metrics
from anomalyr1.types import Finding, Record


def measure(num_pictures: int, side: int) -> dict[str, float]:
    """Seconds, peak memory of this process in MiB, and the figures themselves."""
    with tempfile.TemporaryDirectory() as folder:
        mask_path = Path(folder) / "mask.png"
        mask = np.zeros((side, side), bool)
        mask[side // 4 : side // 2, side // 4 : side // 2] = True
        Image.fromarray(mask).save(mask_path)
        records = [
            Record(
                str(number),
                mask_path,
                category=f"part {number % 4}",
                label="anomalous" if number % 2 else "normal",
                mask_path=mask_path if number % 2 else None,
            )
            for number in range(num_pictures)
        ]
        findings = [
            Finding(record.record_id, "", "unread", image_size_wh=(side, side))
            for record in records
        ]

        def draw(finding: Finding) -> np.ndarray:
            rng = np.random.default_rng(int(finding.record_id))
            noise = rng.random((side, side), dtype=np.float32) * 0.8
            return noise + 0.2 * mask if int(finding.record_id) % 2 else noise

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        metrics = compute_metrics(records, findings, maps=draw, masks=lambda finding: None)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        metric.name: metric.value
        for metric in metrics
        if metric.subset == "all" and metric.name.startswith(("pixel", "aupro"))
    }
    return {
        "pictures": num_pictures,
        "megapixels": side * side / 1e6,
        "seconds": round(seconds, 1),
        "mib_before": round(before),
        "mib_peak": round(peak),
        **{name: round(value, 4) for name, value in figures.items() if value is not None},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    measured = measure(chosen.pictures, chosen.side)
    print(", ".join(f"{name} {value}" for name, value in measured.items()))  # noqa: T201
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
