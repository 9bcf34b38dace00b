"""Prompts and pictures as a Qwen-VL model takes them; each picture is prepared once a call."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from PIL import Image

from anomalyr1.engines.shared_fronts import PromptTokens
from anomalyr1.prompts import to_chat
from anomalyr1.types import InputError, Prompt


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt's text with pictures as placeholders, its tokens, and what its model is told.

    `rope_delta` is added to a token's number to get its position. `shown_wh`: sizes in pixels at
    which the model sees the pictures.
    """

    text: str
    tokens: PromptTokens
    rope_delta: int
    shown_wh: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class _Patches:
    digest: bytes
    patches: torch.Tensor
    grid: torch.Tensor


def prepare_prompts(
    backbone: Any,
    processor: Any,
    prompts: Sequence[Prompt],
    pictures: Sequence[Sequence[Image.Image]],
) -> list[PreparedPrompt]:
    """Tokens, positions and patches. `backbone` has `get_rope_index`.

    Raises InputError for pictures that do not fit the model.
    """
    prepared = _prepare_pictures(processor, pictures)
    merged = processor.image_processor.merge_size**2
    patch = processor.image_processor.patch_size
    ready = []
    for prompt, shown in zip(prompts, pictures, strict=True):
        own = [prepared[id(picture)] for picture in shown]
        pieces = render(processor, prompt).split(processor.image_token)
        text = pieces[0]
        for piece, one in zip(pieces[1:], own, strict=True):
            text += processor.image_token * (int(one.grid.prod()) // merged) + piece
        ids = torch.tensor(processor.tokenizer(text)["input_ids"])
        tokens, delta = _place(backbone, processor.image_token_id, ids, own, merged)
        sizes = tuple((int(one.grid[2]) * patch, int(one.grid[1]) * patch) for one in own)
        ready.append(PreparedPrompt(text, tokens, delta, sizes))
    return ready


def render(processor: Any, prompt: Prompt) -> str:
    """A prompt in the chat template, with one placeholder a picture, up to the answer."""
    text: str = processor.apply_chat_template(
        to_chat(prompt), tokenize=False, add_generation_prompt=True
    )
    return text


def _prepare_pictures(
    processor: Any, pictures: Sequence[Sequence[Image.Image]]
) -> dict[int, _Patches]:
    """Patches of each picture, by its id; pictures of the same content are prepared once."""
    by_digest: dict[bytes, _Patches] = {}
    by_id: dict[int, _Patches] = {}
    for picture in (picture for shown in pictures for picture in shown):
        if id(picture) in by_id:
            continue
        described = f"{picture.mode} {picture.size}".encode()
        digest = blake2b(described + picture.tobytes(), digest_size=16).digest()
        if digest not in by_digest:
            try:
                made = processor.image_processor(images=[picture], return_tensors="pt")
            except ValueError as error:
                raise InputError(f"a picture does not fit the model: {error}") from error
            by_digest[digest] = _Patches(digest, made["pixel_values"], made["image_grid_thw"][0])
        by_id[id(picture)] = by_digest[digest]
    return by_id


def _place(
    backbone: Any, image_token_id: int, ids: torch.Tensor, own: Sequence[_Patches], merged: int
) -> tuple[PromptTokens, int]:
    keys: list[Hashable] = ids.tolist()
    types = (ids == image_token_id).long()
    places = types.nonzero()[:, 0].tolist()
    begin = 0
    pictures = []
    for one in own:
        count = int(one.grid.prod()) // merged
        for number, place in enumerate(places[begin : begin + count]):
            keys[place] = (one.digest, number)
        pictures.append((places[begin], one.patches, one.grid))
        begin += count
    if not own:
        positions = torch.arange(len(ids)).expand(3, -1)
        return PromptTokens(ids, tuple(keys), positions, ()), 0
    found, deltas = backbone.get_rope_index(
        ids[None],
        mm_token_type_ids=types[None],
        image_grid_thw=torch.stack([one.grid for one in own]),
    )
    return PromptTokens(ids, tuple(keys), found[-3:, 0], tuple(pictures)), int(deltas[0, 0])
