"""Samples laid out so that equal prompts are computed once, and their values taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

Pictures = tuple[torch.Tensor, torch.Tensor] | None
"""A sample's patches (rows, C) and the grid of its pictures (pictures, 3), or no picture."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples as TRL lays them out: prompts padded on the left, completions on the right.

    `input_ids`, `attention_mask`, `token_types` (B, P + C); `num_completion` is C.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    token_types: torch.Tensor
    num_completion: int
    pictures: Sequence[Pictures]

    def prompt(self, sample: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A sample's prompt and token types without padding, each (length,)."""
        width = self.input_ids.shape[1] - self.num_completion
        kept = self.attention_mask[sample, :width].bool()
        return self.input_ids[sample, :width][kept], self.token_types[sample, :width][kept]

    def completion(self, sample: int) -> torch.Tensor:
        """A sample's completion without padding, (length,)."""
        width = self.input_ids.shape[1] - self.num_completion
        return self.input_ids[sample, width:][self.attention_mask[sample, width:].bool()]


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows [prompt but its last token, then for each completion: that token, the completion].

    `input_ids`, `labels` (n, L); labels are those of the next token, -100 where none is scored.
    `mask` bool (n, 1, L, L): what each token sees. `position_ids` (3, n, L). `starts`: sample ->
    row, column and number of its predictions.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    mask: torch.Tensor
    position_ids: torch.Tensor
    starts: dict[int, tuple[int, int, int]]


def find_backbone(model: Any) -> Any:
    """The Qwen-VL model (with `get_rope_index`) inside whatever wraps it, None if there is none."""
    return next((inside for inside in model.modules() if hasattr(inside, "get_rope_index")), None)


def split_pictures(
    pixel_values: torch.Tensor | None,
    image_grid_thw: torch.Tensor | None,
    num_images: Sequence[int] | None,
    num_samples: int,
) -> list[Pictures]:
    """Each sample's own patches and grids."""
    if pixel_values is None or image_grid_thw is None or num_images is None:
        return [None] * num_samples
    grids = torch.split(image_grid_thw, list(num_images))
    rows = [int(grid.prod(dim=-1).sum()) for grid in grids]
    pixels = torch.split(pixel_values, rows)
    return [(own, grid) if len(grid) else None for own, grid in zip(pixels, grids, strict=True)]


def find_groups(batch: Batch) -> list[list[int]]:
    """Samples with the same prompt and the same pictures, in order of their first."""
    groups: list[list[int]] = []
    by_tokens: dict[tuple[int, ...], list[list[int]]] = {}
    for sample in range(len(batch.input_ids)):
        alike = by_tokens.setdefault(tuple(batch.prompt(sample)[0].tolist()), [])
        for group in alike:
            if _same_pictures(batch.pictures[group[0]], batch.pictures[sample]):
                group.append(sample)
                break
        else:
            alike.append([sample])
            groups.append(alike[-1])
    return groups


def _same_pictures(first: Pictures, second: Pictures) -> bool:
    if first is None or second is None:
        return first is second
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def compute_positions(
    rope: Any, prompt: torch.Tensor, token_types: torch.Tensor, shown: Pictures
) -> torch.Tensor:
    """mRoPE positions (3, length) of a prompt."""
    if shown is None:
        return torch.arange(len(prompt), device=prompt.device).expand(3, -1)
    positions, _deltas = rope(
        prompt[None], mm_token_type_ids=token_types[None], image_grid_thw=shown[1]
    )
    found: torch.Tensor = positions[-3:, 0]
    return found


def pack(
    batch: Batch,
    groups: Sequence[Sequence[int]],
    positions: Sequence[torch.Tensor],
    pad_token_id: int,
) -> Packed:
    """Lay out a row for each group; `positions` (3, length) are those of its prompt."""
    device = batch.input_ids.device
    prompts = [batch.prompt(group[0])[0] for group in groups]
    completions = [[batch.completion(sample) for sample in group] for group in groups]
    length = max(
        len(prompt) - 1 + sum(len(completion) for completion in own)
        for prompt, own in zip(prompts, completions, strict=True)
    )
    count = len(groups)
    input_ids = torch.full((count, length), pad_token_id, device=device)
    labels = torch.full((count, length), -100, device=device)
    position_ids = torch.zeros((3, count, length), dtype=torch.long, device=device)
    members = torch.full((count, length), -1, device=device)  # 0: prompt, k: completion k
    starts: dict[int, tuple[int, int, int]] = {}
    for row, (prompt, own) in enumerate(zip(prompts, completions, strict=True)):
        front = len(prompt) - 1
        input_ids[row, :front] = prompt[:-1]
        position_ids[:, row, :front] = positions[row][:, :-1]
        members[row, :front] = 0
        column = front
        for member, (sample, completion) in enumerate(zip(groups[row], own, strict=True), 1):
            size = len(completion)
            place = slice(column, column + size)
            input_ids[row, place] = torch.cat([prompt[-1:], completion])[:size]
            labels[row, place] = completion
            steps = torch.arange(size, device=device)
            position_ids[:, row, place] = positions[row][:, -1:] + steps
            members[row, place] = member
            starts[sample] = (row, column, size)
            column += size
    return Packed(input_ids, labels, _visible(members)[:, None], position_ids, starts)


def _visible(members: torch.Tensor) -> torch.Tensor:
    """What each token sees (n, L, L): before it and itself, the prompt and its own completion.

    Padding sees itself too: a softmax over nothing would be no number.
    """
    places = torch.arange(members.shape[1], device=members.device)
    ours = (members[:, None] == 0) | (members[:, None] == members[:, :, None])
    return ours & (places[None, None] <= places[None, :, None])


def unpack(values: torch.Tensor, packed: Packed, into: torch.Tensor) -> torch.Tensor:
    """Values (n, L) of packed rows as rows of samples: a copy of `into` (B, C), filled in."""
    samples: list[int] = []
    columns: list[int] = []
    rows: list[int] = []
    places: list[int] = []
    for sample, (row, start, size) in packed.starts.items():
        samples += [sample] * size
        columns += range(size)
        rows += [row] * size
        places += range(start, start + size)
    filled: torch.Tensor = into.index_put(
        (
            torch.tensor(samples, dtype=torch.long, device=into.device),
            torch.tensor(columns, dtype=torch.long, device=into.device),
        ),
        values[rows, places].to(into.dtype),
    )
    return filled
