"""Refresh tokens that change with every use: kept before they are used, exchanged by one worker of all machines."""

from __future__ import annotations

from sqlalchemy import or_, select, update

from bridge.ledger.database import Ledger, clock, insert_new
from bridge.ledger.tables import credentials


def claim(ledger: Ledger, name: str, owner: str, seconds: float) -> str | None:
    """The secret that is kept (empty when there is none yet), now `owner`'s alone for so long; None while another's.

    That this could be written down also shows that the ledger can take the next secret.
    """
    with ledger.write() as connection:
        empty = {"name": name, "secret": "", "owner": "", "until_ms": 0, "updated_ms": 0}
        insert_new(connection, credentials, [empty], "name")
        now = clock(connection.dialect.name)
        taken = connection.execute(
            update(credentials)
            .where(credentials.c.name == name)
            .where(or_(credentials.c.owner == "", credentials.c.until_ms < now))
            .values(owner=owner, until_ms=now + int(seconds * 1000))
            .returning(credentials.c.secret)
        ).scalar()
        return None if taken is None else str(taken)


def kept(ledger: Ledger, name: str) -> str:
    """The secret as it is now; empty when there is none."""
    with ledger.read() as connection:
        return connection.execute(select(credentials.c.secret).where(credentials.c.name == name)).scalar() or ""


def keep(ledger: Ledger, name: str, old: str, new: str) -> bool:
    """Put a secret in the place of another, durably; False when somebody has put a third one there meanwhile."""
    with ledger.write() as connection:
        changed = connection.execute(
            update(credentials)
            .where(credentials.c.name == name, credentials.c.secret == old)
            .values(secret=new, updated_ms=clock(connection.dialect.name))
        )
        return changed.rowcount == 1


def release(ledger: Ledger, name: str, owner: str) -> None:
    """Let the next one claim it, unless somebody has already."""
    with ledger.write() as connection:
        connection.execute(
            update(credentials)
            .where(credentials.c.name == name, credentials.c.owner == owner)
            .values(owner="", until_ms=0)
        )
