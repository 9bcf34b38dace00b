"""What the GRPO benchmarks compare: trainers of the same weights, batches, losses and gradients."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from trl import GRPOConfig
from trl.kernels import ChunkedLogProbFunction

from anomalyr1.training.shared_prefix import SharedPrefixGRPOTrainer

QUESTION = "Is this product normal or anomalous? Reason, then answer. " * 4


def build_rows(num_prompts: int, num_generations: int, size_wh: tuple[int, int]) -> list[Any]:
    """Rows as TRL's sampler gives them: each prompt, with two pictures, once a generation."""
    rows = []
    for number in range(num_prompts):
        rng = np.random.default_rng(number)
        pictures = [
            Image.fromarray(rng.integers(0, 255, (*size_wh[::-1], 3)).astype(np.uint8))
            for _ in range(2)
        ]
        content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]
        row = {"prompt": [{"role": "user", "content": content}], "images": pictures}
        rows += [row] * num_generations
    return rows


def reward_by_length(completions: list[Any], **_columns: Any) -> list[float]:
    """A reward that differs between completions."""
    return [float(sum(map(ord, one[0]["content"])) % 7) for one in completions]


def build_trainer(
    trainer_class: Any, model: Any, processor: Any, num_generations: int, **settings: Any
) -> Any:
    """A trainer that takes one generation batch of a prompt a step."""
    from datasets import Dataset

    processor.tokenizer.padding_side = "left"
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        num_generations=num_generations,
        per_device_train_batch_size=num_generations,
        gradient_checkpointing=False,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
        **settings,
    )
    trainer = trainer_class(
        model=model,
        reward_funcs=[reward_by_length],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"]}),
        processing_class=processor,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def build_update(processor: Any, rows: list[Any], length: int, device: Any) -> dict[str, Any]:
    """Inputs of an update on random completions of `length` tokens."""
    from trl.data_utils import prepare_multimodal_messages

    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    tokens = processor.apply_chat_template(
        prompts,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    generator = torch.Generator().manual_seed(0)
    completions = torch.randint(300, 900, (len(rows), length), generator=generator)
    types = torch.cat([tokens["mm_token_type_ids"], torch.zeros_like(completions)], dim=1)
    inputs = {
        "prompt_ids": tokens["input_ids"],
        "prompt_mask": tokens["attention_mask"],
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.randn(len(rows), generator=generator),
        "num_items_in_batch": torch.tensor(completions.numel()),
        "pixel_values": tokens["pixel_values"],
        "image_grid_thw": tokens["image_grid_thw"],
        "mm_token_type_ids": types,
    }
    moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in inputs.items()}
    return {**moved, "num_images": [2] * len(rows)}


def update(trainer: Any, inputs: dict[str, Any]) -> Callable[[], dict[str, torch.Tensor]]:
    """Log-probabilities, loss and backward pass; what it returns are the gradients."""

    def run() -> dict[str, torch.Tensor]:
        trainer.model.zero_grad()
        if isinstance(trainer, SharedPrefixGRPOTrainer):
            trainer._features.clear()  # a frozen tower computes as stock's does, every time
        trainer._compute_loss(trainer.model, inputs).backward()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {
            name: parameter.grad
            for name, parameter in trainer.model.named_parameters()
            if parameter.grad is not None
        }

    return run


def differ_by(ours: dict[str, torch.Tensor], stock: dict[str, torch.Tensor]) -> float:
    """The largest relative difference of a parameter's gradient (norm of difference over norm)."""
    assert ours.keys() == stock.keys()
    return max(
        float((ours[name] - gradient).norm() / (gradient.norm() + 1e-12))
        for name, gradient in stock.items()
    )


class _Widening(TorchFunctionMode):
    """Gives float64 to what asks for float32, as norms and log-probabilities do."""

    def __torch_function__(
        self, function: Any, _types: Any, arguments: Any = (), settings: Any = None
    ) -> Any:
        def widen(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        function = torch.Tensor.double if function is torch.Tensor.float else function
        named = {name: widen(value) for name, value in (settings or {}).items()}
        return function(*map(widen, arguments), **named)


@contextmanager
def in_float64() -> Iterator[None]:
    """Inside, a model whose weights are float64 computes in nothing less."""
    accumulate = ChunkedLogProbFunction.backward

    def accumulate_widened(*arguments: Any) -> Any:
        with _Widening():  # autograd runs backward passes outside of every mode
            return accumulate(*arguments)

    ChunkedLogProbFunction.backward = staticmethod(accumulate_widened)
    try:
        with _Widening():
            yield
    finally:
        ChunkedLogProbFunction.backward = staticmethod(accumulate)
