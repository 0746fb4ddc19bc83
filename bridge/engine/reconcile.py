"""Comparing a source with what its platform lists: what no webhook told becomes a delivery, and the mark moves on."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from bridge.config.values import Configuration
from bridge.core.errors import SourceUnavailable
from bridge.core.source import Accepted, Found, Reconciling
from bridge.engine.duties import Duty
from bridge.engine.line import SourceLine
from bridge.engine.patient import PATIENCE, PatientApi, Stopped
from bridge.engine.shipper import Lanes
from bridge.flow.reconcile import Compared, compare, delivery_of
from bridge.ledger.database import Ledger
from bridge.ledger.duties import reconciling
from bridge.ledger.facts import known_facts, put_on_its_way, reconciled_key
from bridge.ledger.watermarks import advance, look_after, set_back, watermark

GRACE: Final = timedelta(minutes=10)
"""What happened just now is not missing: its webhook may be on its way, or wait for the platform's API."""

OVERLAP: Final = timedelta(minutes=15)
"""How far before its mark a comparison begins: lists may show things a little late."""

AFTER_START: Final = GRACE + timedelta(minutes=1)
"""When a bridge that was away compares: by then all that happened meanwhile is older than the grace."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Account:
    """What came of a comparison. Each happening is `received` by webhook, `reconciled` earlier, or `missing`: put on
    its way now, or, in a dry run, only counted. `days` (YYYY-MM-DD in UTC) are those on which it happened, `reached` is
    how far the list was read, and `advanced` says whether the source's mark moved to the end of the span.
    """

    source: str
    since: datetime
    until: datetime
    expected: int = 0
    received: int = 0
    reconciled: int = 0
    missing: int = 0
    reached: datetime | None = None
    advanced: bool = False
    days: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """One source against its platform's lists. `wake` is told of lanes that have work."""

    ledger: Ledger
    source: SourceLine
    wake: Callable[[set[str]], None]

    def begins(self) -> datetime | None:
        """Where the next comparison begins; None for a source that nobody looked after before."""
        mark = watermark(self.ledger, self.source.name)
        return None if mark is None else mark - OVERLAP

    def run(
        self,
        *,
        since: datetime,
        until: datetime,
        stopping: threading.Event,
        dry_run: bool = False,
        progress: Callable[[Account], None] = lambda _account: None,
        patience: timedelta = PATIENCE,
        waits: Callable[[SourceUnavailable], None] = lambda _error: None,
    ) -> Account:
        """Compare what happened in a span. Raises SourceUnavailable, or Stopped.

        What is missing is stored some at a time; the mark and the figures move when all of it is stored. The figures
        count what happened after the mark, so that every happening is counted once. A list that is being made is
        waited for, up to `patience`, and `waits` is told why.
        """
        deadline = time.monotonic() + patience.total_seconds()
        while True:
            account = Account(source=self.source.name, since=since, until=until)
            try:
                self._compare(account, stopping, dry_run=dry_run, progress=progress, patience=patience)
            except SourceUnavailable as error:
                if error.retry_after is None or time.monotonic() + error.retry_after > deadline:
                    raise
                _log.info("list_waits", source=self.source.name, reason=error.reason)
                waits(error)
                stopping.wait(max(error.retry_after, 1.0))
                continue
            return account

    def _compare(
        self,
        account: Account,
        stopping: threading.Event,
        *,
        dry_run: bool,
        progress: Callable[[Account], None],
        patience: timedelta,
    ) -> None:
        mark = watermark(self.ledger, self.source.name)
        fresh: dict[str, Counter[str]] = {}
        compared = compare(
            self.happened(account.since, account.until, stopping, patience),
            lambda facts: known_facts(self.ledger, self.source.name, facts),
            since=account.since,
            until=account.until,
        )
        for some in compared:
            if stopping.is_set():
                raise Stopped(self.source.name)
            if not dry_run:
                self._store(some)
            _book(account.days, some, None)
            _book(fresh, some, mark)
            _add(account, some)
            progress(account)
        if not dry_run and (mark is None or account.since <= mark):
            account.advanced = advance(self.ledger, self.source.name, account.until, fresh, mark=mark)

    def happened(
        self, since: datetime, until: datetime, stopping: threading.Event, patience: timedelta
    ) -> Iterator[Found]:
        """What the platform's lists show, page by page, with that much patience for an API that is busy."""
        code, make = self.source.connector.code, self.source.api
        if make is None or not isinstance(code, Reconciling):
            return iter(())
        name = self.source.name
        api = PatientApi(make=make, ledger=self.ledger, source=name, now=until, stop=stopping, patience=patience)
        return code.happened(since, api)

    def _store(self, some: Compared) -> None:
        missing = some.missing
        if not missing:
            return
        name = self.source.name
        lanes = Lanes(sources={name: (self.source.connector, self.source.settings)})
        now = datetime.now(UTC)
        deliveries = [
            delivery_of(
                found,
                id=_new_id(),
                source=name,
                dedupe_key=reconciled_key(found.fact),
                # Where a platform gives neither id nor time, the time of receipt tells two equal bodies apart.
                now=now - timedelta(milliseconds=len(missing) - place),
            )
            for place, found in enumerate(missing)
        ]
        _, woken = put_on_its_way(self.ledger, [lanes.arrival(Accepted(verified=delivery)) for delivery in deliveries])
        self.wake(woken)


