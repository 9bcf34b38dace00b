"""Runs MMAD's questions through a model into a folder, a line an answer, and goes on after a kill.

Questions are put in fixed batches, counted from the first question, whatever is already there: a
batch that a kill cut in two is put again whole, so that the model sees the same padding and writes
the same text. `answers.jsonl` holds nothing that differs from run to run; how long each answer took
is in `seconds.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from anomalyr1.answered import Answered
from anomalyr1.data.mmad import Mmad, TemplateKind, choose_references, name_subtask
from anomalyr1.evaluation.answers import (
    ANSWERS_FILE,
    Answer,
    build_answer,
    build_answer_line,
    load_answers,
    read_answer,
)
from anomalyr1.images import write_bytes_atomic
from anomalyr1.models import RecordInspector
from anomalyr1.reporting.lines import LineWriter
from anomalyr1.run_folder import claim_folder
from anomalyr1.types import InputError, Record

SECONDS_FILE = "seconds.jsonl"
MAX_FAILED_BATCHES = 3
"""As many questions in a row as so many batches hold, without one answer: the model is gone, and
the run stops."""


def choose_questions(
    mmad: Mmad,
    *,
    shots: int = 1,
    template: TemplateKind = "random",
    domain_knowledge: bool = False,
    subset: Sequence[str] = (),
    limit: int | None = None,
) -> list[Record]:
    """The questions to ask, each with its references.

    A `subset` entry is a data set, a data set/product, or a subtask; questions have to match one
    of the data sets or products named, and one of the subtasks. The product's name is not shown,
    as in the published runners: it would answer questions on the object. Raises InputError for an
    entry that nothing matches.
    """
    records = list(mmad.records)
    kinds = {name_subtask(_kind(record)) for record in records}
    places = {record.dataset for record in records}
    places |= {f"{record.dataset}/{record.category}" for record in records}
    if unknown := [entry for entry in subset if entry not in kinds | places]:
        raise InputError(
            f"--subset {unknown[0]!r} matches no question; use a data set, a data set/product or a "
            f"subtask: {', '.join(sorted({r.dataset for r in records} | kinds))}"
        )
    wanted_kinds = kinds & set(subset) or kinds
    wanted_places = places & set(subset) or places
    chosen = [
        record
        for record in records
        if name_subtask(_kind(record)) in wanted_kinds
        and {record.dataset, f"{record.dataset}/{record.category}"} & wanted_places
    ][:limit]
    if not chosen:
        raise InputError("no question is left to ask: check --subset")
    return [
        replace(
            choose_references(record, shots, template),
            category="",
            knowledge=record.knowledge if domain_knowledge else "",
        )
        for record in chosen
    ]


def part_missing(records: Sequence[Record], mmad: Mmad) -> tuple[list[Record], list[Path]]:
    """The records of whose pictures, references included, none is missing, and the missing ones."""
    missing = set(mmad.missing)
    lost: dict[Path, None] = {}
    kept = []
    for record in records:
        gone = [path for path in (record.image_path, *record.reference_paths) if path in missing]
        lost.update(dict.fromkeys(gone))
        if not gone:
            kept.append(record)
    return kept, list(lost)


def answer_into(
    folder: Path,
    inspector: RecordInspector,
    records: Sequence[Record],
    settings: Mapping[str, object],
    *,
    batch_size: int = 8,
    seed: int = 0,
) -> Iterator[Answer]:
    """Answer every question into `folder`/answers.jsonl; yields all answers, those that were there
    too, in the order of the questions. Answers with an error are asked again.

    Raises InputError where the folder holds other settings or answers to other questions, and
    where as many questions in a row as `MAX_FAILED_BATCHES` batches hold have no answer.
    """
    claim_folder(folder, settings, ANSWERS_FILE)
    path = folder / ANSWERS_FILE
    ids = [record.record_id for record in records]
    if len(set(ids)) < len(ids):
        raise InputError("a question is listed twice: keep one of each")
    num_failed = 0
    with (
        LineWriter(path, _is_answer) as answers,
        LineWriter(folder / SECONDS_FILE, _is_json) as times,
    ):
        done = _load_done(path, set(ids))
        batches = (ids[start : start + batch_size] for start in range(0, len(ids), batch_size))
        whole = {name for batch in batches if done.keys() >= set(batch) for name in batch}
        asked = [record for record in records if record.record_id not in whole]
        found = inspector.answer_records(asked, batch_size=batch_size, seed=seed)
        for name in ids:
            if name not in whole:
                one = next(found)
                num_failed = num_failed + 1 if one.error else 0
                if name not in done:
                    done[name] = describe(one)
                    times.write(json.dumps({"question_id": name, "seconds": one.seconds}))
                    answers.write(build_answer_line(done[name]))
            yield done[name]
            if num_failed == MAX_FAILED_BATCHES * batch_size:
                raise InputError(
                    f"{num_failed} questions in a row have no answer, the last for: {one.error}; "
                    "what is written stays, give the command again to go on"
                )
    _write_in_order(path, [done[record_id] for record_id in ids])


def describe(one: Answered) -> Answer:
    """What was said to a question as it is written."""
    said = one.completion
    given = one.response.choice if one.response.status == "ok" and one.error is None else None
    return build_answer(
        one.record,
        given or "",
        template_id=one.template_id,
        raw_text="" if said is None else said.text,
        status="error" if one.error else one.response.status,
        problem=one.response.problem,
        num_tokens=0 if said is None else said.num_tokens,
        num_prompt_tokens=0 if said is None else said.num_prompt_tokens,
        error=one.error,
    )


def _load_done(path: Path, ids: set[str]) -> dict[str, Answer]:
    if not path.stat().st_size:
        return {}
    done = {}
    for number, answer in enumerate(load_answers(path), start=1):
        if answer.question_id not in ids:
            raise InputError(
                f"{path}, line {number}: answers {answer.question_id!r}, which is not asked: "
                "choose another --out, or remove the folder"
            )
        done[answer.question_id] = answer
    return {name: answer for name, answer in done.items() if not answer.details.get("error")}


def _write_in_order(path: Path, answers: Sequence[Answer]) -> None:
    """Answers that were asked again stand behind the others until here."""
    content = "".join(build_answer_line(answer) + "\n" for answer in answers).encode("ascii")
    if path.read_bytes() != content:
        write_bytes_atomic(path, content)


def _kind(record: Record) -> str:
    return "" if record.question is None else record.question.question_type


def _is_answer(line: str) -> bool:
    try:
        read_answer(json.loads(line))
    except (InputError, ValueError, RecursionError):
        return False
    return True


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
