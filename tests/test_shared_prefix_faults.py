"""What goes wrong in a run of GRPO goes as it does with stock TRL: the same weights, or the same
error. What cannot share prompts says why and is trained by stock itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_picture
from PIL import Image
from tiny_training import grpo_table, write_model

from anomalyr1.checkpoint import load_checkpoint
from anomalyr1.training.dataset import HintedRecord
from anomalyr1.training.nano import NanoShape, build_nano
from anomalyr1.types import Record

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from anomalyr1.training.grpo import train_grpo  # noqa: E402
from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer  # noqa: E402

TINY = NanoShape(1024, 64, 2, 64, 2, 84 * 84)
NUM_GENERATIONS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is left of a run: weights, logged losses, and the error that ended it."""

    weights: dict[str, Any]
    losses: list[float]
    gradients: list[float]
    error: str


def reward_by_text(completions: list[Any], **_columns: Any) -> list[float]:
    return [float(sum(map(ord, one[0]["content"])) % 7) for one in completions]


def make_rows(count: int, words: int = 3) -> list[dict[str, Any]]:
    rows = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = Image.fromarray(rng.integers(0, 255, (84, 84, 3)).astype(np.uint8))
        text = "Is it normal? " * (words + number)
        content = [{"type": "image"}, {"type": "text", "text": text}]
        rows.append({"prompt": [{"role": "user", "content": content}], "images": [picture]})
    return rows


def train(
    kind: Any,
    folder: Path,
    rows: Sequence[dict[str, Any]],
    *,
    reward: Callable[..., list[float]] = reward_by_text,
    change: Callable[[Any], None] = lambda _trainer: None,
    **settings: Any,
) -> Outcome:
    """Train a tiny model of fixed weights; `change` may alter the trainer before it starts."""
    from datasets import Dataset

    checkpoint = build_nano(TINY, seed=0)
    checkpoint.processor.tokenizer.padding_side = "left"
    dataset = Dataset.from_dict({"row": list(range(len(rows)))}).with_transform(
        lambda batch: {name: [rows[row][name] for row in batch["row"]] for name in rows[0]}
    )
    arguments = {
        "num_generations": NUM_GENERATIONS,
        "per_device_train_batch_size": 2 * NUM_GENERATIONS,
        "max_completion_length": 7,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        **settings,
    }
    trainer = kind(
        model=checkpoint.model,
        reward_funcs=[reward],
        args=GRPOConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            seed=4,
            **arguments,
        ),
        train_dataset=dataset,
        processing_class=checkpoint.processor,
    )
    change(trainer)
    error = ""
    try:
        trainer.train()
    except (IndexError, RuntimeError, ValueError) as problem:
        error = f"{type(problem).__name__}: {problem}"
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return Outcome(
        {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()},
        [entry["loss"] for entry in logs],
        [entry["grad_norm"] for entry in logs],
        error,
    )


def assert_same(folder: Path, rows: Sequence[dict[str, Any]], **settings: Any) -> Outcome:
    """Train with stock TRL and with ours; returns what both came to."""
    stock = train(GRPOTrainer, folder / "stock", rows, **settings)
    ours = train(SharedPrefixGRPOTrainer, folder / "ours", rows, **settings)
    assert ours.error == stock.error
    assert len(ours.losses) == len(stock.losses)
    assert ours.losses == pytest.approx(stock.losses, rel=1e-5, abs=1e-6, nan_ok=True)
    assert ours.gradients == pytest.approx(stock.gradients, rel=1e-5, nan_ok=True)
    for name, tensor in stock.weights.items():
        assert torch.allclose(ours.weights[name], tensor, atol=1e-6, equal_nan=True), name
    return ours


def write(completions: Callable[[int, int], list[int]]) -> Callable[[Any], None]:
    """Let a trainer's rollouts be `completions(sample, its end token)`."""

    def change(trainer: Any) -> None:
        end = trainer.eos_token_ids[0]
        trainer._generate_single_turn = lambda prompt_ids, *_others: (
            [completions(sample, end) for sample in range(len(prompt_ids))],
            None,
        )

    return change


@pytest.mark.parametrize(
    ("settings", "num_steps"),
    [
        # A rollout of two prompts: the fifth is left out, as by stock.
        ({"per_device_train_batch_size": 6}, 4),
        # Micro-batches of two samples cut every group of three.
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}, 4),
        # The epoch ends in the middle of an accumulation: its last step has one group.
        (
            {
                "per_device_train_batch_size": 3,
                "gradient_accumulation_steps": 2,
                "steps_per_generation": 1,
            },
            6,
        ),
    ],
)
def test_an_epoch_that_ends_within_a_rollout_or_a_step_trains_as_stock_does(
    tmp_path: Path, settings: dict[str, int], num_steps: int
) -> None:
    settings = {"max_steps": -1, "num_train_epochs": 2, **settings}
    outcome = assert_same(tmp_path, make_rows(5), **settings)
    assert outcome.error == ""
    assert len(outcome.gradients) == num_steps and min(outcome.gradients) > 0


