"""Prompts computed once give the log-probabilities and gradients of prompts computed each time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.training.nano import NanoShape, build_nano

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

from anomalyr1.training.shared_prefix import (  # noqa: E402
    SharedPrefixGRPOTrainer,
    _chunk,
    _shuffle_groups,
    find_obstacle,
)
from anomalyr1.training.shared_rollout import find_rollout_obstacle  # noqa: E402

TINY = NanoShape(1024, 64, 2, 64, 2, 84 * 84)


def score_nothing(completions: list[Any], **_columns: Any) -> list[float]:
    """A reward that differs between completions."""
    return [float(index % 3) for index in range(len(completions))]


def make_row(number: int, num_pictures: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    size = (60 + 10 * number, 84, 3)
    pictures = [
        Image.fromarray(rng.integers(0, 255, size).astype(np.uint8)) for _ in range(num_pictures)
    ]
    content: list[dict[str, str]] = [{"type": "image"} for _ in pictures]
    content.append({"type": "text", "text": "Is it normal? " * (1 + number)})
    return {"prompt": [{"role": "user", "content": content}], "images": pictures}


def build_trainer(checkpoint: Checkpoint, folder: Path, **settings: Any) -> Any:
    """Groups of three completions, two of them a batch; `settings` replace GRPOConfig's."""
    from datasets import Dataset
    from trl import GRPOConfig

    defaults: dict[str, Any] = {
        "beta": 0.0,
        "gradient_checkpointing": False,
        "max_completion_length": 9,
        "temperature": 0.7,
    }
    checkpoint.processor.tokenizer.padding_side = "left"
    trainer = SharedPrefixGRPOTrainer(
        model=checkpoint.model,
        reward_funcs=[score_nothing],
        args=GRPOConfig(
            output_dir=str(folder),
            num_generations=3,
            per_device_train_batch_size=6,
            use_cpu=True,
            bf16=False,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            **{**defaults, **settings},
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a"]}),
        processing_class=checkpoint.processor,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_trainer(build_nano(TINY, seed=0), tmp_path_factory.mktemp("run"))


def roll_out(trainer: Any, pictures: tuple[int, ...]) -> dict[str, Any]:
    """Inputs of the two computations: three completions of two prompts, not beside each other."""
    rows = [make_row(number, count) for number, count in enumerate(pictures)]
    torch.manual_seed(1)
    inputs: dict[str, Any] = trainer._generate_and_score_completions([rows[0]] * 3 + [rows[1]] * 3)
    order = [0, 3, 1, 4, 2, 5]
    counts = inputs["num_images"]
    pixels = torch.split(
        inputs["pixel_values"],
        [int(grid.prod(dim=-1).sum()) for grid in torch.split(inputs["image_grid_thw"], counts)],
    )
    grids = torch.split(inputs["image_grid_thw"], counts)
    length = inputs["completion_ids"].shape[1]
    # Completions of different lengths, one of them masked out whole.
    mask = inputs["completion_mask"].clone()
    for sample, kept in enumerate((length, length - 3, 1, length, 4, 0)):
        mask[sample, kept:] = 0
    return {
        "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)[order],
        "attention_mask": torch.cat([inputs["prompt_mask"], mask], 1)[order],
        "logits_to_keep": length,
        "compute_entropy": True,
        "pixel_values": torch.cat([pixels[index] for index in order]),
        "image_grid_thw": torch.cat([grids[index] for index in order]),
        "num_images": [counts[index] for index in order],
        "mm_token_type_ids": inputs["mm_token_type_ids"][order],
    }


@pytest.mark.parametrize("pictures", [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_log_probabilities_entropies_and_gradients_are_the_same(
    trainer: Any, pictures: tuple[int, ...], batch_size: int | None
) -> None:
    from trl import GRPOTrainer

    inputs = roll_out(trainer, pictures)
    scored = inputs["attention_mask"][:, -inputs["logits_to_keep"] :].bool()
    weights = torch.randn(scored.shape, generator=torch.Generator().manual_seed(0))
    found = []
    for method in (
        GRPOTrainer._get_per_token_logps_and_entropies,
        SharedPrefixGRPOTrainer._get_per_token_logps_and_entropies,
    ):
        trainer.model.zero_grad()
        logps, entropies, _ = method(trainer, trainer.model, batch_size=batch_size, **inputs)
        (logps * weights)[scored].sum().backward()
        gradients = {
            name: parameter.grad.clone()
            for name, parameter in trainer.model.named_parameters()
            if parameter.grad is not None
        }
        found.append((logps.detach(), entropies.detach(), gradients))
    (logps, entropies, gradients), (shared_logps, shared_entropies, shared_gradients) = found
    assert torch.allclose(logps[scored], shared_logps[scored], atol=1e-5)
    assert torch.allclose(entropies[scored], shared_entropies[scored], atol=1e-4)
    assert gradients.keys() == shared_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max()) + 1e-6
        assert torch.allclose(gradient, shared_gradients[name], atol=1e-4 * scale), name


def test_a_prompt_is_computed_once(trainer: Any) -> None:
    inputs = roll_out(trainer, (1, 1))
    seen: list[tuple[int, ...]] = []
    handle = trainer.model.model.visual.register_forward_pre_hook(
        lambda _module, arguments: seen.append(tuple(arguments[0].shape))
    )
    try:
        trainer._get_per_token_logps_and_entropies(trainer.model, **inputs)
    finally:
        handle.remove()
    assert sum(shape[0] for shape in seen) * 3 == len(inputs["pixel_values"])


def test_models_that_cannot_share_prompts_say_why(trainer: Any) -> None:
    assert find_obstacle(trainer.model) is None
    linear = torch.nn.Linear(1, 1)
    linear.config = type(  # type: ignore[assignment]
        "Config", (), {"model_type": "bert", "get_text_config": lambda self: self}
    )()
    assert "bert has no get_rope_index" in str(find_obstacle(linear))


def test_groups_are_put_together_up_to_a_number_of_samples() -> None:
    groups = [[0, 1], [2, 3], [4, 5, 6], [7]]
    assert _chunk(groups, 4) == [[[0, 1], [2, 3]], [[4, 5, 6], [7]]]
    assert _chunk(groups, 3) == [[[0, 1], [2]], [[3], [4, 5]], [[6], [7]]]
    assert _chunk(groups, 1) == [[[sample]] for sample in range(8)]


def test_a_shuffled_generation_batch_keeps_groups_together() -> None:
    prompts = torch.tensor([[5, 6], [5, 6], [5, 6], [0, 7], [0, 7], [0, 7]])
    scored = {"prompt_ids": prompts, "prompt_mask": (prompts > 0).long(), "sample": list(range(6))}
    scored["num_items_in_batch"] = torch.tensor(9)
    for seed in range(4):
        torch.manual_seed(seed)
        shuffled = _shuffle_groups(scored)
        assert {frozenset(shuffled["sample"][:3]), frozenset(shuffled["sample"][3:])} == {
            frozenset((0, 1, 2)),
            frozenset((3, 4, 5)),
        }
        assert torch.equal(shuffled["prompt_ids"], prompts[shuffled["sample"]])
        after = torch.rand(1)
        torch.manual_seed(seed)
        torch.randperm(6)
        assert torch.equal(after, torch.rand(1)), "stock draws other random numbers from here"


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("pictures", [(1, 1), (2, 1)])
def test_a_rollout_computes_each_prompt_once_and_writes_what_stock_writes(
    trainer: Any, pictures: tuple[int, int], greedy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GenerationConfig
    from trl import GRPOTrainer
    from trl.data_utils import prepare_multimodal_messages

    rows = [make_row(number, count) for number, count in enumerate(pictures)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    prompts = [prompts[0], prompts[1]] * 3
    if greedy:
        settings = GenerationConfig(max_new_tokens=9, do_sample=False, pad_token_id=0)
        monkeypatch.setattr(trainer, "generation_config", settings)
    tokenized = trainer._tokenize_prompts(prompts)
    patches: list[int] = []
    handle = trainer.model.model.visual.register_forward_pre_hook(
        lambda _module, arguments: patches.append(len(arguments[0]))
    )
    written = []
    try:
        for method in (
            GRPOTrainer._generate_single_turn,
            SharedPrefixGRPOTrainer._generate_single_turn,
        ):
            torch.manual_seed(3)
            written.append(method(trainer, *tokenized, 3)[0])
    finally:
        handle.remove()
    assert written[0] == written[1]
    assert patches[0] == 3 * patches[1]
    assert "generate" not in vars(trainer.model)


def test_a_frozen_tower_sees_each_picture_once_for_rollout_and_policy(trainer: Any) -> None:
    rows = [make_row(number, 2) for number in range(2)]
    tower = trainer.model.model.visual
    patches: list[int] = []
    handle = tower.register_forward_pre_hook(
        lambda _module, arguments: patches.append(len(arguments[0]))
    )
    tower.requires_grad_(False)
    trainer.current_gradient_accumulation_steps = 1
    try:
        inputs = trainer._generate_and_score_completions([rows[0]] * 3 + [rows[1]] * 3)
        frozen = trainer._compute_loss(trainer.model, inputs)
        seen = list(patches)
        tower.requires_grad_(True)
        trained = trainer._compute_loss(trainer.model, inputs)
    finally:
        handle.remove()
        tower.requires_grad_(True)
    assert seen == [len(inputs["pixel_values"]) // 3]
    assert len(patches) == 2, "a tower that is trained sees pictures anew"
    assert torch.allclose(frozen, trained, atol=1e-6)


def test_a_completion_that_is_no_number_leaves_the_others_as_stock_does(trainer: Any) -> None:
    from trl import GRPOTrainer

    inputs = roll_out(trainer, (1, 1))
    width = inputs["input_ids"].shape[1] - inputs["logits_to_keep"]
    unused = min(set(range(900, 1000)) - set(inputs["input_ids"].flatten().tolist()))
    inputs["input_ids"][0, width] = unused
    with torch.no_grad():
        # Only what is read is spoilt: the weights are the head's too, of every completion.
        handle = trainer.model.get_input_embeddings().register_forward_hook(
            lambda _module, arguments, output: output.masked_fill(
                (arguments[0] == unused)[..., None], float("nan")
            )
        )
        try:
            stock = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, **inputs)
            shared = trainer._get_per_token_logps_and_entropies(trainer.model, **inputs)
        finally:
            handle.remove()
    assert stock[0][0].isnan().any() and not stock[0][1:].isnan().any()
    assert torch.allclose(stock[0], shared[0], atol=1e-5, equal_nan=True)


def test_a_batch_without_a_scored_token_gives_a_gradient_of_zero(trainer: Any) -> None:
    inputs = roll_out(trainer, (1, 1))
    inputs["attention_mask"][:, -inputs["logits_to_keep"] :] = 0
    logps, _entropies, _ = trainer._get_per_token_logps_and_entropies(trainer.model, **inputs)
    trainer.model.zero_grad()
    logps.sum().backward()
    assert not logps.any()
    assert all(
        parameter.grad is None or not parameter.grad.any()
        for parameter in trainer.model.parameters()
    )


LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")


@pytest.mark.parametrize("loss_type", LOSSES)
def test_every_loss_and_its_gradients_are_those_of_stock(
    trainer: Any, loss_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import GRPOTrainer

    monkeypatch.setattr(trainer, "loss_type", loss_type)
    inputs = roll_out(trainer, (2, 1))
    monkeypatch.setattr(trainer, "beta", 0.1)
    trainer.current_gradient_accumulation_steps = 2
    assert_same_loss(trainer, as_batch(trainer, inputs), GRPOTrainer)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_and_gradient_checkpointing_give_the_gradients_of_stock(
    tmp_path: Path, checkpointing: bool
) -> None:
    from peft import LoraConfig, get_peft_model
    from trl import GRPOTrainer

    checkpoint = build_nano(TINY, seed=0)
    checkpoint.model.model.visual.requires_grad_(False)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = build_trainer(
        replace(checkpoint, model=get_peft_model(checkpoint.model, lora)),
        tmp_path,
        beta=0.1,
        gradient_checkpointing=checkpointing,
        temperature=1.0,
    )
    if checkpointing:  # as Trainer.train does; only there is the setting looked at
        adapted.model.gradient_checkpointing_enable({"use_reentrant": False})
    assert adapted.model.is_gradient_checkpointing == checkpointing
    inputs = roll_out(adapted, (1, 2))
    assert_same_loss(adapted, as_batch(adapted, inputs), GRPOTrainer)


def as_batch(trainer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """A micro-batch of a loss from inputs of log-probabilities; the last sample is masked out."""
    width = inputs["input_ids"].shape[1] - inputs["logits_to_keep"]
    generator = torch.Generator().manual_seed(5)
    shape = (len(inputs["input_ids"]), inputs["logits_to_keep"])
    trainer.model.train()
    with torch.no_grad():
        now, _entropies, _ = trainer._get_per_token_logps_and_entropies(trainer.model, **inputs)
    return {
        "prompt_ids": inputs["input_ids"][:, :width],
        "prompt_mask": inputs["attention_mask"][:, :width],
        "completion_ids": inputs["input_ids"][:, width:],
        "completion_mask": inputs["attention_mask"][:, width:],
        "advantages": torch.randn(shape[0], generator=generator),
        "num_items_in_batch": inputs["attention_mask"][:, width:].sum(),
        "old_per_token_logps": now + 0.1 * torch.randn(shape, generator=generator),
        "ref_per_token_logps": now + 0.1 * torch.randn(shape, generator=generator),
        **{
            name: inputs[name]
            for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
        },
    }


def compute_gradients(trainer: Any, batch: dict[str, Any], kind: Any) -> tuple[Any, dict[str, Any]]:
    """The loss of a batch, log-probabilities computed as `kind` does, and its gradients by name."""
    trainer.model.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        method = kind._get_per_token_logps_and_entropies
        patch.setattr(SharedPrefixGRPOTrainer, "_get_per_token_logps_and_entropies", method)
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in trainer.model.named_parameters()
        if parameter.grad is not None
    }
    return loss.detach(), gradients


def assert_same_loss(trainer: Any, batch: dict[str, Any], stock: Any) -> None:
    ours, gradients = compute_gradients(trainer, batch, SharedPrefixGRPOTrainer)
    theirs, expected = compute_gradients(trainer, batch, stock)
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        difference = (gradients[name] - gradient).norm()
        assert difference <= 1e-4 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, None),
        ({"cache_implementation": "static"}, "cache_implementation is 'static'"),
        ({"use_cache": False}, "use_cache is false"),
        ({"num_beams": 2}, "beams"),
        ({"prompt_lookup_num_tokens": 3}, "assistance"),
    ],
)
def test_generation_settings_that_cannot_start_from_a_cache_say_why(
    settings: dict[str, Any], message: str | None
) -> None:
    from transformers import GenerationConfig

    found = find_rollout_obstacle(GenerationConfig(**settings))
    assert found is None if message is None else message in str(found)
    assert find_rollout_obstacle(None) is None, "with vLLM there are none"
