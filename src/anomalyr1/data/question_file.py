"""Questions written from records' truth as a file of MMAD's shape, which programs for MMAD read.

The pictures are copied beside it, under names that tell data set, category and kind as MMAD's do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalyr1.data.fewshot_files import write_question_records
from anomalyr1.data.mmad import KNOWLEDGE_FILE, QUESTIONS_FILE
from anomalyr1.images import write_bytes_atomic
from anomalyr1.types import InputError, Record

_NORMAL_KIND = "good"
_ANOMALOUS_KIND = "bad"


def write_question_file(records: Sequence[Record], out: Path, *, seed: int) -> int:
    """Write mmad.json, domain_knowledge.json and the pictures to `out`; returns how many questions.

    Each record's references become its templates, similar and random alike; knowledge is kept a
    category. The same records and seed give the same questions. Raises InputError where `out` holds
    questions already, and for records that have some or have no label.
    """
    if (out / QUESTIONS_FILE).exists():
        raise InputError(f"{out} holds questions already: choose another --out or delete it")
    kinds: dict[str, dict[str, None]] = {}  # of a category, each once, in order
    for record in records:
        if record.label == "anomalous":
            kinds.setdefault(record.category, {})[record.defect_type] = None
    entries: dict[str, Any] = {}
    knowledge: dict[str, dict[str, dict[str, str]]] = {}
    templates: dict[Path, str] = {}
    count = 0
    for number, record in enumerate(records):
        asked = write_question_records(record, seed, other_kinds=kinds.get(record.category, ()))
        dataset, category = _name(record.dataset, "records"), _name(record.category, "part")
        place = f"{dataset}/{category}"
        for path in record.reference_paths:
            if path not in templates:
                templates[path] = f"{place}/train/good/{len(templates):06}{path.suffix}"
                write_bytes_atomic(out / templates[path], path.read_bytes())
        kind = _NORMAL_KIND
        if record.label == "anomalous":
            kind = _name(record.defect_type, _ANOMALOUS_KIND)
            kind = _ANOMALOUS_KIND if kind == _NORMAL_KIND else kind
        within = f"test/{kind}/{number:06}{record.image_path.suffix}"
        write_bytes_atomic(out / place / within, record.image_path.read_bytes())
        named = [templates[path] for path in record.reference_paths]
        entries[f"{place}/{within}"] = {
            "image_path": within,
            "conversation": [
                {
                    "Question": one.question.text,
                    "Options": dict(one.question.options),
                    "Answer": one.question.answer,
                    "type": one.question.question_type,
                }
                for one in asked
                if one.question is not None
            ],
            "similar_templates": named,
            "random_templates": named,
        }
        count += len(asked)
        if record.knowledge.strip():
            knowledge.setdefault(dataset, {})[category] = {"knowledge": record.knowledge.strip()}
    if not count:
        raise InputError("no question can be written from these records: check their labels")
    for name, content in ((KNOWLEDGE_FILE, knowledge), (QUESTIONS_FILE, entries)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_bytes_atomic(out / name, (text + "\n").encode())
    return count


def _name(text: str, otherwise: str) -> str:
    """A text as one part of a path."""
    return re.sub(r"[^\w-]+", "_", text).strip("_") or otherwise
