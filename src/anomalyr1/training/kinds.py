"""Trains the small network that names the kind of defect that a region of the map looks like.

It learns from what the finished detector sees of synthetic defects, its own regions, so that
training sees what inspection will see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.detectors.patch_memory import PatchMemoryDetector
from anomalyr1.geometry import box_intersection
from anomalyr1.images import load_image
from anomalyr1.training.backbone import export_onnx
from anomalyr1.types import Box, Record

KINDS = tuple(KIND_WORDS)

NamedRegion = tuple[NDArray[np.float32], int]
"""A region as `detectors.kinds` describes it, and its kind as an index in KINDS."""


class KindNet(nn.Module):
    """Descriptions (N, D) to logits (N, len(KINDS)); scales its inputs itself."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, width: int = 96) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.read = nn.Linear(len(mean), width)
        self.drop = nn.Dropout(0.5)
        self.name = nn.Linear(width, len(KINDS))

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        scaled = ((regions - self.mean) / self.std).clamp(-6.0, 6.0)
        logits: torch.Tensor = self.name(self.drop(functional.relu(self.read(scaled))))
        return logits


_detector: PatchMemoryDetector | None = None


def _open(folder: Path) -> None:
    global _detector
    _detector = PatchMemoryDetector.load(folder, num_threads=1)


def describe_products(
    records: Sequence[Record], hint_folder: Path, *, seed: int, num_workers: int
) -> Iterator[list[NamedRegion]]:
    """For each product, in order, the regions of the map that lie on a defect whose kind is known,
    seen beside 0, 1, 2 or 4 of its references."""
    spoiled = [record for record in records if record.regions]
    products = [
        list(group) for _, group in groupby(spoiled, key=lambda record: record.image_path.parent)
    ]
    tasks = [(product, [seed, index]) for index, product in enumerate(products)]
    with ProcessPoolExecutor(num_workers, initializer=_open, initargs=(hint_folder,)) as pool:
        yield from pool.map(_describe_product, tasks, chunksize=2)


def _describe_product(task: tuple[list[Record], list[int]]) -> list[NamedRegion]:
    product, seed = task
    assert _detector is not None
    count = int(np.random.default_rng(seed).choice([0, 1, 2, 4]))
    references = tuple(load_image(path) for path in product[0].reference_paths[:count])
    named = []
    for record in product:
        picture = load_image(record.image_path)
        for box, described in _detector.describe(picture, references):
            kind = find_kind(box, record)
            if kind is not None:
                named.append((described, kind))
    return named


def find_kind(box_xyxy: Box, record: Record) -> int | None:
    """The kind, as an index in KINDS, of the defect that shares most with a box; None for a box on
    no defect, or on one of no known kind."""
    shared = [box_intersection(box_xyxy, region.box_xyxy) for region in record.regions]
    best = max(range(len(shared)), key=shared.__getitem__)
    name = record.regions[best].defect_type
    return KINDS.index(name) if shared[best] > 0 and name in KINDS else None


def train_kinds(
    named: Sequence[NamedRegion],
    *,
    seed: int,
    num_steps: int = 1500,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
) -> KindNet:
    """The network, trained with AdamW on a one-cycle rate and cross-entropy."""
    torch.manual_seed(seed)
    described = torch.from_numpy(np.stack([region for region, _kind in named]))
    kinds = torch.tensor([kind for _region, kind in named])
    net = KindNet(described.mean(0), described.std(0) + 1e-3)
    optimiser = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, num_steps)
    for _step in range(num_steps):
        chosen = torch.randint(len(kinds), (batch_size,))
        loss = functional.cross_entropy(net(described[chosen]), kinds[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return net.eval()


def export_kinds(net: KindNet, path: Path) -> None:
    """Write ONNX that takes any number of regions."""
    example = (torch.zeros(2, len(net.mean)),)
    count = torch.export.Dim("n", min=1, max=64)
    export_onnx(net, example, ["regions"], ["logits"], {"regions": {0: count}}, path)
