"""Answers of platform APIs that are good for a while, so that a hundred hand-ins ask for their exam once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Final

from bridge.outbound.shared_answers import Kept, Shared, SharedAnswers
from bridge.outbound.shared_server import ServerAway

__all__ = ["Kept", "KeptAnswers"]

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 16 * 1024 * 1024

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Entry:
    kept: Kept
    until: float
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class _UnderWay:
    began: datetime
    answer: Future[Kept | None]


class KeptAnswers:
    """A bounded memory for one process, safe for threads. The longest unused goes first. Values must not be changed.

    With `shared` it stands in front of the memory of all workers; while that is away it is all there is.
    """

    def __init__(
        self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES, *, shared: SharedAnswers | None = None
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._shared = shared
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[str, _UnderWay] = {}
        self._lock = Lock()

    def get(
        self, key: str, keep: float, ask: Callable[[], Kept | None], since: datetime | None = None
    ) -> tuple[Kept | None, bool]:
        """The answer for a key, and whether it was there (or already being asked for) before; never older than `since`,
        nor than `keep` seconds.

        Those that want one key at the same time share one `ask`, in one process its exception too. None is shared and
        not kept: what is not there now may be there in a moment.
        """
        since = since or _EARLIEST
        not_before = max(since, datetime.now(UTC) - timedelta(seconds=keep))
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None and entry.until > time.monotonic() and entry.asked_at >= not_before:
                    self._entries.move_to_end(key)
                    return entry.kept, True
                other = self._under_way.get(key)
                if other is None:
                    mine = self._under_way[key] = _UnderWay(datetime.now(UTC), Future())
                    break
            if other.began >= since:
                return other.answer.result(), True
            other.answer.exception()  # asked too early to know what we need: wait for its end, then ask
        return self._asked(key, keep, partial(self._by_one, key, keep, ask, not_before, since), mine)

    def _asked(
        self, key: str, keep: float, ask: Callable[[], tuple[Shared, bool]], mine: _UnderWay
    ) -> tuple[Kept | None, bool]:
        try:
            found, there = ask()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            mine.answer.set_exception(error)
            raise
        left = keep - (datetime.now(UTC) - found.asked_at).total_seconds() if there else keep
        with self._lock:
            self._forget(key)
            if found.kept is not None and found.kept.weight <= self._max_bytes:
                self._entries[key] = _Entry(found.kept, time.monotonic() + left, found.asked_at)
                self._bytes += found.kept.weight
            while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
                self._forget(next(iter(self._entries)))
            del self._under_way[key]
        mine.answer.set_result(found.kept)
        return found.kept, there

    def _by_one(
        self, key: str, keep: float, ask: Callable[[], Kept | None], not_before: datetime, since: datetime
    ) -> tuple[Shared, bool]:
        """What one worker asked for all of them; while Redis is away each process asks for itself."""
        shared = self._shared
        if shared is None:
            return _now(ask), False
        try:
            found = shared.find(key, not_before, since)
        except ServerAway:
            return _now(ask), False
        if isinstance(found, Shared):
            return found, True
        try:
            answer = _now(ask)
        except BaseException:
            with suppress(ServerAway):
                shared.end(key, found, absent=False)
            raise
        with suppress(ServerAway):
            if answer.kept is None:
                shared.end(key, found, absent=True)
            else:
                shared.keep(key, found, answer.kept, answer.asked_at, keep)
        return answer, False

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.kept.weight


def _now(ask: Callable[[], Kept | None]) -> Shared:
    asked_at = datetime.now(UTC)
    return Shared(ask(), asked_at)
