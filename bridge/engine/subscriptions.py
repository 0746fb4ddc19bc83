"""Brings our subscription at a platform in order, for a person at the command line or for the watch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from bridge.core.errors import PayloadError, SourceUnavailable
from bridge.core.source import SourceApi, Subscribing, Subscription
from bridge.engine.line import SourceLine
from bridge.flow.subscribing import Plan, is_at, planned
from bridge.ledger.database import Ledger
from bridge.ledger.subscriptions import Remembered, forget, note, remember
from bridge.outbound.source_api import Context


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where subscriptions of one source are managed: its code, its API, and the address of our hook."""

    source: str
    code: Subscribing
    api: SourceApi
    url: str


def desk_of(source: SourceLine, url: str) -> Desk | None:
    """None for a source whose platform has no API for subscriptions, or that is not told how to reach it."""
    code = source.connector.code
    if source.api is None or not isinstance(code, Subscribing):
        return None
    return Desk(source=source.name, code=code, api=source.api(Context()), url=url)


def listed(desk: Desk) -> list[Subscription]:
    """What the platform has. Raises SourceUnavailable, or SourceRefused where rights are missing."""
    try:
        return list(desk.code.subscriptions(desk.api))
    except PayloadError as error:
        raise SourceUnavailable(f"the list of subscriptions has an unexpected shape at {error.path}") from None


def plan_for(desk: Desk, before: Remembered | None, there: list[Subscription], *, rotate: bool = False) -> Plan:
    """What is to be done, knowing how ours was when it was last seen."""
    return planned(
        there,
        desk.url,
        kinds=() if before is None else before.kinds,
        former_url=None if before is None else before.url,
        rotate=rotate,
    )


def seen(ledger: Ledger, desk: Desk, there: list[Subscription], now: datetime) -> None:
    """Remember that ours is there and in order."""
    ours = [entry for entry in there if is_at(entry, desk.url) and entry.active]
    every = any(not entry.kinds for entry in ours)
    remember(ledger, desk.source, desk.url, () if every else {kind for entry in ours for kind in entry.kinds}, now)


def carry_out(ledger: Ledger, desk: Desk, plan: Plan, *, who: str, now: datetime) -> list[Subscription]:
    """Make what is missing, then remove what is too much; what the platform lists then. Raises as `listed`.

    In this order nothing is missed while a secret is changed, and what comes twice meanwhile is known as a repeat.
    """
    try:
        if plan.because is not None:
            made = desk.code.subscribe(desk.api, desk.url)
            note(ledger, desk.source, "subscriptions.create", f"{made.id}: {plan.because}", who=who, now=now)
        for entry in plan.remove:
            desk.code.unsubscribe(desk.api, entry)
            note(ledger, desk.source, "subscriptions.remove", entry.id, who=who, now=now)
    except PayloadError as error:
        raise SourceUnavailable(f"the answer about a subscription has an unexpected shape at {error.path}") from None
    there = listed(desk)
    if plan_for(desk, None, there).because is not None:
        raise SourceUnavailable("the platform took the subscription, but does not list it as active")
    seen(ledger, desk, there, now)
    return there


def remove_ours(ledger: Ledger, desk: Desk, there: list[Subscription], *, who: str, now: datetime) -> int:
    """Remove every subscription that sends to our hook, and make none again by ourselves; how many there were."""
    ours = [entry for entry in there if is_at(entry, desk.url)]
    forget(ledger, desk.source)
    for entry in ours:
        desk.code.unsubscribe(desk.api, entry)
        note(ledger, desk.source, "subscriptions.remove", entry.id, who=who, now=now)
    return len(ours)
