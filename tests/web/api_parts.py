"""A ledger with events, a token, and consumers that speak plain HTTP."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.core.events import Event
from bridge.core.source import Accepted, Inbound, Verified
from bridge.ledger.accepting import Arrival, accept
from bridge.ledger.api_tokens import create_token
from bridge.ledger.database import Ledger
from bridge.ledger.lanes import Lease, claim, take
from bridge.ledger.processing import NewEvent, Processed, finish

START = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
SOURCE = "wiseflow"


def event_id(number: int) -> str:
    return f"00000000-0000-5000-8000-{number:012d}"


def event(number: int, type: str = "submission.submitted", enrichment: Any = "skipped") -> Event:
    moment = START + timedelta(seconds=number)
    return Event(
        id=event_id(number),
        source="urn:edu:wiseflow:lic-1",
        type=type,
        subject=f"submission/{number}",
        time=moment,
        recordedtime=moment,
        tenant=SOURCE,
        sourceevent="paper.submission",
        enrichment=enrichment,
    )


def arrivals(ledger: Ledger, lane: str, keys: Sequence[str], source: str = SOURCE) -> Lease:
    """Deliveries of these ids that wait in a lane, and a lease of it."""
    accept(
        ledger,
        [
            Arrival(
                accepted=Accepted(
                    verified=Verified(
                        inbound=Inbound(id=key, source=source, received_at=START, headers={}, query={}, body=b"{}"),
                        proof="secret 1",
                        dedupe_key=key,
                        dedupe_window=timedelta(0),
                    )
                ),
                lane=lane,
                order_key=key,
            )
            for key in keys
        ],
    )
    lease = take(ledger, lane, "a test")
    assert lease is not None
    return lease


def store(ledger: Ledger, *found: Event, source: str = SOURCE, purpose: str = "new") -> None:
    """Events as the process stage stores them, one delivery each, in one transaction."""
    lane = f"process:{source}:{random.getrandbits(60)}"
    lease = arrivals(ledger, lane, [f"{lane}-{number}" for number, _ in enumerate(found)], source)
    rows = claim(ledger, lease, now_ms=10**15, limit=1000)
    finish(
        ledger,
        lease,
        [
            Processed(
                seq=row.seq,
                source=source,
                events=[NewEvent(event=entry, document=entry.to_json(), source=source, trace={})],
                messages=[],
                purpose=purpose,
            )
            for row, entry in zip(rows, found, strict=True)
        ],
    )


def bearer(ledger: Ledger, name: str = "warehouse", **limits: Any) -> dict[str, str]:
    """The headers of a consumer with a new token."""
    token = create_token(ledger, name, **{"scopes": ["events:read"], "who": "a test"} | limits)
    assert token is not None
    return {"Authorization": f"Bearer {token}"}


class Stream:
    """One connection to a stream of server-sent events. `last` is the id of the last block that came whole."""

    def __init__(self, port: int, headers: dict[str, str], query: str = "", last: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        resume = {"Last-Event-ID": last} if last else {}
        self._connection.request("GET", f"/api/v1/events/stream{query}", headers=headers | resume)
        self.answer = self._connection.getresponse()
        self.last = last

    def blocks(self) -> Iterator[dict[str, str]]:
        """Each block that came whole, comments under an empty name, until the stream ends or breaks."""
        block: dict[str, str] = {}
        for line in iter(self._line, None):
            if line == "":
                self.last = block.get("id", self.last)
                yield block
                block = {}
            else:
                name, _, value = line.partition(":")
                block[name] = value.removeprefix(" ")

    def events(self) -> Iterator[Any]:
        for block in self.blocks():
            if "data" in block:
                yield json.loads(block["data"])

    def _line(self) -> str | None:
        try:
            line = self.answer.readline()
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return line.decode().removesuffix("\n") if line.endswith(b"\n") else None

    def close(self) -> None:
        self.answer.close()
        self._connection.close()


def pulled(ask: Callable[[str], Any], query: str = "") -> list[Any]:
    """All pages from the beginning."""
    found: list[Any] = []
    page = ask(query)
    while True:
        found += page["events"]
        if not page["more"]:
            return found
        page = ask(f"{query or '?'}&after={page['next']}")
