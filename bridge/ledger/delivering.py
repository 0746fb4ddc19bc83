"""The end of the deliver stage: what became of each message, every attempt, and the newest state per subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, bindparam, func, select, update

from bridge.ledger.database import Ledger, upsert
from bridge.ledger.figures import count
from bridge.ledger.lanes import Lease, put_off, renew
from bridge.ledger.tables import attempts, messages, subject_heads

Status = Literal["waiting", "delivered", "superseded", "dead", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest state that a target got for one order key."""

    time_ms: int
    sequence: int | None
    message_key: str

    def is_newer_than(self, time_ms: int, sequence: int | None) -> bool:
        """By the time at the platform, then by its sequence number where both have one. A tie is not newer."""
        if self.time_ms != time_ms:
            return self.time_ms > time_ms
        if self.sequence is None or sequence is None:
            return False
        return self.sequence > sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a message; `status` is the HTTP status, None without an answer."""

    number: int
    at_ms: int
    took_ms: int
    verdict: str
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What becomes of a message that was due at `was_due`. A `waiting` one is due again at `due_ms`; `counts` is False
    when a try was free.
    """

    seq: int
    key: str
    target: str
    order_key: str
    was_due: int
    status: Status
    reason: str
    due_ms: int
    finished_ms: int | None
    step: Literal["prepare", "deliver"] = "deliver"
    attempt: Attempt | None = None
    counts: bool = True
    target_id: str | None = None
    head: Head | None = None


_CLOSED: Final = (
    update(messages)
    .where(
        messages.c.seq == bindparam("row"),
        messages.c.status == "waiting",
        messages.c.due_ms == bindparam("was_due"),  # or it was rendered anew meanwhile, and has yet to be sent
    )
    .values(
        status=bindparam("new_status"),
        reason=bindparam("new_reason"),
        due_ms=bindparam("new_due"),
        step=bindparam("new_step"),
        attempts=messages.c.attempts + bindparam("tries"),
        starts=0,
        target_id=func.coalesce(bindparam("new_target_id"), messages.c.target_id),
        finished_ms=bindparam("new_finished"),
    )
)


def finish(ledger: Ledger, lease: Lease, results: Sequence[Result]) -> None:
    """Commit results of one batch. Raises LeaseLost: then nothing was written."""
    with ledger.write() as connection:
        renew(connection, lease)
        if not results:
            return
        connection.execute(
            _CLOSED,
            [
                {
                    "row": result.seq,
                    "was_due": result.was_due,
                    "new_status": result.status,
                    "new_reason": result.reason,
                    "new_due": result.due_ms,
                    "new_step": result.step,
                    "tries": int(result.attempt is not None and result.counts),
                    "new_target_id": result.target_id,
                    "new_finished": result.finished_ms,
                }
                for result in results
            ],
        )
        tried = [(result.key, result.attempt) for result in results if result.attempt is not None]
        if tried:
            connection.execute(
                attempts.insert(),
                [
                    {
                        "message_key": key,
                        "number": attempt.number,
                        "at_ms": attempt.at_ms,
                        "took_ms": attempt.took_ms,
                        "verdict": attempt.verdict,
                        "status": attempt.status,
                        "reason": attempt.reason,
                    }
                    for key, attempt in tried
                ],
            )
        newest = {result.order_key: result.head for result in results if result.head is not None}
        upsert(
            connection,
            subject_heads,
            [
                {
                    "order_key": order_key,
                    "time_ms": head.time_ms,
                    "sequence": head.sequence,
                    "message_key": head.message_key,
                }
                for order_key, head in sorted(newest.items())
            ],
        )
        waiting = {result.order_key: result.due_ms for result in results if result.status == "waiting"}
        put_off(connection, messages, waiting.items())
        count(connection, Counter((f"target:{result.target}", _figure(result)) for result in results))


def _figure(result: Result) -> str:
    return "retries" if result.status == "waiting" else result.status


_HEADS: Final = select(subject_heads).where(subject_heads.c.order_key.in_(bindparam("order_keys", expanding=True)))
_STILL: Final = select(messages.c.seq, messages.c.due_ms).where(
    messages.c.seq.in_(bindparam("rows", expanding=True)), messages.c.status == "waiting"
)
_WAITING_STATES: Final = (
    select(messages.c.order_key, messages.c.seq, messages.c.key, messages.c.time_ms, messages.c.sequence)
    .where(messages.c.order_key.in_(bindparam("order_keys", expanding=True)), messages.c.status == "waiting")
    .order_by(messages.c.seq)
)


def still_to_send(connection: Connection, rows: Mapping[int, int]) -> set[int]:
    """Which of these rows, with when each was due, are as they were: neither discarded nor rendered anew since."""
    found = connection.execute(_STILL, {"rows": list(rows)})
    return {row.seq for row in found if rows[row.seq] == row.due_ms}


def heads(connection: Connection, order_keys: Collection[str]) -> Mapping[str, Head]:
    """The newest delivered states of these order keys."""
    if not order_keys:
        return {}
    rows = connection.execute(_HEADS, {"order_keys": list(order_keys)})
    return {
        row.order_key: Head(time_ms=row.time_ms, sequence=row.sequence, message_key=row.message_key) for row in rows
    }


def newest_waiting(connection: Connection, order_keys: Collection[str]) -> Mapping[str, int]:
    """Per order key the `seq` of its newest waiting state; of states that are equally new, the one that came last."""
    if not order_keys:
        return {}
    newest: dict[str, tuple[int, Head]] = {}
    for row in connection.execute(_WAITING_STATES, {"order_keys": list(order_keys)}):
        known = newest.get(row.order_key)
        if known is None or not known[1].is_newer_than(row.time_ms, row.sequence):
            head = Head(time_ms=row.time_ms, sequence=row.sequence, message_key=row.key)
            newest[row.order_key] = (row.seq, head)
    return {order_key: seq for order_key, (seq, _) in newest.items()}
