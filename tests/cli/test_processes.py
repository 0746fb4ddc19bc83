"""Which processes run, and what the shipper makes of what it finds."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bridge.cli.context import Context
from bridge.cli.processes import programs, run_shipper
from bridge.core.source import Accepted, Challenge, Inbound
from bridge.flow.receive import verify
from bridge.journal.writer import JournalWriter
from bridge.ledger.database import Ledger
from bridge.ledger.tables import deliveries_in
from bridge.main import registry, web_app

SECRET = "a-secret-of-the-tests-4711"


def configured(folder: Path, **more: Any) -> Context:
    source = {"connector": "edusign", "secrets": [SECRET], "enabled": False}
    document = {"version": 1, "sources": {"school": source}} | more
    (folder / "bridge.yaml").write_text(json.dumps(document), "utf-8")
    return Context(registry=registry(), web_app=web_app, file=folder / "bridge.yaml")


def delivery(context: Context, number: int) -> Accepted:
    """One of several calls about one course."""
    settings = context.configuration.sources["school"].settings
    connector = registry().sources["edusign"]
    platform = connector.simulator.platform(1)
    call = platform.sign(platform.sample("on_course_start"), SECRET, attempt=1, now=datetime.now(UTC))
    inbound = Inbound(
        id=f"0123456789ab{number:04d}",
        source="school",
        received_at=datetime.now(UTC),
        headers={name.lower(): value for name, value in call.headers.items()},
        query=call.query,
        body=call.body,
    )
    proven = verify(connector, inbound, settings)
    assert not isinstance(proven, Challenge)
    return Accepted(verified=proven, clock=time.monotonic_ns())


def names(context: Context) -> list[str]:
    return [program.name for program in programs(context)]


def test_the_journal_is_shipped_after_webhooks_have_ceased_to_be_kept_there(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "data" / "journal")
    writer.append(delivery(configured(tmp_path), 1))
    writer.close()
    now = configured(tmp_path, accept="ledger", storage={"database": "postgresql://bridge@127.0.0.1:1/nothing"})
    assert "shipper" in names(now)
    for segment in (tmp_path / "data" / "journal").glob("*.seg"):
        segment.unlink()
    assert "shipper" not in names(now)
    assert "shipper" in names(configured(tmp_path))


def test_deliveries_of_a_source_that_was_disabled_since_keep_the_order_of_their_subject(tmp_path: Path) -> None:
    context = configured(tmp_path)
    writer = JournalWriter(tmp_path / "data" / "journal")
    writer.append(delivery(context, 1))
    writer.close()
    ledger = Ledger(context.configuration.storage.database)
    ledger.upgrade()
    ledger.close()
    shipper = os.fork()
    if shipper == 0:
        run_shipper(context)
        os._exit(0)
    try:
        until = time.monotonic() + 30
        keys: list[str] = []
        while not keys and time.monotonic() < until:
            time.sleep(0.02)
            with ledger.read() as connection:
                keys = list(connection.execute(select(deliveries_in.c.order_key)).scalars())
    finally:
        os.kill(shipper, signal.SIGTERM)
        assert os.waitpid(shipper, 0)[1] == 0
        ledger.close()
    [key] = keys
    assert key.startswith("school|")
    assert "0123456789ab" not in key, "it has the lane of its subject"
