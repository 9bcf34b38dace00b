"""Trains the network that moves, names and doubts the regions of the map.

It learns from what the finished detector sees of synthetic defects that its head has not seen: how
far a region lies from the truth is then what it will be in inspection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from anomalyr1.detectors.patch_memory import PatchMemoryDetector
from anomalyr1.detectors.regions import KINDS, MOST_PROPOSED, VIEW_SIDE, RegionView, share_box
from anomalyr1.geometry import box_iou
from anomalyr1.images import load_image
from anomalyr1.training.backbone import export_onnx
from anomalyr1.training.workers import map_tasks
from anomalyr1.types import Box, Record, Region

LEAST_IOU = 0.2
"""A region that meets a defect with at least this IoU is true, and is taught its box and kind."""

NO_KIND = -1

_FLIPS = ((-1, 0, 2), (-2, 1, 3))
"""Axis of a view, and the sides of a box that change places."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is seen of a region, and the truth: whether it is of a defect, and then the defect's box
    xyxy in shares of the view's frame, float32 (4,), and its kind as an index in KINDS, or NO_KIND.
    """

    view: RegionView
    is_true: bool
    box: NDArray[np.float32]
    kind: int


class RegionNet(nn.Module):
    """Views (N, C, VIEW_SIDE, VIEW_SIDE), descriptions (N, D) and own boxes (N, 4) to boxes (N, 4),
    xyxy in shares of the frame, logits of kinds (N, len(KINDS)) and of the box's IoU with a defect
    (N,); it scales its inputs itself."""

    maps_mean: torch.Tensor
    maps_std: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self, num_maps: int, num_described: int, width: int = 32, num_hidden: int = 96
    ) -> None:
        super().__init__()
        self.register_buffer("maps_mean", torch.zeros(num_maps, 1, 1))
        self.register_buffer("maps_std", torch.ones(num_maps, 1, 1))
        self.register_buffer("mean", torch.zeros(num_described))
        self.register_buffer("std", torch.ones(num_described))
        self.look = nn.Sequential(
            nn.Conv2d(num_maps, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(width * (VIEW_SIDE // 4) ** 2, num_hidden),
            nn.ReLU(),
            nn.Dropout(0.3),
        )
        self.read = nn.Sequential(nn.Linear(num_described, num_hidden), nn.ReLU(), nn.Dropout(0.5))
        self.move = nn.Linear(2 * num_hidden, 4)
        self.name = nn.Linear(2 * num_hidden, len(KINDS))
        self.trust = nn.Linear(2 * num_hidden, 1)

    def scale_like(self, maps: torch.Tensor, described: torch.Tensor) -> None:
        """Take the spread of inputs from what it will be trained on."""
        for values, mean, std, axes in (
            (maps.float(), self.maps_mean, self.maps_std, (0, 2, 3)),
            (described, self.mean, self.std, (0,)),
        ):
            mean.copy_(values.mean(axes).reshape(mean.shape))
            std.copy_(values.std(axes).reshape(std.shape) + 1e-3)

    def forward(
        self, maps: torch.Tensor, described: torch.Tensor, own: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = self.look(((maps - self.maps_mean) / self.maps_std).clamp(-6.0, 6.0))
        read = self.read(((described - self.mean) / self.std).clamp(-6.0, 6.0))
        joined = torch.cat([seen, read], 1)
        return own + 0.25 * self.move(joined), self.name(joined), self.trust(joined)[:, 0]


def view_products(
    records: Sequence[Record], hint_folder: Path, *, seed: int, num_workers: int
) -> Iterator[list[Lesson]]:
    """For each product, in order, the regions of its pictures' maps, seen beside 0, 1, 2 or 4 of
    its references."""
    folders = groupby(records, key=lambda record: record.image_path.parent)
    lengths = [sum(1 for _record in product) for _folder, product in folders]
    places = pairwise(accumulate(lengths, initial=0))
    tasks = [(slice(*place), [seed, number]) for number, place in enumerate(places)]
    load = partial(_open, hint_folder, records)
    yield from map_tasks(_view_product, tasks, load, num_workers=num_workers, chunksize=2)


def _open(
    hint_folder: Path, records: Sequence[Record]
) -> tuple[PatchMemoryDetector, Sequence[Record]]:
    return PatchMemoryDetector.load(hint_folder, num_threads=1), records


def _view_product(
    opened: tuple[PatchMemoryDetector, Sequence[Record]], task: tuple[slice, list[int]]
) -> list[Lesson]:
    detector, records = opened
    place, seed = task
    product = records[place]
    count = int(np.random.default_rng(seed).choice([0, 1, 2, 4]))
    references = tuple(load_image(path) for path in product[0].reference_paths[:count])
    lessons = []
    for record in product:
        picture = load_image(record.image_path)
        grid_hw, views = detector.view(picture, references)
        across, down = grid_hw[1] / picture.size[0], grid_hw[0] / picture.size[1]
        lessons += find_lessons(views, record.regions, (across, down))
    return lessons


def find_lessons(
    views: Sequence[RegionView], regions: Sequence[Region], scale: tuple[float, float]
) -> list[Lesson]:
    """A lesson from each view; `regions` are the truth, in pixels, and `scale` is cells of the map
    a pixel, across and down. The views' maps are kept in half precision."""
    lessons = []
    for view in views:
        own = _as_box(view.own)
        view = replace(view, maps=view.maps.astype(np.float16))
        boxes = [share_box(_scale(region.box_xyxy, scale), view.frame) for region in regions]
        shared = [box_iou(own, _as_box(box)) for box in boxes]
        if max(shared, default=0.0) < LEAST_IOU:
            lessons.append(Lesson(view, False, view.own, NO_KIND))
            continue
        best = int(np.argmax(shared))
        name = regions[best].defect_type
        kind = KINDS.index(name) if name in KINDS else NO_KIND
        lessons.append(Lesson(view, True, boxes[best], kind))
    return lessons


