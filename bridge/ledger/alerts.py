"""What people have to be told about a source: each thing once, until it is over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update

from bridge.ledger.database import Ledger, insert_new, milliseconds, moment
from bridge.ledger.tables import alerts


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """`about` is silence, subscription or verification; `detail` says in words what is so, and holds no secret."""

    source: str
    about: str
    detail: str

    @property
    def key(self) -> tuple[str, str]:
        return self.source, self.about


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAlert:
    """An alert that is still so, and since when."""

    alert: Alert
    began: datetime

    def __str__(self) -> str:
        began = self.began.isoformat(timespec="minutes").replace("+00:00", "Z")
        return f"{self.alert.source}, {self.alert.about}, told at {began}: {self.alert.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What has to be said now: alerts that are new, and those that are over."""

    new: tuple[Alert, ...]
    over: tuple[Alert, ...]


def keep(
    ledger: Ledger,
    found: Sequence[Alert],
    looked_at: Collection[tuple[str, str]],
    sources: Collection[str],
    now: datetime,
) -> Told:
    """Write down what a round found. Open alerts about what was `looked_at`, (source, about), and not found are over,
    and so are those of sources that are no more.

    Of several processes that find the same at once, one is told that it is new. A changed detail is kept quietly.
    """
    now_ms = milliseconds(now)
    current = {alert.key for alert in found}
    with ledger.write() as connection:
        rows = connection.execute(select(alerts).where(alerts.c.ended_ms.is_(None))).all()
        gone = [
            row
            for row in rows
            if row.source not in sources
            or ((row.source, row.about) in looked_at and (row.source, row.about) not in current)
        ]
        for row in gone:
            connection.execute(update(alerts).where(alerts.c.seq == row.seq).values(ended_ms=now_ms))
        new = []
        for alert in found:
            document = {"source": alert.source, "about": alert.about, "detail": alert.detail, "began_ms": now_ms}
            if insert_new(connection, alerts, [document], "seq"):
                new.append(alert)
                continue
            standing = (alerts.c.source == alert.source) & (alerts.c.about == alert.about) & alerts.c.ended_ms.is_(None)
            connection.execute(update(alerts).where(standing).values(detail=alert.detail))
    over = tuple(Alert(source=row.source, about=row.about, detail=row.detail) for row in gone)
    return Told(new=tuple(new), over=over)


def open_alerts(ledger: Ledger) -> list[OpenAlert]:
    """The alerts that are still so, by source."""
    with ledger.read() as connection:
        query = select(alerts).where(alerts.c.ended_ms.is_(None)).order_by(alerts.c.source, alerts.c.about)
        return [
            OpenAlert(alert=Alert(source=row.source, about=row.about, detail=row.detail), began=moment(row.began_ms))
            for row in connection.execute(query)
        ]
