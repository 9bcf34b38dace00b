"""Few-shot splits: K pictures of each kind to train on, the others to test on, from a seed.

No picture is on both sides, nor, unless asked for, a near-duplicate of one; pictures that serve as
references are never tested on. `fewshot_files` writes what is decided here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from anomalyr1.data.near_duplicates import (
    DuplicatePair,
    Fingerprint,
    find_near_duplicates,
    load_fingerprints,
)
from anomalyr1.types import InputError, Record

NEAR_DUPLICATE = "near-duplicate of a picture to test on: not drawn"
PER = ("defect", "category")
Side = Literal["train", "test", "left out"]


@dataclass(frozen=True, slots=True)
class FewShot:
    """How to split. `shots` pictures are drawn of each kind of a category: of each defect type and
    of normal parts (`per` "defect"), or of anomalous and of normal parts ("category").

    `by_product`: half of the products give the training pictures, the other half the tests.
    """

    shots: int
    per: str = "defect"
    by_product: bool = False
    keep_duplicates: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """One picture and all its records. `kind` is what it counts as, (category, defect type);
    `reason` says why it is where it is."""

    records: tuple[Record, ...]
    kind: tuple[str, str]
    product: str
    fingerprint: Fingerprint
    side: Side = "left out"
    reason: str = ""

    @property
    def path(self) -> Path:
        return self.records[0].image_path


@dataclass(frozen=True, slots=True)
class Split:
    """Every picture in its place, in the records' order, and the near-duplicates among them."""

    plan: FewShot
    pictures: tuple[Placed, ...]
    duplicates: tuple[DuplicatePair, ...]

    def records(self, side: Side) -> list[Record]:
        """The records of one side, their `split` set to it."""
        return [
            replace(record, split=side)
            for picture in self.pictures
            if picture.side == side
            for record in picture.records
        ]

    def across(self) -> list[DuplicatePair]:
        """Near-duplicates of which one is trained on and the other tested on."""
        sides = [picture.side for picture in self.pictures]
        return [
            pair
            for pair in self.duplicates
            if {sides[pair.first], sides[pair.second]} == {"train", "test"}
        ]


def split_fewshot(records: Sequence[Record], plan: FewShot) -> Split:
    """Draw the training pictures and place all others.

    Records of one picture stay together. Never tested on: pictures that a record has as a reference
    and, where a category has other splits too, its own `train` split; for normal parts these are
    drawn first. A picture with a near-duplicate among those to be tested on is not drawn, unless
    `plan.keep_duplicates`. By product, what training products have beyond the shots is left out.

    Raises InputError for records without a label, a kind with fewer than `plan.shots` pictures and
    a split that would leave nothing to test on.
    """
    _check(records, plan)
    pictures = _gather(records, plan)
    duplicates = find_near_duplicates([picture.fingerprint for picture in pictures])
    rng = np.random.default_rng(plan.seed)
    reserved = _find_reserved(records, pictures)
    to_train = _choose_products(pictures, rng) if plan.by_product else set()
    testable = [
        index not in reserved and picture.product not in to_train
        for index, picture in enumerate(pictures)
    ]
    twins: set[int] = set()
    if not plan.keep_duplicates:
        for pair in duplicates:
            twins |= {pair.first} if testable[pair.second] else set()
            twins |= {pair.second} if testable[pair.first] else set()
    kinds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, picture in enumerate(pictures):
        if not plan.by_product or picture.product in to_train:
            kinds[picture.kind].append(index)
    drawn: set[int] = set()
    for kind in sorted(kinds):
        order = [kinds[kind][int(place)] for place in rng.permutation(len(kinds[kind]))]
        order.sort(key=lambda index: testable[index])
        usable = [index for index in order if index not in twins]
        if len(usable) < plan.shots:
            raise InputError(_too_few(kind, len(order), len(usable), plan))
        drawn.update(usable[: plan.shots])
    placed = []
    for index, picture in enumerate(pictures):
        if index in drawn:
            placed.append(replace(picture, side="train", reason="drawn"))
        elif testable[index]:
            reason = NEAR_DUPLICATE if index in twins else "not drawn"
            placed.append(replace(picture, side="test", reason=reason))
        else:
            why = reserved.get(index, "further picture of a training product")
            placed.append(replace(picture, reason=why))
    if not any(picture.side == "test" for picture in placed):
        raise InputError(
            f"{plan.shots} shots leave nothing to test on: lower --shots or give more records"
        )
    return Split(plan, tuple(placed), tuple(duplicates))


def describe_split(split: Split) -> list[str]:
    """What a user should know of a split beyond its counts, a sentence each."""
    said = []
    left = sum(picture.reason == NEAR_DUPLICATE for picture in split.pictures)
    if left:
        said.append(
            f"{left} pictures have near-duplicates to test on and were not drawn; "
            "manifest.json names them"
        )
    if across := split.across():
        said.append(
            f"{len(across)} pairs of near-duplicates are on both sides; manifest.json names them"
        )
    trained = {picture.kind for picture in split.pictures if picture.side == "train"}
    tested = {picture.kind for picture in split.pictures if picture.side == "test"}
    names = [": ".join(part for part in kind if part) for kind in sorted(trained - tested)]
    if names and not split.plan.by_product:
        said.append(f"nothing left to test on of {', '.join(names)}")
    return said


