"""What is remembered of our subscription at a platform, so that one that was dropped is known from one never made."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select, update

from bridge.ledger.database import Ledger, milliseconds, moment, upsert
from bridge.ledger.tables import audit, subscriptions

_FIRST_PAUSE_MS: Final = 10 * 60_000
_LONGEST_PAUSE_MS: Final = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Our subscription as the platform's list last had it, in order."""

    url: str
    kinds: frozenset[str]
    seen: datetime


def remembered(ledger: Ledger, source: str) -> Remembered | None:
    """None when this bridge has never seen a subscription of its own."""
    with ledger.read() as connection:
        row = connection.execute(select(subscriptions).where(subscriptions.c.source == source)).first()
    if row is None:
        return None
    return Remembered(url=row.url, kinds=frozenset(json.loads(row.kinds)), seen=moment(row.seen_ms))


def remember(ledger: Ledger, source: str, url: str, kinds: Collection[str], now: datetime) -> None:
    """Write down that ours is there, with these kinds (none: all)."""
    document = {"source": source, "url": url, "kinds": json.dumps(sorted(kinds)), "seen_ms": milliseconds(now)}
    with ledger.write() as connection:
        upsert(connection, subscriptions, [document | {"tried_ms": 0, "tries": 0}])


def forget(ledger: Ledger, source: str) -> None:
    """Ours is not wanted any more: nobody makes it again."""
    with ledger.write() as connection:
        connection.execute(delete(subscriptions).where(subscriptions.c.source == source))


def may_try(ledger: Ledger, source: str, now: datetime) -> bool:
    """Whether it is our turn to make the subscription anew: one process of all, at once and then after 10, 20, 40 …
    minutes up to a day. A platform that takes subscriptions and never lists them must not be filled with them.
    """
    now_ms, this = milliseconds(now), subscriptions.c.source == source
    with ledger.write() as connection:
        row = connection.execute(select(subscriptions.c.tried_ms, subscriptions.c.tries).where(this)).first()
        if row is None or (row.tries and now_ms < row.tried_ms + _pause_ms(row.tries)):
            return False
        ours = connection.execute(
            update(subscriptions)
            .where(this, subscriptions.c.tries == row.tries)
            .values(tried_ms=now_ms, tries=row.tries + 1)
        )
    return ours.rowcount == 1


def _pause_ms(tries: int) -> int:
    return min(_FIRST_PAUSE_MS << min(tries - 1, 20), _LONGEST_PAUSE_MS)


def note(ledger: Ledger, source: str, action: str, detail: str, *, who: str, now: datetime) -> None:
    """Who made or removed a subscription goes into the audit trail."""
    row = {"at_ms": milliseconds(now), "who": who, "action": action, "object": source, "detail": detail}
    with ledger.write() as connection:
        connection.execute(audit.insert().values(row))
