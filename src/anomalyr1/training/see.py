"""The dense stage: the vision tower learns to see before the language model learns to speak.

For each merged patch of a picture: normal or which defect. For each merged patch of a hint: is it
on a defect, and where does that defect's box lie. The heads are thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from anomalyr1.checkpoint import shown_size
from anomalyr1.data.defects import DEFECT_KINDS
from anomalyr1.hints import draw_hint
from anomalyr1.images import load_image, load_mask
from anomalyr1.training.dataset import HintedRecord, load_anomaly
from anomalyr1.types import InputError


@dataclass(frozen=True, slots=True)
class Patches:
    """A picture as the processor cuts it, with a target a merged patch, row by row.

    `kinds` (n,): 0 normal, k + 1 for DEFECT_KINDS[k], -1 not known; `boxes` (n, 4): the box of the
    defect the patch lies on, as shares of the picture's sides; `on_hint`: whether it is a hint.
    """

    pixel_values: torch.Tensor
    grid_thw: torch.Tensor
    kinds: torch.Tensor
    boxes: torch.Tensor
    on_hint: bool


class DenseHeads(nn.Module):
    """Linear read-outs of the vision tower's merged patches (n, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kind = nn.Linear(channels, len(DEFECT_KINDS) + 1)
        self.box = nn.Linear(channels, 4)
        self.centre = nn.Linear(channels, 2)


class _Pictures(Dataset[list[Patches]]):
    def __init__(self, rows: Sequence[HintedRecord], processor: Any) -> None:
        self._rows, self._processor = rows, processor

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> list[Patches]:
        row = self._rows[index]
        picture = load_image(row.record.image_path)
        items = []
        if row.hint_path is None or index % 2 == 0:
            items.append(self._patches(row, picture, on_hint=False))
        if row.hint_path is not None:
            anomaly = load_anomaly(row.hint_path)
            drawn = draw_hint(anomaly.anomaly_map, picture.size)
            items.append(self._patches(row, drawn, on_hint=True))
        return items

    def _patches(self, row: HintedRecord, picture: Image.Image, *, on_hint: bool) -> Patches:
        images = self._processor.image_processor
        cut = images(images=[picture], return_tensors="pt")
        cell = images.patch_size * images.merge_size
        kinds, boxes = build_targets(
            row, picture.size, shown_size(self._processor, picture.size), cell
        )
        return Patches(
            cut["pixel_values"],
            cut["image_grid_thw"],
            torch.from_numpy(kinds),
            torch.from_numpy(boxes),
            on_hint,
        )


