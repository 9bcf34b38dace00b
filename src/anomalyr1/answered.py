"""What was said to a record's multiple-choice question, read or with the reason why not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anomalyr1.parsing import parse_choice
from anomalyr1.preparation import Prepared
from anomalyr1.types import Completion, InputError, Record, Response


@dataclass(frozen=True, slots=True)
class Answered:
    """What was said to a record's question; `error` where the question could not be put."""

    record: Record
    response: Response
    completion: Completion | None = None
    template_id: str = ""
    seconds: float = 0.0
    error: str | None = None


def read_answer(prepared: Prepared, said: Completion | InputError) -> Answered:
    """What a model said to a record's question, with or without tags, or why it said nothing."""
    record, template_id = prepared.record, prepared.prompt.template_id
    if isinstance(said, InputError):
        return replace(fail_question(record, str(said)), template_id=template_id)
    if said.finish_reason == "error":
        failed = fail_question(record, said.problem)
        return replace(failed, completion=said, template_id=template_id)
    if said.finish_reason == "refusal":
        response = Response("refused", problem=said.problem)
    else:
        options = None if record.question is None else record.question.options
        response = parse_choice(said.text, options, said.finish_reason, untagged=True)
    return Answered(record, response, said, template_id)


def fail_question(record: Record, error: str) -> Answered:
    """A question that could not be put."""
    return Answered(record, Response("no_answer", problem="not answered"), error=error)
