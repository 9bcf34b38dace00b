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
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The part of the logits that TRL 1.16 holds at a time in its loss, which never has them all."""

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


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Numbers of parameters, and the sizes that memory grows with. `keys` is the width of a layer's
    keys: key-value heads x size of a head. `trains_head`: the last layer is among the trained."""

    parameters: int
    trained: int
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int
    trains_head: bool


def plan(recipe: Recipe, hardware: Hardware, strategy: str) -> list[tuple[str, str]]:
    """Lines of what a recipe's language stage costs, name and value.

    Memory is what stands all the time, and beside it either what a micro-batch takes or what a
    rollout does; vLLM's is not reckoned. Raises InputError for what cannot work: batches that do
    not divide, adapters on sharded weights, and more memory than a GPU has, naming the setting to
    change.
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
    sampled = int(table.get("steps_per_generation", accumulation)) * batch
    rollout = sampled * hardware.count
    if rollout % generations:
        raise InputError(
            f"a rollout has {rollout} completions, which num_generations = {generations} does not "
            "divide: set per_device_train_batch_size or steps_per_generation"
        )
    prompt = recipe.max_prompt_tokens or 1024
    completion = int(table.get("max_completion_length", 256)) if recipe.grpo else 256
    shape = measure_model(recipe)
    standing = _reckon_standing(recipe, table, shape, hardware, strategy)
    memory = standing | _reckon_training(recipe, table, shape, batch * prompt, batch * completion)
    _check_memory(memory, hardware, "to train", _name_remedy(memory, recipe, strategy))
    lines = [("memory a GPU", _describe(memory, hardware))]
    if recipe.grpo and not table.get("use_vllm"):
        memory = standing | _reckon_rollout(recipe, shape, sampled, prompt + completion)
        smaller = "set steps_per_generation, per_device_train_batch_size or max_prompt_tokens lower"
        _check_memory(memory, hardware, "for a rollout", smaller)
        lines.append(("in a rollout", _describe(memory, hardware)))
    samples = batch * accumulation * hardware.count
    tokens = samples * (prompt // generations + completion)
    recompute = 8 if table.get("gradient_checkpointing", True) else 6
    seconds = recompute * shape.parameters * tokens / hardware.count / (hardware.teraflops * 1e12)
    if recipe.grpo:
        seconds += completion * shape.parameters * 2 / (hardware.gigabytes * 1e9)
    return [
        ("GPUs", f"{hardware.count} ({hardware.nodes} x {hardware.gpus}), {strategy}"),
        (
            "parameters",
            f"{shape.parameters / 1e6:,.1f} million, {shape.trained / 1e6:,.1f} trained",
        ),
        (
            "samples a step",
            f"{samples} = {batch} a GPU x {accumulation} accumulated x {hardware.count} GPUs",
        ),
        ("prompts a step", f"{samples / generations:g}, {generations} completions each"),
        ("tokens a step", f"at most {tokens:,}, each prompt once"),
        *lines,
        ("time a step", f"about {seconds:.1f} s (reckoned, not measured)"),
    ]


def measure_model(recipe: Recipe) -> ModelShape:
    """The shape of a recipe's model, from its configuration: no weights are loaded. Raises
    InputError where that cannot be read."""
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
    size_of_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        parameters=whole,
        trained=trained,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=text.intermediate_size,
        keys=text.num_key_value_heads * size_of_head,
        vocabulary=text.vocab_size,
        trains_head=model.get_output_embeddings().weight.requires_grad,
    )


def compute_loss_bytes(shape: ModelShape, num_tokens: int, num_bytes: int) -> int:
    """Bytes for the logits of `num_tokens` completion tokens in the loss, of `num_bytes` a number.

    TRL goes through them in tiles, which are as wide for a smaller vocabulary, and sums gradients
    in float32: those of the hidden states, and that of the last layer where it is trained.

        min(tokens, 4096) x 32768 x bytes + 4 x tokens x hidden [+ 4 x vocabulary x hidden]
    """
    tile = min(num_tokens, TILE_TOKENS) * TILE_WORDS * num_bytes
    head = shape.vocabulary if shape.trains_head else 0
    return tile + 4 * shape.hidden * (num_tokens + head)


def compute_sampling_bytes(shape: ModelShape, num_sequences: int, num_bytes: int) -> int:
    """Bytes for the logits of one more token of each sequence: the model's, of `num_bytes` a
    number, and in float32 their copy, the scores made of it and the probabilities.

    vocabulary x sequences x (bytes + 3 x 4)
    """
    return shape.vocabulary * num_sequences * (num_bytes + 3 * 4)


def compute_cache_bytes(shape: ModelShape, num_tokens: int, num_bytes: int) -> int:
    """Bytes for the keys and values of `num_tokens` tokens, prompts and completions together.

    2 x layers x key-value heads x size of a head x tokens x bytes
    """
    return 2 * shape.layers * shape.keys * num_tokens * num_bytes


def _reckon_standing(
    recipe: Recipe, table: Any, shape: ModelShape, hardware: Hardware, strategy: str
) -> dict[str, float]:
    """GiB a GPU that are taken all the time, by what takes them."""
    size = _bytes_of_weights(recipe)
    trained_size = 4 if recipe.lora is not None else size
    whole = hardware.count if strategy in ("zero3", "fsdp2") else 1
    part = 1 if strategy == "ddp" else hardware.count
    memory = {
        "weights": shape.parameters * size / whole,
        "gradients": shape.trained * trained_size / part,
        "optimiser": 2 * shape.trained * trained_size / part,
    }
    if float(table.get("beta", 0.0)) and recipe.lora is None:
        memory["reference"] = shape.parameters * size / whole
    return {name: amount / _GIB for name, amount in memory.items()}


def _reckon_training(
    recipe: Recipe, table: Any, shape: ModelShape, prompt_tokens: int, completion_tokens: int
) -> dict[str, float]:
    """GiB a GPU that a micro-batch takes besides."""
    width = shape.hidden * shape.layers
    kept = width if table.get("gradient_checkpointing", True) else 16 * width
    tokens = prompt_tokens + completion_tokens
    # TRL trains in bfloat16 unless it is told not to.
    is_short = table.get("bf16", True) or table.get("fp16")
    size = 2 if is_short else _bytes_of_weights(recipe)
    return {
        "activations": 2 * tokens * (kept + 4 * shape.inner + 12 * shape.hidden) / _GIB,
        "logits": compute_loss_bytes(shape, completion_tokens, size) / _GIB,
    }


def _reckon_rollout(
    recipe: Recipe, shape: ModelShape, num_sequences: int, length: int
) -> dict[str, float]:
    """GiB a GPU that sampling takes besides: all completions of a rollout at once, of `length`
    tokens with their prompts."""
    size = _bytes_of_weights(recipe)
    return {
        "KV cache": compute_cache_bytes(shape, num_sequences * length, size) / _GIB,
        "logits": compute_sampling_bytes(shape, num_sequences, size) / _GIB,
    }


def _bytes_of_weights(recipe: Recipe) -> int:
    return 2 if recipe.dtype == "bfloat16" else 4


def _check_memory(memory: dict[str, float], hardware: Hardware, purpose: str, remedy: str) -> None:
    total = sum(memory.values())
    if total > 0.92 * hardware.memory_gib:
        raise InputError(
            f"a GPU needs about {total:.0f} GiB {purpose} ({_list(memory)}) and has "
            f"{hardware.memory_gib:.0f}: {remedy}"
        )


def _describe(memory: dict[str, float], hardware: Hardware) -> str:
    return f"about {sum(memory.values()):.1f} of {hardware.memory_gib:g} GiB: {_list(memory)}"


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
