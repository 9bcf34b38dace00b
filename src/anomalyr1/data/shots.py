"""K-shot references for evaluation: the same K normal pictures for a whole category, by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from anomalyr1.types import InputError, Record

Key = tuple[str, str]
_NOT_JUDGED = ("train", "val")


def draw_shots(records: Sequence[Record], shots: int, seed: int) -> list[Record]:
    """The records outside of train and val, each with `shots` references of its category.

    They are drawn from the normal train pictures among the records; where a category has none,
    from the references that all its records share. One shuffle a category and seed: the pictures
    of fewer shots are among those of more. Raises InputError for a category with too few, or whose
    records have references of their own.
    """
    pools = _find_pools(records)
    drawn: dict[Key, tuple[Path, ...]] = {}
    for key, pool in pools.items():
        if len(pool) < shots:
            raise InputError(
                f"category {key[1] or key[0] or 'all'} has {len(pool)} normal reference pictures, "
                f"{shots} shots want {shots}: import with more --max-references, or ask for fewer"
            )
        order = sorted(pool)
        Random(f"{seed}:{key[1]}").shuffle(order)
        drawn[key] = tuple(sorted(order[:shots]))
    return [
        replace(record, reference_paths=drawn[record.dataset, record.category])
        for record in records
        if record.split not in _NOT_JUDGED
    ]


def _find_pools(records: Sequence[Record]) -> dict[Key, set[Path]]:
    train: dict[Key, set[Path]] = {}
    offered: dict[Key, set[tuple[Path, ...]]] = {}
    for record in records:
        key = (record.dataset, record.category)
        if record.split == "train":
            if record.label == "normal":
                train.setdefault(key, set()).add(record.image_path)
        elif record.split not in _NOT_JUDGED:
            offered.setdefault(key, set()).add(record.reference_paths)
    pools = {}
    for key, lists in offered.items():
        if key not in train and len(lists) > 1:
            raise InputError(
                f"category {key[1] or key[0] or 'all'}: its records have references of their own, "
                "not shared ones to draw from; leave --shots away"
            )
        pools[key] = train.get(key) or set(next(iter(lists)))
    return pools
