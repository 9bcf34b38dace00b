"""The options of a multiple-choice question: put in another order, without a letter going astray.

Imported questions may hold options that speak of other options ("Both A and B", "None of the
above"); their letters are replaced by the options' own texts before anything moves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from anomalyr1.types import InputError, Question

LETTERS = "ABCDE"

_LETTER = r"[\"'(]?([A-Z])[\"')]?"
_ENDING = r"(?:\s+(?:is|are)(?:\s+(?:all|both))?\s+(?:correct|right|true|possible|present))?"
_BY_LETTER = re.compile(
    rf"(?:(both|either|neither|all of|any of|none of|only)\s+(?:of\s+)?)?"
    rf"(?:(?:options?|answers?|choices?)\s+)?{_LETTER}"
    rf"(?:(?:\s*,\s*|\s*(?:,\s*)?(?:and|or|nor|&)\s+){_LETTER})*{_ENDING}\s*\.?",
    re.IGNORECASE,
)
_BY_PLACE = re.compile(
    r"(all|both|none|neither|any|either)(?:\s+of)?\s+(?:the\s+|these\s+)?"
    rf"(?:above|others?|options|answers|choices|these|them)(?:\s+(?:options|answers|choices))?"
    rf"{_ENDING}\s*\.?",
    re.IGNORECASE,
)
_SAID = {
    "only": "Only: {}",
    "neither": "None of these: {}",
    "none": "None of these: {}",
    "none of": "None of these: {}",
    "either": "One of these: {}",
    "any": "One of these: {}",
    "any of": "One of these: {}",
}
_ALL = "All of these: {}"


def build_question(
    text: str, right: str, wrong: Sequence[str], question_type: str, rng: np.random.Generator
) -> Question:
    """A question with its options in an order drawn from `rng`.

    Raises InputError unless there are 2 to 5 options, all different.
    """
    texts = [right, *wrong]
    if not 2 <= len(texts) <= len(LETTERS) or len({_bare(text) for text in texts}) < len(texts):
        raise InputError(f"options {texts} of {text!r}: give 2 to 5, all different")
    order = rng.permutation(len(texts))
    options = {LETTERS[place]: texts[number] for place, number in enumerate(order)}
    answer = LETTERS[int(np.flatnonzero(order == 0)[0])]
    return Question(text, options, answer, question_type)


def speaks_of_letters(question: Question) -> bool:
    """Whether an option means other options by their letter or place, so that order matters."""
    return any(_meant_letters(question.options, letter) is not None for letter in question.options)


def rewrite_option_references(question: Question) -> Question:
    """The question with references among its options replaced by the texts they mean.

    "All of the above" means every other option, since published options were often shuffled after
    they were written. An option that speaks of itself or of another such option ("B: Both A and
    B") cannot be resolved and stays as it is; `speaks_of_letters` tells.

    >>> options = {"A": "Dust", "B": "Oil", "C": "Rust", "D": "Both A and B."}
    >>> rewrite_option_references(Question("What is seen?", options, "D")).options["D"]
    'All of these: Dust; Oil'
    """
    options = dict(question.options)
    referring = {letter for letter in options if _meant_letters(options, letter) is not None}
    for letter in sorted(referring):
        meant = _meant_letters(options, letter)
        assert meant is not None
        word, letters = meant
        if not letters:  # by place: all options that speak for themselves
            letters = [other for other in options if other not in referring]
            if len(letters) != 2 and word in ("both", "neither", "either"):
                continue
        if not letters or any(other in referring or other not in options for other in letters):
            continue
        listed = "; ".join(question.options[other].rstrip(" .") for other in letters)
        options[letter] = _SAID.get(word, _ALL).format(listed)
    return Question(question.text, options, question.answer, question.question_type)


def shuffle_options(question: Question, rng: np.random.Generator) -> Question:
    """The question with its options' texts under other letters, the answer still right.

    References among options are rewritten first; where one cannot be, the order is kept. Raises
    InputError for an answer that is not among the options.
    """
    if question.answer is not None and question.answer not in question.options:
        raise InputError(
            f"answer {question.answer!r} of {question.text!r} is not among the options "
            f"{', '.join(question.options)}: correct the question"
        )
    question = rewrite_option_references(question)
    if speaks_of_letters(question):
        return question
    letters = list(question.options)
    sources = [letters[number] for number in rng.permutation(len(letters))]
    options = {
        letter: question.options[source] for letter, source in zip(letters, sources, strict=True)
    }
    answer = None if question.answer is None else letters[sources.index(question.answer)]
    return Question(question.text, options, answer, question.question_type)


def _meant_letters(options: dict[str, str], letter: str) -> tuple[str, list[str]] | None:
    """What an option says of others: the word ("both") and their letters, none if by place."""
    text = options[letter].strip()
    if found := _BY_PLACE.fullmatch(text):
        return found.group(1).lower(), []
    found = _BY_LETTER.fullmatch(text)
    if not found:
        return None
    letters = re.findall(r"\b([A-Z])\b", text)
    # A lone letter is an option's own text (a grade, a size) unless a word says otherwise.
    dressed = found.group(1) or re.match(r"(?i)options?|answers?|choices?", text)
    if not letters or (len(letters) == 1 and not dressed):
        return None
    word = found.group(1) or ("either" if re.search(r"(?i)\bor\b", text) else "")
    return word.lower(), letters


def _bare(text: str) -> str:
    return text.rstrip(" .").casefold()
