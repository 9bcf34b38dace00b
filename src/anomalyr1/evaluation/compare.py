"""Runs side by side on the same questions: tables, a paired bootstrap, questions won and lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anomalyr1.evaluation.answers import Answer, Key, find_label
from anomalyr1.evaluation.intervals import bootstrap
from anomalyr1.evaluation.mmad_scores import Protocol, Table, compute_table
from anomalyr1.types import InputError


@dataclass(frozen=True, slots=True)
class Run:
    """A run's answers, by what makes two answers answers to one question."""

    name: str
    answers: Mapping[Key, Answer]


@dataclass(frozen=True, slots=True)
class Difference:
    """A run against the first one on the questions that both answered, in points of accuracy over
    all questions (`strict`); `won` are right here and wrong there, `lost` the other way round."""

    name: str
    n: int
    points: float
    ci_low: float
    ci_high: float
    won: tuple[Key, ...]
    lost: tuple[Key, ...]

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves out no change at all."""
        return self.ci_low > 0 or self.ci_high < 0


def build_run(name: str, answers: Sequence[Answer]) -> Run:
    """A question that is asked, and answered alike, twice counts once. Raises InputError where the
    answers differ: which one counts is not known."""
    found: dict[Key, Answer] = {}
    for answer in answers:
        if _choose_text(found.setdefault(answer.key, answer)) != _choose_text(answer):
            raise InputError(
                f"{name}: {answer.image}, {answer.asked[:60]!r} is answered twice, and not alike; "
                "keep one"
            )
    return Run(name, found)


def _choose_text(answer: Answer) -> str:
    """The chosen option's text: options may stand in another order."""
    return answer.options.get(answer.given, answer.given)


def find_common(runs: Sequence[Run]) -> list[Key]:
    """The questions that all runs answered. Raises InputError where there are none."""
    common = [key for key in runs[0].answers if all(key in run.answers for run in runs)]
    if not common:
        raise InputError("the runs have no question in common: compare runs on the same data")
    for key in common:
        right = {" ".join(run.answers[key].right_text.split()) for run in runs}
        if len(right) > 1:
            raise InputError(
                f"{key[0]}, {key[2][:60]!r}: the runs hold different right answers "
                f"({', '.join(sorted(right))}): compare runs on one version of the data"
            )
    return common


def compute_tables(
    runs: Sequence[Run], common: Sequence[Key], protocol: Protocol, *, seed: int = 0
) -> list[Table]:
    """A table a run, over the questions in common."""
    return [
        compute_table([run.answers[key] for key in common], protocol, seed=seed) for run in runs
    ]


def compute_difference(
    first: Run, other: Run, common: Sequence[Key], *, seed: int = 0
) -> Difference:
    """Paired: pictures are drawn with all their questions, within data set and class, and both runs
    are measured on the same draws."""
    images = list(dict.fromkeys(key[0] for key in common))
    place = {image: number for number, image in enumerate(images)}
    gains, counts = np.zeros(len(images)), np.zeros(len(images))
    strata = np.empty(len(images), dtype=object)
    won: list[Key] = []
    lost: list[Key] = []
    for key in common:
        before, after = first.answers[key], other.answers[key]
        change = int(after.is_right) - int(before.is_right)
        gains[place[key[0]]] += change
        counts[place[key[0]]] += 1
        strata[place[key[0]]] = f"{before.dataset} {find_label(before)}"
        if change:
            (won if change > 0 else lost).append(key)
    draws = bootstrap(
        lambda weights: 100 * (weights @ gains) / (weights @ counts), strata, seed=seed
    )
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(
        other.name, len(common), float(100 * gains.sum() / counts.sum()), float(low), float(high),
        tuple(won), tuple(lost),
    )  # fmt: skip
