"""Reconciliation: what a platform's lists say has happened against what is known, and how the rest comes in.

What no webhook told becomes a delivery whose body is what its webhook would have said, so that it takes the same way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from bridge.core.events import Event, stamp
from bridge.core.signing import canonical_json
from bridge.core.source import Found, Inbound, Reconciling, Returning, Source, Verified

PROOF: Final = "reconciled"
"""The proof of a delivery that nobody sent: the platform's API said so. No connector gives this one."""

_HAPPENED_AT: Final = "campusbridge-happened-at"
_FACT: Final = "campusbridge-fact"
_REMEMBERED: Final = 20_000
"""A list that grows while it is read shows entries twice, on two pages that follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Some of what happened; `told_by` says per fact whether a webhook or a list told it, and lacks what is missing."""

    found: Sequence[Found]
    told_by: Mapping[str, str]

    @property
    def missing(self) -> list[Found]:
        """What nobody told, oldest first."""
        return sorted(
            (entry for entry in self.found if entry.fact not in self.told_by), key=lambda entry: entry.occurred_at
        )


def compare(
    found: Iterable[Found],
    known: Callable[[Sequence[str]], Mapping[str, str]],
    *,
    since: datetime,
    until: datetime,
    size: int = 500,
) -> Iterator[Compared]:
    """What happened in a span (both ends included), some at a time, each fact once, against what is `known`.

    No more than `size` entries are held at a time, and the facts of the last thousands.
    """
    in_span = (entry for entry in found if since <= entry.occurred_at <= until)
    once = _once(in_span)
    while some := tuple(islice(once, size)):
        yield _compared(some, known)


def _compared(some: Sequence[Found], known: Callable[[Sequence[str]], Mapping[str, str]]) -> Compared:
    """What was told before, and is found after something else was, has come back: it is known by what it came after."""
    told_by = known([entry.fact for entry in some])
    found = [
        replace(entry, fact=f"{entry.fact}|after {entry.after}") if entry.after and entry.fact in told_by else entry
        for entry in some
    ]
    again = [entry.fact for entry, before in zip(found, some, strict=True) if entry is not before]
    return Compared(found=found, told_by={**told_by, **known(again)} if again else told_by)


def _once(found: Iterable[Found]) -> Iterator[Found]:
    seen: OrderedDict[tuple[str, str | None], None] = OrderedDict()
    for entry in found:
        name = entry.fact, entry.after  # what has come back may be listed beside what it was before
        if name in seen:
            continue
        seen[name] = None
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        yield entry


def delivery_of(found: Found, *, id: str, source: str, dedupe_key: str, now: datetime) -> Verified:
    """The delivery that something found becomes. What its body may lack, when and what, goes with it as headers."""
    inbound = Inbound(
        id=id,
        source=source,
        received_at=now,
        headers={_HAPPENED_AT: stamp(found.occurred_at), _FACT: found.fact},
        query={},
        body=canonical_json(found.body),
    )
    return Verified(inbound=inbound, proof=PROOF, dedupe_key=dedupe_key, dedupe_window=timedelta(0))


def is_reconciled(verified: Verified) -> bool:
    """Whether a delivery was made here; headers of the same names in a webhook mean nothing."""
    return verified.proof == PROOF


def marked(events: Iterable[Event], verified: Verified) -> list[Event]:
    """Events of a delivery with their origin, and with the time of the list where its body has none.

    Such a time may be a guess (who was missed, went at some time): it orders the event, and keeps its `timequality`.
    """
    if not is_reconciled(verified):
        return list(events)
    happened_at = datetime.fromisoformat(verified.inbound.headers[_HAPPENED_AT])
    return [
        replace(event, origin="reconciled", time=happened_at)
        if event.timequality == "received"
        else replace(event, origin="reconciled")
        for event in events
    ]


def returns(code: Source, event: Event) -> bool:
    """Whether what a completed event tells can come true again, and is what the API showed when it was asked."""
    return (
        isinstance(code, Returning)
        and event.observedat is not None
        and event.enrichment != "missing"
        and event.type != "source.unmapped"
        and code.returns(event)
    )


def facts_of(code: Source, event: Event, verified: Verified) -> tuple[str, ...]:
    """What a completed event tells: its own fact, and the one that it was made for."""
    own = code.fact(event) if isinstance(code, Reconciling) and event.type != "source.unmapped" else None
    made_for = verified.inbound.headers[_FACT] if is_reconciled(verified) else None
    return tuple(dict.fromkeys(fact for fact in (own, made_for) if fact))
