"""What one process, or each of two that torchrun started, trains in tests/test_processes.py.

    python tests/train_together.py MODEL RECORDS OUT

Completions are drawn from their place in the whole batch instead of by the model, so that one and
two processes see the same ones.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_training import build_recipe, grpo_table, run, sft_table

from anomalyr1 import rewards


def score_tokens(completions: Sequence[Any], completion_ids: Any, **_columns: Any) -> list[float]:
    return [float(sum(ids) % 7) / 7 for ids in completion_ids]


def draw_completions(trainer: Any) -> None:
    """Give a GRPOTrainer the completions of the places that its process has."""
    count = 0

    def draw(prompt_ids: Any, *_others: Any, **_named: Any) -> tuple[list[list[int]], None]:
        nonlocal count
        count += 1
        first = trainer.accelerator.process_index * len(prompt_ids)
        drawn = []
        for place in range(first, first + len(prompt_ids)):
            rng = np.random.default_rng([count, place])
            drawn.append(rng.integers(300, 1000, int(rng.integers(3, 7))).tolist())
        return drawn, None

    trainer._generate_single_turn = draw


def shard_and_compare(trainer: Any) -> dict[str, float]:
    """Loss and gradient norm of one rollout, the model sharded by FSDP2 over the processes."""
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rows = [trainer.train_dataset[index] for index in (0, 1)]
    count = int(os.environ.get("WORLD_SIZE", "1"))
    own = [rows[0]] * 2 + [rows[1]] * 2
    rank = trainer.accelerator.process_index
    inputs = trainer._generate_and_score_completions(own[rank * 4 // count :][: 4 // count])
    if count > 1:
        mesh = init_device_mesh("cpu", (count,))
        for layer in trainer.model.model.language_model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(trainer.model, mesh=mesh)
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    squares = torch.zeros(())
    for parameter in trainer.model.parameters():
        if parameter.grad is not None:
            whole = parameter.grad.full_tensor() if count > 1 else parameter.grad
            squares += whole.square().sum()
    return {
        "loss": float(trainer.accelerator.reduce(loss.detach(), "mean")),
        "norm": float(squares.sqrt()),
    }


def main(model: str, records: str, out: Path) -> None:
    from anomalyr1.training import grpo

    rewards.REWARDS["roam_reward"] = score_tokens
    share = 4 // int(os.environ.get("WORLD_SIZE", "1"))
    table = sft_table(
        per_device_train_batch_size=share,
        ddp_find_unused_parameters=True,
        train_sampling_strategy="sequential",
        # Adam moves weights whose gradient is nothing but rounding as far as any other.
        optim="sgd",
        learning_rate=0.1,
    )
    run(build_recipe(Path(model), Path(records), sft=table), out / "sft-run")
    built: list[Any] = []
    plain = grpo.judge_while_training

    def keep(trainer: Any, *others: Any) -> None:
        draw_completions(trainer)
        built.append(trainer)
        plain(trainer, *others)

    grpo.judge_while_training = keep
    table = grpo_table(per_device_train_batch_size=share, loss_type="grpo", beta=0.1)
    fields: dict[str, Any] = {"reward_funcs": ("roam_reward",), "grpo": table}
    run(build_recipe(Path(model), Path(records), **fields), out / "grpo-run")
    train, grpo.continue_training = grpo.continue_training, lambda *_arguments: None
    from anomalyr1.training.run import _build_rows, _load_training_records, _start

    recipe = build_recipe(Path(model), Path(records), **fields)
    rows = _build_rows(recipe, _load_training_records(recipe), out)
    grpo.train_grpo(
        _start(recipe, out),
        rows,
        recipe.reward_funcs,
        {**recipe.grpo, "beta": 0.0},
        out / "sharded",
        seed=0,
        resume=False,
        say=lambda _text: None,
    )
    grpo.continue_training = train
    figures = shard_and_compare(built[-1])
    if int(os.environ.get("RANK", "0")) == 0:
        (out / "sharded.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
