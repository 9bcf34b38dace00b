"""Trains the hint's dense head on synthetic defects and writes both ONNX files.

The channels are made by the detector's own code, so that training sees what inspection will see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from anomalyr1.detectors.distances import Memory, build_memory
from anomalyr1.detectors.patch_memory import (
    TOP_SHARE,
    build_channels,
    compute_features,
    open_session,
)
from anomalyr1.images import load_image, load_mask
from anomalyr1.training.backbone import (
    TAP_CHANNELS,
    export_backbone,
    export_onnx,
    load_backbone,
    standardise,
)
from anomalyr1.training.workers import map_tasks
from anomalyr1.types import Record


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture's inputs at stride 4, 8, 16 (float16), its distances and the soft mask (h, w)."""

    stride4: NDArray[np.float16]
    stride8: NDArray[np.float16]
    stride16: NDArray[np.float16]
    distances: NDArray[np.float16]
    mask: NDArray[np.float16]


class Head(nn.Module):
    """Features and distances to one logit a stride-4 cell: (N, 1, H/4, W/4).

    Each level is read as it is and standardised over the picture, so that a patch can be compared
    with its own surroundings; coarse context is widened before it is brought to the fine grid.
    """

    def __init__(self, width: int = 48, num_distances: int = 7) -> None:
        super().__init__()
        fine, middle, coarse = TAP_CHANNELS
        self.read16 = nn.Conv2d(2 * coarse, width, 1)
        self.mix16 = nn.Conv2d(width, width, 3, padding=1)
        self.wide16 = nn.Conv2d(width, width, 3, padding=3, dilation=3)
        self.read8 = nn.Conv2d(2 * middle, width, 1)
        self.mix8 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.more8 = nn.Conv2d(width, width, 3, padding=1)
        self.read4 = nn.Conv2d(2 * fine, width // 2, 1)
        self.read_distances = nn.Conv2d(num_distances, width // 2, 1)
        self.mix4 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.last4 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.logit = nn.Conv2d(width // 2, 1, 1)

    def forward(
        self,
        stride4: torch.Tensor,
        stride8: torch.Tensor,
        stride16: torch.Tensor,
        distances: torch.Tensor,
    ) -> torch.Tensor:
        x = functional.relu(self.read16(_beside_standardised(stride16)))
        x = functional.relu(self.mix16(x))
        x = x + functional.relu(self.wide16(x))
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        y = functional.relu(self.read8(_beside_standardised(stride8)))
        x = functional.relu(self.mix8(torch.cat([x, y], 1)))
        x = x + functional.relu(self.more8(x))
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        y = functional.relu(self.read4(_beside_standardised(stride4)))
        z = functional.relu(self.read_distances(distances))
        x = functional.relu(self.mix4(torch.cat([x, y, z], 1)))
        x = functional.relu(self.last4(x))
        logits: torch.Tensor = self.logit(x)
        return logits


def _beside_standardised(features: torch.Tensor) -> torch.Tensor:
    mean = features.mean((2, 3), keepdim=True)
    spread = (features - mean).square().mean((2, 3), keepdim=True).add(1e-2).sqrt()
    return torch.cat([features, (features - mean) / spread], 1)


def write_backbone(records: Sequence[Record], path: Path) -> None:
    """Export the backbone, its channels standardised on the records' pictures."""
    backbone = load_backbone()
    pictures = []
    for record in records:
        image = load_image(record.image_path).resize((320, 320))
        pictures.append(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())
    standardise(backbone, pictures)
    export_backbone(backbone, path)


def write_samples(
    records: Sequence[Record], backbone_path: Path, out: Path, *, seed: int, num_workers: int
) -> Iterator[Path]:
    """Write each record's inputs and targets to `out`, more than a megabyte a record; yields the
    files, which `load_sample` reads. A product's references are drawn 0, 1, 2 or all."""
    out.mkdir(exist_ok=True)
    numbered = groupby(enumerate(records), key=lambda pair: pair[1].image_path.parent)
    products = [[number for number, _record in group] for _, group in numbered]
    tasks = [(product, [seed, index]) for index, product in enumerate(products)]
    load = partial(_open, backbone_path, records, out)
    for paths in map_tasks(
        _write_product_samples, tasks, load, num_workers=num_workers, chunksize=2
    ):
        yield from paths


def _open(
    backbone_path: Path, records: Sequence[Record], out: Path
) -> tuple[Any, Sequence[Record], Path]:
    return open_session(backbone_path, 1), records, out


def _write_product_samples(
    opened: tuple[Any, Sequence[Record], Path], task: tuple[list[int], list[int]]
) -> list[Path]:
    session, records, out = opened
    product, seed = task
    rng = np.random.default_rng(seed)
    references = [
        compute_features(session, load_image(path)) for path in records[product[0]].reference_paths
    ]
    memories: dict[int, Memory | None] = {0: None}
    paths = []
    for number in product:
        count = min(len(references), int(rng.choice([0, 0, 1, 2, 4])))
        if count not in memories:
            memories[count] = build_memory(references[:count])
        paths.append(out / f"{number:06d}.npz")
        save_sample(paths[-1], _build_sample(session, records[number], memories[count]))
    return paths


def _build_sample(session: Any, record: Record, memory: Memory | None) -> Sample:
    picture = load_image(record.image_path)
    features = compute_features(session, picture)
    mask = np.zeros(picture.size[::-1], bool)
    if record.mask_path is not None:
        mask = load_mask(record.mask_path, picture.size, record.mask_threshold)
    height, width = features[0].shape[1:]
    soft = Image.fromarray(mask.astype(np.float32), mode="F").resize(
        (width, height), Image.Resampling.BOX
    )
    arrays = (*features, build_channels(features, memory), np.asarray(soft))
    return Sample(*(array.astype(np.float16) for array in arrays))


def save_sample(path: Path, sample: Sample) -> None:
    """Write a sample, its arrays as they are."""
    np.savez(path, **{entry.name: getattr(sample, entry.name) for entry in fields(sample)})


def load_sample(path: Path) -> Sample:
    """What `save_sample` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        return Sample(**arrays)


def load_head(path: Path) -> Head:
    """The head that `export_head` wrote, to be trained further."""
    import onnx
    from onnx.numpy_helper import to_array

    head = Head()
    names = set(head.state_dict())
    stored = onnx.load(path).graph.initializer
    weights = {entry.name: torch.tensor(to_array(entry)) for entry in stored if entry.name in names}
    head.load_state_dict(weights)
    return head


def train_head(
    samples: Sequence[Path],
    *,
    seed: int,
    num_steps: int,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    start: Head | None = None,
) -> Iterator[tuple[int, float, Head]]:
    """Yield (step, loss, head) as it trains with AdamW on a one-cycle rate; the head is in place.

    `samples` are files that `load_sample` reads; those of a batch alone are held in memory.
    It begins with `start`, or else untrained.
    Loss: soft-target cross-entropy a cell, weighed up on defects; Dice; and cross-entropy of the
    picture's score, the mean of the highest TOP_SHARE of logits, against "has a defect".
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    head = Head() if start is None else start
    head = head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(head.parameters(), learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, num_steps, pct_start=0.15
    )
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, path in enumerate(samples):
        with np.load(path, allow_pickle=False) as arrays:
            by_shape.setdefault(arrays["mask"].shape, []).append(index)
    shapes = list(by_shape)
    weights = np.array([len(by_shape[shape]) for shape in shapes], float)
    for step in range(1, num_steps + 1):
        shape = shapes[int(rng.choice(len(shapes), p=weights / weights.sum()))]
        chosen = rng.choice(by_shape[shape], min(batch_size, len(by_shape[shape])), replace=False)
        loss = _loss(head, *_batch([load_sample(samples[index]) for index in chosen], rng))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield step, loss.item(), head


def _batch(
    samples: Sequence[Sample], rng: np.random.Generator
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Stack, mirror all alike, and lay out for fast convolution."""
    axes = [axis for axis in (-1, -2) if rng.random() < 0.5]
    tensors = []
    for name in ("stride4", "stride8", "stride16", "distances", "mask"):
        stacked = torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
        tensors.append(stacked.flip(axes) if axes else stacked)
    inputs = [
        tensor.float().contiguous(memory_format=torch.channels_last) for tensor in tensors[:4]
    ]
    return inputs, tensors[4].float()[:, None]


def _loss(head: Head, inputs: list[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(*inputs)
    logits = logits.float()
    weight = 1.0 + 4.0 * mask
    cells = functional.binary_cross_entropy_with_logits(logits, mask, weight=weight)
    predicted = logits.sigmoid()
    overlap = (predicted * mask).sum((1, 2, 3))
    total = predicted.sum((1, 2, 3)) + mask.sum((1, 2, 3))
    anomalous = (mask.amax((1, 2, 3)) > 0).float()
    dice = (anomalous * (1.0 - (2.0 * overlap + 1.0) / (total + 1.0))).mean()
    flat = logits.flatten(1)
    score = flat.topk(max(1, round(TOP_SHARE * flat.shape[1])), dim=1).values.mean(1)
    picture = functional.binary_cross_entropy_with_logits(score, anomalous)
    total_loss: torch.Tensor = 2.0 * cells + 0.5 * dice + 0.5 * picture
    return total_loss


def export_head(head: Head, path: Path, settings: dict[str, object]) -> None:
    """Write ONNX with free height and width, and `hint.json` with how it was made beside it."""
    height, width = torch.export.Dim("h16", min=2, max=64), torch.export.Dim("w16", min=2, max=64)
    fine, middle, coarse = TAP_CHANNELS
    example = tuple(
        torch.zeros(1, channels, 24 * step, 20 * step)
        for channels, step in ((fine, 4), (middle, 2), (coarse, 1), (7, 4))
    )
    export_onnx(
        head.eval(),
        example,
        ["stride4", "stride8", "stride16", "distances"],
        ["logits"],
        {
            "stride4": {2: 4 * height, 3: 4 * width},
            "stride8": {2: 2 * height, 3: 2 * width},
            "stride16": {2: height, 3: width},
            "distances": {2: 4 * height, 3: 4 * width},
        },
        path,
    )
    (path.parent / "hint.json").write_text(json.dumps(settings, indent=2) + "\n")
