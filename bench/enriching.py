"""How fast events are completed over a platform's API, within its budget and without one, by `campusbridge up`.

A simulated WISEflow answers every call after 100 ms, counts, and says 429 to what is beyond its documented limits:
then the run has failed. Two workers, embedded server, SQLite, one mapping that sends every event to an HTTP target.

single   hand-ins of different exams, one after the other, under the platform's limits: how much of the budget is used
lifted   hand-ins of an exam day (40 participants each), no limits: completed events a second
one_flow 10,000 hand-ins of one exam that wait: calls and seconds until all are completed. E-mail addresses have no
         list; 10,000 calls alone take the platform's two minutes. Here no mapping looks at them (`enrich: needed`)
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import load
import machine
import servers

from bridge.core.simulation import ApiCall, ApiReply, Call
from bridge.testing.platform_server import PlatformServer
from connectors.wiseflow import simulator

_HERE = Path(__file__).parent
RESULTS = _HERE / "results"
LATENCY = 0.1
CALLS, WINDOW = 5000, 60.0
"""WISEflow's limit: 5,000 calls in a minute (help.wiseflow.net/service-centre/api-rate-limits)."""

_SENDERS = 8
_SETTLING = 3.0
"""Seconds after the first call that do not count: workers start, threads are made."""
_PATIENCE = 60.0
_NARROW: dict[str, Any] = {
    "version": 1,
    "description": "Every event by its name",
    "events": ["*"],
    "target": "receiver",
    "operation": "request",
    "with": {
        "method": "POST",
        "path": "/events/{{ event.sequence }}",
        "json": {"subject": "{{ event.subject }}", "type": "{{ event.type }}"},
    },
}
_RATE_HEADERS = ("ratelimit-", "x-ratelimit-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: seconds under the limits, events without them, hand-ins of one exam."""

    single_seconds: float
    lifted_events: int
    one_flow: int


FULL = Extent(single_seconds=100.0, lifted_events=6000, one_flow=10_000)
QUICK = Extent(single_seconds=25.0, lifted_events=1500, one_flow=2000)


@dataclass(slots=True, kw_only=True)
class Counting:
    """The API of a simulated WISEflow that notes when it was asked; `limited` False lifts its limits."""

    platform: simulator.Platform
    limited: bool
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.platform.limits.on = self.limited

    def answer(self, call: ApiCall) -> ApiReply:
        self.times.append(time.monotonic())
        reply = self.platform.answer(call)
        if self.limited:
            return reply
        headers = {name: value for name, value in reply.headers.items() if not name.lower().startswith(_RATE_HEADERS)}
        return replace(reply, headers=headers)

    def most_in_a_window(self) -> int:
        times = sorted(self.times)
        return max((bisect_left(times, began + WINDOW) - place for place, began in enumerate(times)), default=0)


def main() -> None:
    """Measure, print and write down. Ends with status 1 when the platform's limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a rough measurement in about two minutes")
    parser.add_argument("--only", choices=("single", "lifted", "one_flow"), help="one of the three")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)  # so that what was started is ended
    extent = QUICK if chosen.quick else FULL
    folder = Path(tempfile.mkdtemp(prefix="cb-bench-", dir="/var/tmp"))
    result: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine.describe(folder)}
    result |= {"latency_ms": LATENCY * 1000, "limit_calls": CALLS, "limit_seconds": WINDOW}
    try:
        for name, measure in (("single", single), ("lifted", lifted), ("one_flow", one_flow)):
            if chosen.only in (None, name):
                sys.stdout.write(f"{name} …\n")
                sys.stdout.flush()
                result[name] = measure(folder / name, extent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if chosen.only is None:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / ("enriching-quick.json" if chosen.quick else "enriching.json")
        file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    _print(result)
    if sum(part["exceeded"] for part in result.values() if isinstance(part, dict) and "exceeded" in part):
        sys.exit("the platform's limit was exceeded")


def single(folder: Path, extent: Extent) -> dict[str, Any]:
    """More hand-ins of different exams than the budget is enough for, all of them waiting."""
    platform = simulator.platform(people=20_000)
    # At least four calls each, and some that wait when the time is over.
    events = int(extent.single_seconds * CALLS / WINDOW / 4) + 200
    calls = [next(platform.exam(1)) for _ in range(events)]
    with _bridge(folder, Counting(platform=platform, limited=True), calls) as run:
        began = run.first_call()
        time.sleep(max(0.0, began + _SETTLING + extent.single_seconds - time.monotonic()))
        times = [when for when in list(run.api.times) if began + _SETTLING <= when]
        times = [when for when in times if when < began + _SETTLING + extent.single_seconds]
        done = run.done()
        waiting = events - sum(done.values())
        share = len(times) / (extent.single_seconds * CALLS / WINDOW)
        return run.figures() | {
            "seconds": extent.single_seconds,
            "share_of_budget": round(share, 4),
            "still_waiting": waiting,
            "events": done,
            "events_per_second": round(sum(done.values()) / (time.monotonic() - began), 1),
        }


def lifted(folder: Path, extent: Extent) -> dict[str, Any]:
    """An exam day's hand-ins, exam after exam, as fast as the machine can."""
    platform = simulator.platform(people=20_000)
    calls = [platform.sample("paper.submission") for _ in range(extent.lifted_events)]
    more = {"budget": {"calls": 10_000_000, "seconds": 60, "concurrent": 256, "also": []}}
    with _bridge(folder, Counting(platform=platform, limited=False), calls, more) as run:
        return run.to_the_end(len(calls))


def one_flow(folder: Path, extent: Extent) -> dict[str, Any]:
    """One large exam whose hand-ins all wait when the workers start, under the platform's limits."""
    platform = simulator.platform(people=extent.one_flow)
    calls = list(islice(platform.exam(extent.one_flow), extent.one_flow))
    with _bridge(folder, Counting(platform=platform, limited=True), calls, {"enrich": "needed"}) as run:
        figures = run.to_the_end(len(calls))
    emails = sum(count for call, count in figures["calls_by_kind"].items() if "emails" in call)
    return figures | {"calls_without_emails": figures["calls"] - emails}


# --- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """`campusbridge up` at work. Seconds are counted from the moment when it was started with its work waiting."""

    home: Path
    api: Counting
    server: PlatformServer
    started: float

    def first_call(self) -> float:
        """When the API was first asked. Raises RuntimeError when it is not."""
        while not self.api.times:
            if time.monotonic() - self.started > _PATIENCE:
                raise RuntimeError("nobody asks the platform")
            time.sleep(0.01)
        return self.api.times[0]

    def done(self) -> dict[str, int]:
        """Events by the result of their enrichment."""
        return dict(self._rows("select json_extract(body, '$.enrichment'), count(*) from events group by 1"))

    def to_the_end(self, events: int) -> dict[str, Any]:
        """Wait until all events are there. Raises RuntimeError when nothing moves."""
        began, last, since = self.first_call(), -1, time.monotonic()
        while (count := self._rows("select count(*) from events")[0][0]) < events:
            if count != last:
                last, since = count, time.monotonic()
            elif time.monotonic() - since > _PATIENCE:
                raise RuntimeError(f"{events - count} events do not come to an end: {self.done()}")
            time.sleep(0.1)
        ended = time.monotonic()
        return self.figures() | {
            "events": self.done(),
            "seconds": round(ended - began, 1),
            "seconds_with_start": round(ended - self.started, 1),
            "events_per_second": round(events / (ended - began), 1),
        }

    def figures(self) -> dict[str, Any]:
        waits = self._rows("select sum(json_extract(trace, '$.enrichment.waits')) from events")[0][0]
        return {
            "calls": len(self.api.times),
            "calls_by_kind": dict(self.api.platform.calls),
            "most_in_a_window": self.api.most_in_a_window(),
            "exceeded": self.api.platform.limits.exceeded if self.api.limited else 0,
            "answered": {str(status): count for status, count in self.server.answered.items()},
            "waits_of_events": waits or 0,
        }

    def _rows(self, query: str) -> list[Any]:
        path = self.home / "data" / "bridge.db"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def _bridge(folder: Path, api: Counting, calls: Sequence[Call], more: dict[str, Any] | None = None) -> Iterator[Run]:
    """A bridge that finds all calls waiting when its workers start."""
    folder.mkdir()
    target = servers.free_port()
    with PlatformServer(api) as server, servers.target(folder, target):  # type: ignore[arg-type]  only its API is asked
        server.latency = LATENCY
        source = simulator.settings(load.SECRET, server.url) | (more or {})
        home = folder / "bridge"
        sources = {"wiseflow-main": source}
        port = servers.configure(home, f"http://127.0.0.1:{target}", sources=sources, workers={"processes": 2})
        if source.get("enrich") == "needed":
            (home / "mappings" / "everything.yaml").write_text(json.dumps(_NARROW), "utf-8")
        with servers.running(home, servers.bridge_command(home, "web")) as process:
            servers.wait_for(process, port, home)
            _send(port, api.platform, calls)
        started = time.monotonic()
        with servers.running(home, servers.bridge_command(home, "up")) as process:
            servers.wait_for(process, port, home)
            yield Run(home=home, api=api, server=server, started=started)


def _send(port: int, platform: simulator.Platform, calls: Sequence[Call]) -> None:
    """Deliver all calls. Raises RuntimeError when one is not accepted."""
    answers: Counter[int] = Counter()

    def work(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for call in calls[first::_SENDERS]:
            signed = platform.sign(call, load.SECRET, attempt=1, now=datetime.now(UTC))
            connection.request("POST", load.PATH, signed.body, dict(signed.headers))
            answer = connection.getresponse()
            answer.read()
            answers[answer.status] += 1
        connection.close()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if answers != {200: len(calls)}:
        raise RuntimeError(f"not all were accepted: {dict(answers)} of {len(calls)}")


def _print(result: dict[str, Any]) -> None:
    lines = [""]
    if part := result.get("single"):
        lines.append(
            f"single     {part['share_of_budget']:.1%} of the budget used over {part['seconds']:.0f} s, at most "
            f"{part['most_in_a_window']} calls in {WINDOW:.0f} s, {part['events_per_second']} events a second, "
            f"{part['still_waiting']} still waiting"
        )
    if part := result.get("lifted"):
        each = part["calls"] / sum(part["events"].values())
        lines.append(f"lifted     {part['events_per_second']} events a second, {each:.1f} calls each")
    if part := result.get("one_flow"):
        lines.append(
            f"one flow   {sum(part['events'].values())} events in {part['seconds']} s with {part['calls']} calls, "
            f"{part['calls_without_emails']} without those for addresses"
        )
    for name in ("single", "lifted", "one_flow"):
        if part := result.get(name):
            lines.append(f"{name:<10} {part['events']}, 429: {part['exceeded']}, waits: {part['waits_of_events']}")
            lines.append(f"           {part['calls_by_kind']}")
    sys.stdout.write("\n".join(lines) + "\n")


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit("ended by a signal")


if __name__ == "__main__":
    main()
