"""What Prometheus reads of a running station."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters of one app, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.inspections = Counter(
            "anomalyr1_inspections", "Finished pictures.", ["verdict"], registry=self.registry
        )
        self.seconds = Histogram(
            "anomalyr1_inspection_seconds", "Seconds a picture.", registry=self.registry
        )
        self.batch_size = Histogram(
            "anomalyr1_batch_size",
            "Pictures put to the model at once.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "anomalyr1_queue_waiting", "Pictures accepted and not done.", registry=self.registry
        )
        self.refused = Counter(
            "anomalyr1_queue_refused", "Requests answered with 429.", registry=self.registry
        )
        self.requests = Counter(
            "anomalyr1_http_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.reviews = Counter(
            "anomalyr1_reviews", "Reviews by verdict.", ["verdict"], registry=self.registry
        )
