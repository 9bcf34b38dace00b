"""Reinforcement learning of the language stage through TRL's GRPOTrainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.rewards import load_rewards
from anomalyr1.training.dataset import HintedRecord, build_rollout
from anomalyr1.training.monitor import RunMonitor
from anomalyr1.training.sft import build_lazy_dataset, continue_training
from anomalyr1.types import InputError


def train_grpo(
    checkpoint: Checkpoint,
    rows: Sequence[HintedRecord],
    reward_funcs: Sequence[str],
    grpo: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    resume: bool,
    say: Callable[[str], None],
) -> None:
    """Train in place with the rewards named. `grpo` goes unchanged to TRL's GRPOConfig.

    Prompts are computed once a group where the model allows it; where not, `say` tells why. With
    `resume` the last checkpoint in `out` is continued. Raises InputError for unknown rewards, as
    many weights as there are not rewards, and a loss that is no number.
    """
    from trl import GRPOConfig, GRPOTrainer

    from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer, find_obstacle
    from anomalyr1.training.shared_rollout import find_rollout_obstacle

    rewards = [_logging_record(reward) for reward in load_rewards(reward_funcs)]
    arguments = GRPOConfig(output_dir=str(out), seed=seed, remove_unused_columns=False, **grpo)
    weights = arguments.reward_weights
    if weights is not None and len(weights) != len(rewards):
        raise InputError(
            f"grpo.reward_weights has {len(weights)} values for {len(rewards)} reward_funcs: "
            "give one a reward"
        )
    # TRL lays prompts out left-padded, but pads what goes with them as the tokenizer says.
    checkpoint.processor.tokenizer.padding_side = "left"
    obstacle = find_obstacle(checkpoint.model)
    if obstacle is not None:
        say(f"prompts are computed anew for each completion: {obstacle}")
    trainer_class = GRPOTrainer if obstacle else SharedPrefixGRPOTrainer
    trainer = trainer_class(
        model=checkpoint.model,
        reward_funcs=rewards,
        args=arguments,
        train_dataset=build_lazy_dataset(
            len(rows),
            lambda index: build_rollout(rows[index], checkpoint.processor, checkpoint.frame),
        ),
        processing_class=checkpoint.processor,
    )
    # With vLLM, whose own cache shares prompts, a trainer has no such settings.
    obstacle = obstacle or find_rollout_obstacle(getattr(trainer, "generation_config", None))
    if isinstance(trainer, SharedPrefixGRPOTrainer) and obstacle is not None:
        say(f"rollouts compute each prompt anew: {obstacle}")
    continue_training(trainer, checkpoint.model, RunMonitor(out.parent, "grpo"), resume)


def _logging_record(reward: Callable[..., Any]) -> Callable[..., Any]:
    """The reward, telling TRL's log which record each completion answers."""

    @wraps(reward)
    def logging(*positional: Any, **columns: Any) -> Any:
        columns["log_extra"]("record_id", columns["record_id"])
        return reward(*positional, **columns)

    return logging
