"""A platform's API asked without haste, for long lists."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from bridge.engine.line import TracedApi
from bridge.flow.process import retry_delay
from bridge.ledger.database import Ledger
from bridge.ledger.facts import newest_of_each
from bridge.ledger.reading import newest_about
from bridge.outbound.source_api import Context

PATIENCE: Final = timedelta(minutes=15)
"""How long one page of a list is asked for before the whole comparison is put off."""

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The comparison was asked to end; what it stored stays, and its mark is where it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientApi:
    """The API for long lists: it waits out a limit or a failure where an event would be put off.

    `now` is the end of the span that is compared: what a list shows without a time has happened by then.
    Every call has a client of its own, so that nothing adds up over ten thousand pages.
    """

    make: Callable[[Context], TracedApi]
    ledger: Ledger
    source: str
    now: datetime
    stop: threading.Event
    patience: timedelta = PATIENCE

    @property
    def settings(self) -> Settings:
        return self.make(Context()).settings

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return self._patiently(lambda api: api.get(path, query, keep=keep, since=since, extra=extra))

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        return self._patiently(lambda api: api.post(path, body, keep=keep, extra=extra))

    def change(self, method: str, path: str, body: Json | None = None) -> Payload | None:
        return self.make(Context()).change(method, path, body)

    def offer(self, path: str, answer: Payload) -> None:
        """Nothing is kept: a long list would fill the memory."""

    def known(self, subject: str) -> Event | None:
        return newest_about(self.ledger, self.source, subject)

    def newest(self, noun: str, since: datetime) -> Iterator[Event]:
        """The newest event of each subject `<noun>/…` about which something happened since: what can be missed."""
        return newest_of_each(self.ledger, self.source, noun, since)

    def wants(self, field: str) -> bool:
        return True

    def lack(self, reason: str, *, for_good: bool = False) -> None:
        """A list with a hole is no list: it is read again."""
        raise SourceUnavailable(reason)

    def _patiently(self, ask: Callable[[SourceApi], Payload | None]) -> Payload | None:
        deadline = time.monotonic() + self.patience.total_seconds()
        attempt = 0
        while True:
            if self.stop.is_set():
                raise Stopped(self.source)
            try:
                return ask(self.make(Context()))
            except SourceRefused:
                raise
            except SourceUnavailable as error:
                attempt += 1
                pause = retry_delay(attempt, error.retry_after).total_seconds()
                if time.monotonic() + pause > deadline:
                    raise
                _log.info("list_waits", source=self.source, seconds=round(pause), reason=error.reason)
            self.stop.wait(pause)
