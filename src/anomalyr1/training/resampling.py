"""Sampling anew the groups of completions that teach nothing because all their rewards are equal.

Such a group has no advantage and so no gradient. DAPO's dynamic sampling (arXiv 2503.14476) and
EMIT's difficulty-aware GRPO (arXiv 2507.21619) draw again; here the same prompt is asked again, so
that hard prompts are worked on for longer and the prompts of a step stay those of the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def find_equal_groups(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """Which groups, bool (N / num_generations,), have one reward for all their completions.

    `rewards` (N,) lie group after group; completions that cannot be scored (NaN) count as equal.
    """
    groups = rewards.view(-1, num_generations)
    high = torch.nan_to_num(groups, nan=-torch.inf).amax(dim=1)
    low = torch.nan_to_num(groups, nan=torch.inf).amin(dim=1)
    return (high <= low) | groups.isnan().all(dim=1)


def resample_equal_groups(trainer: Any, times: int) -> None:
    """Make a GRPOTrainer sample groups with equal rewards up to `times` times more.

    Works on the trainer in hand, with any number of processes: all see the same rewards, choose
    the same groups and generate as often. Logs `resampled_groups`, the share drawn again.
    """
    score_rollout, generate = trainer._generate_and_score_completions, trainer._generate
    rows: list[Sequence[Any]] = [()]

    def score(inputs: Sequence[Any]) -> Any:
        rows[0] = inputs
        return score_rollout(inputs)

    def generate_again(prompts: list[Any]) -> Any:
        output = generate(prompts)
        if not trainer.model.training:
            return output
        drawn: torch.Tensor | None = None
        for _time in range(times):
            equal = _find_equal(trainer, rows[0], prompts, output)
            drawn = equal if drawn is None else drawn | equal
            if not equal.any():
                break
            # A process without a sample to draw again generates one all the same: sharded models
            # compute together.
            chosen = _own_samples(trainer, equal, len(prompts))
            fresh = generate([prompts[index] for index in chosen or [0]])
            output = _replace(output, fresh, chosen)
        if drawn is not None:
            trainer._metrics["train"]["resampled_groups"].append(float(drawn.float().mean()))
        return output

    trainer._generate_and_score_completions = score
    trainer._generate = generate_again


def _find_equal(
    trainer: Any, inputs: Sequence[Any], prompts: list[Any], output: Any
) -> torch.Tensor:
    rewards = trainer._calculate_rewards(inputs, prompts, output[3], output[1])
    # Scoring is repeated for the rollout that stays; what it logs must be logged once.
    trainer._pending_extra_logs.clear()
    trainer._pending_metrics.clear()
    totals = (rewards * trainer.reward_weights.to(rewards.device)).nansum(dim=1)
    totals[rewards.isnan().all(dim=1)] = torch.nan
    return find_equal_groups(totals, trainer.num_generations)


def _own_samples(trainer: Any, equal: torch.Tensor, count: int) -> list[int]:
    """This process's samples, of its `count`, that belong to the groups to draw again."""
    first = trainer.accelerator.process_index * count
    return [
        index for index in range(count) if equal[(first + index) // trainer.num_generations].item()
    ]


def _replace(output: Any, fresh: Any, chosen: list[int]) -> Any:
    """The rollout with the completions of `chosen` taken from `fresh`, in that order.

    Of TRL's eight parts, completion ids, their mask, decoded completions and log-probabilities are
    lists with one entry a sample; the prompt's parts stay.
    """
    parts = list(output)
    for place in (1, 2, 3, 4):
        if parts[place] is not None:
            parts[place] = list(parts[place])
            for index, value in zip(chosen, fresh[place], strict=False):
                parts[place][index] = value
    return tuple(parts)
