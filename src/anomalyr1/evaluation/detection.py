"""Is the picture anomalous? Image AUROC, AP, F1-max, calibration and balanced accuracy.

An undefined number is None with a reason, never 0 or 1; an unread answer can never help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyr1.types import InputError, Label

WORST_FOR_NORMAL = 2.0
"""Above every score in [0, 1]: an unread normal picture ranks as the most anomalous of all."""

WORST_FOR_ANOMALOUS = -1.0
"""Below every score in [0, 1]: an unread anomalous picture ranks as the most normal of all."""


CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Score:
    """A number in [0, 1], or None with the reason why it is undefined."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of right verdicts; `balanced` is the mean of the two classes, None if one is absent.

    Unread verdicts are wrong in whichever class they fall and are counted in `n_unreadable`.
    """

    balanced: float | None
    normal: float | None
    anomalous: float | None
    n_normal: int
    n_anomalous: int
    n_unreadable: int
    reason: str = ""


def rank_scores(
    is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]
) -> NDArray[np.float64]:
    """Scores, float64 of shape (n,), in which None became the worst score for its class.

    A missing score of a normal picture becomes 2 and of an anomalous picture -1, outside of the
    [0, 1] of real scores, so leaving an answer unread can only lower AUROC and average precision.
    A score outside [0, 1] or not finite raises InputError.

    >>> rank_scores(np.array([False, True, True]), [None, 0.9, None]).tolist()
    [2.0, 0.9, -1.0]
    """
    if len(scores) != len(is_anomalous):
        raise InputError(
            f"{len(scores)} scores for {len(is_anomalous)} labels: give one score (or None) a label"
        )
    ranked = np.where(is_anomalous, WORST_FOR_ANOMALOUS, WORST_FOR_NORMAL).astype(np.float64)
    for index, score in enumerate(scores):
        if score is None:
            continue
        if not 0.0 <= score <= 1.0:
            raise InputError(f"score {score} at position {index} is outside [0, 1]: calibrate it")
        ranked[index] = score
    return ranked


def compute_image_auroc(is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]) -> Score:
    """Area under the ROC curve of the pictures' scores; ties count half (scikit-learn).

    None in `scores` is an unread case, ranked worst for its class: all unread is 0. With one class
    only the area is undefined.

    >>> compute_image_auroc(np.array([False, True]), [0.2, 0.7]).value
    1.0
    >>> compute_image_auroc(np.array([True, True]), [0.2, 0.7]).reason
    'no normal picture'
    """
    reason = _undefined_reason(is_anomalous)
    if reason:
        return Score(None, reason)
    from sklearn.metrics import roc_auc_score

    return Score(float(roc_auc_score(is_anomalous, rank_scores(is_anomalous, scores))))


def compute_average_precision(
    is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]
) -> Score:
    """Average precision with "anomalous" as the positive class, not interpolated (scikit-learn).

    Unread cases and undefined results as in `compute_image_auroc`. Chance level is the share of
    anomalous pictures, not 0.5.

    >>> compute_average_precision(np.array([False, True]), [0.2, 0.7]).value
    1.0
    """
    reason = _undefined_reason(is_anomalous)
    if reason:
        return Score(None, reason)
    from sklearn.metrics import average_precision_score

    return Score(float(average_precision_score(is_anomalous, rank_scores(is_anomalous, scores))))


def compute_f1_max(is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]) -> Score:
    """The highest F1 of "anomalous" that any threshold on the score reaches (scikit-learn).

    The threshold is chosen with the truth in hand, so this is an upper bound, not a verdict's F1.
    Unread cases and undefined results as in `compute_image_auroc`.

    >>> compute_f1_max(np.array([False, True]), [0.2, 0.7]).value
    1.0
    """
    reason = _undefined_reason(is_anomalous)
    if reason:
        return Score(None, reason)
    from sklearn.metrics import precision_recall_curve

    ranked = rank_scores(is_anomalous, scores)
    precision, recall, _ = precision_recall_curve(is_anomalous, ranked)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return Score(float(f1.max()))


def bin_reliability(
    is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]
) -> list[tuple[float, float, int]]:
    """Mean score, share of anomalous pictures and n of each of 10 equal bins of score in [0, 1]
    that holds a picture, rising. Pictures without a score are left out.

    >>> bin_reliability(np.array([False, True, True]), [0.1, 0.91, None])
    [(0.1, 0.0, 1), (0.91, 1.0, 1)]
    """
    known = np.array([score is not None for score in scores], dtype=bool)
    values = np.array([score for score in scores if score is not None], dtype=np.float64)
    truth = is_anomalous[known]
    places = np.minimum((values * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return [
        (float(values[inside].mean()), float(truth[inside].mean()), int(inside.sum()))
        for place in range(CALIBRATION_BINS)
        if (inside := places == place).any()
    ]


def compute_calibration_error(
    is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]
) -> Score:
    """Expected calibration error: the mean over pictures of |mean score - share anomalous| of
    their bin (Guo et al., ICML 2017, on P(anomalous), 10 equal bins). Unread cases are left out.

    >>> round(compute_calibration_error(np.array([False, True]), [0.2, 0.7]).value, 3)
    0.25
    """
    bins = bin_reliability(is_anomalous, scores)
    if not bins:
        return Score(None, "no score")
    total = sum(n for *_, n in bins)
    return Score(sum(n * abs(score - share) for score, share, n in bins) / total)


def compute_balanced_accuracy(labels: Sequence[Label], verdicts: Sequence[str]) -> Accuracy:
    """Mean of the accuracy on normal and the accuracy on anomalous pictures.

    This is what MMAD (Jiang et al., 2025) calls "Anomaly Detection". Any verdict but "normal" and
    "anomalous" is unread, and wrong.

    >>> compute_balanced_accuracy(["normal", "anomalous"], ["normal", "unread"]).balanced
    0.5
    """
    if len(labels) != len(verdicts):
        raise InputError(
            f"{len(verdicts)} verdicts for {len(labels)} labels: give one verdict a label"
        )
    hits: dict[str, list[bool]] = {"normal": [], "anomalous": []}
    for label, verdict in zip(labels, verdicts, strict=True):
        if label not in hits:
            raise InputError(f'label {label!r} is neither "normal" nor "anomalous"')
        hits[label].append(verdict == label)
    shares = {name: sum(right) / len(right) if right else None for name, right in hits.items()}
    normal, anomalous = shares["normal"], shares["anomalous"]
    balanced = None if normal is None or anomalous is None else (normal + anomalous) / 2
    absent = [name for name, right in hits.items() if not right]
    return Accuracy(
        balanced=balanced,
        normal=normal,
        anomalous=anomalous,
        n_normal=len(hits["normal"]),
        n_anomalous=len(hits["anomalous"]),
        n_unreadable=sum(verdict not in hits for verdict in verdicts),
        reason=f"no {' and no '.join(absent)} picture" if absent else "",
    )


def compute_roc_curve(
    is_anomalous: NDArray[np.bool_], scores: Sequence[float | None]
) -> list[tuple[float, float]]:
    """Points (false positive rate, true positive rate) from (0, 0) to (1, 1).

    Empty where the curve is undefined. Unread cases as in `compute_image_auroc`.

    >>> compute_roc_curve(np.array([False, True]), [0.2, 0.7])
    [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]
    """
    if _undefined_reason(is_anomalous):
        return []
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(is_anomalous, rank_scores(is_anomalous, scores))
    return [(float(x), float(y)) for x, y in zip(false_rate, true_rate, strict=True)]


def _undefined_reason(is_anomalous: NDArray[np.bool_]) -> str:
    if not np.any(is_anomalous):
        return "no anomalous picture"
    if np.all(is_anomalous):
        return "no normal picture"
    return ""