def name_products(records: Sequence[Record]) -> list[str]:
    """The product each record shows: its data set and category, and where these have several
    folders of reference pictures, which of them.

    A record without references belongs to the folder its own picture lies in, or to the category's
    only one. Drawn products have a folder each; in MVTec's layout a category is one product.
    """
    folders: dict[tuple[str, str], set[Path]] = defaultdict(set)
    for record in records:
        for path in record.reference_paths[:1]:
            folders[record.dataset, record.category].add(path.parent)
    names = []
    for record in records:
        known = folders[record.dataset, record.category]
        own = (
            record.reference_paths[0].parent if record.reference_paths else record.image_path.parent
        )
        name = "/".join(part for part in (record.dataset, record.category) if part) or "all"
        if len(known) > 1 and own in known:
            common = Path(*_common_parts(sorted(known)))
            name = f"{name}/{own.relative_to(common).as_posix()}"
        names.append(name)
    return names


def _check(records: Sequence[Record], plan: FewShot) -> None:
    if plan.shots < 1:
        raise InputError(f"shots is {plan.shots}: use 1 or more")
    if plan.per not in PER:
        raise InputError(f"per is {plan.per!r}: use one of {', '.join(PER)}")
    for record in records:
        if record.label is None:
            raise InputError(
                f"record {record.record_id} has no label: few-shot splits need one, "
                "set it to normal or anomalous"
            )


def _gather(records: Sequence[Record], plan: FewShot) -> list[Placed]:
    """The records by picture, in order."""
    grouped: dict[Path, list[Record]] = defaultdict(list)
    products: dict[Path, str] = {}
    for record, product in zip(records, name_products(records), strict=True):
        path = record.image_path.resolve()
        grouped[path].append(record)
        products.setdefault(path, product)
    for group in grouped.values():
        if len({_kind(record, plan.per) for record in group}) > 1:
            raise InputError(
                f"{group[0].image_path}: records {group[0].record_id} and {group[-1].record_id} "
                "differ in label, defect type or category: correct one"
            )
    prints = load_fingerprints(list(grouped))
    return [
        Placed(tuple(group), _kind(group[0], plan.per), products[path], fingerprint)
        for (path, group), fingerprint in zip(grouped.items(), prints, strict=True)
    ]


def _kind(record: Record, per: str) -> tuple[str, str]:
    if record.label == "normal":
        return record.category, "normal"
    return record.category, (record.defect_type if per == "defect" else "") or "anomalous"


def _find_reserved(records: Sequence[Record], pictures: Sequence[Placed]) -> dict[int, str]:
    """Pictures that may be trained on but never tested on, with the reason."""
    references = {path.resolve() for record in records for path in record.reference_paths}
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        splits[record.dataset, record.category].add(record.split)
    reserved = {}
    for index, picture in enumerate(pictures):
        first = picture.records[0]
        if picture.path.resolve() in references:
            reserved[index] = "reference of another record"
        elif first.split == "train" and len(splits[first.dataset, first.category]) > 1:
            reserved[index] = "train split of its data set"
    return reserved


def _choose_products(pictures: Sequence[Placed], rng: np.random.Generator) -> set[str]:
    """Half of the products, dealt out so that categories with several are on both sides."""
    categories: dict[str, list[str]] = defaultdict(list)
    for product in sorted({picture.product for picture in pictures}):
        category = next(item.kind[0] for item in pictures if item.product == product)
        categories[category].append(product)
    names = sorted(categories)
    dealt = []
    for place in rng.permutation(len(names)):
        products = categories[names[int(place)]]
        dealt += [products[int(number)] for number in rng.permutation(len(products))]
    if len(dealt) < 2:
        raise InputError(
            f"all records show one product ({dealt[0]}): a split by product needs two or more; "
            "leave --by-product out"
        )
    return set(dealt[::2])


def _too_few(kind: tuple[str, str], num_found: int, num_usable: int, plan: FewShot) -> str:
    where = " in the training products" if plan.by_product else ""
    name = f"{kind[1]!r} of category {kind[0]!r}" if kind[0] else repr(kind[1])
    counted = "1 picture" if num_found == 1 else f"{num_found} pictures"
    text = f"{name} has {counted}{where}, {plan.shots} shots were asked for"
    remedies = [f"use --shots {num_usable}"] if num_usable else []
    if num_usable < num_found:
        text += f"; {num_found - num_usable} of them are near-duplicates of pictures to test on"
        remedies.append("--keep-duplicates")
    if plan.per == "defect":
        remedies.append("--per category")
    return f"{text}: {', '.join([*remedies, 'or give more pictures'])}"


def _common_parts(paths: Sequence[Path]) -> list[str]:
    common = []
    for parts in zip(*(path.parts for path in paths), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return common
