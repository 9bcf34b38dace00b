"""The files of a few-shot split: records, questions, and a manifest of what went where and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from anomalyr1.data.fewshot import Side, Split
from anomalyr1.data.near_duplicates import MAX_DISTANCE, MIN_CORRELATION
from anomalyr1.data.question_reasoning import write_choice_reasoning
from anomalyr1.data.questions import ask, write_questions
from anomalyr1.data.record_json import record_to_json
from anomalyr1.data.records import write_records
from anomalyr1.images import image_size, write_bytes_atomic
from anomalyr1.types import InputError, Record


def write_fewshot(
    out: Path, split: Split, *, source: Path, questions: bool = False
) -> dict[str, int]:
    """Write train.jsonl, test.jsonl, with `questions` also train_questions.jsonl and
    test_questions.jsonl (a record a question), then manifest.json; returns records a file.

    The same split gives the same bytes. Raises InputError where `out` holds another split, and
    where questions are asked for of records that have some already.
    """
    manifest = json.dumps(_manifest(out, split, source, questions), indent=2, ensure_ascii=False)
    path = out / "manifest.json"
    if path.is_file() and path.read_text(encoding="utf-8") != manifest + "\n":
        raise InputError(f"{out} holds another split already: choose another --out or delete it")
    files: dict[str, list[Record]] = {}
    kinds = _kinds_by_category(split)
    sides: tuple[Side, ...] = ("train", "test")
    for side in sides:
        files[f"{side}.jsonl"] = split.records(side)
    if questions:
        for side in sides:
            files[f"{side}_questions.jsonl"] = [
                asked
                for record in split.records(side)
                for asked in write_question_records(
                    record,
                    split.plan.seed,
                    other_kinds=kinds[record.category],
                    with_reasoning=side == "train",
                )
            ]
    out.mkdir(parents=True, exist_ok=True)
    for name, records in files.items():
        write_records(out / name, records)
    write_bytes_atomic(path, (manifest + "\n").encode())
    return {name: len(records) for name, records in files.items()}


def write_question_records(
    record: Record, seed: int, *, other_kinds: Iterable[str] = (), with_reasoning: bool = False
) -> list[Record]:
    """One record a question that the record's truth can answer, seeded by `seed` and the id.

    The reasoning does not speak of an anomaly map, which the prompt may not hold.
    """
    if record.question is not None:
        raise InputError(f"record {record.record_id} has a question already: leave --questions out")
    digest = hashlib.sha256(record.record_id.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    size_wh = image_size(record.image_path)
    asked = []
    for question in write_questions(record, rng, other_kinds=other_kinds, size_wh=size_wh):
        reasoning = write_choice_reasoning(record, question, rng, hint=None, size_wh=size_wh)
        asked.append(replace(ask(record, question), reasoning=reasoning if with_reasoning else ""))
    return asked


def _kinds_by_category(split: Split) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for picture in split.pictures:
        record = picture.records[0]
        if record.label == "anomalous" and record.defect_type not in kinds[record.category]:
            kinds[record.category].append(record.defect_type)
    return kinds


def _manifest(out: Path, split: Split, source: Path, questions: bool) -> dict[str, Any]:
    counts = {
        side: Counter(
            ": ".join(part for part in picture.kind if part)
            for picture in split.pictures
            if picture.side == side
        )
        for side in get_args(Side)
    }
    ids = [picture.records[0].record_id for picture in split.pictures]
    return {
        "source": {
            "name": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
        "settings": {**asdict(split.plan), "questions": questions},
        "pictures_by_kind": {side: dict(sorted(found.items())) for side, found in counts.items()},
        "near_duplicates": {
            "max_distance_of_64": MAX_DISTANCE,
            "min_correlation": MIN_CORRELATION,
            "across_the_split": len(split.across()),
            "pairs": [
                {
                    "record_ids": [ids[pair.first], ids[pair.second]],
                    "sides": [split.pictures[pair.first].side, split.pictures[pair.second].side],
                    "distance": pair.distance,
                    "correlation": pair.correlation,
                }
                for pair in split.duplicates
            ],
        },
        "pictures": [
            {
                "record_ids": [record.record_id for record in picture.records],
                "image_path": record_to_json(picture.records[0], out)["image_path"],
                "side": picture.side,
                "reason": picture.reason,
                "kind": list(picture.kind),
                "product": picture.product,
                "sha256": picture.fingerprint.sha256,
                "phash": picture.fingerprint.phash,
            }
            for picture in split.pictures
        ],
    }
