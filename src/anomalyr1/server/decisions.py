"""From a finding to what the station decides, and how sure it is. Pure functions."""

from __future__ import annotations

from anomalyr1.types import Finding


def decide(finding: Finding, threshold: float | None) -> str:
    """ "normal", "anomalous" or "unread": the model's verdict, or the product's own line.

    A product's `threshold` in [0, 1] is a person's decision line for the detector's score: at or
    above it the picture is anomalous, below it normal. An answer that was not read never becomes
    normal by it. Without threshold or detector score the model's verdict stands.

    >>> decide(Finding("a", "a.png", "normal", detector_score=0.9), 0.6)
    'anomalous'
    >>> decide(Finding("a", "a.png", "unread", detector_score=0.1), 0.6)
    'unread'
    """
    if threshold is None or finding.detector_score is None or finding.error is not None:
        return finding.verdict
    if finding.detector_score >= threshold:
        return "anomalous"
    return "unread" if finding.verdict == "unread" else "normal"


def measure_uncertainty(finding: Finding) -> float:
    """In [0, 1], 1 most uncertain: how near the mean of both scores is to a half; unread is 1.

    Where model and detector disagree the mean is near a half, so that case comes early too.

    >>> measure_uncertainty(Finding("a", "a.png", "normal", 0.0, 0.0))
    0.0
    """
    scores = [
        score for score in (finding.anomaly_score, finding.detector_score) if score is not None
    ]
    if finding.verdict == "unread" or not scores:
        return 1.0
    return 1.0 - abs(2.0 * sum(scores) / len(scores) - 1.0)


def find_odd_references(scores: list[float]) -> list[int]:
    """Places of references that look unlike the others, from their leave-one-out scores.

    Odd: above the decision line of 0.5 or more than 3 scaled median deviations, and at least 0.15,
    above the median. Fewer than three references have no "others".

    >>> find_odd_references([0.1, 0.12, 0.9])
    [2]
    """
    if len(scores) < 3:
        return []
    middle = _median(scores)
    spread = 1.4826 * _median([abs(score - middle) for score in scores])
    line = middle + max(3.0 * spread, 0.15)
    return [place for place, score in enumerate(scores) if score >= 0.5 or score > line]


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
