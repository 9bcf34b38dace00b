"""MMAD's questions, and files of the same shape, into records: one a question. Opens no picture.

MMAD (Jiang et al., ICLR 2025): 39,672 questions about 8,366 pictures of 38 products. From
https://huggingface.co/datasets/jiang-cc/MMAD (ALL_DATA.zip); questions CC BY-NC-SA 4.0, each of
the four picture sets under its own licence. As it is unpacked::

    mmad.json                                            # picture -> questions, templates, mask
    domain_knowledge.json
    DS-MVTec/bottle/image/broken_large/000.png
    DS-MVTec/bottle/rbg_mask/broken_large/000_rbg_mask.png
    MVTec-AD/bottle/train/good/026.png                   # normal references of DS-MVTec
    MVTec-LOCO/breakfast_box/test/good/000.png
    VisA/candle/test/bad/000.JPG
    GoodsAD/food_box/test/opened/063_017.jpg

IAD-R1's question files (DTD, MPDD, SDD) have the same shape, one question a picture.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from anomalyr1.data.layouts.shared import is_inside
from anomalyr1.data.mmad_faults import (
    drop_repeats,
    drop_wrong_answers,
    find_contradictions,
    find_unclear_options,
    mend_misplaced,
)
from anomalyr1.data.mmad_names import RAW_TYPES, SUBTASKS, name_picture, name_subtask
from anomalyr1.types import InputError, Label, Question, Record

__all__ = [
    "RAW_TYPES",
    "SUBTASKS",
    "Mmad",
    "TemplateKind",
    "choose_references",
    "load_mmad",
    "name_picture",
    "name_subtask",
    "word_missing",
]

QUESTIONS_FILE = "mmad.json"
KNOWLEDGE_FILE = "domain_knowledge.json"
PUBLISHED_COUNTS = {
    "MMAD": {"questions": 39_672, "pictures": 8_366, "products": 38},
    "DTD": {"questions": 1_304, "pictures": 1_304, "products": 12},
    "MPDD": {"questions": 458, "pictures": 458, "products": 6},
    "SDD": {"questions": 340, "pictures": 340, "products": 1},
}
"""MMAD's as its paper has them; those of IAD-R1's sets as its files do."""

KNOWLEDGE_NAMES = {"DS-MVTec": "MVTec"}
TemplateKind = Literal["similar", "random"]


@dataclass(frozen=True, slots=True)
class Mmad:
    """A question file read: a record a question, in the file's order.

    `record_id` is `<picture>#<number of the question>`, `split` is test, `question_type` the raw
    type, `knowledge` the product's text where a knowledge file is there; `reference_paths` are
    empty until `choose_references`. `missing` lists pictures, templates and masks that are not
    under `root`. `faults` are told, not stopped at; `mended` is what `fix` did.
    """

    records: tuple[Record, ...]
    root: Path
    missing: tuple[Path, ...] = ()
    faults: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()


def choose_references(record: Record, shots: int, template: TemplateKind) -> Record:
    """The record with the first `shots` of its similar or random templates as references.

    Raises InputError where it has fewer.
    """
    offered = record.similar_paths if template == "similar" else record.random_paths
    if len(offered) < shots:
        raise InputError(
            f"record {record.record_id} has {len(offered)} {template} templates, {shots} are "
            "wanted: ask with fewer --shots"
        )
    return replace(record, reference_paths=offered[:shots])


def load_mmad(
    source: str | Path,
    *,
    root: str | Path | None = None,
    knowledge_file: str | Path | None = None,
    allow_missing: bool = False,
    fix: bool = False,
) -> Mmad:
    """Read `source`, a question file or a folder that holds mmad.json.

    Paths in it are taken from `root`, by default the file's folder; the knowledge file, by default
    domain_knowledge.json beside it, may be absent. Stops, with one InputError that lists them, at
    faults without a good reading: JSON that is cut off, a picture listed twice, a question without
    text or options, an answer that is not among its options, and, unless `allow_missing`, files
    that are not there. Told are pictures without questions, repeated questions, answers that
    contradict the picture's folder, options that are empty or speak of themselves, and the
    misplaced metal nuts. With `fix`, questions with a wrong answer letter and repeats are left out,
    and the misplaced pictures become metal nuts, with their twins' templates.
    """
    path = Path(source)
    if path.is_dir():
        path = path / QUESTIONS_FILE
    base = Path(root) if root is not None else path.parent
    entries = _read_entries(path)
    knowledge = _read_knowledge(knowledge_file, path.parent / KNOWLEDGE_FILE)
    problems: list[str] = []
    faults: list[str] = []
    mended: list[str] = []
    records: list[Record] = []
    for key, entry in entries.items():
        found = _read_entry(key, entry, base, knowledge, problems)
        found = drop_repeats(key, found, fix, faults, mended)
        records.extend(drop_wrong_answers(found, fix, problems, mended))
        faults.extend(find_contradictions(found))
    if problems:
        shown = problems[:20] + ([f"... and {len(problems) - 20} more"] if problems[20:] else [])
        raise InputError("\n".join([f"{path}: {len(problems)} problems:", *shown]))
    silent = [key for key, entry in entries.items() if not entry["conversation"]]
    if silent:
        faults.append(f"{len(silent)} pictures have no question, first {silent[0]}")
    faults.extend(find_unclear_options(records))
    nut_knowledge = _look_up_knowledge(knowledge, "DS-MVTec", "metal_nut")
    records = mend_misplaced(records, nut_knowledge, fix, faults, mended)
    missing = _find_missing(records)
    if missing and not allow_missing:
        raise InputError(word_missing(missing, base))
    return Mmad(tuple(records), base, tuple(missing), tuple(faults), tuple(mended))


def _read_entries(path: Path) -> dict[str, Any]:
    repeated: list[str] = []

    def keep_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; give MMAD's folder or a question file of its shape"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); copy it again") from error
    try:
        entries = json.loads(text, object_pairs_hook=keep_repeats)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: is not whole JSON ({error}); it may be cut off: download it again"
        ) from error
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} keys occur twice in one object, first {repeated[0]!r}; keep "
            "one of each"
        )
    if not isinstance(entries, dict) or not entries:
        raise InputError(f"{path}: expected an object from pictures to their questions")
    return entries


def _read_knowledge(given: str | Path | None, beside: Path) -> dict[str, Any]:
    path = Path(given) if given is not None else beside
    if given is None and not path.is_file():
        return {}
    try:
        knowledge = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(knowledge, dict):
        raise InputError(f"{path}: expected an object from data sets to their products' texts")
    return knowledge


def _look_up_knowledge(knowledge: Mapping[str, Any], dataset: str, category: str) -> str:
    """A product's texts, a line each, as the published runners join them; empty where none is."""
    texts = knowledge.get(KNOWLEDGE_NAMES.get(dataset, dataset), {})
    found = texts.get(category, {}) if isinstance(texts, dict) else {}
    if not isinstance(found, dict):
        return ""
    return "\n".join(text for text in found.values() if isinstance(text, str))


