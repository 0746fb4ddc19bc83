"""Facts: what has happened at a platform, whether a webhook told us or a list did, so that nothing is told twice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

import orjson
from sqlalchemy import Connection, select, update

from bridge.core.events import Event, event_from_json
from bridge.core.signing import fingerprint
from bridge.ledger.accepting import Arrival, delivery_row
from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.tables import deliveries_in, events, facts, repeats

Origin = Literal["webhook", "reconciled"]

_AT_ONCE: Final = 400
_LONGEST: Final = 500
"""PostgreSQL's indexes take no key of more than some 2,700 bytes; what is longer is known by its hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """An event of a delivery, and the facts that it tells. `state` is its state key, None for an occurrence.

    `shown_at` is when the platform's API showed it as its present state, None where that is not what it tells.
    """

    source: str
    facts: tuple[str, ...]
    delivery_seq: int
    event_id: str
    origin: Origin
    subject: str
    state: str | None
    shown_at: datetime | None = None


class _Holder(NamedTuple):
    delivery_seq: int
    event_id: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What other deliveries told before: per (delivery, event id) their row, and which of these events are kept."""

    by: Mapping[tuple[int, str], int]
    standing: Collection[str] = ()

    def stored(self, delivery_seq: int, event_id: str) -> bool:
        """Whether the event is new, or has a row that can be brought up to date."""
        return (delivery_seq, event_id) not in self.by or event_id in self.standing

    def silent(self, delivery_seq: int, event_id: str, purpose: str) -> bool:
        """Whether no message goes out; a person who replays an event that is kept wants it to be sent again."""
        told = (delivery_seq, event_id) in self.by
        return told and not (purpose == "replay" and event_id in self.standing)

    def whole(self, delivery_seq: int, event_ids: Sequence[str]) -> int | None:
        """The delivery that told first what this one tells, if nothing of it is new."""
        others = [self.by.get((delivery_seq, event_id)) for event_id in event_ids]
        return others[0] if others and None not in others else None


