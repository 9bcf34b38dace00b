"""Fronts that prompts have in common are computed once, in a tree; caches are put together from it.

Keys are kept after rotation, so that a token may stand anywhere in a row: only what it sees counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

LEAST_SHARED_TOKENS = 24
"""A shorter common front costs more as a step of its own than it saves."""

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of a row, each (heads, length, size), a pair a layer."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as the model takes it.

    `keys` tell tokens apart: two prompts are the same up to where their keys are, pictures
    included. `positions` (3, length). `pictures`: where each begins, its patches and its grid.
    """

    ids: torch.Tensor
    keys: tuple[Hashable, ...]
    positions: torch.Tensor
    pictures: tuple[tuple[int, torch.Tensor, torch.Tensor], ...]

    def but_last(self) -> PromptTokens:
        """The prompt without its last token."""
        return PromptTokens(self.ids[:-1], self.keys[:-1], self.positions[:, :-1], self.pictures)


@dataclass(frozen=True, slots=True)
class Front:
    """Tokens `start` to `end` of `prompts`, which are the same in each; behind `parent`."""

    prompts: tuple[int, ...]
    start: int
    end: int
    parent: int | None


def count_common(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """How many items from the first on are equal.

    >>> count_common("abc", "abd")
    2
    """
    pairs = zip(first, second, strict=False)
    shorter = min(len(first), len(second))
    return next((place for place, (one, other) in enumerate(pairs) if one != other), shorter)


def plan_fronts(keys: Sequence[Sequence[Hashable]], starts: Sequence[int]) -> list[list[Front]]:
    """The fronts of prompts, level by level; `parent` counts within the level before.

    Prompts of the same non-zero start have that many tokens in common, which are known already.
    """
    waiting: list[tuple[tuple[int, ...], int, int | None]] = []
    for start in dict.fromkeys(starts):
        members = tuple(index for index, own in enumerate(starts) if own == start)
        waiting.append((members, start, None))
    levels: list[list[Front]] = []
    while waiting:
        level: list[Front] = []
        following: list[tuple[tuple[int, ...], int, int | None]] = []
        for members, start, parent in waiting:
            for group, end in _split(keys, members, start):
                level.append(Front(group, start, end, parent))
                longer = tuple(index for index in group if len(keys[index]) > end)
                if longer:
                    following.append((longer, end, len(level) - 1))
        if level:
            levels.append(level)
        waiting = following
    return levels


def _split(
    keys: Sequence[Sequence[Hashable]], members: tuple[int, ...], start: int
) -> list[tuple[tuple[int, ...], int]]:
    """Groups of prompts with a long enough front from `start` on, and its end; others alone."""
    alike: dict[Hashable, list[int]] = {}
    for index in members:
        place = keys[index][start] if len(keys[index]) > start else None
        alike.setdefault(place, []).append(index)
    groups: list[tuple[tuple[int, ...], int]] = []
    for group in alike.values():
        first = keys[group[0]][start:]
        shared = min(count_common(first, keys[index][start:]) for index in group)
        whole = all(len(keys[index]) == start + shared for index in group)
        if len(group) > 1 and (shared >= LEAST_SHARED_TOKENS or whole):
            groups.append((tuple(group), start + shared))
        else:
            groups += [((index,), len(keys[index])) for index in group]
    return groups


class FrontCache:
    """Computes prompts over their fronts, and keeps one prompt for the call that follows."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._kept: tuple[tuple[Hashable, ...], Layers] | None = None
        self._weights = -1

    def prefill(self, model: Any, prompts: Sequence[PromptTokens]) -> list[Layers]:
        """Keys and values of each prompt."""
        weights = sum(parameter._version for parameter in model.parameters())
        if weights != self._weights:  # changed in place, as training does
            self._kept, self._weights = None, weights
        starts = [self._count_known(prompt) for prompt in prompts]
        known = [self._known(start) for start in starts]
        computed: list[Layers | None] = list(known)
        before: list[Layers | None] = []
        for level in plan_fronts([prompt.keys for prompt in prompts], starts):
            pasts = [
                known[front.prompts[0]] if front.parent is None else before[front.parent]
                for front in level
            ]
            own = compute_fronts(model, prompts, level, pasts)
            before = [
                now if past is None else _join(past, now)
                for past, now in zip(pasts, own, strict=True)
            ]
            for front, layers in zip(level, before, strict=True):
                for index in front.prompts:
                    computed[index] = layers
        found = [layers for layers in computed if layers is not None]
        longest = max(range(len(prompts)), key=lambda index: len(prompts[index].keys))
        if len(prompts[longest].keys) <= self._most_tokens:
            copied = tuple((keys.clone(), values.clone()) for keys, values in found[longest])
            self._kept = (prompts[longest].keys, copied)
        return found

    def _count_known(self, prompt: PromptTokens) -> int:
        if self._kept is None:
            return 0
        count = count_common(self._kept[0], prompt.keys)
        # A picture is known whole or not at all: keys of different pictures differ at once.
        return count if count >= LEAST_SHARED_TOKENS else 0

    def _known(self, start: int) -> Layers | None:
        if not start or self._kept is None:
            return None
        return tuple((keys[:, :start], values[:, :start]) for keys, values in self._kept[1])


def compute_fronts(
    model: Any,
    prompts: Sequence[PromptTokens],
    fronts: Sequence[Front],
    pasts: Sequence[Layers | None],
) -> list[Layers]:
    """Keys and values of fronts, all in one left-padded batch; `pasts` are of what precedes."""
    device = model.device
    lengths = [front.end - front.start for front in fronts]
    longest = max(lengths)
    if longest == 0:
        empty = [past for past in pasts if past is not None]
        return [tuple((k[:, :0], v[:, :0]) for k, v in past) for past in empty]
    count = len(fronts)
    input_ids = torch.zeros((count, longest), dtype=torch.long)
    positions = torch.zeros((3, count, longest), dtype=torch.long)
    shown: list[tuple[torch.Tensor, torch.Tensor]] = []
    for row, (front, length) in enumerate(zip(fronts, lengths, strict=True)):
        prompt = prompts[front.prompts[0]]
        place = slice(front.start, front.end)
        input_ids[row, longest - length :] = prompt.ids[place]
        positions[:, row, longest - length :] = prompt.positions[:, place]
        shown += [
            (patches, grid)
            for start, patches, grid in prompt.pictures
            if front.start <= start < front.end
        ]
    pictures: dict[str, Any] = {}
    if shown:
        pictures["pixel_values"] = torch.cat([patches for patches, _grid in shown]).to(device)
        pictures["image_grid_thw"] = torch.stack([grid for _patches, grid in shown]).to(device)
    widths = [0 if past is None else past[0][0].shape[1] for past in pasts]
    cache = build_cache(model, pasts)
    model(
        input_ids=input_ids.to(device),
        attention_mask=build_mask(model, widths, lengths),
        position_ids=positions.to(device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **pictures,
    )
    width = cache.get_seq_length()
    return [
        tuple(
            (layer.keys[row, :, width - length :], layer.values[row, :, width - length :])
            for layer in cache.layers
        )
        for row, length in enumerate(lengths)
    ]


def compute_next(
    model: Any, tails: Sequence[torch.Tensor], places: Sequence[int], fronts: Sequence[Layers]
) -> torch.Tensor:
    """Logits (n, V) of what follows the text `tails` behind `fronts`.

    `places` are the positions of the tails' first tokens.
    """
    lengths = [len(tail) for tail in tails]
    ids = pad_sequence(list(tails), batch_first=True, padding_side="left")
    starts = torch.tensor(places) - ids.shape[1] + torch.tensor(lengths)
    positions = starts[:, None] + torch.arange(ids.shape[1])
    widths = [front[0][0].shape[1] for front in fronts]
    logits: torch.Tensor = model(
        input_ids=ids.to(model.device),
        attention_mask=build_mask(model, widths, lengths),
        position_ids=positions.expand(3, -1, -1).to(model.device),
        past_key_values=build_cache(model, fronts),
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits


def build_cache(model: Any, rows: Sequence[Layers | None]) -> Any:
    """A DynamicCache of rows of different lengths, padded on the left with zeros."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    given = [row for row in rows if row is not None]
    if not given:
        return cache
    longest = max(row[0][0].shape[1] for row in given)
    for number, (like, _values) in enumerate(given[0]):
        heads, _length, size = like.shape
        both = [like.new_zeros((len(rows), heads, longest, size)) for _ in range(2)]
        for place, row in enumerate(rows):
            if row is not None:
                for whole, own in zip(both, row[number], strict=True):
                    whole[place, :, longest - own.shape[1] :] = own
        cache.update(*both, number)
    return cache


def build_mask(model: Any, widths: Sequence[int], lengths: Sequence[int]) -> torch.Tensor:
    """What tokens see (n, 1, S, P + S): the past (P) and themselves, all padded on the left."""
    past, own = max(widths), max(lengths)
    columns = torch.arange(past)[None] >= past - torch.tensor(widths)[:, None]
    valid = torch.arange(own)[None] >= own - torch.tensor(lengths)[:, None]
    causal = torch.ones((own, own), dtype=torch.bool).tril()
    ours = causal & valid[:, None]
    # Padding sees itself: a softmax over nothing would be no number.
    ours |= torch.eye(own, dtype=torch.bool)
    seen = torch.cat([columns[:, None].expand(-1, own, -1), ours], dim=2)[:, None]
    seen = seen.to(model.device)
    if model.config._attn_implementation == "sdpa":
        return seen
    return torch.zeros_like(seen, dtype=model.dtype).masked_fill(
        ~seen, torch.finfo(model.dtype).min
    )


def _join(past: Layers, own: Layers) -> Layers:
    return tuple(
        (torch.cat([keys, more_keys], 1), torch.cat([values, more_values], 1))
        for (keys, values), (more_keys, more_values) in zip(past, own, strict=True)
    )
