"""The figures of `/metrics`. All processes of a host add to them through files in `PROMETHEUS_MULTIPROC_DIR`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from bridge.outbound.metrics import METRICS as API_METRICS

RECEIVED: Final = Counter("bridge_received", "Requests at /hooks", ["source", "outcome"])
PROOFS: Final = Counter("bridge_proofs", "Which secret, in which mode, proved a delivery genuine", ["source", "proof"])
EVENTS: Final = Counter("bridge_events", "Canonical events made", ["source", "type"])
ENRICHED: Final = Counter("bridge_enriched", "Events by the result of their enrichment", ["source", "enrichment"])
RECONCILED: Final = Counter("bridge_reconciled", "Events of what a platform's lists showed and no webhook", ["source"])
DELIVERIES: Final = Counter("bridge_deliveries", "Attempts at a target by what came of them", ["target", "outcome"])
DELIVERY_SECONDS: Final = Histogram(
    "bridge_delivery_seconds",
    "From the arrival of a webhook to its delivery at a target",
    ["target"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400),
)


def exposition(
    oldest: dict[str, float], alerts: Collection[tuple[str, str]] = (), targets: Mapping[str, str] | None = None
) -> bytes:
    """The Prometheus text of all processes, with the age in seconds of each stage's oldest unfinished row, the alerts
    that stand, as (source, about), and the targets that are left alone, by why.
    """
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        for metric in (RECEIVED, PROOFS, EVENTS, ENRICHED, RECONCILED, DELIVERIES, DELIVERY_SECONDS, *API_METRICS):
            registry.register(metric)
    own = CollectorRegistry()
    ages = Gauge("bridge_oldest_unfinished_seconds", "Age of the oldest unfinished row", ["stage"], registry=own)
    for stage, age in oldest.items():
        ages.labels(stage).set(age)
    standing = Gauge("bridge_alert", "1 while an alert about a source stands", ["source", "about"], registry=own)
    for source, about in alerts:
        standing.labels(source, about).set(1)
    alone = Gauge("bridge_target_left_alone", "1 while nothing is sent to it", ["target", "state"], registry=own)
    for target, state in (targets or {}).items():
        alone.labels(target, state).set(1)
    return generate_latest(registry) + generate_latest(own)
