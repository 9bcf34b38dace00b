"""GRPO in which a prompt is computed once for all of its completions.

The idea is Prefix Grouper's (arXiv 2506.05433): one row holds a prompt and its completions side by
side, each of which sees the prompt and itself. Log-probabilities and gradients are those of the
usual rows, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl import GRPOTrainer

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


class SharedPrefixGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer with each prompt of a micro-batch computed once.

    Overrides only how log-probabilities are computed: for the policy, the old policy and the
    reference model alike. `find_obstacle` tells whether a model can be trained with it.
    """

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        num_images: list[int] | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        **_others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        token_types = (
            torch.zeros_like(input_ids) if mm_token_type_ids is None else mm_token_type_ids
        )
        pictures = split_pictures(pixel_values, image_grid_thw, num_images, len(input_ids))
        batch = Batch(input_ids, attention_mask, token_types, logits_to_keep, pictures)
        logps = input_ids.new_zeros(len(input_ids), logits_to_keep, dtype=torch.float32)
        entropies = torch.zeros_like(logps) if compute_entropy else None
        for groups in _chunks(find_groups(batch), batch_size or len(input_ids)):
            inputs, packed = self._pack(model, batch, groups)
            with self.accelerator.autocast():
                outputs = model(**inputs, shift_labels=packed.labels, fused_lm_head=True)
            logps = unpack(outputs.log_probs, packed, logps)
            if entropies is not None:
                entropies = unpack(outputs.entropy, packed, entropies)
        return logps, entropies, None

    def _pack(
        self, model: Any, batch: Batch, groups: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Any], Packed]:
        rope = find_rope(model)
        firsts = [batch.pictures[group[0]] for group in groups]
        positions = [
            compute_positions(rope, *batch.prompt(group[0]), shown)
            for group, shown in zip(groups, firsts, strict=True)
        ]
        packed = pack(batch, groups, positions, self._tokenizer.pad_token_id)
        inputs: dict[str, Any] = {
            "input_ids": packed.input_ids,
            "attention_mask": packed.mask,
            "position_ids": packed.position_ids,
        }
        shown_once = [shown for shown in firsts if shown is not None]
        if shown_once:
            inputs["pixel_values"] = torch.cat([pixels for pixels, _grid in shown_once])
            inputs["image_grid_thw"] = torch.cat([grid for _pixels, grid in shown_once])
        return inputs, packed


def find_obstacle(model: Any) -> str | None:
    """Why a model cannot be trained with shared prompts, or None where it can."""
    text = model.config.get_text_config()
    if find_rope(model) is None:
        return f"{model.config.model_type} has no get_rope_index: only Qwen-VL models are known"
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return "it has sliding attention layers"
    if "flash" in str(getattr(model.config, "_attn_implementation", "")):
        return "flash attention takes no mask of its own; load the model with sdpa attention"
    if getattr(text, "num_experts", None):
        return "mixtures of experts balance over whole rows"
    return None


def find_rope(model: Any) -> Any:
    """`get_rope_index` of the Qwen-VL model inside whatever wraps it, None where there is none."""
    inside = (module for module in model.modules() if hasattr(module, "get_rope_index"))
    found = next(inside, None)
    return None if found is None else found.get_rope_index


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
    # A token sees at least itself: a row of a softmax over nothing would be no number.
    mask = torch.eye(length, dtype=torch.bool, device=device).repeat(count, 1, 1)
    starts: dict[int, tuple[int, int, int]] = {}
    for row, (prompt, own) in enumerate(zip(prompts, completions, strict=True)):
        front = len(prompt) - 1
        input_ids[row, :front] = prompt[:-1]
        position_ids[:, row, :front] = positions[row][:, :-1]
        mask[row, :front, :front] = _causal(front, device)
        column = front
        for sample, completion in zip(groups[row], own, strict=True):
            size = len(completion)
            place = slice(column, column + size)
            input_ids[row, place] = torch.cat([prompt[-1:], completion])[:size]
            labels[row, place] = completion
            steps = torch.arange(size, device=device)
            position_ids[:, row, place] = positions[row][:, -1:] + steps
            mask[row, place, :front] = True
            mask[row, place, place] = _causal(size, device)
            starts[sample] = (row, column, size)
            column += size
    return Packed(input_ids, labels, mask[:, None], position_ids, starts)


def _causal(size: int, device: torch.device) -> torch.Tensor:
    return torch.ones((size, size), dtype=torch.bool, device=device).tril()


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
            torch.tensor(samples, device=into.device),
            torch.tensor(columns, device=into.device),
        ),
        values[rows, places].to(into.dtype),
    )
    return filled


def _chunks(groups: Sequence[list[int]], most: int) -> list[list[list[int]]]:
    """Groups put together as long as they hold at most `most` samples; larger ones alone."""
    chunks: list[list[list[int]]] = []
    count = most
    for group in groups:
        if count + len(group) > most:
            chunks.append([])
            count = 0
        chunks[-1].append(group)
        count += len(group)
    return chunks