def test_an_evaluation_whose_last_batch_is_cut_gives_the_figures_of_stock(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = make_rows(3)
    figures = []

    def evaluate(trainer: Any) -> None:
        trainer.eval_dataset = Dataset.from_dict({"row": [0, 1, 2]}).with_transform(
            lambda batch: {name: [rows[row][name] for row in batch["row"]] for name in rows[0]}
        )
        figures.append(trainer.evaluate())

    settings = {"per_device_eval_batch_size": 6, "max_steps": 1, "beta": 0.0}
    assert_same(tmp_path, rows, change=evaluate, **settings)
    stock, ours = figures
    names = [name for name in stock if "time" not in name and "per_second" not in name]
    assert "eval_reward" in names
    for name in names:
        assert ours[name] == pytest.approx(stock[name], rel=1e-4, abs=1e-6, nan_ok=True), name


def test_completions_without_a_token_end_a_run_with_the_error_of_stock(tmp_path: Path) -> None:
    outcome = assert_same(tmp_path, make_rows(2), change=write(lambda _sample, _end: []))
    assert outcome.error.startswith("IndexError")


def test_completions_that_only_end_train_as_with_stock(tmp_path: Path) -> None:
    """All are alike, so that nothing is to be learned, and nothing may become no number."""
    outcome = assert_same(tmp_path, make_rows(2), change=write(lambda _sample, end: [end]))
    assert outcome.error == "" and outcome.losses == [0.0, 0.0]


@pytest.mark.parametrize("masked", [False, True])
def test_one_completion_at_the_length_limit_trains_as_with_stock(
    tmp_path: Path, masked: bool
) -> None:
    outcome = assert_same(
        tmp_path,
        make_rows(2),
        change=write(lambda sample, end: [301] * 7 if sample == 1 else [300 + sample, 310, end]),
        mask_truncated_completions=masked,
    )
    assert outcome.error == "" and min(outcome.gradients) > 0


def test_a_prompt_beyond_the_models_context_trains_as_with_stock(tmp_path: Path) -> None:
    """Recipes refuse such a prompt before they start; the trainer itself goes on, as stock does."""

    def shorten(trainer: Any) -> None:
        trainer.model.config.get_text_config().max_position_embeddings = 32

    outcome = assert_same(tmp_path, make_rows(2, words=20), change=shorten)
    assert outcome.error == "" and min(outcome.gradients) > 0


def test_a_reward_that_is_no_number_leaves_its_group_as_with_stock(tmp_path: Path) -> None:
    def reward(completions: list[Any], **_columns: Any) -> list[float]:
        return [float("nan") if place == 1 else place for place in range(len(completions))]

    outcome = assert_same(tmp_path, make_rows(2), reward=reward)
    assert outcome.error == "" and min(outcome.gradients) > 0


def test_a_completion_that_computes_to_no_number_spoils_a_step_as_with_stock(
    tmp_path: Path,
) -> None:
    def spoil(trainer: Any) -> None:
        write(lambda sample, end: [900 if sample == 1 else 300 + sample, 310, end])(trainer)
        trainer.model.get_input_embeddings().register_forward_hook(
            lambda _module, arguments, output: output.masked_fill(
                (arguments[0] == 900)[..., None], float("nan")
            )
        )

    outcome = assert_same(tmp_path, make_rows(2), change=spoil, max_steps=1)
    assert outcome.gradients == pytest.approx([float("nan")], nan_ok=True)


EAGER = {"attn_implementation": "eager"}
SLIDING = {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}


@pytest.mark.parametrize(
    ("asked", "asked_of_text", "reason"),
    [
        (EAGER, {}, "eager attention takes no such mask"),
        ({}, {**SLIDING, "layer_types": None}, "it has sliding attention layers"),
    ],
)
def test_a_checkpoint_that_cannot_share_prompts_says_why_at_the_start_and_is_trained_by_stock(
    tmp_path: Path, asked: dict[str, Any], asked_of_text: dict[str, Any], reason: str
) -> None:
    folder = write_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {**asked, "text_config": config["text_config"] | asked_of_text}
    (folder / "config.json").write_text(json.dumps(config))
    record = Record("part", make_picture(tmp_path / "part.png"), label="normal")
    out = tmp_path / "grpo"
    said: list[str] = []

    def say(text: str) -> None:
        assert not out.exists(), "training has begun"
        said.append(text)

    trainer = train_grpo(
        load_checkpoint(str(folder), device="cpu"),
        [HintedRecord(record, None, 0)] * 2,
        ["format_reward"],
        grpo_table(max_steps=1),
        out,
        seed=0,
        resume=False,
        say=say,
    )
    (told,) = said
    assert told.startswith("prompts are computed anew for each completion") and reason in told
    assert type(trainer) is GRPOTrainer
    assert (out / "checkpoint-1" / "model.safetensors").is_file()
