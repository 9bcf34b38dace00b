"""What a recipe would cost is reckoned, and what cannot work is refused, before a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomalyr1.training.plan import (
    TILE_TOKENS,
    TILE_WORDS,
    Hardware,
    compute_cache_bytes,
    compute_loss_bytes,
    compute_sampling_bytes,
    measure_model,
    plan,
)
from anomalyr1.training.recipe import Recipe, load_recipe
from anomalyr1.types import InputError

pytest.importorskip("torch")

RECIPES = Path(__file__).parents[1] / "recipes"
PUBLISHED_3B = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
}
"""Sizes of Qwen/Qwen2.5-VL-3B-Instruct's language model, as its config.json has them."""


def build(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {"model": "nano", "max_prompt_tokens": 500}
    table = {"per_device_train_batch_size": 8, "num_generations": 8, "max_completion_length": 100}
    fields |= {"reward_funcs": ("roam_reward",), "grpo": table | changes.pop("grpo", {})}
    return Recipe("d", "n", **{**fields, **changes})


def test_batches_are_counted_over_all_gpus() -> None:
    lines = dict(plan(build(grpo={"gradient_accumulation_steps": 2}), Hardware(4, 8), "ddp"))
    assert lines["samples a step"] == "512 = 8 a GPU x 2 accumulated x 32 GPUs"
    assert lines["prompts a step"].startswith("64,")
    assert f"{512 * (500 // 8 + 100):,}" in lines["tokens a step"]


def test_sharding_and_frozen_parts_take_less_memory() -> None:
    def total(strategy: str, **changes: Any) -> float:
        line = dict(plan(build(**changes), Hardware(1, 4), strategy))["memory a GPU"]
        return sum(float(part.split()[-1]) for part in line.partition(": ")[2].split(", "))

    big = {"grpo": {"beta": 0.04, "per_device_train_batch_size": 64}}
    assert total("fsdp2", **big) <= total("zero2", **big) <= total("ddp", **big)


@pytest.mark.parametrize(
    ("changes", "hardware", "strategy", "message"),
    [
        ({"grpo": {"num_generations": 7}}, Hardware(), "ddp", "= 7 does not divide"),
        ({"grpo": {"per_device_train_batch_size": 800}}, Hardware(memory_gib=1), "ddp",
         "set per_device_train_batch_size or max_prompt_tokens lower"),
        ({"grpo": {"steps_per_generation": 800}}, Hardware(memory_gib=8), "ddp",
         "for a rollout .*KV cache 14.6.* 8: set steps_per_generation, "),
        ({}, Hardware(), "dpp", "choose from ddp"),
        ({"lora": {"r": 2}}, Hardware(), "fsdp2", "adapters are trained with ddp"),
        ({"reward_funcs": ("roam",)}, Hardware(), "ddp", "did you mean roam_reward"),
        ({"grpo": None}, Hardware(), "ddp", "no .* stage to plan"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    changes: dict[str, Any], hardware: Hardware, strategy: str, message: str
) -> None:
    recipe = Recipe("d", "n") if changes == {"grpo": None} else build(**changes)
    with pytest.raises(InputError, match=message):
        plan(recipe, hardware, strategy)


@pytest.fixture(scope="module")
def qwen_3b(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that names the 3B model's sizes; its weights are never looked into."""
    from transformers import Qwen2_5_VLConfig

    folder = tmp_path_factory.mktemp("qwen")
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 2048}
    config = Qwen2_5_VLConfig(
        tie_word_embeddings=True,
        text_config=PUBLISHED_3B | {"tie_word_embeddings": True},
        vision_config=vision,
    )
    config.save_pretrained(folder)
    (folder / "model.safetensors").touch()
    return str(folder)


@pytest.mark.parametrize(
    ("model", "cache", "loss", "sampling"),
    [
        # 2 x 4 layers x 4 heads x 32 x 2 bytes = 2048 a token. A tile of 800 x 32768 in 2 bytes,
        # and in 4 bytes the gradients of 800 + 2560 rows of 256. 2560 words x 14 bytes.
        ("nano", 2_048, 52_428_800 + 3_440_640, 35_840),
        # 2 x 36 layers x 2 heads x 128 x 2 bytes; 800 + 151936 rows of 2048; 151936 words.
        ("3B", 36_864, 52_428_800 + 1_251_213_312, 2_127_104),
    ],
)
def test_logits_and_cache_are_reckoned_as_by_hand(
    model: str, cache: int, loss: int, sampling: int, qwen_3b: str
) -> None:
    shape = measure_model(build(model=qwen_3b if model == "3B" else model))
    assert compute_cache_bytes(shape, 10, 2) == 10 * cache
    assert compute_loss_bytes(shape, 800, 2) == loss
    assert compute_sampling_bytes(shape, 3, 2) == 3 * sampling


def test_only_a_tile_of_the_logits_grows_with_a_long_batch(qwen_3b: str) -> None:
    kernels = pytest.importorskip("trl.kernels.chunked_logprob")
    from trl.trainer import utils

    assert (TILE_TOKENS, TILE_WORDS) == (
        kernels.TOKEN_CHUNK_SIZE,
        utils._CHUNKED_LOGPROB_CHUNK_SIZE,
    )
    shape = measure_model(build(model=qwen_3b))
    # 4096 tokens fill the tile; each further one is a row of gradients: 4 bytes x 2048.
    more = compute_loss_bytes(shape, 5096, 2) - compute_loss_bytes(shape, 4096, 2)
    assert more == 1000 * 4 * 2048


def test_an_adapter_leaves_the_head_without_a_gradient() -> None:
    pytest.importorskip("peft")
    shape = measure_model(build(lora={"r": 2, "target_modules": ["q_proj"]}))
    assert compute_loss_bytes(shape, 800, 2) == 52_428_800 + 4 * 256 * 800


def test_the_3b_recipe_on_one_gpu(qwen_3b: str) -> None:
    recipe = load_recipe(RECIPES / "qwen2.5-vl-3b-1gpu-80gb.toml", [f"model={qwen_3b}"])
    lines = dict(plan(recipe, Hardware(), "ddp"))
    assert lines["parameters"].startswith("3,754.6 million")
    # 8 x 256 tokens: 128 MiB of tile, 16 + 1187 MiB of gradients.
    assert lines["memory a GPU"].endswith("logits 1.3")
    # 8 x 4 completions of 2048 + 256 tokens, 72 KiB each in float32.
    assert lines["in a rollout"].endswith("KV cache 5.1, logits 0.1")
    with pytest.raises(InputError, match=r"for a rollout .*KV cache 40\.5.*steps_per_generation"):
        plan(
            replace(recipe, grpo={**(recipe.grpo or {}), "steps_per_generation": 32}),
            Hardware(),
            "ddp",
        )


def test_vllm_keeps_the_cache_of_rollouts_itself() -> None:
    assert "in a rollout" in dict(plan(build(), Hardware(), "ddp"))
    assert "in a rollout" not in dict(plan(build(grpo={"use_vllm": True}), Hardware(), "ddp"))


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    from anomalyr1.cli.train import train

    recipe = RECIPES / "nano-grpo.toml"
    train(recipe, num_workers=1, plan_only=True, nodes=4, gpus=8, strategy="ddp", gpu_memory=80.0)
    assert "time a step" in capsys.readouterr().out
