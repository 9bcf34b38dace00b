"""What a recipe would cost is reckoned, and what cannot work is refused, before a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anomalyr1.training.plan import Hardware, plan
from anomalyr1.training.recipe import Recipe
from anomalyr1.types import InputError

pytest.importorskip("torch")


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


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    from anomalyr1.cli.train import train

    recipe = Path(__file__).parents[1] / "recipes" / "nano-grpo.toml"
    train(recipe, num_workers=1, plan_only=True, nodes=4, gpus=8, strategy="ddp", gpu_memory=80.0)
    assert "time a step" in capsys.readouterr().out