def _scale(box: Box, scale: tuple[float, float]) -> Box:
    return (box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])


def _as_box(sides: NDArray[np.float32]) -> Box:
    left, top, right, bottom = map(float, sides)
    return (left, top, right, bottom)


def train_regions(
    lessons: Sequence[Lesson],
    *,
    seed: int,
    num_steps: int,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
) -> Iterator[tuple[int, float, RegionNet]]:
    """Yield (step, loss, network) as it trains with AdamW on a one-cycle rate; the network is in
    place. Loss: of true regions 1 - IoU of the box, a smooth L1 distance and cross-entropy of the
    kind; of all, cross-entropy of the IoU that the box has as it is placed, 0 of untrue ones."""
    torch.manual_seed(seed)
    maps = torch.from_numpy(np.stack([lesson.view.maps for lesson in lessons]))
    described = torch.from_numpy(np.stack([lesson.view.described for lesson in lessons]))
    own = torch.from_numpy(np.stack([lesson.view.own for lesson in lessons]))
    boxes = torch.from_numpy(np.stack([lesson.box for lesson in lessons]))
    kinds = torch.tensor([lesson.kind for lesson in lessons])
    truth = torch.tensor([lesson.is_true for lesson in lessons])
    net = RegionNet(maps.shape[1], described.shape[1])
    net.scale_like(maps, described)
    optimiser = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, num_steps)
    for step in range(1, num_steps + 1):
        chosen = torch.randint(len(kinds), (batch_size,))
        seen, box, start = maps[chosen].float(), boxes[chosen], own[chosen]
        for axis, low, high in _FLIPS:
            if torch.rand(()) < 0.5:
                seen = seen.flip(axis)
                box, start = _mirror(box, low, high), _mirror(start, low, high)
        read = net(seen, described[chosen], start)
        loss = _loss(read, box, kinds[chosen], truth[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        yield step, loss.item(), net


def _mirror(boxes: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Boxes (N, 4) in shares of their frames, with the sides `low` and `high` mirrored."""
    mirrored = boxes.clone()
    mirrored[:, [low, high]] = 1.0 - boxes[:, [high, low]]
    return mirrored


def _loss(
    read: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    boxes: torch.Tensor,
    kinds: torch.Tensor,
    truth: torch.Tensor,
) -> torch.Tensor:
    placed, named, trusted = read
    fits = paired_iou(placed.detach(), boxes) * truth
    loss = functional.binary_cross_entropy_with_logits(trusted, fits)
    if truth.any():
        placed, boxes = placed[truth], boxes[truth]
        apart = functional.smooth_l1_loss(placed, boxes, beta=0.1)
        loss = loss + (1.0 - paired_iou(placed, boxes)).mean() + 0.3 * apart
    known = kinds != NO_KIND
    if known.any():
        naming = functional.cross_entropy(named[known], kinds[known], label_smoothing=0.05)
        loss = loss + 0.3 * naming
    return loss


def paired_iou(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """IoU (N,) of boxes (N, 4) xyxy, pair by pair; a box that is turned over has no area."""
    inner = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    shared = inner.clamp(min=0.0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0.0).prod(1) for boxes in (first, second)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-6)


def export_regions(net: RegionNet, path: Path) -> None:
    """Write ONNX that takes any number of regions up to MOST_PROPOSED."""
    net = net.eval()
    example = (
        torch.zeros(2, len(net.maps_mean), VIEW_SIDE, VIEW_SIDE),
        torch.zeros(2, len(net.mean)),
        torch.zeros(2, 4),
    )
    count = {0: torch.export.Dim("n", min=1, max=MOST_PROPOSED)}
    names, outputs = ["maps", "described", "own"], ["boxes", "kinds", "truths"]
    export_onnx(net, example, names, outputs, dict.fromkeys(names, count), path)
