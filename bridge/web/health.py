"""`/healthz`, `/readyz` and `/metrics`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from flask import Blueprint, Response
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from bridge.engine.metrics import exposition
from bridge.flow.standing import Standing
from bridge.journal.reader import oldest_record
from bridge.ledger.alerts import OpenAlert, open_alerts
from bridge.ledger.database import Ledger
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import oldest_unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is asked: the journal's folder, the ledger, Redis, and the mappings; `accept` is where webhooks are kept."""

    journal: Path
    accept: Literal["journal", "ledger"]
    ledger: Callable[[], Ledger]
    ping_redis: Callable[[], None]
    mapping_problems: Callable[[], list[str]]


_UNKNOWN: Final = "not known without the ledger"
_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


def health(parts: Health) -> Blueprint:
    """The health routes."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/healthz")
    def alive() -> Response:
        return Response(json.dumps({"status": "ok"}), content_type="application/json")

    @blueprint.get("/readyz")
    def ready() -> Response:
        """200 while webhooks can be made safe; what else is wrong stands in the detail."""
        ledger = _ledger(parts.ledger)
        checks = {
            "storage": _storage(parts),
            "ledger": ledger,
            "redis": _redis(parts.ping_redis),
            "mappings": parts.mapping_problems() or "ok",
            "sources": _sources(parts.ledger) if ledger == "ok" else _UNKNOWN,
            "targets": _targets(parts.ledger) if ledger == "ok" else _UNKNOWN,
        }
        if parts.accept == "ledger" and oldest_record(parts.journal) is not None:
            checks["journal"] = "it holds deliveries from before `accept: ledger`: run campusbridge shipper"
        status = 200 if checks["storage"] == "ok" else 503
        word = "ready" if all(check == "ok" for check in checks.values()) else "degraded"
        document = {"status": word if status == 200 else "unavailable", "checks": checks}
        return Response(json.dumps(document), status, content_type="application/json")

    @blueprint.get("/metrics")
    def metrics() -> Response:
        ages = _ages(parts)
        # A database that is away is asked once: each time it is waited for.
        if "process" not in ages:
            return Response(exposition(ages), content_type=_EXPOSITION)
        alerts = [entry.alert.key for entry in _alerts(parts.ledger)]
        targets = {name: standing.state.value for name, standing in _not_fine(parts.ledger).items()}
        return Response(exposition(ages, alerts, targets), content_type=_EXPOSITION)

    return blueprint


def _storage(parts: Health) -> str:
    if parts.accept == "ledger":
        return _ledger(parts.ledger)
    try:
        parts.journal.mkdir(parents=True, exist_ok=True)
        free = os.statvfs(parts.journal)
    except OSError as error:
        return f"the journal's folder cannot be used: {error.strerror}"
    if not os.access(parts.journal, os.W_OK):
        return "the journal's folder cannot be written"
    return "ok" if free.f_bavail * free.f_frsize > 64 * 1024 * 1024 else "less than 64 MiB left for the journal"


def _ledger(ledger: Callable[[], Ledger]) -> str:
    try:
        return "ok" if ledger().is_current() else "its tables are of another version: run campusbridge db upgrade"
    except DBAPIError as error:
        return f"unreachable ({type(error).__name__})"


def _alerts(ledger: Callable[[], Ledger]) -> list[OpenAlert]:
    try:
        return open_alerts(ledger())
    except DBAPIError:  # told under `ledger`
        return []


def _sources(ledger: Callable[[], Ledger]) -> str | list[str]:
    return [str(entry) for entry in _alerts(ledger)] or "ok"


def _not_fine(ledger: Callable[[], Ledger]) -> Mapping[str, Standing]:
    try:
        return listed(ledger())
    except DBAPIError:  # told under `ledger`
        return {}


def _targets(ledger: Callable[[], Ledger]) -> str | list[str]:
    return [f"{name} {standing.state.value}: {standing.reason}" for name, standing in _not_fine(ledger).items()] or "ok"


def _redis(ping: Callable[[], None]) -> str:
    try:
        ping()
    except (RedisError, OSError) as error:
        return f"unreachable ({type(error).__name__})"
    return "ok"


def _ages(parts: Health) -> dict[str, float]:
    """Seconds since the oldest unfinished row of each stage came in; zero when there is none."""
    now = time.time()
    ages = {"journal": max(0.0, now - (oldest_record(parts.journal) or now))}
    try:
        stages = oldest_unfinished(parts.ledger())
    except DBAPIError:
        return ages
    return ages | {stage: max(0.0, now - since / 1000) if since else 0.0 for stage, since in stages.items()}
