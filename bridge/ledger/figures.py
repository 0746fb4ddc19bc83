"""Counts per day, source and target, kept in the transactions that they count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from bridge.ledger.database import Ledger, upsert
from bridge.ledger.tables import figures


def count(connection: Connection, counts: Mapping[tuple[str, str], int], *, day: str | None = None) -> None:
    """Add to today's figures, or to those of a day (YYYY-MM-DD).

    Keys are (subject, figure) such as ("source:wiseflow-main", "received").

    Rows are touched in one order everywhere, so that two transactions never wait for each other in a circle.
    """
    day = day or datetime.now(UTC).date().isoformat()
    rows = [
        {"day": day, "subject": subject, "figure": figure, "count": number}
        for (subject, figure), number in sorted(counts.items())
        if number
    ]
    upsert(connection, figures, rows, add=("count",))


def totals(ledger: Ledger, *, since: str | None = None) -> dict[str, dict[str, int]]:
    """Sums per subject and figure, over all days or from a day (YYYY-MM-DD) on."""
    with ledger.read() as connection:
        query = select(figures.c.subject, figures.c.figure, figures.c.count)
        if since is not None:
            query = query.where(figures.c.day >= since)
        sums: dict[str, dict[str, int]] = {}
        for row in connection.execute(query):
            subject = sums.setdefault(row.subject, {})
            subject[row.figure] = subject.get(row.figure, 0) + row[2]
        return sums


def by_day(ledger: Ledger, subject: str, *, since: str) -> dict[str, dict[str, int]]:
    """One subject's figures per day (YYYY-MM-DD), oldest first, from a day on; days without any are left out."""
    with ledger.read() as connection:
        query = (
            select(figures.c.day, figures.c.figure, figures.c.count)
            .where(figures.c.subject == subject, figures.c.day >= since)
            .order_by(figures.c.day)
        )
        days: dict[str, dict[str, int]] = {}
        for row in connection.execute(query):
            days.setdefault(row.day, {})[row.figure] = row[2]
        return days
