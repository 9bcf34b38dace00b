"""How an update's time and memory grow with completions, prompt and completion length, beside the
cost model of docs/performance.md; the bundled model, ours and stock TRL.

The floor is the multiplications that an update of ours needs, at the rate of a large matrix product
measured before each point. Every other figure is of a process of its own, forked with the same
weights and batch: processor seconds of one thread, and how far its memory rose. Stops where
gradients differ.
Usage: python benchmarks/update_curves.py [update_curves.json] [runs, the first not counted]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from grpo_update import build_rows, build_trainer, build_update, update
from inspect_speed import describe_machine
from rich.console import Console
from rich.table import Table
from shared_prompts import load
from trl import GRPOTrainer

from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer


@dataclass(frozen=True, slots=True)
class Point:
    """Completions a prompt, side of its two pictures in pixels, tokens a completion."""

    num_generations: int = 8
    side: int = 224
    completion: int = 50


POINTS = (
    Point(2),
    Point(4),
    Point(),
    Point(16),
    Point(side=112),
    Point(side=336),
    Point(side=476),
    Point(completion=25),
    Point(completion=100),
    Point(completion=200),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """What the model's other parts cost in tokens of its layers: time of a picture's token, of a
    completion token's logits and of a pair of tokens in attention, and memory that a picture's
    token keeps for the backward pass."""

    picture: float
    logits: float
    pair: float
    picture_memory: float
    flops: float
    """Of a token in a forward and backward pass: 6 a weight."""


def weigh(model: Any) -> Costs:
    """Count the weights that each token is multiplied with."""

    def count(module: Any) -> int:
        return sum(weight.numel() for weight in module.parameters() if weight.ndim > 1)

    tower, language = model.model.visual, model.model.language_model
    vision, text = model.config.vision_config, model.config.get_text_config()
    merged = vision.spatial_merge_size**2
    layers = count(language.layers)
    return Costs(
        (merged * (count(tower.blocks) + count(tower.patch_embed)) + count(tower.merger)) / layers,
        model.lm_head.weight.numel() / layers,
        2 * text.hidden_size * text.num_hidden_layers / layers,
        merged * (vision.hidden_size * vision.depth) / (text.hidden_size * text.num_hidden_layers),
        6 * layers,
    )


def predict(point: Point, prompt: int, costs: Costs) -> dict[str, float]:
    """Times of ours and stock in tokens, and how many times more memory stock takes."""
    pictures = 2 * (point.side // 28) ** 2
    group, completion = point.num_generations, point.completion * (1 + costs.logits)
    seen, kept = pictures * costs.picture, pictures * costs.picture_memory
    row, one = prompt + group * point.completion, prompt + point.completion
    return {
        "ours": seen + prompt + group * completion + costs.pair * row**2,
        "stock": group * (seen + prompt + completion + costs.pair * one**2),
        "memory": group
        * (kept + prompt + point.completion)
        / (kept + prompt + group * point.completion),
    }


def measure_rate() -> float:
    """Floating-point operations a second of one thread in a product of large float32 matrices."""
    size, seconds = 1024, []
    first, second = torch.randn(size, size), torch.randn(size, size)
    for _turn in range(4):
        started = time.process_time()
        torch.mm(first, second)
        seconds.append(time.process_time() - started)
    return 2 * size**3 / min(seconds)


def measure(trainer: Any, inputs: dict[str, Any], runs: int) -> dict[str, Any]:
    """Processor seconds, MiB by which memory rose, and the norm of each gradient, from a fork."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = update(trainer, inputs)
        seconds = []
        for _turn in range(runs):
            started = time.process_time()
            gradients = run()
            seconds.append(time.process_time() - started)
        risen = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        norms = {name: float(gradient.norm()) for name, gradient in gradients.items()}
        counted = seconds[1:] or seconds
        found = {"seconds": sum(counted) / len(counted), "mebibytes": risen / 1024, "norms": norms}
        with os.fdopen(target, "w") as stream:
            json.dump(found, stream)
        os._exit(0)
    os.close(target)
    with os.fdopen(source) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit("an update ended without a result")
    measured: dict[str, Any] = json.loads(text)
    return measured


def check(ours: dict[str, float], stock: dict[str, float]) -> None:
    """Stop where the norm of a gradient differs: the times would mean nothing."""
    worst = max(abs(ours[name] / (norm + 1e-12) - 1) for name, norm in stock.items())
    if ours.keys() != stock.keys() or not worst < 1e-3:
        raise SystemExit(f"gradients of ours and stock differ by {worst:.2g}")


def main() -> None:
    """Print the table and write the JSON file anew after each point."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "update_curves.json")
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    torch.set_num_threads(1)
    checkpoint = load(max(point.side for point in POINTS) ** 2)
    trainers = {
        name: build_trainer(
            kind, checkpoint.model, checkpoint.processor, 8, use_cpu=True, bf16=False, beta=0.0
        )
        for name, kind in (("ours", SharedPrefixGRPOTrainer), ("stock", GRPOTrainer))
    }
    costs = weigh(checkpoint.model)
    rows = []
    for point in POINTS:
        rate = measure_rate()
        inputs = build_update(
            checkpoint.processor,
            build_rows(1, point.num_generations, (point.side, point.side)),
            point.completion,
            "cpu",
        )
        prompt = inputs["prompt_ids"].shape[1]
        found = {name: measure(trainer, inputs, runs) for name, trainer in trainers.items()}
        check(found["ours"].pop("norms"), found["stock"].pop("norms"))
        predicted = predict(point, prompt, costs)
        floor = predicted["ours"] * costs.flops / rate
        rows.append(
            {
                **asdict(point),
                "prompt": prompt,
                **found,
                "predicted": predicted,
                "flops_a_second": rate,
                "floor_seconds": floor,
            }
        )
        document = {"machine": describe_machine(), "runs": runs, "costs": asdict(costs)}
        out.write_text(json.dumps({**document, "rows": rows}, indent=2) + "\n")
    table = Table("G", "prompt", "completion", title="an update, ours beside stock, one thread")
    for column in ("floor s", "ours s", "stock s", "times faster", "predicted"):
        table.add_column(column, justify="right")
    for column in ("ours MiB", "stock MiB", "times less", "predicted"):
        table.add_column(column, justify="right")
    for row in rows:
        ours, stock, predicted = row["ours"], row["stock"], row["predicted"]
        table.add_row(
            *(str(row[name]) for name in ("num_generations", "prompt", "completion")),
            f"{row['floor_seconds']:.2f}",
            f"{ours['seconds']:.2f}",
            f"{stock['seconds']:.2f}",
            f"{stock['seconds'] / ours['seconds']:.1f}",
            f"{predicted['stock'] / predicted['ours']:.1f}",
            f"{ours['mebibytes']:.0f}",
            f"{stock['mebibytes']:.0f}",
            f"{stock['mebibytes'] / ours['mebibytes']:.1f}",
            f"{predicted['memory']:.1f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
