"""The migrations make the tables that the code describes, once, whoever runs them and however many do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

import bridge.ledger.database
from bridge.ledger.database import VERSION, Ledger
from bridge.ledger.tables import metadata

UPGRADE = """
import sys
from bridge.ledger.database import Ledger
ledger = Ledger(sys.argv[1])
ledger.upgrade()
ledger.close()
"""


def test_tables_after_all_migrations_are_the_tables_of_the_code(ledger: Ledger) -> None:
    with ledger.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_partial_indexes_are_there_on_both_databases(ledger: Ledger) -> None:
    """Comparing metadata does not look at the conditions of indexes."""
    where = {
        "sqlite": "select name, sql from sqlite_master where type = 'index'",
        "postgresql": "select indexname, indexdef from pg_indexes where schemaname = 'public'",
    }
    with ledger.read() as connection:
        found = {row[0]: row[1] or "" for row in connection.execute(text(where[ledger.engine.dialect.name]))}
    for table in metadata.tables.values():
        for index in table.indexes:
            condition = index.dialect_options[ledger.engine.dialect.name]["where"]
            assert index.name is not None
            assert ("where" in found[index.name].lower()) is (condition is not None), index.name


def test_the_version_that_the_code_expects_is_the_newest_migration(ledger: Ledger) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(bridge.ledger.database.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [VERSION]
    assert ledger.is_current()


def test_upgrading_again_changes_nothing(ledger: Ledger) -> None:
    ledger.upgrade()
    assert ledger.is_current()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_empty_database_and_one_of_another_version_are_not_current(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ledger = Ledger(_url(database, tmp_path, request))
    assert not ledger.is_current()
    ledger.upgrade()
    with ledger.write() as connection:
        connection.execute(text("update alembic_version set version_num = '9999'"))
    assert not ledger.is_current()
    ledger.close()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_several_processes_may_upgrade_at_once(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = _url(database, tmp_path, request)
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", UPGRADE, url], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 3
    ledger = Ledger(url)
    assert ledger.is_current()
    with ledger.read() as connection:
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    ledger.close()


def _url(database: str, folder: Path, request: pytest.FixtureRequest) -> str:
    if database == "sqlite":
        return f"sqlite:///{folder}/new/ledger.db"
    return str(request.getfixturevalue("postgresql_database"))
