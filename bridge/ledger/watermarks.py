"""How far each source is compared with what its platform lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import select, update

from bridge.ledger.database import Ledger, insert_new, milliseconds, moment
from bridge.ledger.figures import count
from bridge.ledger.tables import watermarks


def watermark(ledger: Ledger, source: str) -> datetime | None:
    """Up to when a source was compared; None before it is looked after for the first time."""
    with ledger.read() as connection:
        until = connection.execute(select(watermarks.c.until_ms).where(watermarks.c.source == source)).scalar()
    return None if until is None else moment(until)


def look_after(ledger: Ledger, sources: Iterable[str], now: datetime) -> None:
    """Begin to compare sources that never were, from now on: what happened before was nobody's to receive."""
    rows = [{"source": source, "until_ms": milliseconds(now)} for source in sorted(sources)]
    with ledger.write() as connection:
        insert_new(connection, watermarks, rows, "source")


def set_back(ledger: Ledger, source: str, until: datetime) -> None:
    """Compare from this time on, if the mark is later: it was set by a clock that was ahead."""
    later = watermarks.c.until_ms > milliseconds(until)
    with ledger.write() as connection:
        connection.execute(
            update(watermarks).where(watermarks.c.source == source, later).values(until_ms=milliseconds(until))
        )


def advance(
    ledger: Ledger,
    source: str,
    until: datetime,
    by_day: Mapping[str, Mapping[str, int]],
    *,
    mark: datetime | None,
) -> bool:
    """Everything from `mark` up to a time is compared and stored; `by_day` are the figures of that span.

    False, and nothing is written, if somebody else compared meanwhile: the mark is not where it was.
    """
    row = {"source": source, "until_ms": milliseconds(until)}
    with ledger.write() as connection:
        if mark is None:
            moved = bool(insert_new(connection, watermarks, [row], "source"))
        else:
            done = connection.execute(
                update(watermarks)
                .where(
                    watermarks.c.source == source,
                    watermarks.c.until_ms == milliseconds(mark),
                    watermarks.c.until_ms < row["until_ms"],
                )
                .values(until_ms=row["until_ms"])
            )
            moved = done.rowcount == 1
        for day, numbers in sorted(by_day.items()) if moved else ():
            count(connection, {(f"reconcile:{source}", figure): number for figure, number in numbers.items()}, day=day)
    return moved