def already_told(connection: Connection, tellings: Sequence[Telling]) -> Told:
    """Write down what these events tell, and find what was told before.

    An event is told only where one of the two was reconciled: that several webhooks tell the same is for their
    platform's dedupe rule to judge. A state that another one has followed is not told any more: when it comes again it
    has come back. Two transactions that tell one fact wait for each other here.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for telling in tellings:
        for fact in telling.facts:
            rows.setdefault((telling.source, fact_key(fact)), _row(telling, fact_key(fact)))
    written = len(insert_new(connection, facts, [rows[key] for key in sorted(rows)], "fact"))
    holders = {key: _Holder(row["delivery_seq"], row["event_id"], row["origin"]) for key, row in rows.items()}
    if written < len(rows):
        holders |= _holders(connection, rows)
    by: dict[tuple[int, str], int] = {}
    kept: list[Telling] = []
    for telling in tellings:
        holder = _other(telling, holders)
        if holder is not None and not _has_passed(connection, telling, holder, kept):
            by[telling.delivery_seq, telling.event_id] = holder.delivery_seq
            _hand_over(connection, telling, holder)
            continue
        kept.append(telling)
        if telling.shown_at is not None:
            _take_over(connection, telling, holders)
    if not by:
        return Told(by={})
    standing = select(events.c.id).where(events.c.id.in_([event_id for _, event_id in by]))
    return Told(by=by, standing=frozenset(connection.execute(standing).scalars()))


def _row(telling: Telling, key: str) -> dict[str, Any]:
    return {
        "source": telling.source,
        "fact": key,
        "delivery_seq": telling.delivery_seq,
        "event_id": telling.event_id,
        "origin": telling.origin,
        "first_ms": milliseconds(datetime.now(UTC)),
    }


def _other(telling: Telling, holders: Mapping[tuple[str, str], _Holder]) -> _Holder | None:
    for fact in telling.facts:
        holder = holders[telling.source, fact_key(fact)]
        if holder.delivery_seq != telling.delivery_seq and "reconciled" in (holder.origin, telling.origin):
            return holder
    return None


def _has_passed(connection: Connection, telling: Telling, holder: _Holder, kept: Sequence[Telling]) -> bool:
    """Whether another state was told since the one that the holder told; `kept` are events that are not stored yet.

    What lists told since does not count: they tell of a whole outage at once, and its late webhooks come after them.
    Unless the platform showed this one as its present state after that: then it has come back.
    """
    if telling.state is None:
        return False
    since = [other for other in kept if (other.source, other.state) == (telling.source, telling.state)]
    place = next((place for place, other in enumerate(since) if other.event_id == holder.event_id), -1)
    since = [other for other in since[place + 1 :] if not set(other.facts) & set(telling.facts)]
    if any(other.origin == "webhook" for other in since):
        return True
    if since and telling.shown_at is not None and since[-1].shown_at is not None:
        return since[-1].shown_at < telling.shown_at
    told = select(events.c.cursor).where(events.c.id == holder.event_id).scalar_subquery()
    later = select(events.c.body).where(
        events.c.subject == telling.subject,
        events.c.source == telling.source,
        events.c.state_key == telling.state,
        events.c.cursor > told,
        events.c.delivery_seq.not_in([holder.delivery_seq, telling.delivery_seq]),
    )
    listed = select(facts.c.event_id).where(facts.c.origin == "reconciled")
    if connection.execute(later.where(events.c.id.not_in(listed)).limit(1)).first() is not None:
        return True
    if telling.shown_at is None:
        return False
    newest = connection.execute(later.order_by(events.c.cursor.desc()).limit(1)).scalar()
    return newest is not None and _shown_at(newest) < telling.shown_at


def _shown_at(body: str) -> datetime:
    """When what an event says was read at the platform, or else when it came in."""
    event = event_from_json(orjson.loads(body))
    return event.observedat or event.recordedtime


def _take_over(connection: Connection, telling: Telling, holders: dict[tuple[str, str], _Holder]) -> None:
    """What has come true again is told by who told it last: a list that shows it, or a late webhook, means this one."""
    for key in ((telling.source, fact_key(fact)) for fact in telling.facts):
        if holders[key].delivery_seq < telling.delivery_seq:
            holders[key] = _Holder(telling.delivery_seq, telling.event_id, telling.origin)
    connection.execute(
        update(facts)
        .where(
            facts.c.source == telling.source,
            facts.c.fact.in_([fact_key(fact) for fact in telling.facts]),
            facts.c.delivery_seq < telling.delivery_seq,
        )
        .values(event_id=telling.event_id, delivery_seq=telling.delivery_seq, origin=telling.origin)
    )


def _holders(connection: Connection, keys: Collection[tuple[str, str]]) -> dict[tuple[str, str], _Holder]:
    found: dict[tuple[str, str], _Holder] = {}
    for source in {source for source, _ in keys}:
        for some in _portions(sorted(fact for owner, fact in keys if owner == source)):
            for row in connection.execute(select(facts).where(facts.c.source == source, facts.c.fact.in_(some))):
                found[source, row.fact] = _Holder(row.delivery_seq, row.event_id, row.origin)
    return found


def _hand_over(connection: Connection, telling: Telling, holder: _Holder) -> None:
    """The other facts of an event that is not kept stand for the event that is."""
    if len(telling.facts) > 1:
        connection.execute(
            update(facts)
            .where(
                facts.c.source == telling.source,
                facts.c.fact.in_([fact_key(fact) for fact in telling.facts]),
                facts.c.delivery_seq == telling.delivery_seq,
            )
            .values(event_id=holder.event_id, delivery_seq=holder.delivery_seq)
        )


def note_repeat(connection: Connection, *, of: int, late: int) -> None:
    """Show a delivery that told nothing new beside the one that told it first; both by their rows."""
    row = connection.execute(
        select(deliveries_in.c.id, deliveries_in.c.received_ms).where(deliveries_in.c.seq == late)
    ).one_or_none()
    if row is None:
        return
    again = {"id": row.id, "delivery_seq": of, "received_ms": row.received_ms}
    if insert_new(connection, repeats, [again], "id"):
        connection.execute(
            update(deliveries_in).where(deliveries_in.c.seq == of).values(repeats=deliveries_in.c.repeats + 1)
        )


# --- what a platform lists --------------------------------------------------------------------------------------------


def known_facts(ledger: Ledger, source: str, wanted: Sequence[str]) -> dict[str, Origin]:
    """Which of these facts are known or on their way, and what told them first."""
    keys = {fact_key(fact): fact for fact in wanted}
    known: dict[str, Origin] = {}
    with ledger.read() as connection:
        for some in _portions(list(keys)):
            query = select(facts.c.fact, facts.c.origin).where(facts.c.source == source, facts.c.fact.in_(some))
            known |= {keys[row.fact]: row.origin for row in connection.execute(query)}
        waiting = {reconciled_key(fact): fact for fact in wanted if fact not in known}
        for some in _portions(list(waiting)):
            same = select(deliveries_in.c.dedupe_key).where(
                deliveries_in.c.source == source, deliveries_in.c.dedupe_key.in_(some)
            )
            known |= {waiting[key]: "reconciled" for key in connection.execute(same).scalars()}
    return known


def newest_of_each(ledger: Ledger, source: str, noun: str, since: datetime) -> Iterator[Event]:
    """The newest event, by the platform's time, of each subject `<noun>/…` of which there is one since a time."""
    about = events.c.subject.startswith(f"{noun}/", autoescape=True)
    of_source = (events.c.source == source) & (events.c.time_ms >= milliseconds(since))
    with ledger.read() as connection:
        subjects = sorted(connection.execute(select(events.c.subject).where(of_source, about).distinct()).scalars())
    for some in _portions(subjects):
        newest: dict[str, str] = {}
        query = select(events.c.subject, events.c.body).where(of_source, events.c.subject.in_(some))
        with ledger.read() as connection:
            for row in connection.execute(query.order_by(events.c.time_ms, events.c.cursor)):
                newest[row.subject] = row.body
        yield from (event_from_json(orjson.loads(body)) for body in newest.values())


def put_on_its_way(ledger: Ledger, arrivals: Sequence[Arrival]) -> tuple[int, set[str]]:
    """Store reconciled deliveries, each fact once and for ever: how many were new, and the lanes to wake."""
    lanes = {arrival.lane for arrival in arrivals}
    ledger.register(lanes)
    with ledger.write() as connection:
        stored = insert_new(connection, deliveries_in, [delivery_row(arrival) for arrival in arrivals], "id")
    return len(stored), lanes


def reconciled_key(fact: str) -> str:
    """The dedupe key of the delivery that a fact from a list becomes."""
    return fingerprint(["reconciled", fact])


def fact_key(fact: str) -> str:
    """The fact as it stands in the ledger."""
    if len(fact) <= _LONGEST:
        return fact
    return f"{fact[:100]}…{sha256(fact.encode()).hexdigest()}"


def _portions(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
