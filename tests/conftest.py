"""Real parts for the tests: a PostgreSQL cluster and ledgers on both databases, made when first asked for."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from xdist.scheduler import LoadScopeScheduling

from bridge.ledger.database import Ledger


class _Shares(LoadScopeScheduling):  # type: ignore[misc]
    """Tests that share a running bridge stay with one process of the test run; of the others each goes where one is
    free.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if "/e2e/" in module else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How the tests are shared out."""
    return _Shares(config, log)


def _postgresql_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail("PostgreSQL is missing: run `make setup` as root, or install the package postgresql")
    return found[-1].parent


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, on a socket in a temporary folder."""
    programs = _postgresql_programs()
    folder = Path(tempfile.mkdtemp(prefix="cb-pg-"))
    account = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = "postgres"
        owner = pwd.getpwnam(account)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    try:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "bridge", "-A", "trust", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            user=account,
        )
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=200 -c fsync=off"
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-o", settings, "-l", folder / "log", "-w", "start"],
            check=True,
            capture_output=True,
            user=account,
        )
        yield f"postgresql://bridge@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"],
            check=False,
            capture_output=True,
            user=account,
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> str:
    """The name of a database with the ledger's tables, to be copied: faster than migrating for every test."""
    _execute(postgresql, "create database ledger_template")
    made = Ledger(_named(postgresql, "ledger_template"))
    made.upgrade()
    made.close()
    return "ledger_template"


@pytest.fixture
def postgresql_database(postgresql: str) -> str:
    """The URL of an empty database."""
    name = f"t{uuid.uuid4().hex}"
    _execute(postgresql, f"create database {name}")
    return _named(postgresql, name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the ledger's tables, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "template.db"
    made = Ledger(f"sqlite:///{path}")
    made.upgrade()
    made.close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger; every test that asks for it runs on both databases."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "ledger.db")
        url = f"sqlite:///{tmp_path}/ledger.db"
    else:
        server, template = request.getfixturevalue("postgresql"), request.getfixturevalue("postgresql_template")
        name = f"t{uuid.uuid4().hex}"
        _execute(server, f"create database {name} template {template}")
        url = _named(server, name)
    opened = Ledger(url)
    yield opened
    opened.close()


def _named(url: str, name: str) -> str:
    return url.rpartition("/")[0] + f"/{name}"


def _execute(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
