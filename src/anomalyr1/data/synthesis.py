"""Training pictures from a seed: drawn parts or the user's normal ones, with painted defects.

A product is one design: some reference pictures and some pictures to judge, half of them with
defects whose mask, boxes and words are exact. Products, not pictures, are split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.data.defects import DEFECT_KINDS, paint_defect
from anomalyr1.data.drawing import OBJECTS, STRUCTURAL_DEFECTS, SURFACES, draw_part
from anomalyr1.data.photographs import DrawPart, NormalPart, crop_material, load_normals
from anomalyr1.data.records import write_records
from anomalyr1.data.wording import describe_defect
from anomalyr1.geometry import boxes_from_mask
from anomalyr1.images import write_png_atomic
from anomalyr1.types import InputError, Record, Region

HELD_OUT_CATEGORIES = ("leather", "gear", "capsule")
HELD_OUT_KINDS = ("thread pull", "misprint")
RETAKEN_EVERY = 3
"""Of designs on a user's normal pictures, every so many show one part alone, whose references are
then its own, as a board's template is."""

SPLITS = ("train", "val", "test_seen", "test_held_out")

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What to make. `normal` is a folder of whole normal pictures, one product; `material` one of
    photographs of materials, of which each is cropped into products; neither: drawn parts, of
    `categories` or of all."""

    out: Path
    num_products: int = 40
    num_references: int = 4
    num_queries: int = 4
    size: int = 352
    seed: int = 0
    normal: Path | None = None
    material: Path | None = None
    categories: tuple[str, ...] = ()


def synthesize(plan: Synthesis, *, num_workers: int = 1) -> Iterator[list[Record]]:
    """Write pictures and masks below `plan.out`, yielding each product's records as it is done.

    The same plan gives the same bytes, whatever `num_workers` is. `write_splits` finishes.
    Raises InputError when the folder of normal pictures is empty or its pictures unreadable.
    """
    if plan.num_products < 1 or plan.num_queries < 1 or plan.num_references < 0:
        raise InputError("a synthesis needs at least one product and one query picture")
    plan.out.mkdir(parents=True, exist_ok=True)
    indices = range(plan.num_products)
    if num_workers <= 1:
        for index in indices:
            yield make_product(plan, index)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(make_product, [plan] * plan.num_products, indices, chunksize=4)


def write_splits(plan: Synthesis, records: Sequence[Record]) -> dict[str, int]:
    """Write one records file a split and `manifest.json`; returns the number of records a split."""
    counts = {}
    for split in SPLITS:
        chosen = [record for record in records if record.split == split]
        if chosen:
            write_records(plan.out / f"{split}.jsonl", chosen)
            counts[split] = len(chosen)
    manifest = {
        "synthesis": {name: _plain(value) for name, value in asdict(plan).items() if name != "out"},
        "held_out_categories": HELD_OUT_CATEGORIES,
        "held_out_defect_kinds": HELD_OUT_KINDS,
        "records": counts,
    }
    (plan.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return counts


def make_product(plan: Synthesis, index: int) -> list[Record]:
    """Draw one product's pictures and return the records of those to judge."""
    rng = np.random.default_rng([plan.seed, index])
    category, draw = _choose_product(plan, index, rng)
    split = _choose_split(plan, category, rng)
    folder = plan.out / "pictures" / f"{index:06d}_{category.replace(' ', '_')}"
    folder.mkdir(parents=True, exist_ok=True)
    quality = int(rng.integers(85, 98))
    references = []
    for number in range(plan.num_references):
        path = folder / f"reference_{number}.jpg"
        Image.fromarray(draw(number, None).image).save(path, quality=quality)
        references.append(path)
    records = []
    for number in range(plan.num_queries):
        anomalous = (number + index) % 2 == 0
        path = folder / f"{number}_{'anomalous' if anomalous else 'normal'}.jpg"
        record_id = f"{plan.seed}-{path.parent.name}-{number}"
        instance = plan.num_references + number
        regions: tuple[Region, ...] = ()
        mask_path = None
        if anomalous:
            image, mask, regions = _spoil(draw, instance, category, split, rng)
            mask_path = folder / f"{number}_mask.png"
            write_png_atomic(mask_path, Image.fromarray(mask.astype(np.uint8) * 255))
        else:
            image = draw(instance, None).image
        Image.fromarray(image).save(path, quality=quality)
        records.append(
            Record(
                record_id=record_id,
                image_path=path,
                dataset="synthetic",
                category=category,
                split=split,
                label="anomalous" if anomalous else "normal",
                defect_type=regions[0].defect_type if regions else "",
                mask_path=mask_path,
                reference_paths=tuple(references),
                regions=regions,
            )
        )
    return records


def _choose_product(plan: Synthesis, index: int, rng: np.random.Generator) -> tuple[str, DrawPart]:
    if plan.normal is not None:
        pictures = load_normals(plan.normal, plan.size)
        if index % RETAKEN_EVERY:
            return plan.normal.name, _whole_pictures(pictures, index)
        chosen = pictures[int(rng.integers(len(pictures)))]
        return plan.normal.name, _retaken(chosen, int(rng.integers(2**31)))
    if plan.material is not None:
        name, material = crop_material(plan.material, index, plan.size, rng)
        return name, _windowed(material, plan.size, rng)
    categories = plan.categories or (*SURFACES, *OBJECTS)
    category = categories[index % len(categories)]
    design = int(rng.integers(2**31))
    size = int(plan.size * rng.uniform(0.8, 1.2)) // 2 * 2

    def draw(instance: int, variant: str | None) -> NormalPart:
        drawn = draw_part(category, design, size, variant, instance)
        return NormalPart(drawn.image, drawn.part, drawn.defect if variant else None)

    return category, _windowed(draw, size, rng) if category in SURFACES else draw


