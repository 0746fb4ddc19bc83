"""Answers of platform APIs that are good for a while, so that a hundred hand-ins ask for their exam once."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Final

MAX_ENTRIES: Final = 4096
MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """A JSON value, and what it weighed on the wire in bytes."""

    value: Any
    weight: int


@dataclass(frozen=True, slots=True)
class _Entry:
    kept: Kept
    until: float
    asked_at: datetime


class KeptAnswers:
    """A bounded memory for one process, safe for threads. The longest unused goes first. Values must not be changed."""

    def __init__(self, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._under_way: dict[str, Future[Kept | None]] = {}
        self._lock = Lock()

    def get(
        self, key: str, keep: float, ask: Callable[[], Kept | None], since: datetime | None = None
    ) -> tuple[Kept | None, bool]:
        """The answer for a key, and whether it was there (or already being asked for) before; never older than `since`.

        Threads that want one key at the same time share one `ask`, its exception too. None is shared and not kept: what
        is not there now may be there in a moment.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.until > time.monotonic() and (since is None or entry.asked_at >= since):
                self._entries.move_to_end(key)
                return entry.kept, True
            shared = self._under_way.get(key)
            if shared is None:
                mine = self._under_way[key] = Future()
        if shared is not None:
            return shared.result(), True
        asked_at = datetime.now(UTC)
        try:
            kept = ask()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self._forget(key)
            if kept is not None and kept.weight <= self._max_bytes:
                self._entries[key] = _Entry(kept, time.monotonic() + keep, asked_at)
                self._bytes += kept.weight
            while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
                self._forget(next(iter(self._entries)))
            del self._under_way[key]
        mine.set_result(kept)
        return kept, False

    def _forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.kept.weight
