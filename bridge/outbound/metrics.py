"""The figures about platforms' APIs."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

API_CALLS: Final = Counter("bridge_api_calls", "Calls of platforms' APIs by what came of them", ["source", "outcome"])
API_WAITS: Final = Histogram(
    "bridge_api_wait_seconds",
    "How long calls waited for their turn within the budget",
    ["source"],
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
API_REFUSED: Final = Counter(
    "bridge_api_not_called", "Calls put off: no budget in time, all places busy, paused or broken", ["source", "why"]
)
API_BREAKER: Final = Gauge(
    "bridge_api_breaker_open",
    "1 while a platform's API is left alone since it failed too often",
    ["source"],
    multiprocess_mode="mostrecent",
)
METRICS: Final = (API_CALLS, API_WAITS, API_REFUSED, API_BREAKER)
