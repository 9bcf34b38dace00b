"""Watches a trainer: its metrics and completions go to the run folder, Ctrl-C saves before it
stops, and a loss that is no number stops at once.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from anomalyr1.types import InputError


class RunMonitor(TrainerCallback):  # type: ignore[misc]
    """Writes `metrics.jsonl`, one object a log, and `samples.jsonl`, groups of completions.

    `stopped` tells that the user asked to stop: the step was finished and saved. A second Ctrl-C
    stops without. Checkpoints wait for a step that is a multiple of `save_multiple`, or the last.
    """

    def __init__(
        self, folder: Path, stage: str, *, sample_steps: int = 20, save_multiple: int = 1
    ) -> None:
        self.stopped = False
        self._save_multiple, self._save_is_due = save_multiple, False
        self._folder, self._stage, self._sample_steps = folder, stage, sample_steps
        self._trainer: Any = None
        self._sampled_at = -sample_steps
        self._handler: Any = None

    def watch(self, trainer: Any) -> None:
        """Follow a trainer; call it once, before training."""
        self._trainer = trainer
        trainer.add_callback(self)
        unguarded = trainer.training_step

        def guarded(*arguments: Any, **named: Any) -> Any:
            loss = unguarded(*arguments, **named)
            if not torch.isfinite(loss).all():
                raise InputError(self._describe_bad_loss(float(loss)))
            return loss

        trainer.training_step = guarded

    def on_train_begin(self, args: Any, state: Any, control: Any, **_kept: Any) -> None:
        if current_thread() is main_thread():
            self._handler = signal.signal(signal.SIGINT, self._ask_to_stop)

    def on_train_end(self, args: Any, state: Any, control: Any, **_kept: Any) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self._handler = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_kept: Any) -> Any:
        self.stopped = self._any_stopped(args)
        self._save_is_due |= control.should_save or self.stopped
        ends = control.should_training_stop
        whole = state.global_step % self._save_multiple == 0
        control.should_save = self._save_is_due and (whole or ends)
        if control.should_save:
            self._save_is_due = False
            control.should_training_stop = ends or self.stopped
        return control

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_kept: Any
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        entry = {"step": state.global_step, "stage": self._stage, **logs}
        _append(self._folder / "metrics.jsonl", [entry])
        if state.global_step - self._sampled_at >= self._sample_steps:
            groups = self._read_completions(state.global_step)
            if groups:
                self._sampled_at = state.global_step
                _append(self._folder / "samples.jsonl", groups)

    def _any_stopped(self, args: Any) -> bool:
        """Whether a signal reached any of the processes: all of them stop at one step."""
        if not torch.distributed.is_initialized():
            return self.stopped
        flag = torch.tensor(int(self.stopped), device=args.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def _read_completions(self, step: int) -> list[dict[str, Any]]:
        """The first two groups of the last rollout of a GRPOTrainer; nothing of other trainers."""
        logs = getattr(self._trainer, "_logs", None)
        if not logs or not logs["completion"]:
            return []
        count = min(len(logs["completion"]), 2 * self._trainer.num_generations)
        weights = self._trainer.reward_weights.tolist()
        samples = []
        for index in range(count):
            rewards = {name: logs["rewards"][name][index] for name in logs["rewards"]}
            total = [
                weight * value
                for weight, value in zip(weights, rewards.values(), strict=True)
                if value is not None and value == value
            ]
            identities = logs["extra"].get("record_id")
            samples.append(
                {
                    "step": step,
                    "record_id": identities[index] if identities else "",
                    "prompt": _read_text(logs["prompt"][index]),
                    "completion": _read_text(logs["completion"][index]),
                    "rewards": rewards,
                    "reward": sum(total),
                    "advantage": logs["advantages"][index],
                }
            )
        return samples

    def _describe_bad_loss(self, loss: float) -> str:
        step = self._trainer.state.global_step + 1
        last = find_last_checkpoint(Path(self._trainer.args.output_dir))
        kept = f"the last good checkpoint is {last.name}" if last else "no checkpoint was saved yet"
        return (
            f"the loss is {loss} in the batch of step {step} (seed {self._trainer.args.seed} gives "
            f"the same batches again); nothing of this step was kept, {kept}: lower the "
            f"{self._stage}.learning_rate or {self._stage}.max_grad_norm and run with --resume"
        )


def find_last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a trainer's folder; one that was cut short is passed over.

    A trainer writes trainer_state.json last, so a checkpoint that has it whole is whole.
    """
    numbered = [
        (int(path.name.rpartition("-")[2]), path)
        for path in folder.glob("checkpoint-*")
        if path.name.rpartition("-")[2].isdigit()
    ]
    for _step, path in sorted(numbered, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        return path
    return None


def _append(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        for entry in entries:
            file.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")


def _read_text(conversation: Any) -> str:
    """A prompt or completion, plain or conversational, as text."""
    if isinstance(conversation, str):
        return conversation
    parts = []
    for message in conversation:
        content = message["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts += [part.get("text", "[picture]") for part in content]
    return "\n".join(parts)
