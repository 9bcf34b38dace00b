"""A candidate beside the station's model, on reviewed pictures that are never trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import comb
from typing import Any, cast

import sqlalchemy as sa

from anomalyr1.evaluation.records import DEFINITIONS, compute_metrics
from anomalyr1.inspector import Inspector
from anomalyr1.server.decisions import decide
from anomalyr1.server.promotions import current_model, name_model
from anomalyr1.server.store import Store
from anomalyr1.server.tables import inspections, products
from anomalyr1.types import Finding, InputError, Metric, Record

METRICS = (
    "verdict_balanced_accuracy",
    "normal_accuracy",
    "anomalous_accuracy",
    "unread_rate",
    "image_auroc_model",
    "image_auroc_detector",
    "box_accuracy_iou10",
    "box_precision_iou10",
)
BATCH = 8

Follow = Callable[[Iterable[Any], str, int], Iterator[Any]]
"""Shows progress: items, label, total."""


def compare_models(
    store: Store,
    candidate: str,
    records: Sequence[Record],
    *,
    split_seed: int,
    follow: Follow,
    load: Callable[[str], Inspector] = Inspector.load,
) -> dict[str, Any]:
    """Both models on the held-out records, as JSON values.

    Verdicts are what the station would decide, by a product's threshold where one is set. `metrics`
    holds those of METRICS for all pictures and for each product, with n and 95 % intervals;
    `paired` counts pictures by who was right, with the two-sided p of McNemar's exact test
    (McNemar, 1947): how often as many or more would fall to one side if both were equally good.
    Raises InputError for a model that cannot be loaded and where nothing is held out.
    """
    held_out = [record for record in records if record.split == "test"]
    if not held_out:
        raise InputError(
            "no reviewed picture is held out yet: review more, about one in five will be"
        )
    lines = _load_thresholds(store)
    sides, found = {}, {}
    for side, model in (
        ("current", current_model(store)),
        ("candidate", name_model(candidate)),
    ):
        inspector = load(model)
        sides[side] = {"model": model, "weights_sha256": inspector.weights_sha256}
        results = inspector.inspect_records(held_out, batch_size=BATCH)
        found[side] = [
            _decide(result.finding, lines.get(result.finding.record_id))
            for result in follow(results, f"held-out, {side}", len(held_out))
        ]
    measured = {side: _measure(held_out, findings) for side, findings in found.items()}
    return {
        **sides,
        "split_seed": split_seed,
        "num_pictures": len(held_out),
        "num_normal": sum(record.label == "normal" for record in held_out),
        "num_anomalous": sum(record.label == "anomalous" for record in held_out),
        "metrics": [
            {
                "name": name,
                "meaning": DEFINITIONS[name],
                "subset": subset,
                "current": _describe(metric),
                "candidate": _describe(measured["candidate"][name, subset]),
            }
            for (name, subset), metric in measured["current"].items()
        ],
        "paired": _pair(held_out, found["current"], found["candidate"]),
    }


def compute_mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p of McNemar's exact test from the pictures that one side alone got right.

    >>> compute_mcnemar(0, 5), compute_mcnemar(0, 0)
    (0.0625, 1.0)
    """
    n = only_first + only_second
    tail = sum(comb(n, count) for count in range(min(only_first, only_second) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def _decide(finding: Finding, threshold: float | None) -> Finding:
    return replace(finding, verdict=cast(Any, decide(finding, threshold)))


def _measure(
    records: Sequence[Record], findings: Sequence[Finding]
) -> dict[tuple[str, str], Metric]:
    metrics = compute_metrics(
        records, findings, maps=lambda finding: None, masks=lambda finding: None
    )
    return {
        (metric.name, metric.subset): metric
        for metric in metrics
        if metric.name in METRICS and metric.subset != "mean"
    }


def _describe(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "n": metric.n, "low": metric.ci_low, "high": metric.ci_high}


def _pair(
    records: Sequence[Record], first: Sequence[Finding], second: Sequence[Finding]
) -> dict[str, Any]:
    labels = {record.record_id: record.label for record in records}
    pairs = [
        (one.verdict == labels[one.record_id], two.verdict == labels[two.record_id])
        for one, two in zip(first, second, strict=True)
    ]
    counts = {
        "both_right": pairs.count((True, True)),
        "only_current": pairs.count((True, False)),
        "only_candidate": pairs.count((False, True)),
        "both_wrong": pairs.count((False, False)),
    }
    p = compute_mcnemar(counts["only_current"], counts["only_candidate"])
    return {**counts, "p_value": p}


def _load_thresholds(store: Store) -> dict[str, float]:
    """The threshold of each inspection's product today, by record id."""
    query = (
        sa.select(inspections.c.id, products.c.threshold)
        .join(products, inspections.c.product_id == products.c.id)
        .where(products.c.threshold.is_not(None))
    )
    with store.database.read() as connection:
        return {f"inspection-{row.id}": row.threshold for row in connection.execute(query)}
