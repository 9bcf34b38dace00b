"""Shared prompts with Qwen3-VL, bfloat16 and float64: what stock TRL computes, up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.training.nano import build_nano

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

from test_shared_prefix import (  # noqa: E402
    TINY,
    as_batch,
    assert_same_loss,
    build_trainer,
    compute_gradients,
    make_row,
    roll_out,
)
from trl import GRPOTrainer  # noqa: E402

from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer, find_obstacle  # noqa: E402


def build_qwen3(seed: int = 0) -> Checkpoint:
    """A tiny random Qwen3-VL, which adds features of the picture at several layers, with the
    tokenizer and the picture processor of the tiny Qwen2.5-VL."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    nano = build_nano(TINY, seed)
    old, text = nano.model.config, nano.model.config.get_text_config()
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [4, 6, 6],
                "mrope_interleaved": True,
            },
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 14,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        image_token_id=old.image_token_id,
        video_token_id=old.video_token_id,
        vision_start_token_id=old.vision_start_token_id,
        vision_end_token_id=old.vision_end_token_id,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = nano.model.generation_config
    return replace(nano, model=model)


def compute_logps(kind: Any, trainer: Any, inputs: dict[str, Any], autocast: bool) -> Any:
    scored = inputs["attention_mask"][:, -inputs["logits_to_keep"] :].bool()
    context = torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext()
    with torch.no_grad(), context:
        logps = kind._get_per_token_logps_and_entropies(trainer, trainer.model, **inputs)[0]
    return logps[scored].float()


@pytest.mark.parametrize("pictures", [(1, 1), (2, 1)])
def test_qwen3_vl_gives_the_loss_and_gradients_of_stock(
    tmp_path: Path, pictures: tuple[int, int]
) -> None:
    trainer = build_trainer(build_qwen3(), tmp_path)
    assert find_obstacle(trainer.model) is None
    inputs = roll_out(trainer, pictures)
    stock, ours = (
        compute_logps(kind, trainer, inputs, False)
        for kind in (GRPOTrainer, SharedPrefixGRPOTrainer)
    )
    assert torch.allclose(stock, ours, atol=1e-5)
    assert_same_loss(trainer, as_batch(trainer, inputs), GRPOTrainer)


def test_a_rollout_of_qwen3_vl_writes_what_stock_writes(tmp_path: Path) -> None:
    from trl.data_utils import prepare_multimodal_messages

    trainer = build_trainer(build_qwen3(), tmp_path)
    rows = [make_row(number, 1 + number) for number in range(2)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    tokenized = trainer._tokenize_prompts([prompts[0]] * 3 + [prompts[1]] * 3)
    written = []
    for kind in (GRPOTrainer, SharedPrefixGRPOTrainer):
        torch.manual_seed(3)
        written.append(kind._generate_single_turn(trainer, *tokenized, 3)[0])
    assert written[0] == written[1]


@pytest.mark.parametrize("autocast", [False, True], ids=["weights", "autocast"])
@pytest.mark.parametrize("model", ["qwen2.5", "qwen3"])
def test_in_bfloat16_the_error_is_no_larger_than_that_of_stock(
    tmp_path: Path, model: str, autocast: bool
) -> None:
    checkpoint = build_nano(TINY, seed=0) if model == "qwen2.5" else build_qwen3()
    trainer = build_trainer(checkpoint, tmp_path)
    inputs = roll_out(trainer, (2, 1))
    exact = compute_logps(GRPOTrainer, trainer, inputs, False)
    if not autocast:
        trainer.model.to(torch.bfloat16)
    errors = [
        float((compute_logps(kind, trainer, inputs, autocast) - exact).pow(2).mean().sqrt())
        for kind in (GRPOTrainer, SharedPrefixGRPOTrainer)
    ]
    assert 0 < errors[1] <= 1.5 * errors[0] + 1e-3


@pytest.mark.parametrize("build", [lambda: build_nano(TINY, seed=0), build_qwen3])
def test_in_float64_every_gradient_is_that_of_stock_to_twelve_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[[], Checkpoint]
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    from grpo_update import in_float64

    trainer = build_trainer(build(), tmp_path)
    inputs = roll_out(trainer, (2, 1))
    trainer.beta = 0.04
    trainer.model.double()
    with in_float64():
        batch = as_batch(trainer, inputs)
        ours, gradients = compute_gradients(trainer, batch, SharedPrefixGRPOTrainer)
        theirs, expected = compute_gradients(trainer, batch, GRPOTrainer)
    assert ours.dtype == torch.float64 and float(ours) == pytest.approx(float(theirs), rel=1e-12)
    assert gradients.keys() == expected.keys() == dict(trainer.model.named_parameters()).keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0 and gradient.dtype == torch.float64, name
        assert (gradients[name] - gradient).norm() <= 1e-12 * gradient.norm(), name
