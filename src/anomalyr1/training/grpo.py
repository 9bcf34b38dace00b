"""Reinforcement learning of the language stage through TRL's GRPOTrainer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from anomalyr1.adapters import is_adapted
from anomalyr1.checkpoint import Checkpoint
from anomalyr1.rewards import load_rewards
from anomalyr1.training.dataset import HintedRecord, build_rollout
from anomalyr1.training.judging import build_eval_dataset, judge_while_training
from anomalyr1.training.monitor import RunMonitor
from anomalyr1.training.resampling import resample_equal_groups
from anomalyr1.training.sft import build_arguments, build_lazy_dataset, continue_training


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
    resample: int = 0,
    judged: Sequence[HintedRecord] = (),
) -> Any:
    """Train in place with the rewards named; returns the trainer. `grpo` goes unchanged to TRL's
    GRPOConfig.

    Prompts are computed once a group where the model allows it; where not, `say` tells why. With
    beta above 0 and no adapter, the model as it is now is the reference, written below `out`.
    Rollouts keep to the grammar of inspection's answers (`keep_to_grammar`).
    Groups with equal rewards are sampled up to `resample` times more. Where `grpo` asks for
    evaluation, `judged` are answered. With `resume` the last checkpoint in `out` is continued.
    Raises InputError for unknown rewards, settings that do not fit, and a loss that is no number.
    """
    from trl import GRPOConfig, GRPOTrainer

    from anomalyr1.training.rollout_grammar import keep_to_grammar
    from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer, find_obstacle
    from anomalyr1.training.shared_rollout import find_rollout_obstacle

    rewards = [_logging_record(reward) for reward in load_rewards(reward_funcs)]
    arguments = build_arguments(GRPOConfig, grpo, "grpo", out, seed, remove_unused_columns=False)
    if arguments.beta != 0.0 and not is_adapted(checkpoint.model):
        _write_reference(checkpoint.model, out / "reference", resume)
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
        eval_dataset=build_eval_dataset(arguments, judged),
        processing_class=checkpoint.processor,
    )
    # With vLLM, whose own cache shares prompts, a trainer has no such settings.
    obstacle = obstacle or find_rollout_obstacle(getattr(trainer, "generation_config", None))
    if isinstance(trainer, SharedPrefixGRPOTrainer) and obstacle is not None:
        say(f"rollouts compute each prompt anew: {obstacle}")
    keep_to_grammar(trainer)
    if resample > 0:
        resample_equal_groups(trainer, resample)
    judge_while_training(trainer, checkpoint, judged)
    # Rollouts outlive a step: a checkpoint in the middle of one could not be continued alike.
    updates = arguments.steps_per_generation * arguments.num_iterations
    cycle = math.lcm(updates, arguments.gradient_accumulation_steps)
    steps = cycle // arguments.gradient_accumulation_steps
    monitor = RunMonitor(out.parent, "grpo", save_multiple=steps)
    continue_training(trainer, checkpoint.model, monitor, resume)
    return trainer


def _write_reference(model: Any, folder: Path, resume: bool) -> None:
    """Keep the model that KL is measured against, and name it as TRL looks for it.

    A run that is resumed reads what the first one wrote.
    """
    from accelerate import PartialState

    processes = PartialState()
    marker = folder / "config.json"
    if processes.is_main_process and not (resume and marker.is_file()):
        temporary = folder.with_suffix(".tmp")
        model.save_pretrained(temporary, safe_serialization=True)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    processes.wait_for_everyone()
    model.config._name_or_path = str(folder)


def _logging_record(reward: Callable[..., Any]) -> Callable[..., Any]:
    """The reward, telling TRL's log which record each completion answers."""

    @wraps(reward)
    def logging(*positional: Any, **columns: Any) -> Any:
        columns["log_extra"]("record_id", columns["record_id"])
        return reward(*positional, **columns)

    return logging
