"""Whether answers fit the questions: the odd is told, what does not fit is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from anomalyr1.data.mmad import SUBTASKS
from anomalyr1.evaluation.answers import LETTERS, Answer, Key, build_answer, is_same_text
from anomalyr1.types import InputError, Record


def find_faults(answers: Sequence[Answer]) -> list[str]:
    """What a reader of the scores should know of the answers, a sentence each; nothing is mended:
    questions answered more than once, letters outside of the options, types that are no subtask."""
    faults = []
    counts = Counter(answer.key for answer in answers if answer.question)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        extra = sum(counts[key] - 1 for key in repeated)
        faults.append(
            f"{len(repeated)} questions are answered more than once ({extra} answers too many, "
            f"first for {repeated[0][0]}): each answer counts"
        )
    strange = [one for one in answers if one.options and one.given in LETTERS and not one.is_read]
    if strange:
        faults.append(
            f"{len(strange)} answers are a letter that is not among the question's options "
            f"(first for {strange[0].image}): wrong, and unread in `strict`"
        )
    wrong = [one for one in answers if one.options and one.correct_answer not in one.options]
    if wrong:
        faults.append(
            f"{len(wrong)} right answers are not among the options (first "
            f"{wrong[0].correct_answer!r} for {wrong[0].image}): such questions cannot be answered"
        )
    kinds = sorted({one.subtask for one in answers} - set(SUBTASKS))
    if kinds:
        faults.append(f"question types that are none of the seven subtasks: {', '.join(kinds)}")
    return faults


def check_answers(answers: Sequence[Answer], records: Iterable[Record]) -> list[str]:
    """Compare answers with the questions of a data set; returns what is not answered, in words.

    Raises InputError for answers to other questions than asked, more answers to a question than it
    is asked, and right answers that differ from the data set's.
    """
    asked: dict[Key, Answer] = {}
    left: Counter[Key] = Counter()
    for record in records:
        wanted = build_answer(record, "")
        asked.setdefault(wanted.key, wanted)
        left[wanted.key] += 1
    problems = []
    total = left.total()
    for answer in answers:
        found = asked.get(answer.key)
        where = f"{answer.image}, {answer.question_type}"
        if found is None:
            problems.append(f"{where}: {answer.asked[:60]!r} is not asked in the data")
        elif not is_same_text(found.right_text, answer.right_text):
            problems.append(f"{where}: right is {found.right_text!r}, not {answer.right_text!r}")
        elif not left[answer.key]:
            problems.append(f"{where}: answered more often than it is asked; keep one")
        else:
            left[answer.key] -= 1
    if problems:
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise InputError(
            "\n".join([f"{len(problems)} answers do not fit the data:", *problems[:20], *more])
        )
    unanswered = left.total()
    return [f"{unanswered} of {total} questions are not answered"] if unanswered else []
