"""Moves journal records into the ledger: in order, many in one transaction, each exactly once."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.exc import DBAPIError

from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.source import Accepted, Verified
from bridge.engine.hints import Hints
from bridge.flow.process import events_of
from bridge.journal.reader import Found, note_shipped, read, remove_unfinished, segments, sole_reader
from bridge.journal.writer import sync_folder
from bridge.ledger.accepting import Arrival, accept, forget_positions, positions
from bridge.ledger.database import Ledger
from bridge.ledger.lanes import lane_of

BATCH: Final = 500
PROCESS_SHARDS: Final = 4
_IDLE_SECONDS: Final = 0.02
_STANDBY_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 5.0
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Finds the lane of a delivery: those about one subject share one, so that they are processed in order."""

    sources: Mapping[str, tuple[SourceConnector, Settings]]

    def arrival(self, accepted: Accepted) -> Arrival:
        """A delivery with its lane. One that nobody can read has a lane all the same: it is kept, not judged, here."""
        inbound = accepted.verified.inbound
        order_key = f"{inbound.source}|{self._subject(accepted.verified)}"
        return Arrival(
            accepted=accepted,
            order_key=order_key,
            lane=lane_of("process", inbound.source, order_key, PROCESS_SHARDS),
        )

    def _subject(self, verified: Verified) -> str:
        known = self.sources.get(verified.inbound.source)
        if known is None:
            return verified.inbound.id
        try:
            events = events_of(known[0], verified, known[1])
        except Exception:  # noqa: BLE001  a connector's bug shows where the delivery is processed, and stops nothing here
            return verified.inbound.id
        return events[0].subject if events else verified.inbound.id


class Shipper:
    """Reads all segments of this host's journal, its own and those of dead processes."""

    def __init__(self, folder: Path, ledger: Ledger, lanes: Lanes, hints: Hints) -> None:
        self._folder = folder
        self._ledger = ledger
        self._lanes = lanes
        self._hints = hints
        self._positions: dict[str, int] = {}
        self._begins: dict[str, datetime] = {}

    def run(self, stopping: Callable[[], bool]) -> None:
        """Ship until told to stop; wait for the database as long as it takes."""
        while not stopping():
            with sole_reader(self._folder) as alone:
                if not alone:
                    time.sleep(_STANDBY_SECONDS)
                    continue
                self._positions.clear()
                self._ship(stopping)

    def _ship(self, stopping: Callable[[], bool]) -> None:
        patience = 0.1
        while not stopping():
            try:
                moved = self.round()
            except DBAPIError as error:
                _log.warning("ledger_unreachable", error=type(error).__name__, retry_in=patience)
                self._positions.clear()
                time.sleep(patience)
                patience = min(patience * 2, _PATIENCE_SECONDS)
                continue
            patience = 0.1
            if moved < BATCH:  # let some more come together: one transaction for many
                time.sleep(_IDLE_SECONDS)

    def round(self) -> int:
        """One pass over all segments; how many records went into the ledger."""
        remove_unfinished(self._folder)
        until = time.monotonic_ns()
        paths = {path.name: path for path in segments(self._folder)}
        unknown = [name for name in paths if name not in self._positions]
        if unknown:
            self._positions |= dict.fromkeys(unknown, 0) | positions(self._ledger, unknown)
        found, limit = self._read(paths, until)
        moved = self._store(found, limit)
        self._delete([paths[entry.segment] for entry in found if entry.finished and self._taken(entry)])
        if moved:
            note_shipped(self._folder, self._positions)
        return moved

    def _read(self, paths: Mapping[str, Path], until: int) -> tuple[list[Found], datetime]:
        """A piece of each segment, and the time up to which the pieces hold everything.

        The segment that sets this limit is stored as far as it was read. One that begins later has to wait, and is not
        read again before its time comes: of a long backlog each round would read all.
        """
        found: list[Found] = []
        limit = _LAST
        for name, path in paths.items():  # oldest first, so that the limit is low early
            if self._begins.get(name, _FIRST) > limit:
                continue
            entry = read(path, self._positions[name], until)
            times = [accepted.verified.inbound.received_at for accepted, _ in entry.records]
            self._begins[name] = times[0] if times else _FIRST
            if self._begins[name] > limit:
                continue
            found.append(entry)
            if entry.more:
                limit = min(limit, max(times))
        return found, limit

    def _store(self, found: list[Found], limit: datetime) -> int:
        """Store what came in up to the limit, of all segments in the order in which it came in."""
        for entry in found:
            if entry.damaged:
                _log.error("journal_damaged", segment=entry.segment, hint="records behind the damage were saved")
        merged = heapq.merge(*(_by_arrival(entry) for entry in found), key=itemgetter(0))
        queue = [item for _, item in takewhile(lambda arrived: arrived[0] <= limit, merged)]
        for start in range(0, len(queue), BATCH):
            batch = queue[start : start + BATCH]
            reached = {segment: behind for _, segment, behind in batch}
            lanes = accept(self._ledger, [self._lanes.arrival(accepted) for accepted, _, _ in batch], reached)
            self._positions |= reached
            self._hints.wake(lanes)
        return len(queue)

    def _taken(self, entry: Found) -> bool:
        return not entry.records or self._positions[entry.segment] >= entry.records[-1][1]

    def _delete(self, paths: list[Path]) -> None:
        if not paths:
            return
        for path in paths:
            path.unlink(missing_ok=True)
            self._positions.pop(path.name, None)
            self._begins.pop(path.name, None)
        sync_folder(self._folder)
        forget_positions(self._ledger, [path.name for path in paths])


def _by_arrival(found: Found) -> Iterator[tuple[datetime, tuple[Accepted, str, int]]]:
    """A segment's records as they stand in it, each with a time that is never before that of one in front of it.

    Threads may write in another order than their requests came in; but a position of a segment stands for all records
    in front of it, so no batch may hold a record without them.
    """
    reached = _FIRST
    for accepted, behind in found.records:
        reached = max(reached, accepted.verified.inbound.received_at)
        yield reached, (accepted, found.segment, behind)
