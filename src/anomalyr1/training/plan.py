"""What a recipe asks of machines, reckoned before anything is loaded: batches, memory, time.

A simple cost model; its figures are estimates, and no run of this project has measured them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from anomalyr1.checkpoint import resolve_source
from anomalyr1.training.recipe import Recipe, check_rewards
from anomalyr1.types import InputError

STRATEGIES = ("ddp", "zero2", "zero3", "fsdp2")
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Hardware:
    """`nodes` machines with `gpus` each; a GPU's memory in GiB, and what it does in a second:
    10^12 operations in bfloat16 that training reaches, and GB read from its memory."""

    nodes: int = 1
    gpus: int = 1
    memory_gib: float = 80.0
    teraflops: float = 300.0
    gigabytes: float = 2000.0

    @property
    def count(self) -> int:
        """All GPUs."""
        return self.nodes * self.gpus


def plan(recipe: Recipe, hardware: Hardware, strategy: str) -> list[tuple[str, str]]:
    """Lines of what a recipe's language stage costs, name and value.

    Raises InputError for what cannot work: batches that do not divide, adapters on sharded
    weights, and more memory than a GPU has, naming the setting to change.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy {strategy!r} is unknown: choose from {', '.join(STRATEGIES)}")
    check_rewards(recipe)
    table = recipe.grpo or recipe.sft
    if table is None:
        raise InputError("the recipe has no [sft] or [grpo] stage to plan")
    if recipe.lora is not None and strategy in ("zero3", "fsdp2"):
        raise InputError(f"adapters are trained with ddp or zero2, not with {strategy}")
    batch = int(table.get("per_device_train_batch_size", 8))
    accumulation = int(table.get("gradient_accumulation_steps", 1))
    generations = int(table.get("num_generations", 8)) if recipe.grpo else 1
    rollout = int(table.get("steps_per_generation", accumulation)) * batch * hardware.count
    if rollout % generations:
        raise InputError(
            f"a rollout has {rollout} completions, which num_generations = {generations} does not "
            "divide: set per_device_train_batch_size or steps_per_generation"
        )
    prompt = recipe.max_prompt_tokens or 1024
    completion = int(table.get("max_completion_length", 256)) if recipe.grpo else 256
    shape = _measure_model(recipe)
    memory = _reckon_memory(recipe, table, shape, hardware, strategy, batch * (prompt + completion))
    total = sum(memory.values())
    if total > 0.92 * hardware.memory_gib:
        raise InputError(
            f"a GPU needs about {total:.0f} GiB ({_list(memory)}) and has {hardware.memory_gib:.0f}"
            f": {_name_remedy(memory, recipe, strategy)}"
        )
    samples = batch * accumulation * hardware.count
    tokens = samples * (prompt // generations + completion)
    recompute = 8 if table.get("gradient_checkpointing", True) else 6
    seconds = recompute * shape["all"] * tokens / hardware.count / (hardware.teraflops * 1e12)
    if recipe.grpo:
        seconds += completion * shape["all"] * 2 / (hardware.gigabytes * 1e9)
    return [
        ("GPUs", f"{hardware.count} ({hardware.nodes} x {hardware.gpus}), {strategy}"),
        ("parameters", f"{shape['all'] / 1e6:,.1f} million, {shape['trained'] / 1e6:,.1f} trained"),
        (
            "samples a step",
            f"{samples} = {batch} a GPU x {accumulation} accumulated x {hardware.count} GPUs",
        ),
        ("prompts a step", f"{samples / generations:g}, {generations} completions each"),
        ("tokens a step", f"at most {tokens:,}, each prompt once"),
        ("memory a GPU", f"about {total:.1f} of {hardware.memory_gib:g} GiB: {_list(memory)}"),
        ("time a step", f"about {seconds:.1f} s (reckoned, not measured)"),
    ]


def _measure_model(recipe: Recipe) -> dict[str, float]:
    """Numbers of parameters, and the sizes that activations grow with."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if recipe.model == "new":
        from anomalyr1.training.nano import NanoShape, build_nano

        model: Any = build_nano(NanoShape(), 0).model
    else:
        try:
            config = AutoConfig.from_pretrained(resolve_source(recipe.model))
        except (OSError, ValueError) as error:
            raise InputError(
                f"the configuration of {recipe.model} cannot be read ({error}): give a folder"
            ) from error
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
    text = model.config.get_text_config()
    if recipe.freeze_vision:
        model.model.visual.requires_grad_(False)
    whole = sum(value.numel() for value in model.parameters())
    if recipe.lora is not None:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(**recipe.lora))
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return {
        "all": whole,
        "trained": trained,
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "inner": text.intermediate_size,
    }


def _reckon_memory(
    recipe: Recipe,
    table: Any,
    shape: dict[str, float],
    hardware: Hardware,
    strategy: str,
    tokens: int,
) -> dict[str, float]:
    """GiB a GPU, by what takes it."""
    size = 2 if recipe.dtype == "bfloat16" else 4
    trained_size = 4 if recipe.lora is not None else size
    whole = hardware.count if strategy in ("zero3", "fsdp2") else 1
    part = 1 if strategy == "ddp" else hardware.count
    width = shape["hidden"] * shape["layers"]
    kept = width if table.get("gradient_checkpointing", True) else 16 * width
    memory = {
        "weights": shape["all"] * size / whole,
        "gradients": shape["trained"] * trained_size / part,
        "optimiser": 2 * shape["trained"] * trained_size / part,
        "activations": 2 * tokens * (kept + 4 * shape["inner"] + 12 * shape["hidden"]),
    }
    if float(table.get("beta", 0.0)) and recipe.lora is None:
        memory["reference"] = shape["all"] * size / whole
    return {name: amount / _GIB for name, amount in memory.items()}


def _list(memory: dict[str, float]) -> str:
    return ", ".join(f"{name} {amount:.1f}" for name, amount in memory.items())


def _name_remedy(memory: dict[str, float], recipe: Recipe, strategy: str) -> str:
    largest = max(memory, key=lambda name: memory[name])
    if largest == "activations":
        return "set per_device_train_batch_size or max_prompt_tokens lower"
    if recipe.lora is None:
        more = "" if strategy in ("zero3", "fsdp2") else ", or shard with --strategy fsdp2"
        return f"train an adapter with a [lora] table{more}"
    return 'set dtype = "bfloat16" or take a smaller model'
