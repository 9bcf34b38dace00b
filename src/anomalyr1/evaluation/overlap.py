"""What a training set shares with a test set: pictures, near-duplicates, and products."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.near_duplicates import (
    MAX_DISTANCE,
    MIN_CORRELATION,
    Fingerprint,
    correlate,
    load_fingerprints,
)
from anomalyr1.data.records import load_records
from anomalyr1.types import InputError, Record

SAME_SETS = {"DS-MVTec": "MVTec", "MVTec-AD": "MVTec", "mvtec": "MVTec", "MVTec AD": "MVTec"}


@dataclass(frozen=True, slots=True)
class Overlap:
    """Counts of a test set's pictures and products that training knew.

    `num_same` pictures are training pictures, byte for byte; `num_similar` others look like one:
    their perceptual hashes are within 8 of 64 bits and small grey versions agree. `num_by_hash` of
    those are so by the hash alone, since their training pictures are not here. `namesakes` are
    products that are called like a trained one, in a set of another name or of none.
    """

    num_pictures: int
    num_same: int
    num_similar: int
    num_by_hash: int
    products: tuple[str, ...]
    namesakes: tuple[str, ...]
    num_products: int

    def sentence(self) -> str:
        """The overlap in a sentence for a report's first line."""
        by_hash = f" ({self.num_by_hash} by perceptual hash alone)" if self.num_by_hash else ""
        others = len(self.namesakes)
        more = f"; {others} more share a trained product's name in another set" if others else ""
        return (
            f"Overlap with training: {self.num_same} of {self.num_pictures} test pictures are "
            f"training pictures, {self.num_similar} others look like one{by_hash}, and "
            f"{len(self.products)} of {self.num_products} products were trained on"
            f"{_list_names(self.products)}{more}{_list_names(self.namesakes)}."
        )


@dataclass(frozen=True, slots=True)
class _Trained:
    """A training picture as a manifest or a records file knows it."""

    phash: str
    sha256: str
    product: str
    path: Path


def compute_overlap(manifest: Path, records: Sequence[Record]) -> Overlap:
    """Compare test records with a manifest.json of `data fewshot`, or with a records file.

    Raises InputError for a manifest that cannot be read and for test pictures that are not there.
    """
    trained = _read_training(manifest)
    paths = list(dict.fromkeys(record.image_path for record in records))
    prints = load_fingerprints(paths)
    known = {one.sha256 for one in trained}
    codes = _bits([one.phash for one in trained])
    greys: dict[Path, Fingerprint | None] = {}
    judged = [
        "same" if one.sha256 in known else _compare(one, trained, codes, greys) for one in prints
    ]
    products = {one.product for one in trained}
    words = {_fold(word) for product in products for word in product.split("/")}
    tested = {
        name_product(record.dataset, record.category): _fold(record.category) for record in records
    }
    shared = tuple(product for product in tested if product in products)
    return Overlap(
        num_pictures=len(paths),
        num_same=judged.count("same"),
        num_similar=judged.count("grey") + judged.count("hash"),
        num_by_hash=judged.count("hash"),
        products=shared,
        namesakes=tuple(
            product
            for product, category in tested.items()
            if product not in shared and category and category in words
        ),
        num_products=len(tested),
    )


def word_overlap(manifest: Path | None, records: Sequence[Record], num_missing: int = 0) -> str:
    """The overlap as a sentence, or why it is not known. `num_missing` pictures are not among the
    records, since they are not there."""
    if manifest is None:
        return "Overlap with training: not known, no training manifest was given (--manifest)."
    if not records:
        return "Overlap with training: not known, the test pictures are not there (--data)."
    missing = f" {num_missing} test pictures are not there and were not compared."
    return compute_overlap(manifest, records).sentence() + (missing if num_missing else "")


def word_answers_overlap(
    manifest: Path | None, folders: Sequence[Path], images: Iterable[str]
) -> str:
    """`word_overlap` of answers' pictures, `images`, which are looked for below `folders`."""
    wanted = sorted(set(images))
    records = []
    for image in wanted:
        parts = image.split("/")
        found = [folder / image for folder in folders if (folder / image).is_file()]
        if found and len(parts) > 1 and ".." not in parts:
            category = parts[0] if parts[1] in ("train", "test") else parts[1]
            records.append(Record(image, found[0], dataset=parts[0], category=category))
    return word_overlap(manifest, records, len(wanted) - len(records))


def name_product(dataset: str, category: str) -> str:
    """A product's name, the names of one data set brought together.

    >>> name_product("DS-MVTec", "bottle") == name_product("MVTec-AD", "bottle")
    True
    """
    name = SAME_SETS.get(dataset, dataset)
    return "/".join(part for part in (name, _fold(category)) if part)


def _read_training(manifest: Path) -> list[_Trained]:
    if manifest.suffix == ".jsonl":
        records = {record.image_path: record for record in load_records(manifest)}
        return [
            _Trained(one.phash, one.sha256, name_product(record.dataset, record.category), path)
            for (path, record), one in zip(
                records.items(), load_fingerprints(list(records)), strict=True
            )
        ]
    try:
        document: Any = json.loads(manifest.read_text(encoding="utf-8"))
        trained = [
            _Trained(
                str(one["phash"]),
                str(one["sha256"]),
                _read_product(str(one["product"])),
                manifest.parent / str(one.get("image_path", "")),
            )
            for one in document["pictures"]
            if one["side"] == "train"
        ]
        _bits([one.phash for one in trained])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{manifest}: is no training manifest ({error!r}); give the manifest.json of "
            "`data fewshot`, or a records file (.jsonl)"
        ) from error
    return trained


def _read_product(name: str) -> str:
    """A product as `data fewshot` names it: data set, category and folder, as far as known."""
    dataset, slash, rest = name.partition("/")
    return name_product(dataset, rest.split("/")[0]) if slash else name_product("", name)


def _compare(
    one: Fingerprint,
    trained: Sequence[_Trained],
    codes: NDArray[np.uint8],
    greys: dict[Path, Fingerprint | None],
) -> str:
    """How a picture looks like a training picture: "grey" where small grey versions agree, "hash"
    where those near by hash are not here to be compared, "" where it looks like none."""
    distances = (codes != _bits([one.phash])).sum(axis=1)
    near = [trained[index] for index in np.flatnonzero(distances <= MAX_DISTANCE).tolist()]
    is_unsure = False
    for other in near:
        if other.path not in greys:
            greys[other.path] = _load_unchanged(other)
        found = greys[other.path]
        if found is None:
            is_unsure = True
        elif correlate(one.grey, found.grey) >= MIN_CORRELATION:
            return "grey"
    return "hash" if is_unsure else ""


def _load_unchanged(one: _Trained) -> Fingerprint | None:
    try:
        (found,) = load_fingerprints([one.path])
    except InputError:
        return None
    return found if found.sha256 == one.sha256 else None


def _fold(name: str) -> str:
    return name.replace("_", " ").lower()


def _list_names(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 8 else ""
    return f" ({', '.join(names[:8])}{more})" if names else ""


def _bits(codes: Sequence[str]) -> NDArray[np.uint8]:
    joined = np.frombuffer(b"".join(bytes.fromhex(code) for code in codes), np.uint8)
    return np.unpackbits(joined).reshape(len(codes), 64)
