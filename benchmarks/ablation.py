"""What each reward does to one checkpoint: SFT alone, GRPO with outcome, ROAM, published sum.

    anomalyr1 data synthesize --out data/rl --products 300 --seed 61
    anomalyr1 data synthesize --out data/unseen --products 500 --seed 71
    python benchmarks/ablation.py runs/ablation --model runs/nano-sft/checkpoint \
        --records data/rl/train.jsonl --validation data/unseen/test_held_out.jsonl

Every arm runs recipes/nano-grpo.toml with the same steps, data and seeds, half of the rows being
questions; only the reward differs. The last checkpoint is measured: the records that measure it
choose none.
An arm of a seed that is done is not run again. Writes ablation.json, ablation.md and ablation.svg.
The interval is Student's t over the seeds: the order of data, rollouts and questions differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

RECIPE = Path(__file__).parents[1] / "recipes" / "nano-grpo.toml"
ARMS = {
    "GRPO, outcome": "outcome_reward",
    "GRPO, ROAM": "roam_reward",
    "GRPO, published sum": "published_reward",
}
START = "SFT only"
MEASURED = {
    "verdict_balanced_accuracy": "verdict, balanced accuracy",
    "subtask_average": "average of subtasks",
    "box_accuracy_iou10": "box accuracy, IoU 0.1",
    "box_accuracy_iou50": "box accuracy, IoU 0.5",
    "box_precision_iou50": "box precision, IoU 0.5",
    "contradiction_rate": "reasoning contradicts answer",
    "unread_rate": "unread",
}
COLOURS = ("#6b7280", "#d97706", "#0f766e", "#7c3aed")

Figures = dict[str, dict[str, list[float]]]
"""Arm to figure to a value a seed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--records", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--validation-limit", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for reward in ARMS.values():
            train(arguments, reward, seed)
    figures = collect(arguments.out, arguments.seeds)
    settings = {key: str(value) for key, value in vars(arguments).items()}
    stored = {"settings": settings, "figures": figures}
    (arguments.out / "ablation.json").write_text(json.dumps(stored, indent=2) + "\n")
    (arguments.out / "ablation.md").write_text(write_table(figures))
    (arguments.out / "ablation.svg").write_text(draw(figures))
    sys.stdout.write(write_table(figures))


def train(arguments: argparse.Namespace, reward: str, seed: int) -> None:
    """One arm of one seed, in a process of its own; it goes on where it was stopped."""
    out = arguments.out / f"{reward}-{seed}"
    if (out / "after.json").is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    for other in sorted(arguments.out.glob(f"*-{seed}")):
        # What the detector sees and what is asked depend on the seed alone.
        for name in ("hints", "validation_hints", "before.json"):
            if (other / name).exists() and not (out / name).exists():
                (out / name).symlink_to((other / name).resolve())
    settings = [
        f"model={arguments.model}",
        f"seed={seed}",
        f"data.records=['{arguments.records}']",
        f"data.validation=['{arguments.validation}']",
        f"data.validation_limit={arguments.validation_limit}",
        f"reward_funcs=['{reward}']",
        "rows.with_question=0.5",
        "grpo.reward_weights=[1.0]",
        "grpo.eval_strategy='no'",
        "grpo.load_best_model_at_end=false",
        f"grpo.max_steps={arguments.steps}",
    ]
    command = [sys.executable, "-m", "anomalyr1", "train", str(RECIPE), "--out", str(out)]
    subprocess.run([*command, "--resume", *settings], check=True)


def collect(out: Path, seeds: Sequence[int]) -> Figures:
    figures: Figures = {}
    for seed in seeds:
        first = next(iter(ARMS.values()))
        _add(figures, START, json.loads((out / f"{first}-{seed}" / "before.json").read_text()))
        for arm, reward in ARMS.items():
            _add(figures, arm, json.loads((out / f"{reward}-{seed}" / "after.json").read_text()))
    return figures


def _add(figures: Figures, arm: str, metrics: Sequence[Mapping[str, object]]) -> None:
    for metric in metrics:
        name, subset = str(metric["name"]), str(metric["subset"])
        key = name if subset == "all" else f"{name}: {subset}"
        figures.setdefault(arm, {}).setdefault(key, []).append(float(str(metric["value"])))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by Student's t over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    margin = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return mean, mean - margin, mean + margin


def write_table(figures: Figures) -> str:
    arms = [START, *ARMS]
    subtasks = sorted(key for key in figures[START] if key.startswith("accuracy: "))
    lines = ["| | " + " | ".join(arms) + " |", "|---" * (len(arms) + 1) + "|"]
    for key in [*MEASURED, *subtasks]:
        cells = []
        for arm in arms:
            mean, low, high = interval(figures[arm][key])
            cells.append(f"{mean:.3f} ({low:.2f} to {high:.2f})")
        lines.append(
            f"| {MEASURED.get(key, key.removeprefix('accuracy: '))} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


def draw(figures: Figures) -> str:
    """A row a figure, a dot and a line an arm: mean and interval, from 0 to 1."""
    left, width, row, step = 220, 420, 74, 14
    parts = []
    for number, (key, title) in enumerate(MEASURED.items()):
        top = 50 + number * row
        parts.append(f'<text x="{left - 12}" y="{top + 26}" text-anchor="end">{title}</text>')
        for place, arm in enumerate([START, *ARMS]):
            mean, low, high = (min(1.0, max(0.0, x)) for x in interval(figures[arm][key]))
            y = top + place * step
            ends = f'x1="{left + low * width:.1f}" x2="{left + high * width:.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends} stroke="{COLOURS[place]}" stroke-width="2"/>')
            dot = f'cx="{left + mean * width:.1f}" cy="{y}" r="4" fill="{COLOURS[place]}"'
            parts.append(f"<circle {dot}><title>{arm}: {mean:.3f}</title></circle>")
            parts.append(f'<text x="{left + width + 10}" y="{y + 4}">{mean:.3f}</text>')
    bottom = 50 + len(MEASURED) * row - 8
    for tick in range(6):
        x = left + tick * width / 5
        parts.insert(0, f'<line x1="{x}" x2="{x}" y1="36" y2="{bottom}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{tick / 5:.1f}</text>')
    for place, arm in enumerate([START, *ARMS]):
        x = 20 + place * 170
        parts.append(f'<circle cx="{x}" cy="16" r="4" fill="{COLOURS[place]}"/>')
        parts.append(f'<text x="{x + 10}" y="20">{arm}</text>')
    size = f'viewBox="0 0 720 {bottom + 28}" width="720"'
    style = 'font-family="sans-serif" font-size="12" fill="#111827"'
    board = '<rect width="100%" height="100%" fill="#ffffff" stroke="none"/>'
    inside = "\n".join([board, *parts])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{inside}\n</svg>\n'


if __name__ == "__main__":
    main()
