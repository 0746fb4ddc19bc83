"""How long it takes to compare what a platform's lists show with the ledger, and how much memory that takes.

python bench/reconciling.py [--objects 10000] [--known 0.9]    a simulated Edusign over HTTP on this machine, without
delay and without limits, and a SQLite ledger of its own. So many students were enrolled; a share of that was told by
webhooks, the rest is put on its way. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bridge.config.configuration import load_configuration
from bridge.engine.assembly import sources_of
from bridge.engine.reconcile import Account, reconcilers
from bridge.ledger.database import Ledger, insert_new
from bridge.ledger.facts import fact_key
from bridge.ledger.tables import facts
from bridge.ledger.watermarks import look_after
from bridge.main import registry
from bridge.testing.platform_server import serve_platform

SOURCE = "edusign-main"
SINCE = datetime(2025, 8, 1, tzinfo=UTC)  # before anybody is enrolled at the simulated school


def serve(objects: int) -> None:
    """The platform, in a process of its own: its memory is not that of the comparison."""
    with serve_platform(registry().sources["edusign"].simulator.platform(people=objects)) as server:
        print(server.url, flush=True)
        threading.Event().wait()


def measure(objects: int, known: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--serve", "--objects", str(objects)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as platform,
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
    ):
        try:
            address = next(iter(platform.stdout or ()), "").strip()
            return _measured(Path(folder), address, known)
        finally:
            platform.kill()


def _measured(folder: Path, url: str, known: float) -> dict[str, Any]:
    connectors = registry()
    entry = connectors.sources["edusign"].simulator.settings("a-secret", url)
    entry["budget"] = {"calls": 1_000_000, "seconds": 1, "concurrent": 8}
    document = {
        "version": 1,
        "sources": {SOURCE: entry},
        "targets": {"crm": {"connector": "http", "base_url": url}},
        "network": {"allow_hosts": ["127.0.0.1"]},
    }
    (folder / "mappings").mkdir()
    file = folder / "bridge.yaml"
    file.write_text(json.dumps(document), "utf-8")
    configuration = load_configuration(file, sources=connectors.sources, targets=connectors.targets, environ={})
    ledger = Ledger(configuration.storage.database)
    ledger.upgrade()
    look_after(ledger, [SOURCE], SINCE)
    reconciler = reconcilers(ledger, sources_of(configuration, connectors, None), lambda _lanes: None)[SOURCE]
    until = datetime.now(UTC) + timedelta(days=1)
    told = _tell(ledger, reconciler.happened(SINCE, until, threading.Event(), timedelta(minutes=1)), known)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    account: Account = reconciler.run(since=SINCE, until=until, stopping=threading.Event())
    seconds = time.monotonic() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    ledger.close()
    if account.received != told:
        raise SystemExit(f"{told} were told by webhooks, and {account.received} are known")
    return {
        "compared": account.expected,
        "known": account.received,
        "put_on_their_way": account.missing,
        "seconds": round(seconds, 2),
        "a_second": round(account.expected / seconds),
        "memory_grown_mb": round(grown / 1024, 1),
    }


def _tell(ledger: Ledger, happened: Any, share: float) -> int:
    """As if webhooks had told a share of what the lists show."""
    rows = [
        {
            "source": SOURCE,
            "fact": fact_key(found.fact),
            "delivery_seq": number,
            "event_id": str(number),
            "origin": "webhook",
            "first_ms": 0,
        }
        for number, found in enumerate(happened)
        if number % 100 < share * 100
    ]
    with ledger.write() as connection:
        for start in range(0, len(rows), 1000):
            insert_new(connection, facts, rows[start : start + 1000], "fact")
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--known", type=float, default=0.9)
    parser.add_argument("--serve", action="store_true")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.objects)
    else:
        result = measure(chosen.objects, chosen.known)
        text = json.dumps(result, indent=1)
        (Path(__file__).parent / "results" / "reconciling.json").write_text(text + "\n", "utf-8")
        print(text)