def _windowed(draw: DrawPart, size: int, rng: np.random.Generator) -> DrawPart:
    """A surface's pictures cut to one of a few shapes, since cameras seldom give squares."""
    longer = float(rng.choice([1.0, 1.0, 4 / 3, 3 / 2, 2.0]))
    width, height = (size, int(size / longer)) if rng.random() < 0.5 else (int(size / longer), size)
    left, top = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
    window = (slice(top, top + height), slice(left, left + width))

    def draw_window(instance: int, variant: str | None) -> NormalPart:
        whole = draw(instance, variant)
        return NormalPart(np.ascontiguousarray(whole.image[window]), whole.part[window])

    return draw_window


def _whole_pictures(pictures: Sequence[Picture], index: int) -> DrawPart:
    def draw(instance: int, variant: str | None) -> NormalPart:
        image = pictures[(index + instance) % len(pictures)]
        return NormalPart(image, np.ones(image.shape[:2], bool))

    return draw


def _retaken(picture: Picture, seed: int) -> DrawPart:
    """One part, pictured again and again: moved a little, in a little other light, with noise."""

    def draw(instance: int, variant: str | None) -> NormalPart:
        rng = np.random.default_rng([seed, instance])
        right, down = rng.uniform(-1.5, 1.5, 2)
        move = np.array([[1.0, 0.0, right], [0.0, 1.0, down]])
        size_wh = picture.shape[1::-1]
        moved = cv2.warpAffine(picture, move, size_wh, borderMode=cv2.BORDER_REPLICATE)
        noise = rng.normal(0.0, 2.0, picture.shape)
        lit = np.clip(moved * rng.uniform(0.95, 1.05) + noise, 0, 255).astype(np.uint8)
        return NormalPart(lit, np.ones(picture.shape[:2], bool))

    return draw


def _choose_split(plan: Synthesis, category: str, rng: np.random.Generator) -> str:
    if plan.normal is None and category in HELD_OUT_CATEGORIES:
        return "test_held_out"
    draw = rng.random()
    return "train" if draw < 0.9 else "val" if draw < 0.94 else "test_seen"


def _spoil(
    draw: DrawPart, instance: int, category: str, split: str, rng: np.random.Generator
) -> tuple[Picture, NDArray[np.bool_], tuple[Region, ...]]:
    """The instance with one or more defects: picture, mask of all of them, regions."""
    kinds = [
        kind for kind in DEFECT_KINDS if split == "test_held_out" or kind not in HELD_OUT_KINDS
    ]
    structural = [kind for kind in STRUCTURAL_DEFECTS.get(category, ()) if kind in kinds]
    most = 8 if category in ("circuit_board", "etched_board") else 3
    wanted = 1 if rng.random() < 0.6 else int(rng.integers(1, most + 1))
    part = draw(instance, None)
    image, mask = part.image, np.zeros(part.part.shape, bool)
    regions: list[Region] = []
    if structural and rng.random() < 0.3:
        kind = structural[int(rng.integers(len(structural)))]
        drawn = draw(instance, kind)
        if drawn.defect is not None and drawn.defect.any():
            image, mask = drawn.image, drawn.defect.copy()
            regions += _regions(mask, kind, float(rng.uniform(0.4, 1.0)), rng)
    for _attempt in range(40):
        if len(regions) >= wanted:
            break
        kind = kinds[int(rng.integers(len(kinds)))]
        severity = float(rng.uniform(0.2, 1.0))
        painted = paint_defect(image, part.part, kind, rng, severity)
        if painted is None or painted.mask.sum() < 12 or (painted.mask & mask).any():
            continue
        image, mask = painted.image, mask | painted.mask
        regions += _regions(painted.mask, kind, severity, rng)
    if not regions:
        raise InputError(f"no defect could be painted on a picture of {category!r}")
    return image, mask, tuple(regions)


def _regions(
    mask: NDArray[np.bool_], kind: str, severity: float, rng: np.random.Generator
) -> list[Region]:
    height, width = mask.shape
    boxes = boxes_from_mask(mask, min_area=6, merge_gap=max(height, width) // 12)
    return [
        Region(box, kind, describe_defect(kind, severity, box, (width, height), rng))
        for box in boxes[:8]
    ]


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else value


def draw_contact_sheet(records: Sequence[Record], path: Path, *, columns: int = 8) -> None:
    """A PNG of thumbnails, anomalous pictures with their mask outlined, to look at."""
    side = 160
    rows = -(-len(records) // columns)
    sheet = Image.new("RGB", (columns * side, max(1, rows) * side))
    for number, record in enumerate(records):
        with Image.open(record.image_path) as picture:
            thumbnail = picture.convert("RGB").resize((side - 4, side - 4))
        if record.mask_path is not None:
            with Image.open(record.mask_path) as mask:
                inside = np.asarray(mask.resize((side - 4, side - 4))) > 127
            edge = inside ^ _eroded(inside)
            pixels = np.asarray(thumbnail).copy()
            pixels[edge] = (255, 0, 200)
            thumbnail = Image.fromarray(pixels)
        sheet.paste(thumbnail, ((number % columns) * side, (number // columns) * side))
    write_png_atomic(path, sheet)


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    return np.asarray(binary_erosion(mask), bool)
