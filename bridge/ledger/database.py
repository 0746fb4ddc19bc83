"""Opening the ledger, and the few places where SQLite and PostgreSQL differ."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    func,
    inspect,
    literal_column,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.sql.dml import Insert, ReturningInsert

from bridge.ledger.tables import lanes

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSION: Final = "0001"
"""The newest migration in `migrations/versions`."""

_MIGRATION_LOCK: Final = 0x43414D50  # any number, the same for every process that migrates


class Ledger:
    """A ledger that is open. `write` and `read` give connections inside a transaction; both are safe from threads."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._at_once = _engine(url, at_once=True)
        self._kept = threading.local()
        self._lanes: set[str] = set()
        self._sqlite = self.engine.dialect.name == "sqlite"
        self._writing: contextlib.AbstractContextManager[object] = (
            _Turn(self.engine.url.database) if self._sqlite else contextlib.nullcontext()
        )

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that commits at the end, or rolls back on an error."""
        with (
            self._writing,
            self.engine.connect().execution_options(sqlite_immediate=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def at_once(self) -> Iterator[Connection]:
        """A connection on which every statement is a transaction of its own: one round trip, the commit included.

        It stays with its thread: to take it from the pool and give it back would cost as much as a small statement.
        """
        connection = getattr(self._kept, "connection", None) or self._at_once.connect()
        self._kept.connection = None
        try:
            with self._writing:
                yield connection
        except BaseException:
            connection.close()
            raise
        self._kept.connection = connection

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent view."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def register(self, names: Collection[str]) -> None:
        """Make lanes known to the sweeper, before a row is put into one; this process remembers those it has seen."""
        fresh = set(names) - self._lanes
        if fresh:
            rows = [{"name": name, "token": 0, "owner": "", "until_ms": 0, "suspects": 0} for name in sorted(fresh)]
            with self.write() as connection:
                insert_new(connection, lanes, rows, "name")
            self._lanes |= fresh

    def upgrade(self) -> None:
        """Bring the tables to the present version; several processes may call this at once."""
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        with self.write() as connection:
            if not self._sqlite:
                connection.execute(func.pg_advisory_xact_lock(_MIGRATION_LOCK).select())
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def is_current(self) -> bool:
        """Whether the tables have the version that this code expects."""
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return False
            return connection.execute(text("select version_num from alembic_version")).scalar() == VERSION

    def close(self) -> None:
        if (kept := getattr(self._kept, "connection", None)) is not None:
            kept.close()
        self.engine.dispose()
        self._at_once.dispose()


class _Turn:
    """SQLite has one writer at a time, and lets the others sleep and ask again, longer each time. Here they queue.

    Threads of one process queue at its lock, and processes at a lock on a file beside the database. The file is opened
    anew for each turn: one that a fork shares would stay locked after its holder was killed. Where it cannot be opened,
    say because the disk is full, SQLite's own way of waiting is left.
    """

    def __init__(self, database: str | None) -> None:
        self._threads = threading.Lock()
        self._path = f"{database}-turn" if database else None
        self._file: int | None = None

    def __enter__(self) -> None:
        self._threads.acquire()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_exc: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._threads.release()


def _engine(url: str, *, at_once: bool = False) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        if parsed.database:
            with contextlib.suppress(OSError):  # SQLite says itself that it cannot open its file
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": 30}, pool_size=32, max_overflow=32)
        if at_once:  # without a BEGIN every statement is a transaction of its own
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_size=16,
        max_overflow=16,
        isolation_level="AUTOCOMMIT" if at_once else None,
        pool_reset_on_return=None if at_once else "rollback",
        connect_args={"connect_timeout": 5, "prepare_threshold": 3},
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("sqlite_immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def clock(dialect: str) -> ColumnElement[int]:
    """The database's own clock in milliseconds: leases of several machines must not hang on their clocks."""
    if dialect == "sqlite":
        return literal_column("cast((julianday('now') - 2440587.5) * 86400000 as integer)")
    return literal_column("cast(extract(epoch from clock_timestamp()) * 1000 as bigint)")


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], returning: str) -> list[Any]:
    """Insert the rows that break no unique constraint; the `returning` values of those that went in."""
    if not rows:
        return []
    statement = _insert_new(connection.dialect.name, table, returning)
    return list(connection.execute(statement, rows[0] if len(rows) == 1 else list(rows)).scalars())


@cache
def _insert_new(dialect: str, table: Table, returning: str) -> ReturningInsert[Any]:
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing().returning(table.c[returning])


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, add: Sequence[str] = ()) -> None:
    """Insert rows or, where the primary key stands already, put the new values there; columns in `add` are summed."""
    if not rows:
        return
    connection.execute(_upsert(connection.dialect.name, table, tuple(rows[0]), tuple(add)), list(rows))


@cache
def _upsert(dialect: str, table: Table, columns: tuple[str, ...], add: tuple[str, ...]) -> Insert:
    insert = (sqlite.insert if dialect == "sqlite" else postgresql.insert)(table)
    key = [column.name for column in table.primary_key]
    changes = {
        name: table.c[name] + insert.excluded[name] if name in add else insert.excluded[name]
        for name in columns
        if name not in key
    }
    return insert.on_conflict_do_update(index_elements=key, set_=changes)


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
