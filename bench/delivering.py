"""How fast messages that wait are delivered, and that sick targets slow no healthy one, by `campusbridge up`.

one worker   messages for one fast target on this machine: deliveries a second of one worker process
neighbours   messages for five targets of which one hangs, one throttles (429) and one is down, against the same
             messages for the two healthy ones alone: how much of their speed is left. Then the sick ones recover

Messages are put into the ledger beforehand, SQLite and the embedded server are the defaults, targets run as processes
of their own. Clocks run from a target's first delivery to its last, as the ledger wrote them down.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Final

import machine
import requests
import servers
from sqlalchemy import func, select

from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.lanes import lane_of
from bridge.ledger.processing import NewMessage, message_row
from bridge.ledger.tables import events, messages

RESULTS = Path(__file__).parent / "results"
CONCURRENCY: Final = 4
HEALTHY: Final = ("healthy-1", "healthy-2")
SICK: Final[dict[str, dict[str, Any]]] = {
    "hanging": {"hang": True},
    "throttling": {"fail_share": 1.0, "fail_status": 429, "retry_after": 5},
    "down": {"down": True},
}
_WELL: Final = {"hang": False, "fail_share": 0.0, "down": False}
_PATIENCE = 300.0


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages")
    signal.signal(signal.SIGTERM, _end)  # so that what was started is ended
    share = 5 if parser.parse_args().quick else 1
    folder = Path(tempfile.mkdtemp(prefix="cb-bench-", dir="/var/tmp"))
    result: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine.describe(folder)}
    try:
        result["one_worker"] = one_worker(folder / "one", 6000 // share)
        rounds = [neighbours(folder / f"round-{number}", 2000 // share) for number in range(5)]
        ratios = sorted(part["ratio"] for part in rounds)
        result["neighbours"] = {"ratio": ratios[len(ratios) // 2], "rounds": rounds}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / ("delivering-quick.json" if share > 1 else "delivering.json")
    file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    sys.stdout.write(
        f"one worker   {result['one_worker']['per_second']} deliveries a second\n"
        f"neighbours   {result['neighbours']['ratio']} of the speed alone, rounds {ratios}\n"
        f"             afterwards {[part['ended'] for part in rounds]}\n"
    )


def one_worker(folder: Path, count: int) -> dict[str, Any]:
    """One worker process and one target that answers at once."""
    with _targets(folder, ("fast",)) as urls, _bridge(folder, urls, {"fast": count}, processes=1) as ledger:
        _wait(ledger, {"fast": count})
        return {"messages": count, "per_second": _speed(ledger, "fast")}


def neighbours(folder: Path, count: int) -> dict[str, Any]:
    """The healthy ones alone, and then among the sick; at last the sick ones recover."""
    folder.mkdir()
    only = dict.fromkeys(HEALTHY, count)
    with _targets(folder / "alone", HEALTHY) as urls, _bridge(folder / "alone", urls, only) as ledger:
        _wait(ledger, only)
        alone = _speed(ledger, *HEALTHY)
    everyone = dict.fromkeys((*HEALTHY, *SICK), count)
    with _targets(folder / "among", everyone) as urls:
        for name, knobs in SICK.items():
            _turn(urls[name], knobs)
        with _bridge(folder / "among", urls, everyone) as ledger:
            _wait(ledger, only)
            among = _speed(ledger, *HEALTHY)
            for name in SICK:
                _turn(urls[name], _WELL)
            began = time.monotonic()
            _wait(ledger, everyone)
            return {
                "messages_each": count,
                "alone_per_second": alone,
                "among_sick_per_second": among,
                "ratio": round(among / alone, 3),
                "recovered_in_s": round(time.monotonic() - began, 1),
                "ended": _statuses(ledger),
            }


@contextmanager
def _targets(folder: Path, names: Mapping[str, int] | tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Counting targets, each in a process of its own, by their addresses."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        urls = {}
        for name in names:
            place = folder / f"target-{name}"
            place.mkdir()
            port = servers.free_port()
            command = [sys.executable, "-m", "bridge.testing.target_server", str(port)]
            process = stack.enter_context(servers.running(place, command))
            servers.wait_for(process, port, place)
            urls[name] = f"http://127.0.0.1:{port}"
        yield urls


@contextmanager
def _bridge(
    folder: Path, urls: Mapping[str, str], counts: Mapping[str, int], *, processes: int = 2
) -> Iterator[Ledger]:
    """`campusbridge up` that finds its messages waiting."""
    home = folder / "bridge"
    # A target that hangs is given up after 5 s, one that is down is asked again soon: this is about neighbours.
    targets = {name: {"connector": "http", "base_url": url, "timeout": 5} for name, url in urls.items()}
    port = servers.configure(home, targets=targets, workers={"processes": processes})
    (home / "mappings" / "everything.yaml").unlink()
    (home / "data").mkdir()
    ledger = Ledger(f"sqlite:///{home}/data/bridge.db")
    ledger.upgrade()
    for name, count in counts.items():
        _put(ledger, name, count)
    with servers.running(home, servers.bridge_command(home, "up")) as process:
        servers.wait_for(process, port, home)
        yield ledger
    ledger.close()


def _put(ledger: Ledger, target: str, count: int) -> None:
    now = milliseconds(datetime.now(UTC))
    event = {"id": "e1", "delivery_seq": 1, "source": "s", "type": "t", "subject": "s", "state_key": "s"}
    event |= {"time_ms": now, "recorded_ms": now, "body": json.dumps({"data": {"text": "x" * 600}}), "trace": "{}"}
    rows = []
    for number in range(count):
        key = f"{target}-{number}"
        message = NewMessage(
            key=key,
            event_id="e1",
            mapping="m",
            mapping_version="1",
            target=target,
            operation="request",
            params={"method": "POST", "path": "/events", "json": {"number": number, "text": "x" * 600}},
            lane=lane_of("deliver", target, key, CONCURRENCY),
            order_key=key,
            state=False,
            latest_only=False,
            time_ms=now,
            sequence=None,
        )
        rows.append(message_row(message, now))
    ledger.register({row["lane"] for row in rows})
    with ledger.write() as connection:
        insert_new(connection, events, [event], "id")
        connection.execute(messages.insert(), rows)


def _wait(ledger: Ledger, counts: Mapping[str, int]) -> None:
    """Until these messages are delivered or dead. Raises RuntimeError when that does not come."""
    deadline = time.monotonic() + _PATIENCE
    query = select(func.count()).where(messages.c.status == "waiting", messages.c.target.in_(counts))
    while True:
        with ledger.read() as connection:
            left = connection.execute(query).scalar_one()
        if left == 0:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{left} messages do not come to an end: {_statuses(ledger)}")
        time.sleep(0.1)


def _speed(ledger: Ledger, *targets: str) -> float:
    with ledger.read() as connection:
        count, first, last = connection.execute(
            select(func.count(), func.min(messages.c.finished_ms), func.max(messages.c.finished_ms)).where(
                messages.c.target.in_(targets), messages.c.status == "delivered"
            )
        ).one()
    return round(float((count - 1) * 1000 / max(last - first, 1)), 1)


def _statuses(ledger: Ledger) -> dict[str, int]:
    with ledger.read() as connection:
        query = select(messages.c.status, func.count()).group_by(messages.c.status)
        return {row[0]: row[1] for row in connection.execute(query)}


def _turn(url: str, knobs: Mapping[str, Any]) -> None:
    answer = requests.post(f"{url}/__sim__/knobs", json=dict(knobs), timeout=10)
    answer.raise_for_status()


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit("ended by a signal")


if __name__ == "__main__":
    main()