def _book(days: dict[str, Counter[str]], some: Compared, mark: datetime | None) -> None:
    for found in some.found:
        if mark is not None and found.occurred_at <= mark:
            continue
        day = days.setdefault(found.occurred_at.astimezone(UTC).date().isoformat(), Counter())
        day["expected"] += 1
        day["received" if some.told_by.get(found.fact) == "webhook" else "reconciled"] += 1


def _add(account: Account, some: Compared) -> None:
    told = Counter(some.told_by.get(found.fact, "missing") for found in some.found)
    account.expected += len(some.found)
    account.received += told["webhook"]
    account.reconciled += told["reconciled"]
    account.missing += told["missing"]
    account.reached = max(found.occurred_at for found in some.found)


def _new_id() -> str:
    """As the ids of deliveries that come in: they grow with time."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


# --- by itself --------------------------------------------------------------------------------------------------------


def reconcilers(
    ledger: Ledger, sources: Mapping[str, SourceLine], wake: Callable[[set[str]], None]
) -> dict[str, Reconciler]:
    """The sources that can be compared: their connectors can, and their APIs are configured."""
    return {
        name: Reconciler(ledger=ledger, source=source, wake=wake)
        for name, source in sources.items()
        if source.api is not None and isinstance(source.connector.code, Reconciling)
    }


def reconciling_duties(configuration: Configuration, able: Mapping[str, Reconciler]) -> list[Duty]:
    """One duty per source that is enabled and has a schedule. From now on these sources are looked after."""
    duties = []
    for name, source in configuration.sources.items():
        if not source.enabled or source.reconcile_every is None or name not in able:
            continue
        look_after(able[name].ledger, [name], datetime.now(UTC))
        work = _scheduled(able[name])
        duties.append(Duty(name=reconciling(name), every=source.reconcile_every, work=work, after_start=AFTER_START))
    return duties


def _scheduled(reconciler: Reconciler) -> Callable[[threading.Event], None]:
    def work(stopping: threading.Event) -> None:
        until = datetime.now(UTC) - GRACE
        since = reconciler.begins()
        if since is None:
            return
        if since >= until:  # a clock was ahead; what happens from now on is to be compared all the same
            set_back(reconciler.ledger, reconciler.source.name, until)
            return
        try:
            account = reconciler.run(since=since, until=until, stopping=stopping)
        except Stopped:
            return
        _log.info("reconciled", source=account.source, expected=account.expected, missing=account.missing)
        if account.missing:
            _log.warning("webhooks_missing", source=account.source, missing=account.missing, expected=account.expected)

    return work
