"""Signed WISEflow webhooks as whole HTTP requests on disk, and wrk, which sends them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.core.simulation import Call, SignedCall
from connectors.wiseflow.simulator import platform

SECRET = "the-benchmark-s-own-shared-secret"
PATH = "/hooks/wiseflow-main"
BODY_BYTES = 860
"""WISEflow's own bodies have about 290; filled up to what the other platforms send."""
THREADS = 2
CONNECTIONS = 32
_LUA = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """What wrk measured. `began_again` counts how often the requests ran out and were sent once more."""

    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    requests: int
    not_2xx: int
    socket_errors: int
    began_again: int
    offset: str


def calls(seed: int) -> Iterator[SignedCall]:
    """Hand-ins without end, each of another paper, signed, with bodies of about BODY_BYTES."""
    simulated = platform(seed)
    while True:
        call = simulated.sample("paper.submission")
        yield simulated.sign(_filled(call), SECRET, attempt=1, now=datetime.now(UTC))


def write(folder: Path, count: int, source: Iterator[SignedCall]) -> int:
    """Put `count` requests into a folder, one file for each of wrk's threads; the mean length of a body."""
    folder.mkdir(parents=True)
    length = 0
    for thread in range(THREADS):
        with (folder / f"requests-{thread}").open("wb") as file:
            for _ in range(count // THREADS):
                call = next(source)
                length += len(call.body)
                whole = request(call)
                file.write(b"%d\n%b" % (len(whole), whole))
    return round(length / count)


def request(call: SignedCall) -> bytes:
    """The bytes on the wire."""
    headers = {"Host": "127.0.0.1", **call.headers, "Content-Length": str(len(call.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + call.body


def shoot(port: int, folder: Path, *, seconds: int, offset: str = "0,0") -> Shot:
    """Run wrk with the requests of a folder. Raises RuntimeError when it fails."""
    command = [
        "wrk",
        f"-t{THREADS}",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--latency",
        "--timeout=10s",
        "-s",
        str(_LUA),
    ]
    arguments = [f"http://127.0.0.1:{port}{PATH}", "--", str(folder), offset]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=seconds + 30, check=False)
    try:
        found: dict[str, Any] = json.loads(ended.stderr.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise RuntimeError(f"wrk failed: {ended.stdout[-500:]}{ended.stderr[-500:]}") from None
    return Shot(
        per_second=round(found["requests"] / found["microseconds"] * 1e6, 1),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        requests=found["requests"],
        not_2xx=found["not_2xx"],
        socket_errors=found["socket_errors"],
        began_again=found["began_again"],
        offset=found["offset"],
    )


def _filled(call: Call) -> Call:
    missing = BODY_BYTES - 66 - len(json.dumps(call.body, separators=(",", ":")))
    note = ("Filled up to the size of other platforms' bodies. " * 20)[: max(0, missing - 10)]
    return Call(kind=call.kind, body=call.body | {"eventPayload": call.body["eventPayload"] | {"note": note}})
