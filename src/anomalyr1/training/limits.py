"""What a prompt may cost, looked at before the first step: nothing is cut silently later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from anomalyr1.checkpoint import Checkpoint, shown_size
from anomalyr1.prompts import to_chat
from anomalyr1.training.dataset import HintedRecord, Shown, show
from anomalyr1.types import InputError

Follow = Callable[[Iterable[Any], str, int], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class PromptSize:
    """Tokens of a prompt: all of them, and those that stand for pictures."""

    tokens: int
    picture_tokens: int


def measure_prompt(shown: Shown, processor: Any) -> PromptSize:
    """Count a prompt's tokens without computing on its pictures."""
    text = processor.apply_chat_template(
        to_chat(shown.prompt), tokenize=False, add_generation_prompt=True
    )
    images = processor.image_processor
    cell = (images.patch_size * images.merge_size) ** 2
    pictures = 0
    for image in shown.images:
        width, height = shown_size(processor, image.size)
        pictures += width * height // cell
    # Each picture is one placeholder in the text.
    return PromptSize(
        len(processor.tokenizer(text)["input_ids"]) - len(shown.images) + pictures, pictures
    )


def check_prompts(
    rows: Sequence[HintedRecord], checkpoint: Checkpoint, most: int | None, follow: Follow
) -> int:
    """The longest prompt in tokens. Raises InputError naming the record whose prompt has more
    than `most`, or more than the model's context; None: the context alone counts."""
    context = checkpoint.model.config.get_text_config().max_position_embeddings
    limit, name = (context, "the model's context") if most is None else (most, "max_prompt_tokens")
    longest = 0
    for row in follow(rows, "measuring prompts", len(rows)):
        size = measure_prompt(
            show(row, checkpoint.processor, checkpoint.frame), checkpoint.processor
        )
        if size.tokens > limit:
            raise InputError(
                f"the prompt of record {row.record.record_id} has {size.tokens} tokens, "
                f"{size.picture_tokens} of them pictures; {name} is {limit}: set "
                "max_picture_pixels lower, show fewer references, or set max_prompt_tokens higher"
            )
        longest = max(longest, size.tokens)
    return longest
