"""Reads the folder of a training run, finished or not, and says what it could not read.

Nothing but `config.json` has to be there. A number that is none (NaN, infinity, text) is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anomalyr1.reporting.run_files import (
    read_json,
    read_lines,
    read_number,
    read_optional_json,
    read_text,
)
from anomalyr1.types import InputError, Metric

STAGES = ("see", "sft", "grpo")
"""Stages of a recipe in their order; a recipe's table of that name is the stage's settings."""

Numbers = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what was logged at each step, in order, and how far it came.

    `total_steps` is None where neither the recipe nor the log tells; `seconds` likewise.
    A number that is not exact was worked out from the share of epochs or the time per step.
    """

    name: str
    steps: tuple[int, ...] = ()
    values: tuple[Numbers, ...] = ()
    total_steps: int | None = None
    is_total_exact: bool = True
    seconds: float | None = None
    are_seconds_exact: bool = True
    num_resumed: int = 0

    @property
    def last_step(self) -> int:
        """The last step with a line in the log."""
        return self.steps[-1] if self.steps else 0

    @property
    def is_done(self) -> bool:
        """Whether the trainer closed its log, or the last step of the recipe was logged."""
        closed = bool(self.values) and "train_runtime" in self.values[-1]
        return closed or (self.total_steps is not None and self.last_step >= self.total_steps)

    def collect(self, key: str) -> tuple[list[int], list[float | None]]:
        """Steps at which `key` was logged, and its values."""
        pairs = [
            (step, values[key])
            for step, values in zip(self.steps, self.values, strict=True)
            if key in values
        ]
        return [step for step, _ in pairs], [value for _, value in pairs]

    @property
    def keys(self) -> list[str]:
        """All that was logged, in order of first appearance."""
        return list(dict.fromkeys(key for values in self.values for key in values))


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion with its rewards by term."""

    completion: str
    reward: float | None
    advantage: float | None
    rewards: tuple[tuple[str, float | None], ...]

    @property
    def rank(self) -> float:
        """Orders by reward; one without stands below all."""
        return -math.inf if self.reward is None else self.reward


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt at one step, in the order they were written."""

    step: int
    record_id: str
    prompt: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """All a report tells of a run. `before` and `after` are None where nothing was measured."""

    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    stages: tuple[Stage, ...]
    groups: tuple[Group, ...]
    before: tuple[Metric, ...] | None
    after: tuple[Metric, ...] | None
    is_saved: bool
    problems: tuple[str, ...]

    @property
    def is_finished(self) -> bool:
        """Whether all stages ended, or what comes behind them is there."""
        ended = bool(self.stages) and all(stage.is_done for stage in self.stages)
        return ended or self.is_saved or self.after is not None


def load_training_log(folder: Path) -> TrainingLog:
    """Read a run folder. Raises InputError where config.json is missing or no table."""
    path = folder / "config.json"
    config, problem = read_json(path)
    if not isinstance(config, dict):
        raise InputError(
            f"{path} {problem or 'holds no table'}: give the folder that `anomalyr1 train` wrote to"
        )
    problems: list[str] = []
    environment = read_optional_json(folder / "environment.json", problems)
    lines = read_lines(folder / "metrics.jsonl", problems)
    if not any(line.get("stage") == "see" for line in lines):
        dense = read_lines(folder / "see" / "losses.jsonl", problems)
        lines = [{**line, "stage": "see"} for line in dense] + lines
    return TrainingLog(
        config=config,
        environment=environment if isinstance(environment, dict) else {},
        stages=_build_stages(config, lines, problems),
        groups=_build_groups(read_lines(folder / "samples.jsonl", problems), problems),
        before=_build_metrics(read_optional_json(folder / "before.json", problems)),
        after=_build_metrics(read_optional_json(folder / "after.json", problems)),
        is_saved=(folder / "checkpoint").is_dir(),
        problems=tuple(problems),
    )


@dataclass(slots=True)
class _OpenStage:
    """A stage while its lines are read. `seconds` by train_runtime and by time per step."""

    steps: list[int] = field(default_factory=list)
    values: list[dict[str, float | None]] = field(default_factory=list)
    num_resumed: int = 0
    seconds: float = 0.0
    seconds_by_step: float = 0.0

    def add(self, step: int, values: dict[str, float | None]) -> None:
        if self.steps and step < self.steps[-1]:
            # The run was killed and went on from an earlier checkpoint: those steps are void.
            self.num_resumed += 1
            keep = sum(known < step for known in self.steps)
            del self.steps[keep:], self.values[keep:]
        previous = self.steps[-1] if self.steps else 0
        self.seconds += values.get("train_runtime") or 0.0
        self.seconds_by_step += (values.get("step_time") or 0.0) * (step - previous)
        if self.steps and step == previous:
            self.values[-1].update(values)
        else:
            self.steps.append(step)
            self.values.append(values)


