"""The processes that train together, and what each of them may do alone."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.training.recipe import Recipe

_PACKAGES = ("trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "deepspeed")

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the first one: it alone lets the detector look and validates."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among `count`; `wait` returns when all have come to it."""

    index: int
    count: int
    wait: Callable[[], None]

    @property
    def is_first(self) -> bool:
        """Whether this process writes what all of them share."""
        return self.index == 0


def uses_cpu(recipe: Recipe) -> bool:
    """Whether a stage of the language model is to run without a GPU."""
    return any(bool((stage or {}).get("use_cpu")) for stage in (recipe.sft, recipe.grpo))


def start_processes(use_cpu: bool) -> Processes:
    """Join the processes that torchrun or accelerate launch started; alone, there is nothing to
    join."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(0, 1, lambda: None)
    from accelerate import PartialState

    _join_after_restart(use_cpu)
    state = PartialState(cpu=use_cpu, timeout=_PATIENCE)
    return Processes(state.process_index, state.num_processes, state.wait_for_everyone)


def _join_after_restart(use_cpu: bool) -> None:
    """Meet in a place of this attempt's own when torchrun has started the processes again.

    Its store outlives them (torch 2.13), so that the addresses of processes that died are found
    in it, and waited for.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if attempt == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    from torch import distributed

    store = distributed.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False
    )
    distributed.init_process_group(
        "gloo" if use_cpu else "cuda:nccl,cpu:gloo",
        store=distributed.PrefixStore(  # type: ignore[attr-defined]
            f"attempt-{attempt}", store
        ),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=_PATIENCE,
    )


def gather_checkpoint(trainer: Any, checkpoint: Checkpoint) -> Checkpoint | None:
    """The trained model in one piece; None in processes to which a sharded one does not come.

    All processes must call it.
    """
    if trainer is None or not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return checkpoint
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.args.process_index != 0 or not state:
        return None
    from copy import deepcopy

    import torch

    inner = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    with torch.device("meta"):
        model = type(inner)(deepcopy(inner.config))
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = inner.generation_config
    return replace(checkpoint, model=model)


def describe_training(num_processes: int) -> dict[str, Any]:
    """What a training depends on beside the package: versions, devices, processes, commit."""
    import torch

    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "training_packages": versions,
        "device": ", ".join(names) or f"CPU, {torch.get_num_threads()} threads",
        "cuda": torch.version.cuda,
        "processes": num_processes,
        "git": _git_state(),
    }


def _git_state() -> str | None:
    """The commit this runs from, None outside a checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
