"""The deliver stage: messages go to their target, in order per state key, and what came of it is written down."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import structlog
from sqlalchemy import Row

from bridge.core.contracts import Message, Outcome, Verdict
from bridge.core.errors import DestinationForbidden, TargetError
from bridge.engine.batches import MAX_STARTS, chains, run_chains
from bridge.engine.bugs import place_of
from bridge.engine.line import Line, TargetLine
from bridge.engine.metrics import DELIVERIES, DELIVERY_SECONDS
from bridge.flow.declared import prepare
from bridge.flow.deliver import after
from bridge.flow.judge import NoAnswer, outcome_of, outcome_of_silence
from bridge.ledger.database import milliseconds, moment
from bridge.ledger.delivering import Attempt, Head, Result, finish, heads, newest_waiting
from bridge.ledger.lanes import BATCH, Lease
from bridge.ledger.reading import bodies_of

_NOT_CONFIGURED = timedelta(minutes=1)
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
        with self.line.ledger.read() as connection:
            batch = _Batch(
                target=known,
                heads=heads(connection, {row.order_key for row in rows if row.state}),
                newest=newest_waiting(connection, {row.order_key for row in rows if row.latest_only}),
                events=bodies_of(connection, {row.event_id for row in rows}),
            )
        run_chains(
            self.pools[target],
            1,  # a target has as many lanes as it may have deliveries at a time
            chains(rows),
            batch.chain,
            lambda results: finish(self.line.ledger, lease, results),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """What the chains of one batch share: the target, its newest states, and the events as text."""

    target: TargetLine
    heads: Mapping[str, Head]
    newest: Mapping[str, int]
    events: Mapping[str, tuple[str, int]]

    def chain(self, rows: list[Row[Any]]) -> list[Result]:
        """One order key's messages in order; those behind one that has to wait stay where they are."""
        head = self.heads.get(rows[0].order_key)
        results: list[Result] = []
        for row in rows:
            result = self._one(row, head)
            results.append(result)
            head = result.head or head
            if result.status == "waiting":
                break
        return results

    def _one(self, row: Row[Any], head: Head | None) -> Result:
        if row.state and head is not None and head.is_newer_than(row.time_ms, row.sequence):
            return _closed(row, "superseded", "the target already got a newer state")
        if row.latest_only and self.newest.get(row.order_key, row.seq) != row.seq:
            return _closed(row, "superseded", "a newer state is waiting")
        if row.starts >= MAX_STARTS:
            return _closed(row, "dead", f"its worker died {row.starts} times while working on it")
        if row.operation not in self.target.connector.manifest.operations:
            return _closed(row, "dead", f"{self.target.connector.name} has no operation {row.operation}")
        return self._tried(row)

    def _tried(self, row: Row[Any]) -> Result:
        began, sent_at = time.monotonic(), datetime.now(UTC)
        body, recorded_ms = self.events[row.event_id]
        message = Message(
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
        outcome, status = _outcome(message, self.target)
        step = after(
            outcome,
            attempt=message.attempt,
            age=sent_at - moment(row.created_ms),
            patience=self.target.patience,
            rng=_chance,
        )
        DELIVERIES.labels(row.target, outcome.verdict.value).inc()
        now = datetime.now(UTC)
        if step.fate == "delivered":
            DELIVERY_SECONDS.labels(row.target).observe(max(0.0, now.timestamp() - recorded_ms / 1000))
        elif step.fate != "waiting":
            _log.warning("not_delivered", target=row.target, message=row.key, fate=step.fate, reason=step.reason)
        return Result(
            seq=row.seq,
            key=row.key,
            target=row.target,
            order_key=row.order_key,
            status=step.fate,
            reason=step.reason,
            due_ms=milliseconds(now + step.pause),
            finished_ms=None if step.fate == "waiting" else milliseconds(now),
            attempt=Attempt(
                number=message.attempt,
                at_ms=milliseconds(sent_at),
                took_ms=int((time.monotonic() - began) * 1000),
                verdict=outcome.verdict.value,
                status=status,
                reason=outcome.reason,
            ),
            counts=step.counts,
            target_id=outcome.target_id,
            head=_head(row) if row.state and step.fate == "delivered" else None,
        )


def _outcome(message: Message, target: TargetLine) -> tuple[Outcome, int | None]:
    operation = target.connector.manifest.operations[message.operation]
    try:
        request = prepare(target.connector, message, target.settings)
    except TargetError as error:
        return Outcome(verdict=Verdict.PERMANENT, reason=str(error)), None
    except Exception as error:  # noqa: BLE001  a connector's bug: it takes no other message with it
        return Outcome(verdict=Verdict.PERMANENT, reason=place_of(error)), None
    try:
        answer = target.send(request)
    except NoAnswer as silence:
        return outcome_of_silence(silence, operation, target.settings), None
    except (TargetError, DestinationForbidden) as error:
        return Outcome(verdict=Verdict.PERMANENT, reason=str(error)), None
    try:
        return outcome_of(target.connector, answer, message, target.settings), answer.status
    except Exception as error:  # noqa: BLE001  a connector's bug, and the target may have taken the message
        return Outcome(verdict=Verdict.AMBIGUOUS, reason=place_of(error)), answer.status


def _head(row: Row[Any]) -> Head:
    return Head(time_ms=row.time_ms, sequence=row.sequence, message_key=row.key)


def _closed(row: Row[Any], status: Any, reason: str) -> Result:
    now = milliseconds(datetime.now(UTC))
    return Result(
        seq=row.seq,
        key=row.key,
        target=row.target,
        order_key=row.order_key,
        status=status,
        reason=reason,
        due_ms=now,
        finished_ms=now,
    )


def _put_off(row: Row[Any], reason: str) -> Result:
    return Result(
        seq=row.seq,
        key=row.key,
        target=row.target,
        order_key=row.order_key,
        status="waiting",
        reason=reason,
        due_ms=milliseconds(datetime.now(UTC) + _NOT_CONFIGURED),
        finished_ms=None,
    )