def _build_stages(
    config: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], problems: list[str]
) -> tuple[Stage, ...]:
    planned = [name for name in STAGES if isinstance(config.get(name), dict)]
    open_stages: dict[str, _OpenStage] = {name: _OpenStage() for name in planned}
    num_without_step = 0
    for line in lines:
        step = read_number(line.get("step"))
        if step is None or step < 0:
            num_without_step += 1
            continue
        name = str(line.get("stage") or "training")
        values = {
            str(key): read_number(value)
            for key, value in line.items()
            if key not in ("step", "stage") and not isinstance(value, str | list | dict)
        }
        open_stages.setdefault(name, _OpenStage()).add(int(step), values)
    if num_without_step:
        problems.append(f"Logged lines without a step, left out: {num_without_step}.")
    order = {name: place for place, name in enumerate(STAGES)}
    names = sorted(open_stages, key=lambda name: order.get(name, len(order)))
    return tuple(_close_stage(name, open_stages[name], config.get(name)) for name in names)


def _close_stage(name: str, logged: _OpenStage, settings: object) -> Stage:
    total, is_exact = _find_total(settings if isinstance(settings, dict) else {}, logged)
    seconds = max(logged.seconds, logged.seconds_by_step)
    return Stage(
        name=name,
        steps=tuple(logged.steps),
        values=tuple(logged.values),
        total_steps=total,
        is_total_exact=is_exact,
        seconds=seconds or None,
        are_seconds_exact=logged.seconds >= logged.seconds_by_step,
        num_resumed=logged.num_resumed,
    )


def _find_total(settings: Mapping[str, Any], logged: _OpenStage) -> tuple[int | None, bool]:
    """Steps of a stage by its settings, or by the share of its epochs that is done."""
    for key in ("max_steps", "num_steps"):
        steps = read_number(settings.get(key))
        if steps is not None and steps > 0:
            return int(steps), True
    if logged.values and "train_runtime" in logged.values[-1]:
        return logged.steps[-1], True
    # 3 epochs is the Trainer's own default.
    epochs = read_number(settings.get("num_train_epochs", 3))
    for step, values in zip(reversed(logged.steps), reversed(logged.values), strict=True):
        epoch = values.get("epoch")
        if epoch is not None and epoch > 0 and epochs is not None and epochs < 1e6:
            return max(step, round(step * epochs / epoch)), False
    return None, True


def _build_groups(lines: Sequence[Mapping[str, Any]], problems: list[str]) -> tuple[Group, ...]:
    """Completions by step and prompt, in the order written; steps done twice count once."""
    groups: dict[tuple[int, str, str], list[Sample]] = {}
    last_step, num_without_step = 0, 0
    for line in lines:
        number = read_number(line.get("step"))
        if number is None:
            num_without_step += 1
            continue
        step = int(number)
        if step < last_step:
            groups = {key: samples for key, samples in groups.items() if key[0] < step}
        last_step = step
        key = (step, read_text(line.get("record_id")), read_text(line.get("prompt")))
        rewards = line.get("rewards")
        terms = rewards.items() if isinstance(rewards, dict) else ()
        groups.setdefault(key, []).append(
            Sample(
                completion=read_text(line.get("completion")),
                reward=read_number(line.get("reward")),
                advantage=read_number(line.get("advantage")),
                rewards=tuple((str(name), read_number(value)) for name, value in terms),
            )
        )
    if num_without_step:
        problems.append(f"Completions without a step, left out: {num_without_step}.")
    return tuple(Group(*key, tuple(samples)) for key, samples in groups.items())


def _build_metrics(entries: object) -> tuple[Metric, ...] | None:
    """Metrics of a held-out file; None where there are none. Subset "" means "all"."""
    if not isinstance(entries, list):
        return None
    metrics = tuple(
        Metric(
            name=str(entry["name"]),
            subset=str(entry.get("subset") or "all"),
            value=read_number(entry.get("value")),
            n=int(read_number(entry.get("n")) or 0),
            n_unreadable=int(read_number(entry.get("n_unreadable")) or 0),
            ci_low=read_number(entry.get("ci_low")),
            ci_high=read_number(entry.get("ci_high")),
        )
        for entry in entries
        if isinstance(entry, dict) and "name" in entry
    )
    return metrics or None
