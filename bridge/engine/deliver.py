"""The deliver stage: messages go to their target, in order per state key, and what came of it is written down."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import structlog
from sqlalchemy import Row

from bridge.core.errors import TargetError
from bridge.core.payload import storable
from bridge.core.target import Message, Outcome, Verdict
from bridge.engine.batches import MAX_STARTS, chains, parcels, run_chains
from bridge.engine.line import Line, TargetLine
from bridge.engine.metrics import DELIVERIES, DELIVERY_SECONDS
from bridge.engine.talk import talk
from bridge.flow.conversation import unique_key
from bridge.flow.deliver import after
from bridge.ledger.database import milliseconds, moment
from bridge.ledger.delivering import Attempt, Head, Result, finish, heads, newest_waiting, still_to_send
from bridge.ledger.lanes import ALONE_AFTER, BATCH, Lease, claim
from bridge.ledger.reading import bodies_of

_NOT_CONFIGURED = timedelta(minutes=1)
_CROWDED = timedelta(seconds=5)
_chance = random.Random()
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeliverStage:
    """Works on messages of one lane, that is of one target."""

    line: Line
    pools: Mapping[str, ThreadPoolExecutor]
    batch: int = BATCH

    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None:
        """Deliver a batch and commit it as it goes. Raises LeaseLost."""
        target = lease.lane.split(":")[1]
        known = self.line.targets.get(target)
        if known is None or not known.enabled:
            why = f"target {target} is {'not in bridge.yaml' if known is None else 'switched off'}"
            finish(self.line.ledger, lease, [_put_off(row, why) for row in rows])
            return
        if not lease.suspects:
            rows = self._collected(lease, rows, known)
        with self.line.ledger.read() as connection:
            known.destination.look(connection)
            batch = _Batch(
                target=known,
                heads=dict(heads(connection, {row.order_key for row in rows if row.state})),
                newest=newest_waiting(connection, {row.order_key for row in rows if row.latest_only}),
                events=bodies_of(connection, {row.event_id for row in rows}),
                due={row.seq: row.due_ms for row in rows},
            )
        if not known.destination.open():
            known.destination.hold(lease.lane)
            return

        def commit(results: list[Result]) -> None:
            finish(self.line.ledger, lease, results)
            for result in results:
                batch.due.pop(result.seq, None)
            with self.line.ledger.read() as connection:
                known.destination.look(connection)
                if batch.due:  # somebody may have discarded some of the others, or sent them again
                    for seq in batch.due.keys() - still_to_send(connection, batch.due):
                        batch.due.pop(seq)

        run_chains(
            self.pools[target],
            1,  # a target has as many lanes as it may have deliveries at a time
            [list(rows)],
            batch.results,
            commit,
        )

    def _collected(self, lease: Lease, rows: Sequence[Row[Any]], target: TargetLine) -> Sequence[Row[Any]]:
        """The rows, with those that came in while the first of a batch waited for company."""
        window = max((_window(row, target) for row in rows), default=0.0)
        left = window - (time.time() - min(row.created_ms for row in rows) / 1000)
        if len(rows) >= self.batch or not 0 < left <= window:
            return rows
        time.sleep(left)
        return claim(self.line.ledger, lease, now_ms=milliseconds(datetime.now(UTC)), limit=self.batch) or rows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What the rows of one claim share: the target, its newest states, the events as text, and which of them (with when
    it was due) are still to be sent as they were claimed.
    """

    target: TargetLine
    heads: dict[str, Head]
    newest: Mapping[str, int]
    events: Mapping[str, tuple[str, int]]
    due: dict[int, int]

    def results(self, rows: Sequence[Row[Any]]) -> Iterator[Result]:
        """What becomes of each message, as it becomes so. Those of one order key go one after the other, and those
        behind one that has to wait stay where they are; while the target is left alone all do.
        """
        destination = self.target.destination
        trying = destination.mine_to_try()
        if trying is False:
            return
        stuck: set[str] = set()
        try:
            for parcel in parcels(chains(rows), self._belongs):
                if not trying and not destination.open():
                    return
                for row, result in self._settled([row for row in parcel if row.order_key not in stuck], bool(trying)):
                    if result.head is not None:
                        self.heads[row.order_key] = result.head
                    if result.status == "waiting":
                        stuck.add(row.order_key)
                    trying = trying and result.attempt is None
                    yield result
                if trying is False:
                    return
        finally:
            if trying:  # there was nothing to try with
                destination.let_others_try()

    def _settled(self, rows: Sequence[Row[Any]], trying: bool) -> Iterator[tuple[Row[Any], Result]]:
        """What becomes of messages of one operation: those that need not be sent, then the others together."""
        to_send: list[Row[Any]] = []
        for row in rows:
            if row.seq not in self.due:
                continue
            result = self._unsent(row, trying)
            if result is None:
                to_send.append(row)
            else:
                yield row, result
        yield from self._tried(to_send, trying)

    def _belongs(self, row: Row[Any]) -> tuple[str, int]:
        """What a message may share a request with, and how many may."""
        operation = self.target.connector.manifest.operations.get(row.operation)
        most = 1 if operation is None or operation.batch is None or row.starts >= ALONE_AFTER else operation.batch.most
        return row.operation, most

    def _unsent(self, row: Row[Any], trying: bool) -> Result | None:
        """What becomes of a message that need not be sent."""
        head = self.heads.get(row.order_key)
        if row.state and head is not None and head.is_newer_than(row.time_ms, row.sequence):
            return _closed(row, "superseded", "the target already got a newer state")
        if row.latest_only and self.newest.get(row.order_key, row.seq) != row.seq:
            return _closed(row, "superseded", "a newer state is waiting")
        if row.starts >= MAX_STARTS:
            return _closed(row, "dead", f"its worker died {row.starts} times while working on it")
        if row.operation not in self.target.connector.manifest.operations:
            return _closed(row, "dead", f"{self.target.connector.name} has no operation {row.operation}")
        if row.attempts > 0 and not trying and not self.target.destination.may_retry():
            return _put_off(row, "the target gets no more second tries for a moment", _CROWDED)
        return None

    def _tried(self, rows: Sequence[Row[Any]], trying: bool) -> Iterator[tuple[Row[Any], Result]]:
        """Send messages together; when one answer refuses all of them, each by itself."""
        if not rows:
            return
        began, sent_at = time.monotonic(), datetime.now(UTC)
        messages = [self._message(row, sent_at) for row in rows]
        first = self._first_of_each(messages)
        if len(first) < len(rows):
            yield from self._tried([row for place, row in enumerate(rows) if place in first], trying)
            yield from self._tried([row for place, row in enumerate(rows) if place not in first], trying=False)
            return
        said = talk(self.target.connector, messages, self.target.settings, self.target.send)
        took_ms = int((time.monotonic() - began) * 1000)
        if len(rows) > 1 and said.together and said.outcomes[0].verdict is Verdict.PERMANENT:
            for row in rows:
                if row.seq in self.due and (trying or self.target.destination.open()):
                    yield from self._tried([row], trying)
                    trying = False
            return
        again = any(row.attempts > 0 for row in rows)
        spoken = said.outcomes[0] if said.together else Outcome(verdict=Verdict.OK, reason="")
        judged = self.target.destination.judged(spoken, again=again)
        for row, message, outcome in zip(rows, messages, said.outcomes, strict=True):
            yield row, self._result(row, message, judged if said.together else outcome, said.status, took_ms)

    def _first_of_each(self, messages: Sequence[Message]) -> set[int]:
        """The places of messages that may share a request: no two with the same unique key."""
        if len(messages) == 1:
            return {0}
        places: dict[str, int] = {}
        for place, message in enumerate(messages):
            try:
                key = unique_key(self.target.connector, message, self.target.settings)
            except TargetError:  # it will be refused by itself
                key = None
            places.setdefault(message.key if key is None else f"unique {key}", place)
        return set(places.values())

    def _message(self, row: Row[Any], sent_at: datetime) -> Message:
        body, _ = self.events[row.event_id]
        return Message(
            key=row.key,
            mapping=row.mapping,
            mapping_version=row.mapping_version,
            target=row.target,
            operation=row.operation,
            params=orjson.loads(row.params),
            event=orjson.loads(body),
            attempt=row.attempts + 1,
            sent_at=sent_at,
        )

    def _result(self, row: Row[Any], message: Message, outcome: Outcome, status: int | None, took_ms: int) -> Result:
        step = after(
            outcome,
            attempt=message.attempt,
            age=message.sent_at - moment(row.created_ms),
            patience=self.target.patience,
            rng=_chance,
        )
        DELIVERIES.labels(row.target, outcome.verdict.value).inc()
        now = datetime.now(UTC)
        if step.fate == "delivered":
            recorded_ms = self.events[row.event_id][1]
            DELIVERY_SECONDS.labels(row.target).observe(max(0.0, now.timestamp() - recorded_ms / 1000))
        elif step.fate != "waiting":
            _log.warning("not_delivered", target=row.target, message=row.key, fate=step.fate, reason=step.reason)
        return Result(
            seq=row.seq,
            key=row.key,
            target=row.target,
            order_key=row.order_key,
            was_due=row.due_ms,
            status=step.fate,
            reason=step.reason,
            due_ms=milliseconds(now + step.pause),
            finished_ms=None if step.fate == "waiting" else milliseconds(now),
            attempt=Attempt(
                number=message.attempt,
                at_ms=milliseconds(message.sent_at),
                took_ms=took_ms,
                verdict=outcome.verdict.value,
                status=status,
                reason=outcome.reason,
            ),
            counts=step.counts,
            target_id=outcome.target_id if storable(outcome.target_id or "") else None,
            head=_head(row) if row.state and step.fate == "delivered" else None,
        )


def _window(row: Row[Any], target: TargetLine) -> float:
    operation = target.connector.manifest.operations.get(row.operation)
    return 0.0 if operation is None or operation.batch is None else operation.batch.window.total_seconds()


def _head(row: Row[Any]) -> Head:
    return Head(time_ms=row.time_ms, sequence=row.sequence, message_key=row.key)


def _closed(row: Row[Any], status: Any, reason: str) -> Result:
    now = milliseconds(datetime.now(UTC))
    return Result(
        seq=row.seq,
        key=row.key,
        target=row.target,
        order_key=row.order_key,
        was_due=row.due_ms,
        status=status,
        reason=reason,
        due_ms=now,
        finished_ms=now,
    )


def _put_off(row: Row[Any], reason: str, pause: timedelta = _NOT_CONFIGURED) -> Result:
    return Result(
        seq=row.seq,
        key=row.key,
        target=row.target,
        order_key=row.order_key,
        was_due=row.due_ms,
        status="waiting",
        reason=reason,
        due_ms=milliseconds(datetime.now(UTC) + pause),
        finished_ms=None,
    )
