"""Accepted requests a second: bare Flask, the journal, the journal with its shipper, and PostgreSQL, in turns."""

from __future__ import annotations

import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import load
import servers
from sqlalchemy import func, select

from bridge.ledger.database import Ledger
from bridge.ledger.tables import deliveries_in


@dataclass(slots=True, kw_only=True)
class Arm:
    """One of the things compared. `offset` is how far its requests are used up: no arm sees one twice."""

    name: str
    port: int
    offset: str = "0,0"
    shots: list[load.Shot] = field(default_factory=list)
    warmed: int = 0


def measure(folder: Path, requests: Path, *, rounds: int, seconds: float, warm_seconds: float) -> dict[str, Any]:
    """Start all arms, shoot at them in turns (A B C D, A B C D, …), and put the figures together."""
    with ExitStack() as stack:
        database = stack.enter_context(servers.postgresql())
        journal = _bridge(stack, folder / "journal")
        bare = servers.free_port()
        stack.enter_context(servers.bare(folder / "bare", journal[1], bare))
        shipped = _bridge(stack, folder / "shipped")
        stack.enter_context(
            servers.running(folder / "shipped", servers.bridge_command(folder / "shipped", "shipper"))
        )
        ledger = _bridge(stack, folder / "postgresql", accept="ledger", storage={"database": database})
        arms = [
            Arm(name="bare", port=bare),
            Arm(name="journal", port=journal[0]),
            Arm(name="postgresql", port=ledger[0]),
            Arm(name="journal_with_shipper", port=shipped[0]),
        ]
        for arm in arms:
            shot = load.shoot(arm.port, requests, seconds=warm_seconds, offset=arm.offset)
            arm.offset, arm.warmed = shot.offset, shot.requests
        for number in range(rounds):
            turn = arms[number % len(arms) :] + arms[: number % len(arms)]  # nobody is always the one after another
            for arm in turn:
                shot = load.shoot(arm.port, requests, seconds=seconds, offset=arm.offset)
                arm.offset = shot.offset
                arm.shots.append(shot)
                _say(f"  round {number + 1} {arm.name:<21} {shot.per_second:8.0f}/s  p99 {shot.p99_ms:7.1f} ms")
        kept = _kept(database)
        gunicorn = Path(f"/proc/{journal[1].pid}/cmdline").read_text("utf-8").rstrip("\0").split("\0")[3:]
    answered = arms[2].warmed + sum(shot.requests for shot in arms[2].shots)
    if kept < answered:
        raise RuntimeError(f"{answered} requests were answered 200, and PostgreSQL has {kept}")
    return {
        "gunicorn": gunicorn,
        "arms": {arm.name: _summary(arm) for arm in arms},
        "ratios": {arm.name: _ratio(arm, arms[0]) for arm in arms[1:]},
        "postgresql_answered": answered,
        "postgresql_kept": kept,
    }


def _bridge(stack: ExitStack, folder: Path, **more: Any) -> tuple[int, subprocess.Popen[bytes]]:
    port = servers.configure(folder, **more)
    subprocess.run(servers.bridge_command(folder, "db", "upgrade"), check=True, capture_output=True, cwd=folder)
    return port, stack.enter_context(servers.web(folder, port))


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
