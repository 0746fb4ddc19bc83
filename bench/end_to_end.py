"""From a platform's request to the message at a target, through all processes of `campusbridge up` as it comes."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import load
import machine
import servers

from bridge.core.simulation import SignedCall
from bridge.engine.embedded import running as embedded_pid
from bridge.journal.reader import oldest_record
from bridge.ledger.database import Ledger
from bridge.ledger.reading import closing, unfinished

_REST_SECONDS = 5.0
_PATIENCE_SECONDS = 20.0
_SENDERS = 8


def measure(
    folder: Path, source: Iterator[SignedCall], *, requests: Path, burst_seconds: int, rate: float, rate_seconds: float
) -> dict[str, Any]:
    """Start everything, weigh it at rest, send at a steady rate, then a burst, and weigh it again."""
    target, home = servers.free_port(), folder / "whole"
    port = servers.configure(home, f"http://127.0.0.1:{target}")
    (folder / "target").mkdir()
    steady = [next(source) for _ in range(int(rate * rate_seconds))]
    with (
        servers.target(folder / "target", target),
        servers.running(home, servers.bridge_command(home, "up")) as process,
    ):
        servers.wait_for(process, port, home)
        _send(port, [next(source) for _ in range(50)], rate=50)  # everything has been used once
        _arrived(target, 50)
        time.sleep(_REST_SECONDS)
        rest = _memory(process.pid, home)
        _ask(target, "reset")
        latency = _latency(port, target, steady, rate)
        _ask(target, "reset")
        burst = _burst(port, target, home, requests, burst_seconds)
        time.sleep(_REST_SECONDS)
        after = _memory(process.pid, home)
        book = _book(home)  # also that nothing is repeated, superseded or dead
    return {"memory_at_rest": rest, "memory_after": after, "latency": latency, "burst": burst, "ledger": book}


def _burst(port: int, target: int, home: Path, requests: Path, seconds: int) -> dict[str, Any]:
    """As fast as they are accepted. The clock runs from before wrk starts to the arrival of the last message."""
    before = _book(home)["deliveries"]
    began = time.monotonic_ns()
    shot = load.shoot(port, requests, seconds=seconds)
    _finished(home)
    state = _ask(target, "state")
    taken = (state["last_ns"] - began) / 1e9
    return {
        "accepted": _book(home)["deliveries"] - before,
        "accepted_per_second": shot.per_second,
        "not_2xx": shot.not_2xx,
        "began_again": shot.began_again,
        "delivered": state["different"],
        "seconds": round(taken, 2),
        "per_second": round(state["different"] / taken, 1),
    }


def _finished(home: Path) -> None:
    """Wait until the journal is empty and the ledger has nothing on its way. Raises RuntimeError when nothing moves."""
    ledger = Ledger(f"sqlite:///{home}/data/bridge.db")
    last, since = -1, time.monotonic()
    try:
        while True:
            left = unfinished(ledger)
            if left == 0 and oldest_record(home / "data" / "journal") is None:
                return
            if left != last:
                last, since = left, time.monotonic()
            elif time.monotonic() - since > _PATIENCE_SECONDS:
                raise RuntimeError(f"{left} deliveries or messages do not come to an end")
            time.sleep(0.2)
    finally:
        ledger.close()


def _latency(port: int, target: int, calls: Sequence[SignedCall], rate: float) -> dict[str, Any]:
    """Milliseconds from the moment before a request is sent to its message's arrival."""
    sent = _send(port, calls, rate=rate)
    _arrived(target, len(calls))
    arrivals = {path: times[0] for path, times in _ask(target, "arrivals").items()}
    taken = sorted((arrivals[path] - when) / 1e6 for path, when in sent.items() if path in arrivals)
    return {
        "rate": rate,
        "sent": len(calls),
        "accepted": len(sent),
        "delivered": len(arrivals),
        "p50_ms": round(statistics.median(taken), 1),
        "p95_ms": round(taken[int(len(taken) * 0.95)], 1),
        "p99_ms": round(taken[int(len(taken) * 0.99)], 1),
        "max_ms": round(taken[-1], 1),
    }


def _send(port: int, calls: Sequence[SignedCall], *, rate: float) -> dict[str, int]:
    """Send at a steady rate, whatever the answers take; when each accepted one was sent, by its path at the target."""
    sent: dict[str, int] = {}
    began = time.monotonic() + 0.2

    def work(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for number in range(first, len(calls), _SENDERS):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            call = calls[number]
            when = time.monotonic_ns()
            connection.request("POST", load.PATH, call.body, dict(call.headers))
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                sent[f"/events/{json.loads(call.body)['sequenceNumber']}"] = when
        connection.close()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sent


def _arrived(target: int, count: int) -> dict[str, Any]:
    """Wait until so many different messages are there, or until none came for a while."""
    last, since = -1, time.monotonic()
    while True:
        state = _ask(target, "state")
        if state["different"] != last:
            last, since = state["different"], time.monotonic()
        if last >= count or time.monotonic() - since > _PATIENCE_SECONDS:
            return state
        time.sleep(0.05)


def _ask(target: int, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{target}/__bench__/{what}", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def _memory(pid: int, home: Path) -> dict[str, Any]:
    """All processes of `up` with the embedded server and its guard, which outlive it."""
    processes = machine.processes_of(pid, str(home))
    server = embedded_pid(home / "data" / "redis")
    if server is None:
        raise RuntimeError("the embedded server is not running")
    processes.setdefault(server, "embedded server")
    checkout = f"{Path(__file__).parents[1]}/"
    each = {
        title.replace(str(home), "…").replace(checkout, "")[:90]: machine.memory([own])["pss_mb"]
        for own, title in processes.items()
    }
    return machine.memory(processes) | {"server_pss_mb": machine.memory([server])["pss_mb"], "largest": each}


def _book(home: Path) -> dict[str, Any]:
    """What the ledger says at the end: deliveries, events and messages by their status."""
    ledger = Ledger(f"sqlite:///{home}/data/bridge.db")
    try:
        book = closing(ledger)
    finally:
        ledger.close()
    return {
        "deliveries": len(book.deliveries),
        "repeats": len(book.repeats),
        "events": book.events,
        "messages": dict(Counter(book.messages.values())),
    }
