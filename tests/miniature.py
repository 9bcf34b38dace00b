"""A miniature of MMAD from drawn parts: its folder shape, four sources, all seven subtasks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.data.questions import write_questions
from anomalyr1.data.synthesis import Synthesis, synthesize
from anomalyr1.types import Record

SOURCES = {
    "DS-MVTec": "DS-MVTec/{category}/image/{kind}",
    "MVTec-LOCO": "MVTec-LOCO/{category}/test/{kind}",
    "VisA": "VisA/{category}/test/{kind}",
    "GoodsAD": "GoodsAD/{category}/test/{kind}",
}
"""A data set to the folder of its pictures."""


def write_miniature(folder: Path, *, size: int = 112, num_queries: int = 4) -> Path:
    """Draw one product for each source and write mmad.json and domain_knowledge.json beside."""
    plan = Synthesis(
        folder / "drawn",
        num_products=4,
        num_references=2,
        num_queries=num_queries,
        size=size,
        seed=5,
        categories=("washer", "gear", "capsule", "leather"),
    )
    entries: dict[str, Any] = {}
    knowledge: dict[str, Any] = {}
    for dataset, records in zip(SOURCES, synthesize(plan), strict=True):
        category = records[0].category.replace(" ", "_")
        templates = "MVTec-AD" if dataset == "DS-MVTec" else dataset
        named = []
        for number, path in enumerate(records[0].reference_paths):
            named.append(f"{templates}/{category}/train/good/{number:03}{path.suffix}")
            _copy(path, folder / named[-1])
        for number, record in enumerate(records):
            key, entry = _describe(dataset, category, number, record)
            _copy(record.image_path, folder / key)
            entries[key] = entry | {
                "similar_templates": named[:1],
                "random_templates": named[1:],
            }
        name = "MVTec" if dataset == "DS-MVTec" else dataset
        knowledge[name] = {category: {"good": f"A whole {category} is even."}}
    (folder / "mmad.json").write_text(json.dumps(entries, indent=1))
    (folder / "domain_knowledge.json").write_text(json.dumps(knowledge))
    shutil.rmtree(folder / "drawn")
    return folder


def _describe(
    dataset: str, category: str, number: int, record: Record
) -> tuple[str, dict[str, Any]]:
    kind = "good" if record.label == "normal" else "bad"
    place = SOURCES[dataset].format(category=category, kind=kind)
    name = f"{number:03}{record.image_path.suffix}"
    asked = write_questions(record, np.random.default_rng(number))
    entry = {
        "image_path": f"{place.partition(category + '/')[2]}/{name}",
        "conversation": [
            {
                "Question": question.text,
                "Options": question.options,
                "Answer": question.answer,
                "type": question.question_type,
                "annotation": True,
            }
            for question in asked
        ],
    }
    return f"{place}/{name}", entry


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
