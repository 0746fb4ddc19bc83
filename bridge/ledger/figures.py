"""Counts per day, source and target, kept in the transactions that they count."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from bridge.ledger.database import Ledger, upsert
from bridge.ledger.tables import figures


def count(connection: Connection, counts: Mapping[tuple[str, str], int]) -> None:
    """Add to today's figures; keys are (subject, figure) such as ("source:wiseflow-main", "received").

    Rows are touched in one order everywhere, so that two transactions never wait for each other in a circle.
    """
    day = datetime.now(UTC).date().isoformat()
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
