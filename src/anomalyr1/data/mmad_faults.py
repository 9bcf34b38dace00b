"""What is wrong with questions of MMAD's shape: said, and mended where `fix` asks for it.

Each function adds what it says to a list: `problems` stop an import, `faults` are told, `mended`
was set right.
"""

from __future__ import annotations

import filecmp
import json
import re
from dataclasses import replace

from anomalyr1.data.mmad_names import SUBTASKS, name_picture, name_subtask
from anomalyr1.data.question_options import rewrite_option_references, speaks_of_letters
from anomalyr1.types import Record

MISPLACED = frozenset(f"DS-MVTec/pill/image/good/{number:03}.png" for number in range(22))
"""Pictures of metal nuts among the pills (github.com/jam-cc/MMAD/issues/15): their questions speak
of metal nuts, their templates and folder of pills."""


def drop_wrong_answers(
    records: list[Record], fix: bool, problems: list[str], mended: list[str]
) -> list[Record]:
    """Questions whose answer is among their options; others are problems, or left out by `fix`."""
    kept = []
    for record in records:
        question = record.question
        assert question is not None
        if question.answer in question.options:
            kept.append(record)
            continue
        said = f"{record.record_id}: answer {question.answer!r} is not among " + ", ".join(
            question.options
        )
        if fix:
            mended.append(f"{said}: left out")
        else:
            problems.append(f"{said}; --fix leaves such questions out")
    return kept


def drop_repeats(
    key: str, records: list[Record], fix: bool, faults: list[str], mended: list[str]
) -> list[Record]:
    """A question asked twice of one picture is told: the published scorer counts it twice."""
    seen: dict[str, Record] = {}
    kept = []
    for record in records:
        question = record.question
        assert question is not None
        asked = json.dumps([question.text, question.options, question.question_type])
        first = seen.setdefault(asked, record)
        if first is record:
            kept.append(record)
            continue
        same = first.question is not None and first.question.answer == question.answer
        other = "" if same else " with another answer"
        said = f"{record.record_id}: repeats the question #{first.record_id.split('#')[-1]}{other}"
        (mended if fix else faults).append(f"{said}: left out" if fix else said)
        if not fix:
            kept.append(record)
    return kept


def find_contradictions(records: list[Record]) -> list[str]:
    """Yes/no answers about a defect that contradict the folder, which is the truth."""
    faults = []
    for record in records:
        question = record.question
        if question is None or name_subtask(question.question_type) != SUBTASKS[0]:
            continue
        said = question.options.get(question.answer or "", "").strip(" .").lower()
        if said in ("yes", "no") and (said == "yes") != (record.label == "anomalous"):
            folder = record.image_path.parent.name
            faults.append(f"{record.record_id}: the answer is {said}, the folder {folder}")
    return faults


def find_unclear_options(records: list[Record]) -> list[str]:
    """Questions that are asked as they are published although an option is empty, or speaks of
    itself or of another that speaks of options ("B: Both A and B")."""
    empty, unclear = [], []
    for record in records:
        question = record.question
        assert question is not None
        if not all(text.strip(" .") for text in question.options.values()):
            empty.append(record.record_id)
        if speaks_of_letters(rewrite_option_references(question)):
            unclear.append(record.record_id)
    return [
        f"{len(found)} questions have an option that {fault}, first {found[0]}; asked as published"
        for found, fault in ((empty, "is empty"), (unclear, "speaks of itself"))
        if found
    ]


def mend_misplaced(
    records: list[Record],
    nut_knowledge: str,
    fix: bool,
    faults: list[str],
    mended: list[str],
) -> list[Record]:
    """Metal nuts among the pills: those of the known names whose picture is the metal nut of the
    same number, or whose questions or right answers speak of nuts.

    In a corrected copy neither is so, and nothing is done.
    """
    nuts = {name_picture(record) for record in records if _is_misplaced(record)}
    if not nuts:
        return records
    said = f"{len(nuts)} pictures in DS-MVTec/pill/image/good are metal nuts, first {min(nuts)}"
    if not fix:
        faults.append(f"{said}; --fix files them as metal_nut, with templates of metal nuts")
        return records
    mended.append(f"{said}: filed as metal_nut")
    twins = {name_picture(record): record for record in records}
    any_nut = next(
        (record for key, record in twins.items() if key.startswith("DS-MVTec/metal_nut/")), None
    )
    result = []
    for record in records:
        key = name_picture(record)
        if key in nuts:
            twin = twins.get(key.replace("/pill/", "/metal_nut/"), any_nut)
            record = replace(
                record,
                category="metal_nut",
                knowledge=nut_knowledge,
                similar_paths=twin.similar_paths if twin else (),
                random_paths=twin.random_paths if twin else (),
            )
        result.append(record)
    return result


def _is_misplaced(record: Record) -> bool:
    question = record.question
    if name_picture(record) not in MISPLACED or question is None:
        return False
    said = f"{question.text} {question.options.get(question.answer or '', '')}".lower()
    if re.search(r"\bnuts?\b", said):
        return True
    path = record.image_path
    twin = path.parents[3] / "metal_nut" / "image" / "good" / path.name
    return path.is_file() and twin.is_file() and filecmp.cmp(path, twin, shallow=False)
