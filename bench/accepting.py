"""Accepted requests a second: bare Flask, the journal, the journal with its shipper, and PostgreSQL, in turns."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import load
import servers
from sqlalchemy import func, select

from bridge.ledger.database import Ledger
from bridge.ledger.tables import deliveries_in

_PAUSE_SECONDS = 0.4


@dataclass(slots=True, kw_only=True)
class Arm:
    """One of the things compared. `offset` is how far its requests are used up: no arm sees one twice."""

    name: str
    port: int
    offset: str = "0,0"
    shots: list[load.Shot] = field(default_factory=list)
    warmed: int = 0
    beside: subprocess.Popen[bytes] | None = None

    def shoot(self, requests: Path, seconds: int) -> load.Shot:
        """One turn. `beside` is a process that works only during it: its backlog must not slow the others down."""
        if self.beside:
            self.beside.send_signal(signal.SIGCONT)
        try:
            shot = load.shoot(self.port, requests, seconds=seconds, offset=self.offset)
        finally:
            if self.beside:
                self.beside.send_signal(signal.SIGSTOP)
        self.offset = shot.offset
        time.sleep(_PAUSE_SECONDS)  # what was on its way when wrk hung up gets done
        return shot


def measure(folder: Path, requests: Path, *, rounds: int, seconds: int, warm_seconds: int) -> dict[str, Any]:
    """Start all arms, shoot at them in turns (A B C D, A B C D, …), and put the figures together."""
    with ExitStack() as stack:
        database = stack.enter_context(servers.postgresql())
        journal = _bridge(stack, folder / "journal")
        bare = servers.free_port()
        settings = servers.gunicorn_settings(folder / "journal")
        stack.enter_context(servers.bare(folder / "bare", settings, bare))
        shipped = _bridge(stack, folder / "shipped")
        shipper = stack.enter_context(
            servers.running(folder / "shipped", servers.bridge_command(folder / "shipped", "shipper"))
        )
        stack.enter_context(_paused(shipper))
        ledger = _bridge(stack, folder / "postgresql", accept="ledger", storage={"database": database})
        arms = [
            Arm(name="bare", port=bare),
            Arm(name="journal", port=journal),
            Arm(name="postgresql", port=ledger),
            Arm(name="journal_with_shipper", port=shipped, beside=shipper),
        ]
        for arm in arms:
            arm.warmed = arm.shoot(requests, warm_seconds).requests
        for number in range(rounds):
            turn = arms[number % len(arms) :] + arms[: number % len(arms)]  # nobody is always the one after another
            for arm in turn:
                shot = arm.shoot(requests, seconds)
                arm.shots.append(shot)
                _say(f"  round {number + 1} {arm.name:<21} {shot.per_second:8.0f}/s  p99 {shot.p99_ms:7.1f} ms")
        kept = _kept(database)
    answered = arms[2].warmed + sum(shot.requests for shot in arms[2].shots)
    if kept < answered:
        raise RuntimeError(f"{answered} requests were answered 200, and PostgreSQL has {kept}")
    return {
        "gunicorn": settings,
        "arms": {arm.name: _summary(arm) for arm in arms},
        "ratios": {arm.name: _ratio(arm, arms[0]) for arm in arms[1:]},
        "postgresql_answered": answered,
        "postgresql_kept": kept,
    }


@contextmanager
def _paused(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stopped until somebody lets it go on; at the end it can hear that it is to end."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def _bridge(stack: ExitStack, folder: Path, **more: Any) -> int:
    port = servers.configure(folder, **more)
    subprocess.run(servers.bridge_command(folder, "db", "upgrade"), check=True, capture_output=True, cwd=folder)
    stack.enter_context(servers.web(folder, port))
    return port


def _kept(database: str) -> int:
    ledger = Ledger(database)
    try:
        with ledger.read() as connection:
            return connection.execute(select(func.count()).select_from(deliveries_in)).scalar_one()
    finally:
        ledger.close()


def _summary(arm: Arm) -> dict[str, Any]:
    shots = arm.shots
    return {
        "per_second": round(statistics.median(shot.per_second for shot in shots), 1),
        "p50_ms": round(statistics.median(shot.p50_ms for shot in shots), 2),
        "p99_ms": round(statistics.median(shot.p99_ms for shot in shots), 2),
        "not_2xx": sum(shot.not_2xx for shot in shots),
        "socket_errors": sum(shot.socket_errors for shot in shots),
        "began_again": sum(shot.began_again for shot in shots),
        "rounds": [asdict(shot) for shot in shots],
    }


def _ratio(arm: Arm, bare: Arm) -> dict[str, Any]:
    """The median of the ratios of each round, so that a slow moment of the machine meets both sides."""
    each = [round(one.per_second / other.per_second, 3) for one, other in zip(arm.shots, bare.shots, strict=True)]
    return {"median": round(statistics.median(each), 3), "lowest": min(each), "highest": max(each), "rounds": each}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