def _read_entry(
    key: str, entry: object, base: Path, knowledge: Mapping[str, Any], problems: list[str]
) -> list[Record]:
    parts = PurePosixPath(key).parts
    # In one spelling alone: in another, a picture would be listed twice under two names.
    if len(parts) < 3 or ".." in parts or key != "/".join(parts):
        problems.append(f"{key!r}: expected a picture's path such as VisA/candle/test/bad/000.JPG")
        return []
    conversation = entry.get("conversation") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(conversation, list):
        problems.append(f"{key}: has no list `conversation` of questions")
        return []
    mask = entry.get("mask_path")
    templates = {}
    for name in ("similar_templates", "random_templates"):
        listed = entry.get(name) or []
        if not isinstance(listed, list) or not all(map(is_inside, listed)):
            problems.append(f"{key}: {name} is not a list of paths inside the data folder")
            listed = []
        templates[name] = tuple(base / text for text in listed)
    if mask is not None and not is_inside(mask):
        problems.append(f"{key}: mask_path is {mask!r}, expected a path inside the data folder")
        mask = None
    dataset, kind = parts[0], parts[-2]
    category = parts[1] if parts[1] not in ("train", "test") else dataset
    label: Label = "normal" if kind == "good" else "anomalous"
    picture = Record(
        record_id=key,
        image_path=base / key,
        dataset=dataset,
        category=category,
        split="test",
        label=label,
        defect_type="" if label == "normal" else kind,
        mask_path=base.joinpath(*parts[:2], mask) if mask else None,
        mask_threshold=0,
        knowledge=_look_up_knowledge(knowledge, dataset, category),
        similar_paths=templates["similar_templates"],
        random_paths=templates["random_templates"],
    )
    records = []
    for number, item in enumerate(conversation):
        question = _read_question(f"{key}#{number}", item, problems)
        if question is not None:
            records.append(replace(picture, record_id=f"{key}#{number}", question=question))
    return records


def _read_question(record_id: str, item: object, problems: list[str]) -> Question | None:
    if not isinstance(item, dict):
        problems.append(f"{record_id}: is not an object with Question, Options and Answer")
        return None
    text, options, answer = item.get("Question"), item.get("Options"), item.get("Answer")
    kind = item.get("type", "")
    if not isinstance(text, str) or not text.strip():
        problems.append(f"{record_id}: has no text `Question`")
    elif (
        not isinstance(options, dict)
        or len(options) < 2
        or not all(isinstance(option, str) for option in options.values())
        or not all(len(letter) == 1 and "A" <= letter <= "Z" for letter in options)
    ):
        problems.append(f"{record_id}: `Options` are {options!r}, expected letters with texts")
    elif not isinstance(answer, str) or not isinstance(kind, str):
        problems.append(f"{record_id}: `Answer` and `type` must be texts")
    else:
        verified = item.get("annotation")
        return Question(
            text, options, answer, kind, verified if isinstance(verified, bool) else None
        )
    return None


def _find_missing(records: list[Record]) -> list[Path]:
    wanted: dict[Path, None] = {}
    for record in records:
        wanted[record.image_path] = None
        wanted.update(dict.fromkeys((*record.similar_paths, *record.random_paths)))
        if record.mask_path is not None:
            wanted[record.mask_path] = None
    return [path for path in wanted if not path.exists()]


def word_missing(missing: Sequence[Path], base: Path) -> str:
    """All files of a question file that are not under its folder, and what to do."""
    listed = [f"  {file.relative_to(base)}" for file in missing]
    return "\n".join(
        [
            f"{len(missing)} pictures, templates or masks are not under {base}:",
            *listed,
            "download them, or go on without them: --allow-missing",
        ]
    )
