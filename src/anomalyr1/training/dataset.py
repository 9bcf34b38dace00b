"""Records to rows that TRL's trainers take: the prompt and answer of inspection, with pictures.

The prompt is that of `prompts`, the one builder; boxes are moved to the model's frame here by
`geometry`, once. Hints are computed before training and kept beside the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.data.wording import write_reasoning
from anomalyr1.detectors.patch_memory import PatchMemoryDetector
from anomalyr1.geometry import to_model
from anomalyr1.hints import draw_hint
from anomalyr1.images import load_image
from anomalyr1.prompts import (
    build_inspection_prompt,
    drop_reasoning,
    render_inspection_answer,
    to_chat,
)
from anomalyr1.types import Record, Region


@dataclass(frozen=True, slots=True)
class RowSettings:
    """How rows are made: shares without hint, with a reference shown, without reasoning.

    `box_grid` rounds target boxes outward to multiples of so many model pixels: fewer numbers to
    learn for a small model. Rows without reasoning teach the verdict that the score is read from.
    """

    without_hint: float = 0.2
    with_reference: float = 0.4
    without_reasoning: float = 0.2
    box_grid: int = 4
    max_boxes: int = 8


@dataclass(frozen=True, slots=True)
class HintedRecord:
    """A record with its hint picture (None: no hint) and how many references are shown."""

    record: Record
    hint_path: Path | None
    num_references: int


_detector: PatchMemoryDetector | None = None


def _open(folder: Path) -> None:
    global _detector
    _detector = PatchMemoryDetector.load(folder, num_threads=1)


def write_hints(
    records: Sequence[Record], hint_folder: Path, out: Path, *, seed: int, num_workers: int
) -> Iterator[Path]:
    """Write each record's hint picture to `out`, from 0, 1, 2 or all of its references by turns.

    Pictures that are there already are kept, so that an interrupted run continues.
    """
    out.mkdir(parents=True, exist_ok=True)
    products: dict[Path, list[tuple[Record, Path]]] = {}
    for index, record in enumerate(records):
        path = out / f"{index:06d}.png"
        products.setdefault(record.image_path.parent, []).append((record, path))
    tasks = [(product, [seed, number]) for number, product in enumerate(products.values())]
    with ProcessPoolExecutor(num_workers, initializer=_open, initargs=(hint_folder,)) as pool:
        for paths in pool.map(_write_product_hints, tasks, chunksize=4):
            yield from paths


def _write_product_hints(task: tuple[list[tuple[Record, Path]], list[int]]) -> list[Path]:
    product, seed = task
    assert _detector is not None
    rng = np.random.default_rng(seed)
    count = int(rng.choice([0, 1, 2, 4]))
    references = [load_image(path) for path in product[0][0].reference_paths[:count]]
    for record, path in product:
        if not path.is_file():
            picture = load_image(record.image_path)
            anomaly = _detector.detect(picture, references)
            temporary = path.with_suffix(".tmp")
            draw_hint(anomaly.anomaly_map, picture.size).save(temporary, format="PNG")
            temporary.replace(path)
    return [path for _, path in product]


def choose_rows(
    records: Sequence[Record], hints: Path | None, settings: RowSettings, seed: int
) -> list[HintedRecord]:
    """Decide for each record, from the seed, whether its hint and a reference are shown."""
    rows = []
    for index, record in enumerate(records):
        rng = np.random.default_rng([seed, index])
        hinted = hints is not None and rng.random() >= settings.without_hint
        shown = int(bool(record.reference_paths) and rng.random() < settings.with_reference)
        path = hints / f"{index:06d}.png" if hinted and hints is not None else None
        rows.append(HintedRecord(record, path, shown))
    return rows


def build_row(
    hinted: HintedRecord, processor: Any, settings: RowSettings, seed: int
) -> dict[str, Any]:
    """One row: `prompt` and `completion` as conversations, `images` as PIL pictures in order."""
    record = hinted.record
    rng = np.random.default_rng([seed, 1])
    picture = load_image(record.image_path)
    images = [load_image(path) for path in record.reference_paths[: hinted.num_references]]
    images.append(picture)
    if hinted.hint_path is not None:
        images.append(load_image(hinted.hint_path))
    prompt = build_inspection_prompt(
        record, num_references=hinted.num_references, with_hint=hinted.hint_path is not None
    )
    answer = _answer(
        record,
        picture.size,
        shown_size(processor, picture.size),
        settings,
        rng,
        with_hint=hinted.hint_path is not None,
    )
    if rng.random() < settings.without_reasoning:
        answer = drop_reasoning(answer)
    return {
        "prompt": to_chat(prompt),
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": answer}]}],
        "images": images,
    }


def shown_size(processor: Any, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels at which a Qwen processor shows a picture of `size_wh`."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    images = processor.image_processor
    height, width = smart_resize(
        size_wh[1],
        size_wh[0],
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return width, height


def _answer(
    record: Record,
    size_wh: tuple[int, int],
    shown_wh: tuple[int, int],
    settings: RowSettings,
    rng: np.random.Generator,
    *,
    with_hint: bool,
) -> str:
    assert record.label is not None
    regions = order_regions(record.regions)[: settings.max_boxes]
    reasoning = record.reasoning or write_reasoning(
        record.label, regions, size_wh, rng, with_hint=with_hint
    )
    targets = []
    for region in regions:
        box = to_model(region.box_xyxy, shown_wh, size_wh, "absolute")
        targets.append(
            (
                round_outward(box, shown_wh, settings.box_grid),
                region.defect_type,
                region.description,
            )
        )
    return render_inspection_answer(record.label, targets, reasoning)


def order_regions(regions: Sequence[Region]) -> list[Region]:
    """Reading order, top to bottom and then left to right: one order, so that it can be learned."""
    return sorted(regions, key=lambda region: (region.box_xyxy[1], region.box_xyxy[0]))


def round_outward(
    box: tuple[int, int, int, int], size_wh: tuple[int, int], grid: int
) -> tuple[int, int, int, int]:
    """The smallest box on multiples of `grid` pixels that holds `box`, clipped to the picture."""
    left, top = (grid * (side // grid) for side in box[:2])
    right, bottom = (grid * -(-side // grid) for side in box[2:])
    return left, top, min(right, size_wh[0]), min(bottom, size_wh[1])
