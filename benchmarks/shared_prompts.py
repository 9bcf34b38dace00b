"""Shared prompts beside stock TRL and transformers, with the bundled model: GRPO and evaluation.

Usage: python benchmarks/shared_prompts.py [shared_prompts.json] [repeats] [update step evaluation].
The table is printed and the JSON written anew after each comparison.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from comparing import Comparison, compare, report
from grpo_update import build_rows, build_trainer, build_update, differ_by, update
from PIL import Image
from transformers import LogitsProcessorList
from trl import GRPOTrainer

from anomalyr1.checkpoint import Checkpoint, load_checkpoint
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.prompts import build_choice_prompt
from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer
from anomalyr1.types import Prompt, Question, Record

PICTURE_WH = (476, 476)
"""289 tokens a picture: with two of them and the question, more than 600 a prompt."""

QUESTIONS = (
    "Is there any defect in the object?",
    "What is the type of the defect?",
    "Where is the defect?",
    "What is the appearance of the defect?",
    "What is the effect of the defect?",
)


def load(picture_pixels: int) -> Checkpoint:
    """The bundled model, which sees pictures at up to `picture_pixels`."""
    checkpoint = load_checkpoint("nano", device="cpu")
    size = checkpoint.processor.image_processor.size
    size["longest_edge"] = picture_pixels
    return checkpoint


def pair(num_generations: int, **settings: Any) -> tuple[Any, Any, Checkpoint]:
    """Ours and stock, each with a model of its own of the same weights."""
    checkpoint = load(PICTURE_WH[0] * PICTURE_WH[1])
    trainers = [
        build_trainer(
            kind,
            copy.deepcopy(checkpoint.model),
            checkpoint.processor,
            num_generations,
            use_cpu=True,
            bf16=False,
            max_completion_length=100,
            **settings,
        )
        for kind in (SharedPrefixGRPOTrainer, GRPOTrainer)
    ]
    return trainers[0], trainers[1], checkpoint


def compare_updates(num_generations: int, repeats: int) -> Comparison:
    """Log-probabilities, loss and backward pass of one group."""
    ours, stock, checkpoint = pair(num_generations, beta=0.0)
    rows = build_rows(1, num_generations, PICTURE_WH)
    inputs = build_update(checkpoint.processor, rows, 100, "cpu")
    tokens = inputs["prompt_ids"].shape[1]
    return compare(
        f"update, G = {num_generations}, {tokens} + 100 tokens",
        update(ours, inputs),
        update(stock, inputs),
        differ_by,
        most=1e-4,
        repeats=repeats,
    )


def compare_steps(num_generations: int, repeats: int) -> Comparison:
    """Rollout, reward, reference and update of one group, frozen vision tower."""
    ours, stock, _checkpoint = pair(num_generations, beta=0.04)
    rows = build_rows(1, num_generations, PICTURE_WH)

    def step(trainer: Any) -> Callable[[], dict[str, torch.Tensor]]:
        trainer.model.model.visual.requires_grad_(False)

        def run() -> dict[str, torch.Tensor]:
            torch.manual_seed(0)
            trainer._buffered_inputs, trainer._step = None, 0
            trainer.model.zero_grad()
            trainer.training_step(trainer.model, rows, None)
            return {
                name: parameter.grad
                for name, parameter in trainer.model.named_parameters()
                if parameter.grad is not None
            }

        return run

    return compare(
        f"whole step, G = {num_generations}, up to 100 tokens, reference",
        step(ours),
        step(stock),
        differ_by,
        most=1e-3,
        repeats=repeats,
    )


def compare_evaluation(num_pictures: int, repeats: int) -> Comparison:
    """Five questions a picture, one reference, greedy: in one call and one by one."""
    checkpoint = load(196 * 196)
    reference = Image.effect_noise((256, 256), 60).convert("RGB")
    prompts: list[Prompt] = []
    shown: list[list[Image.Image]] = []
    for number in range(num_pictures):
        picture = Image.effect_noise((256, 256), 20 + number).convert("RGB")
        for text in QUESTIONS:
            question = Question(text, {"A": "Yes.", "B": "No.", "C": "A scratch.", "D": "A dent."})
            record = Record(str(number), Path("0.png"), category="part", question=question)
            prompts.append(build_choice_prompt(record, num_references=1, hint=None))
            shown.append([reference, picture])

    def together() -> list[str]:
        engine = TransformersEngine(checkpoint)
        return [completion.text for completion in engine.generate(prompts, shown)]

    def one_by_one() -> list[str]:
        engine = TransformersEngine(checkpoint)
        return [say(engine, *one) for one in zip(prompts, shown, strict=True)]

    def say(engine: TransformersEngine, prompt: Prompt, pictures: Sequence[Image.Image]) -> str:
        inputs = engine._inputs(prompt, pictures)
        limit = engine.settings.max_new_tokens
        tokenizer = checkpoint.processor.tokenizer
        with torch.inference_mode():
            ids = checkpoint.model.generate(
                **inputs,
                max_new_tokens=limit,
                do_sample=False,
                logits_processor=LogitsProcessorList(engine._constrain([prompt])),
            )
        written: str = tokenizer.decode(
            ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return written

    return compare(
        f"evaluation, {num_pictures} pictures, 5 questions, 1 reference",
        together,
        one_by_one,
        lambda ours, stock: float(sum(a != b for a, b in zip(ours, stock, strict=True))),
        most=0,
        repeats=repeats,
    )


def main() -> None:
    """Print the table and write the JSON file."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "shared_prompts.json")
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    chosen = sys.argv[3:] or ["update", "step", "evaluation"]
    runs: dict[str, list[Callable[[], Comparison]]] = {
        "update": [lambda: compare_updates(8, repeats), lambda: compare_updates(16, repeats)],
        "step": [lambda: compare_steps(8, repeats)],
        "evaluation": [lambda: compare_evaluation(4, repeats)],
    }
    comparisons = []
    for name in chosen:
        for run in runs[name]:
            comparisons.append(run())
            report(comparisons, out, model="nano", threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
