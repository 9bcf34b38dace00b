"""What `anomalyr1 adapt` does for a part: figures on its test pictures before and after.

    anomalyr1 data import mvtec hazelnut --split test --out hazelnut.jsonl
    python benchmarks/adapt_gain.py runs/hazelnut --normal hazelnut/train/good \
        --records hazelnut.jsonl

The normal pictures must not be among the records. A step that is done is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MEASURED = (
    "verdict_balanced_accuracy",
    "image_auroc_model",
    "image_auroc_detector",
    "box_accuracy_iou10",
    "box_accuracy_iou50",
    "box_precision_iou10",
    "pixel_auroc",
    "aupro",
    "mask_iou",
    "unread_rate",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--normal", required=True)
    parser.add_argument("--records", required=True)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seed", default="0")
    arguments = parser.parse_args()
    out: Path = arguments.out
    evaluate(arguments.records, arguments.model, out / "before")
    adapted = out / "adapted"
    taken = out / "seconds.json"
    if not taken.is_file():
        started = time.perf_counter()
        settings = ["--model", arguments.model, "--seed", arguments.seed, "--resume"]
        run("adapt", "--normal", arguments.normal, "--out", str(adapted), *settings)
        taken.write_text(json.dumps(round(time.perf_counter() - started)))
    evaluate(arguments.records, str(adapted / "run" / "checkpoint"), out / "after")
    table = write_table(read(out / "before"), read(out / "after"))
    (out / "gain.md").write_text(table)
    sys.stdout.write(f"{table}\nadapted in {taken.read_text()} s\n")


def run(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "anomalyr1", *command], check=True)


def evaluate(records: str, model: str, out: Path) -> None:
    if not (out / "metrics.json").is_file():
        run("evaluate", "records", records, "--model", model, "--out", str(out))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    stored = json.loads((folder / "metrics.json").read_text())
    metrics = stored["metrics"] if isinstance(stored, dict) else stored
    return {metric["name"]: metric for metric in metrics if metric["subset"] == "all"}


def write_table(before: dict[str, Any], after: dict[str, Any]) -> str:
    lines = ["| | before | after |", "|---|---|---|"]
    for name in MEASURED:
        if name in before and before[name]["value"] is not None:
            lines.append(f"| {name} | {word(before[name])} | {word(after[name])} |")
    return "\n".join(lines) + "\n"


def word(metric: dict[str, Any]) -> str:
    value = f"{metric['value']:.3f}"
    if metric["ci_low"] is None:
        return value
    return f"{value} ({metric['ci_low']:.2f} to {metric['ci_high']:.2f})"


if __name__ == "__main__":
    main()