def build_targets(
    row: HintedRecord, size_wh: tuple[int, int], shown_wh: tuple[int, int], cell: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Kinds (n,) and boxes (n, 4) of the merged patches of a picture shown at `shown_wh`.

    A patch is on a defect when the mask covers 2 % of it; its kind is that of the region whose
    box holds the patch's centre best. Left out of the loss, -1: a patch barely touched, and a
    defect of a kind that is not among DEFECT_KINDS or that has no region.
    """
    columns, rows = shown_wh[0] // cell, shown_wh[1] // cell
    kinds = np.zeros((rows, columns), np.int64)
    boxes = np.zeros((rows, columns, 4), np.float32)
    record = row.record
    if record.mask_path is not None:
        mask = load_mask(record.mask_path, size_wh, record.mask_threshold).astype(np.float32)
        cover = np.asarray(
            Image.fromarray(mask, mode="F").resize((columns, rows), Image.Resampling.BOX)
        )
        kinds[(cover > 0) & (cover < 0.02)] = -1
        scale = np.array([size_wh[0], size_wh[1]] * 2, np.float32)
        if not record.regions:
            kinds[cover >= 0.02] = -1
            return kinds.ravel(), boxes.reshape(-1, 4)
        for down, right in zip(*np.nonzero(cover >= 0.02), strict=True):
            centre = ((right + 0.5) / columns, (down + 0.5) / rows)
            region = min(
                record.regions,
                key=lambda region: _distance(np.asarray(region.box_xyxy) / scale, centre),
            )
            known = region.defect_type in DEFECT_KINDS
            kinds[down, right] = 1 + DEFECT_KINDS.index(region.defect_type) if known else -1
            boxes[down, right] = np.asarray(region.box_xyxy) / scale
    return kinds.ravel(), boxes.reshape(-1, 4)


def _distance(box: NDArray[np.floating[Any]], centre: tuple[float, float]) -> float:
    """Of a point to a box, both in shares of the sides; 0 inside, where the smaller box wins."""
    across = max(box[0] - centre[0], 0.0, centre[0] - box[2])
    down = max(box[1] - centre[1], 0.0, centre[1] - box[3])
    return float(across + down) + 1e-3 * float((box[2] - box[0]) * (box[3] - box[1]))


def train_vision(
    model: Any,
    processor: Any,
    rows: Sequence[HintedRecord],
    *,
    seed: int,
    num_steps: int,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    num_workers: int = 1,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train the vision tower in place; yields the step and its losses. bfloat16 autocast.

    Raises InputError when there are fewer rows than a batch takes.
    """
    if len(rows) < batch_size:
        raise InputError(
            f"{len(rows)} records do not fill a batch of {batch_size}: "
            "give more records or set see.batch_size lower"
        )
    torch.manual_seed(seed)
    tower = model.model.visual
    tower.train()
    heads = DenseHeads(model.config.get_text_config().hidden_size)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, num_steps, pct_start=0.1
    )
    loader = DataLoader(
        _Pictures(rows, processor),
        batch_size,
        shuffle=True,
        num_workers=num_workers,
        collate_fn=_flatten,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=num_workers > 0,
    )
    step = 0
    while step < num_steps:
        for items in loader:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses = _losses(tower, heads, items)
            total = sum(losses.values())
            optimiser.zero_grad()
            total.backward()  # type: ignore[union-attr]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            yield step, {name: loss.item() for name, loss in losses.items()}
            if step == num_steps:
                break
    tower.eval()


def _flatten(batch: list[list[Patches]]) -> list[Patches]:
    return [patches for items in batch for patches in items]


def _losses(tower: Any, heads: DenseHeads, items: list[Patches]) -> dict[str, torch.Tensor]:
    """Cross-entropy of kinds on pictures, of defect or not on hints; L1 of boxes and places there.

    Defect patches weigh 3, since most are normal.
    """
    pixels = torch.cat([item.pixel_values for item in items])
    grid = torch.cat([item.grid_thw for item in items])
    features = tower(pixels, grid_thw=grid).pooler_output.float()
    kinds = torch.cat([item.kinds for item in items])
    boxes = torch.cat([item.boxes for item in items])
    hinted = torch.cat([torch.full((len(item.kinds),), item.on_hint) for item in items])
    logits = heads.kind(features)
    weight = torch.ones(logits.shape[1])
    weight[1:] = 3.0
    kind = functional.cross_entropy(logits, kinds, weight, ignore_index=-1)
    losses = {"kind": kind}
    spoiled = hinted & (kinds > 0)
    if spoiled.any():
        losses["box"] = 4.0 * functional.l1_loss(heads.box(features[spoiled]), boxes[spoiled])
    if hinted.any():
        centres = torch.cat([_centres(item.grid_thw[0]) for item in items if item.on_hint])
        losses["place"] = functional.l1_loss(heads.centre(features[hinted]), centres)
    return losses


def _centres(grid_thw: torch.Tensor, merge: int = 2) -> torch.Tensor:
    """Centres (n, 2) of merged patches, x and y as shares of the sides, row by row."""
    _, height, width = (int(side) for side in grid_thw)
    rows, columns = height // merge, width // merge
    across = (torch.arange(columns) + 0.5) / columns
    down = (torch.arange(rows) + 0.5) / rows
    return torch.stack([across.repeat(rows), down.repeat_interleave(columns)], dim=1)
