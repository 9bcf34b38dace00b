"""Rollouts in which each distinct prompt is prefilled once and its cache repeated for its samples.

The model's own `generate` does both the prefill and the sampling, so that every setting of it
keeps its meaning; the samples' distribution is that of the usual rollout, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig

from anomalyr1.training.shared_rows import Batch, find_backbone, find_groups, split_pictures


@contextmanager
def prefill_once(model: Any, num_images: Sequence[int] | None) -> Iterator[None]:
    """Inside, `model.generate` computes prompts that are equal, pictures included, only once.

    `num_images` are the pictures of each prompt; None where there are none.
    """
    stock = model.generate

    def generate(**inputs: Any) -> Any:
        obstacle = find_rollout_obstacle(inputs.get("generation_config"))
        if obstacle is not None or inputs["input_ids"].shape[1] < 2:
            return stock(**inputs)
        cache = _prefill(model, stock, inputs, num_images)
        pictures = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
        rest = {name: value for name, value in inputs.items() if name not in pictures}
        return stock(**rest, past_key_values=cache)

    with replace_generate(model, generate):
        yield


@contextmanager
def replace_generate(model: Any, generate: Callable[..., Any]) -> Iterator[None]:
    """Inside, `model.generate` is the given one; it may call the one before."""
    before = vars(model).get("generate")
    model.generate = generate
    try:
        yield
    finally:
        if before is None:
            del model.generate
        else:
            model.generate = before


def find_rollout_obstacle(settings: Any) -> str | None:
    """Why a GenerationConfig cannot start from a cache that is handed in, None where it can."""
    if settings is None:
        return None
    if settings.cache_implementation is not None:
        return f"cache_implementation is {settings.cache_implementation!r}"
    if settings.use_cache is False:
        return "use_cache is false"
    return find_decoding_obstacle(settings)


def find_decoding_obstacle(settings: Any) -> str | None:
    """Why a GenerationConfig does not sample one sequence a row, token by token."""
    if settings is None:
        return None
    if (settings.num_beams or 1) > 1 or (settings.num_return_sequences or 1) > 1:
        return "it searches with beams or returns several sequences a prompt"
    if settings.prompt_lookup_num_tokens or settings.penalty_alpha:
        return "it decodes with assistance or contrast"
    return None


def _prefill(
    model: Any, stock: Any, inputs: dict[str, Any], num_images: Sequence[int] | None
) -> Any:
    """The cache of all prompts (B, P) but their last token, each distinct one computed once."""
    input_ids, attention_mask = inputs["input_ids"], inputs["attention_mask"]
    types = inputs.get("mm_token_type_ids")
    pictures = split_pictures(
        inputs.get("pixel_values"), inputs.get("image_grid_thw"), num_images, len(input_ids)
    )
    batch = Batch(
        input_ids,
        attention_mask,
        torch.zeros_like(input_ids) if types is None else types,
        0,
        pictures,
    )
    groups = find_groups(batch)
    firsts = [group[0] for group in groups]
    rows = torch.empty(len(input_ids), dtype=torch.long, device=input_ids.device)
    for place, group in enumerate(groups):
        rows[group] = place
    shown = [pictures[first] for first in firsts]
    once: dict[str, Any] = {}
    if any(own is not None for own in shown):
        once["pixel_values"] = torch.cat([own[0] for own in shown if own is not None])
        once["image_grid_thw"] = torch.cat([own[1] for own in shown if own is not None])
    if types is not None:
        once["mm_token_type_ids"] = types[firsts, :-1]
    prefilled = stock(
        input_ids=input_ids[firsts, :-1],
        attention_mask=attention_mask[firsts, :-1],
        **once,
        logits_processor=None,  # the token is not looked at, so that nothing need shape it
        generation_config=GenerationConfig(
            max_new_tokens=1, do_sample=False, return_dict_in_generate=True, pad_token_id=0
        ),
    )
    cache = prefilled.past_key_values
    cache.batch_select_indices(rows)
    backbone = find_backbone(model)
    backbone.rope_deltas = backbone.rope_deltas[rows]
    return cache
