"""GRPO in which a prompt is computed once for all of its completions.

The idea is Prefix Grouper's (arXiv 2506.05433): one row holds a prompt and its completions side by
side, each of which sees the prompt and itself. Log-probabilities and gradients are those of the
usual rows, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from anomalyr1.training.picture_features import PictureFeatures, are_equal
from anomalyr1.training.shared_rollout import prefill_once
from anomalyr1.training.shared_rows import (
    Batch,
    Packed,
    Pictures,
    compute_positions,
    find_backbone,
    find_groups,
    pack,
    split_pictures,
    unpack,
)


class SharedPrefixGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's GRPOTrainer with each prompt of a micro-batch computed once.

    Overrides how log-probabilities are computed (for the policy, the old policy and the reference
    model alike), how rollouts start, and how a generation batch is split into micro-batches: groups
    stay together. Features of a frozen vision tower are kept for a generation batch, unless the
    tower is sharded: all processes would have to call it equally often.
    `find_obstacle` tells whether a model can be trained with it.
    """

    _buffered_inputs: Any

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._buffered_inputs is None or self._step % (parts * self.num_iterations) == 0:
            scored = self._generate_and_score_completions(generation_batch)
            samples = _shuffle_groups(split_pixel_values_by_grid(scored))
            self._buffered_inputs = [
                unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(samples, parts)
            ]
        return self._buffered_inputs[self._step % parts]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._features.clear()
        return super()._generate_and_score_completions(inputs)

    @cached_property
    def _features(self) -> PictureFeatures:
        return PictureFeatures()

    @cached_property
    def _shares_tower(self) -> bool:
        """Whether the reference model sees with the policy's own weights."""
        tower = find_backbone(self.model).visual
        return are_equal(tower, find_backbone(self.ref_model).visual)

    def _recall_pictures(self, model: Any) -> AbstractContextManager[None]:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return nullcontext()
        backbone = find_backbone(model)
        apart = model is self.ref_model and not self._shares_tower
        return self._features.recall(backbone, int(apart))

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, *others: Any, **settings: Any
    ) -> Any:
        counts = None if images is None else [len(shown or ()) for shown in images]
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with self._recall_pictures(model), prefill_once(model, counts):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, *others, **settings
            )

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
        for groups in _chunk(find_groups(batch), batch_size or len(input_ids)):
            inputs, packed = self._pack(model, batch, groups)
            with self._recall_pictures(model), self.accelerator.autocast():
                outputs = model(**inputs, shift_labels=packed.labels, fused_lm_head=True)
            logps = unpack(outputs.log_probs, packed, logps)
            if entropies is not None:
                entropies = unpack(outputs.entropy, packed, entropies)
        if self.accelerator.num_processes == 1 and bool(logps.isnan().any()):
            # What is no number in one completion would reach the others of its row.
            stock: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
            stock = super()._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                pixel_values=pixel_values,
                image_grid_thw=image_grid_thw,
                num_images=num_images,
                mm_token_type_ids=mm_token_type_ids,
            )
            return stock
        return logps, entropies, None

    def _pack(
        self, model: Any, batch: Batch, groups: Sequence[Sequence[int]]
    ) -> tuple[dict[str, Any], Packed]:
        rope = find_backbone(model).get_rope_index
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
    if find_backbone(model) is None:
        return f"{model.config.model_type} has no get_rope_index: only Qwen-VL models are known"
    if "sliding_attention" in (getattr(text, "layer_types", None) or ()):
        return "it has sliding attention layers"
    attention = getattr(model.config, "_attn_implementation", None) or "sdpa"
    if attention != "sdpa":
        return f"{attention} attention takes no such mask; load the model with sdpa attention"
    if getattr(text, "num_experts", None):
        return "mixtures of experts balance over whole rows"
    return None


def _chunk(groups: Sequence[Sequence[int]], most: int) -> list[list[list[int]]]:
    """Samples in order of their groups, cut into as many parts as stock's: of `most` samples each.

    Processes that share a model must all call it equally often, however their groups lie.
    """
    parts: list[list[list[int]]] = []
    room = 0
    for group in groups:
        left = list(group)
        while left:
            if room == 0:
                parts.append([])
                room = most
            parts[-1].append(left[:room])
            room, left = room - len(parts[-1][-1]), left[room:]
    return parts


def _shuffle_groups(scored: dict[str, Any]) -> dict[str, Any]:
    """TRL's shuffle of a generation batch, with the samples of a prompt kept beside each other.

    The groups come in the order of the first of each in TRL's own permutation, so that the random
    numbers that follow are those of a stock run.
    """
    permutation = torch.randperm(len(scored["prompt_ids"])).tolist()
    ids, mask = scored["prompt_ids"], scored["prompt_mask"]
    shown = scored.get("pixel_values") or [None] * len(ids)
    grids = scored.get("image_grid_thw") or [None] * len(ids)
    pictures: list[Pictures] = [
        None if pixels is None or not len(grid) else (pixels, grid)
        for pixels, grid in zip(shown, grids, strict=True)
    ]
    batch = Batch(ids, mask, torch.zeros_like(ids), 0, pictures)
    place = {sample: index for index, sample in enumerate(permutation)}
    groups = [sorted(group, key=place.__getitem__) for group in find_groups(batch)]
    order = [sample for group in sorted(groups, key=lambda g: place[g[0]]) for sample in group]

    def arrange(values: Any) -> Any:
        if values is None or (isinstance(values, torch.Tensor) and values.ndim == 0):
            return values
        return values[order] if isinstance(values, torch.Tensor) else [values[i] for i in order]

    return {name: arrange(values) for name, values in scored.items()}
