"""What a training set shares with a test set: pictures, near-duplicates, and products."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.data.near_duplicates import MAX_DISTANCE, load_fingerprints
from anomalyr1.data.records import load_records
from anomalyr1.types import InputError, Record

SAME_SETS = {"DS-MVTec": "MVTec", "MVTec-AD": "MVTec", "mvtec": "MVTec", "MVTec AD": "MVTec"}


@dataclass(frozen=True, slots=True)
class Overlap:
    """Counts of a test set's pictures and products that training knew. `num_similar` pictures have
    a perceptual hash within 8 of 64 bits of a training picture's, the same ones among them."""

    num_pictures: int
    num_same: int
    num_similar: int
    products: tuple[str, ...]
    num_products: int

    def sentence(self) -> str:
        """The overlap in a sentence for a report's first line."""
        shared = f" ({', '.join(self.products[:8])})" if self.products else ""
        return (
            f"Overlap with training: {self.num_same} of {self.num_pictures} test pictures are "
            f"training pictures, {self.num_similar} look like one, and {len(self.products)} of "
            f"{self.num_products} products were trained on{shared}."
        )


def compute_overlap(manifest: Path, records: Sequence[Record]) -> Overlap:
    """Compare test records with a manifest.json of `data fewshot`, or with a records file.

    Raises InputError for a manifest that cannot be read and for pictures that are not there.
    """
    known, products = _read_training(manifest)
    paths = list(dict.fromkeys(record.image_path for record in records))
    tested = dict.fromkeys(name_product(record.dataset, record.category) for record in records)
    prints = load_fingerprints(paths)
    hashes = {sha256 for _, sha256 in known}
    same = [one.sha256 in hashes for one in prints]
    codes = _bits([phash for phash, _ in known])
    similar = [
        is_same or _is_near(codes, one.phash) for one, is_same in zip(prints, same, strict=True)
    ]
    shared = tuple(product for product in tested if product in products)
    return Overlap(len(paths), sum(same), sum(similar), shared, len(tested))


def name_product(dataset: str, category: str) -> str:
    """A product's name, the names of one data set brought together.

    >>> name_product("DS-MVTec", "bottle") == name_product("MVTec-AD", "bottle")
    True
    """
    name = SAME_SETS.get(dataset, dataset)
    return "/".join(part for part in (name, category.replace("_", " ").lower()) if part)


def _read_training(manifest: Path) -> tuple[list[tuple[str, str]], set[str]]:
    if manifest.suffix == ".jsonl":
        records = load_records(manifest)
        prints = load_fingerprints(list(dict.fromkeys(record.image_path for record in records)))
        products = {name_product(record.dataset, record.category) for record in records}
        return [(one.phash, one.sha256) for one in prints], products
    try:
        document: Any = json.loads(manifest.read_text(encoding="utf-8"))
        trained = [one for one in document["pictures"] if one["side"] == "train"]
        known = [(str(one["phash"]), str(one["sha256"])) for one in trained]
        products = {name_product(*str(one["product"]).split("/")[:2]) if "/" in one["product"]
                    else name_product("", str(one["product"])) for one in trained}  # fmt: skip
        _bits([phash for phash, _ in known])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{manifest}: is no training manifest ({error!r}); give the manifest.json of "
            "`data fewshot`, or a records file (.jsonl)"
        ) from error
    return known, products


def _is_near(codes: np.ndarray, phash: str) -> bool:
    distances = (codes != _bits([phash])).sum(axis=1)
    return bool(len(distances)) and int(distances.min()) <= MAX_DISTANCE


def _bits(codes: Sequence[str]) -> np.ndarray:
    joined = np.frombuffer(b"".join(bytes.fromhex(code) for code in codes), np.uint8)
    return np.unpackbits(joined).reshape(len(codes), 64)
