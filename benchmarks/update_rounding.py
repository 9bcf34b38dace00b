"""What float32 costs a GRPO update of the bundled model: gradients of shared prompts and of stock
TRL beside each other, and beside the same in float64.

Usage: python benchmarks/update_rounding.py [update_rounding.json] [completions a prompt]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from grpo_update import build_rows, build_trainer, build_update, in_float64, update
from inspect_speed import describe_machine
from rich.console import Console
from rich.table import Table
from shared_prompts import load
from trl import GRPOTrainer

from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer

SIDE = 224
COMPLETION_TOKENS = 50
PAIRS = {
    "ours from stock": ("ours", "stock"),
    "ours from float64": ("ours", "stock, float64"),
    "stock from float64": ("stock", "stock, float64"),
    "in float64, ours from stock": ("ours, float64", "stock, float64"),
}

Gradients = dict[str, torch.Tensor]


def measure(num_generations: int) -> tuple[dict[str, dict[str, float]], int]:
    """For each of PAIRS, each parameter's norm of difference over norm; and the prompt's tokens."""
    checkpoint = load(SIDE * SIDE)
    trainers = {
        name: build_trainer(
            kind,
            checkpoint.model,
            checkpoint.processor,
            num_generations,
            use_cpu=True,
            bf16=False,
            beta=0.0,
        )
        for name, kind in (("ours", SharedPrefixGRPOTrainer), ("stock", GRPOTrainer))
    }
    rows = build_rows(1, num_generations, (SIDE, SIDE))
    inputs = build_update(checkpoint.processor, rows, COMPLETION_TOKENS, "cpu")
    found: dict[str, Gradients] = {}
    for name, trainer in trainers.items():
        found[name] = _copy(update(trainer, inputs)())
    checkpoint.model.double()
    with in_float64():
        for name, trainer in trainers.items():
            found[f"{name}, float64"] = _copy(update(trainer, inputs)())
    differences = {pair: _compare(found[one], found[other]) for pair, (one, other) in PAIRS.items()}
    return differences, inputs["prompt_ids"].shape[1]


def _copy(gradients: Gradients) -> Gradients:
    return {name: gradient.double().clone() for name, gradient in gradients.items()}


def _compare(gradients: Gradients, expected: Gradients) -> dict[str, float]:
    return {
        name: float((gradients[name] - gradient).norm() / (gradient.norm() + 1e-12))
        for name, gradient in expected.items()
    }


def main() -> None:
    """Print the largest differences and write all of them."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "update_rounding.json")
    num_generations = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    differences, prompt = measure(num_generations)
    title = f"G = {num_generations}, {prompt} prompt and {COMPLETION_TOKENS} completion tokens"
    table = Table("parameter", *PAIRS, title=title)
    worst = {pair: f"{max(own.values()):.1e}" for pair, own in differences.items()}
    table.add_row("the largest of each column", *worst.values(), end_section=True)
    first = differences["ours from stock"]
    for name in sorted(first, key=first.__getitem__, reverse=True)[:8]:
        table.add_row(name, *(f"{own[name]:.1e}" for own in differences.values()))
    Console(width=150).print(table)
    document = {"machine": describe_machine(), "num_generations": num_generations}
    out.write_text(json.dumps({**document, "prompt": prompt, "differences": differences}, indent=2))


if __name__ == "__main__":
    main()
