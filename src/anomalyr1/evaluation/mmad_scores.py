"""Answers to tables: `mmad`, the published scorer's arithmetic with its faults, and `strict`.

The published scorer is `helper/summary.py` of github.com/jam-cc/MMAD. Its faults are kept in
`mmad`, so that numbers compare with papers: an answer that is no letter A to E is dropped, and so
is the answer behind it, since the list is shortened while it is walked; a subtask that a data set
has no question of counts as 0; a picture is normal if its path contains "good".

`strict` counts what is not read as wrong, takes normal and anomalous from the truth, and leaves
empty cells out of every mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.mmad import SUBTASKS
from anomalyr1.evaluation.answers import LETTERS, Answer, find_label
from anomalyr1.evaluation.intervals import bootstrap, wilson_interval

Protocol = Literal["mmad", "strict"]
PROTOCOLS: tuple[Protocol, ...] = ("mmad", "strict")
DETECTION = SUBTASKS[0]
MEASURES = ("Average", "Recall", "Precision", "F1", "Overkill", "Miss")
AVERAGE = "Average"
NORMAL_FLAG = "good"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table, in per cent, None where it is undefined. `n` answers were counted;
    `num_unread` were not read; `num_skipped` could be read and were lost to the scorer's fault."""

    value: float | None
    n: int
    num_unread: int
    num_skipped: int = 0
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Scores as the published table lays them out: a row a data set, the last one "Average"; a
    column a subtask, then `MEASURES`. Columns of subtasks that no question is of are empty."""

    protocol: Protocol
    columns: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]


@dataclass(frozen=True, slots=True)
class _Counted:
    """Answers of one protocol: `group` is (data set, subtask, class) as indices, `right` 0 or 1."""

    datasets: tuple[str, ...]
    subtasks: tuple[str, ...]
    kept: tuple[Answer, ...]
    groups: NDArray[np.int64]
    right: Floats
    unread: dict[tuple[str, str], int]
    skipped: dict[tuple[str, str], int]


def compute_table(answers: Sequence[Answer], protocol: Protocol, *, seed: int = 0) -> Table:
    """The table of a protocol, each cell with n, unread answers and a 95 % interval.

    Intervals are Wilson's for shares, and for balanced accuracy, precision, F1 and means
    percentile bootstraps over pictures, drawn within data set and class, with all questions of a
    picture together. Data sets stand in the order of their first answer.
    """
    counted = _count_published(answers) if protocol == "mmad" else _count_strictly(answers)
    totals = _sum_groups(counted, np.ones((1, len(counted.kept))))
    values = _compute_cells(counted, *totals, protocol)
    resampled = _resample(counted, protocol, seed)
    num_sets = len(counted.datasets)
    columns = (*SUBTASKS, *(kind for kind in counted.subtasks if kind not in SUBTASKS), *MEASURES)
    rows: dict[str, dict[str, Cell]] = {}
    for place, row in enumerate((*counted.datasets, AVERAGE)):
        cells = {}
        for column in columns:
            if column not in values:
                cells[column] = Cell(None, 0, 0)
                continue
            draws = resampled[column][:, place]
            cells[column] = _build_cell(
                counted, place if place < num_sets else None, column, values[column][0, place],
                draws, totals,
            )  # fmt: skip
        rows[row] = cells
    return Table(protocol, columns, rows)


def _count_published(answers: Sequence[Answer]) -> _Counted:
    kept: list[Answer] = []
    unread: dict[tuple[str, str], int] = {}
    skipped: dict[tuple[str, str], int] = {}
    is_behind_removed = False
    for answer in answers:
        place = (answer.dataset, answer.subtask)
        is_valid = answer.given in LETTERS and answer.correct_answer in LETTERS
        if is_behind_removed:
            is_behind_removed = False
            lost = skipped if is_valid else unread
            lost[place] = lost.get(place, 0) + 1
        elif is_valid:
            kept.append(answer)
        else:
            unread[place] = unread.get(place, 0) + 1
            is_behind_removed = True
    classes = [int(NORMAL_FLAG not in answer.image) for answer in kept]
    right = [float(answer.given == answer.correct_answer) for answer in kept]
    return _group(answers, kept, classes, right, unread, skipped)


def _count_strictly(answers: Sequence[Answer]) -> _Counted:
    unread: dict[tuple[str, str], int] = {}
    for answer in answers:
        if not answer.is_read:
            place = (answer.dataset, answer.subtask)
            unread[place] = unread.get(place, 0) + 1
    classes = [int(find_label(answer) == "anomalous") for answer in answers]
    right = [float(answer.is_right) for answer in answers]
    return _group(answers, list(answers), classes, right, unread, {})


def _group(
    answers: Sequence[Answer],
    kept: list[Answer],
    classes: list[int],
    right: list[float],
    unread: dict[tuple[str, str], int],
    skipped: dict[tuple[str, str], int],
) -> _Counted:
    datasets = tuple(dict.fromkeys(answer.dataset for answer in answers))
    found = list(dict.fromkeys(answer.subtask for answer in answers))
    subtasks = (*(kind for kind in SUBTASKS if kind in found), *_others(found))
    groups = np.array(
        [
            (datasets.index(one.dataset) * len(subtasks) + subtasks.index(one.subtask)) * 2 + kind
            for one, kind in zip(kept, classes, strict=True)
        ],
        dtype=np.int64,
    )
    return _Counted(
        datasets, subtasks, tuple(kept), groups, np.array(right, np.float64), unread, skipped
    )


def _others(found: Sequence[str]) -> list[str]:
    return [kind for kind in found if kind not in SUBTASKS]


def _sum_groups(counted: _Counted, weights: Floats) -> tuple[Floats, Floats]:
    """Right answers and all answers, each (r, data sets, subtasks, 2 classes), for weights (r, n)
    of the answers."""
    shape = (len(counted.datasets), len(counted.subtasks), 2)
    members = np.zeros((len(counted.kept), int(np.prod(shape))))
    members[np.arange(len(counted.kept)), counted.groups] = 1.0
    right = weights @ (members * counted.right[:, None])
    return right.reshape(-1, *shape), (weights @ members).reshape(-1, *shape)


def _compute_cells(
    counted: _Counted, right: Floats, total: Floats, protocol: Protocol
) -> dict[str, Floats]:
    """Column to (r, data sets + 1) values in per cent, the last one the mean over data sets.

    The order of operations is the published scorer's, so that the last digits agree.
    """
    empty = 0.0 if protocol == "mmad" else np.nan
    columns: dict[str, Floats] = {}
    for place, subtask in enumerate(counted.subtasks):
        sums = right[:, :, place].sum(axis=-1), total[:, :, place].sum(axis=-1)
        columns[subtask] = _divide(*sums, empty) * 100
    nothing = np.zeros(right.shape[:2])
    asked = counted.subtasks.index(DETECTION) if DETECTION in counted.subtasks else None
    true_negative, true_positive, num_normal, num_anomalous = (
        nothing if asked is None else part[:, :, asked, kind]
        for part in (right, total)
        for kind in (0, 1)
    )
    normal = _divide(true_negative, num_normal, empty)
    anomalous = _divide(true_positive, num_anomalous, empty)
    if asked is not None:
        columns[DETECTION] = (normal + anomalous) / 2 * 100
    precision = _divide(true_positive, true_positive + (num_normal - true_negative), empty)
    columns[AVERAGE] = _mean(np.stack([columns[name] for name in counted.subtasks]))
    columns["Recall"] = anomalous * 100
    columns["Precision"] = precision * 100
    f1 = _divide(2 * (precision * anomalous), precision + anomalous, 0.0)
    if protocol == "strict":  # undefined without a defect; 0 where none was found
        f1 = np.where(num_anomalous > 0, np.where(true_positive > 0, f1, 0.0), np.nan)
    columns["F1"] = f1 * 100
    columns["Overkill"] = (1 - normal) * 100
    columns["Miss"] = (1 - anomalous) * 100
    return {
        name: np.concatenate([column, _mean(column.T)[:, None]], axis=1)
        for name, column in columns.items()
    }


def _divide(above: Floats, below: Floats, empty: float) -> Floats:
    quotients = np.full(above.shape, empty)
    np.divide(above, below, out=quotients, where=below > 0)
    return quotients


def _mean(stacked: Floats) -> Floats:
    """Mean over the first axis of what is defined, NaN where nothing is."""
    defined = np.isfinite(stacked)
    count = defined.sum(axis=0)
    total = np.zeros(stacked.shape[1:])
    for values, known in zip(stacked, defined, strict=True):
        total = total + np.where(known, values, 0.0)
    return _divide(total, count.astype(np.float64), np.nan)


def _resample(counted: _Counted, protocol: Protocol, seed: int) -> dict[str, Floats]:
    """Column to (resamples, data sets + 1): pictures drawn within data set and class."""
    images = list(dict.fromkeys(answer.image for answer in counted.kept))
    if not images:
        names = [*counted.subtasks, *MEASURES]
        return {name: np.full((1, len(counted.datasets) + 1), np.nan) for name in names}
    number = {image: place for place, image in enumerate(images)}
    owners = np.array([number[answer.image] for answer in counted.kept])
    strata = np.zeros(len(images), np.int64)
    num_groups = len(counted.subtasks) * 2
    strata[owners] = counted.groups // num_groups * 2 + counted.groups % 2
    size = (len(images), len(counted.datasets) * num_groups)
    right, total = np.zeros(size), np.zeros(size)
    np.add.at(right, (owners, counted.groups), counted.right)
    np.add.at(total, (owners, counted.groups), 1.0)
    both = np.concatenate([right, total], axis=1)
    sums = bootstrap(lambda weights: np.asarray(weights @ both), strata, seed=seed)
    shape = (-1, len(counted.datasets), len(counted.subtasks), 2)
    halves = np.split(sums, 2, axis=1)
    return _compute_cells(counted, halves[0].reshape(shape), halves[1].reshape(shape), protocol)


def _build_cell(
    counted: _Counted,
    place: int | None,
    column: str,
    value: float,
    draws: Floats,
    totals: tuple[Floats, Floats],
) -> Cell:
    """A cell with its counts; `place` is the data set's index, None for the mean of all."""
    asked = counted.subtasks if column == AVERAGE else (DETECTION,)
    asked = (column,) if column in counted.subtasks else asked
    chosen = counted.datasets if place is None else (counted.datasets[place],)
    right, total = (part[0] if place is None else part[0, place : place + 1] for part in totals)
    indices = [counted.subtasks.index(kind) for kind in asked if kind in counted.subtasks]
    kinds = {"Recall": [1], "Miss": [1], "Overkill": [0]}.get(column, [0, 1])
    n = round(total[:, indices][:, :, kinds].sum())
    hits = round(right[:, indices][:, :, kinds].sum())
    if column == "Precision":
        alarms = total[:, indices, 0].sum() - right[:, indices, 0].sum()
        n = round(right[:, indices, 1].sum() + alarms)
        hits = round(right[:, indices, 1].sum())
    lost = [
        sum(counts.get((name, kind), 0) for name in chosen for kind in asked)
        for counts in (counted.unread, counted.skipped)
    ]
    interval = None
    is_share = column not in (DETECTION, AVERAGE, "F1")
    if np.isfinite(value) and n and place is not None and is_share:
        interval = wilson_interval(n - hits if column in ("Overkill", "Miss") else hits, n)
        interval = None if interval is None else (100 * interval[0], 100 * interval[1])
    elif np.isfinite(value) and n and np.isfinite(draws).any():
        low, high = np.percentile(draws[np.isfinite(draws)], [2.5, 97.5])
        interval = (float(low), float(high))
    return Cell(
        float(value) if np.isfinite(value) else None, n, lost[0], lost[1], *(interval or ())
    )
