"""Figures over time: verdicts by day, and how model and reviewers agree, with intervals."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, tzinfo
from typing import Any

from anomalyr1.evaluation.intervals import wilson_interval
from anomalyr1.server.search import Filter, find_inspections
from anomalyr1.server.store import Store

MOST_ROWS = 50_000
BINS = 20


def compute_trends(store: Store, wanted: Filter, zone: tzinfo) -> dict[str, Any]:
    """Of the newest MOST_ROWS finished inspections of a filter. Days are those of `zone`.

    Agreement: the share of reviewed pictures whose decision is the reviewer's. Overkill: normal by
    the reviewer, called anomalous. Miss: anomalous by the reviewer, not called so; an unread
    picture is a miss, never "normal". Each with n and Wilson's interval.
    """
    _, rows = find_inspections(store, wanted, page_size=MOST_ROWS)
    done = [row for row in rows if row.decision is not None]
    days: dict[str, Counter[str]] = {}
    for row in done:
        day = datetime.fromisoformat(row.created_at).astimezone(zone).date().isoformat()
        days.setdefault(day, Counter())[row.decision] += 1
    reviewed = [row for row in done if row.review_verdict is not None]
    normal = [row for row in reviewed if row.review_verdict == "normal"]
    anomalous = [row for row in reviewed if row.review_verdict == "anomalous"]
    return {
        "total": len(done),
        "days": [{"day": day, **counts} for day, counts in sorted(days.items())],
        "agreement": _share(
            sum(row.decision == row.review_verdict for row in reviewed), len(reviewed)
        ),
        "overkill": _share(sum(row.decision == "anomalous" for row in normal), len(normal)),
        "miss": _share(sum(row.decision != "anomalous" for row in anomalous), len(anomalous)),
        "scores": {
            name: _count_bins([getattr(row, name) for row in done])
            for name in ("anomaly_score", "detector_score")
        },
    }


def _share(count: int, n: int) -> dict[str, Any]:
    interval = wilson_interval(count, n)
    return {
        "value": count / n if n else None,
        "n": n,
        "low": interval[0] if interval else None,
        "high": interval[1] if interval else None,
    }


def _count_bins(scores: list[float | None]) -> list[int]:
    counts = [0] * BINS
    for score in scores:
        if score is not None:
            counts[min(BINS - 1, int(score * BINS))] += 1
    return counts
