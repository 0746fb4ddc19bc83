"""Workers as far as targets go, and a receiving system of which a test turns the answers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, select, update

from bridge.core.manifest import TargetConnector, target_manifest
from bridge.core.settings import Settings
from bridge.core.target import Answer, Request
from bridge.engine.deliver import DeliverStage
from bridge.engine.destination import Destination
from bridge.engine.line import Line, TargetLine
from bridge.flow.deliver import Patience
from bridge.flow.standing import State
from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.lanes import claim, due_lanes, lane_of, release, take
from bridge.ledger.processing import NewMessage, message_row
from bridge.ledger.tables import attempts, destinations, events, lanes, messages
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.testing.answering import Asked, Reply

LANES = 3
MANIFEST = {
    "options": {"url": {}},
    "operations": {
        "one": {
            "about": "",
            "idempotent": True,
            "params": {"properties": {"id": {}}},
            "request": {"method": "POST", "url": "{{ settings.url }}/one", "json": "{{ params }}"},
            "answers": [
                {"status": 404, "as": "retry", "patience": 0.2, "finally": "gone"},
                {"status": "2xx", "as": "ok", "target_id": "id"},
            ],
        },
        "many": {
            "about": "",
            "idempotent": True,
            "params": {"properties": {"id": {}}},
            "batch": {
                "most": 10,
                "window_ms": 400,
                "unique": "params.id",
                "item": "{{ params.id }}",
                "request": {"method": "POST", "url": "{{ settings.url }}/many", "json": "{{ items }}"},
                "results": [""],
                "match": {"item": "item", "result": "result.id"},
                "item_answers": [{"json": {"fine": False}, "as": "permanent", "reason": "a bad one"}],
            },
        },
    },
}


@dataclass
class System:
    """A receiving system of which a test turns the status."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    alone: Reply | None = None
    """The answer to a batch of one."""
    takes: float = 0.0
    bad: frozenset[str] = frozenset()
    taken: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    batches: list[list[str]] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        self.requests += 1
        time.sleep(self.takes)
        document = json.loads(asked.body)
        if self.status != 200:
            return Reply(self.status, b"{}", self.headers)
        if asked.target == "/one":
            self.taken[document["id"]] += 1
            return Reply(200, self.body)
        self.batches.append(document)
        if len(document) > 1 and "poison" in document:
            return Reply(400, b"{}")
        if len(document) == 1 and self.alone is not None:
            return self.alone
        self.taken.update(document)
        return Reply(200, json.dumps([{"id": id, "fine": id not in self.bad} for id in document]).encode())


@dataclass
class Worker:
    """One worker process, as far as targets go: its own memory, the common ledger."""

    ledger: Ledger
    url: str
    settings: str = "as it is"
    longest: timedelta = timedelta(hours=1)
    woken: set[str] = field(default_factory=set)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def __post_init__(self) -> None:
        settings = Settings(name="crm", options={"url": self.url})
        policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))
        target = TargetLine(
            name="crm",
            enabled=True,
            connector=TargetConnector(
                name="crm", title="", about="", folder=Path(), manifest=target_manifest(MANIFEST), code=None
            ),
            settings=settings,
            concurrency=LANES,
            patience=Patience(first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=1), longest=self.longest),
            send=target_sender(settings, policy),
            destination=Destination(self.ledger, "crm", self.settings, self.woken.update),
        )
        line = Line(ledger=self.ledger, sources={}, targets={"crm": target}, mappings=tuple, wake=self.woken.update)
        self.stage = DeliverStage(line, {"crm": self.pool})

    @property
    def destination(self) -> Destination:
        return self.stage.line.targets["crm"].destination

    def send_with(self, send: Callable[[Request], Answer]) -> None:
        """Let requests go out in another way."""
        line = self.stage.line
        target = replace(line.targets["crm"], send=send)
        self.stage = replace(self.stage, line=replace(line, targets={"crm": target}))

    def work(self, lane: str, *, later: float = 0.0) -> bool:
        """One claim of a lane; whether there was anything."""
        lease = take(self.ledger, lane, "a worker")
        if lease is None:
            return False
        try:
            now = _now() + int(later * 1000)
            rows = claim(self.ledger, lease, now_ms=now, limit=self.stage.batch)
            if rows:
                self.stage.work(lease, rows)
            return bool(rows)
        finally:
            release(self.ledger, lease)

    def work_all(self, *, later: float = 0.0) -> None:
        for number in range(LANES):
            self.work(f"deliver:crm:{number}", later=later)


def message(number: int, id: str, *, operation: str = "one", order_key: str = "paper") -> NewMessage:
    """A message that is to bring the target a thing with this id."""
    return NewMessage(
        key=f"key-{number}",
        event_id="e1",
        mapping="m",
        mapping_version="1",
        target="crm",
        operation=operation,
        params={"id": id},
        lane=lane_of("deliver", "crm", order_key, LANES),
        order_key=order_key,
        state=False,
        latest_only=False,
        time_ms=_now() + number,
        sequence=None,
    )


def put(ledger: Ledger, *ids: str, operation: str = "one", same_key: bool = False) -> None:
    """Messages that wait, each for an event of its own."""
    now = _now()
    with ledger.read() as connection:
        first = connection.execute(select(func.count()).select_from(messages)).scalar_one()
    rows = [
        message(number, id, operation=operation, order_key="paper" if same_key else f"key-{number}")
        for number, id in enumerate(ids, start=first)
    ]
    ledger.register({row.lane for row in rows})
    event = {"id": "e1", "delivery_seq": 1, "source": "s", "type": "t", "subject": "s", "state_key": "s"}
    event |= {"time_ms": now, "recorded_ms": now, "body": "{}", "trace": "{}"}
    with ledger.write() as connection:
        insert_new(connection, events, [event], "id")
        insert_new(connection, messages, [message_row(row, now) for row in rows], "key")


def rows(ledger: Ledger) -> Sequence[Row[Any]]:
    """All messages, oldest first."""
    with ledger.read() as connection:
        return connection.execute(select(messages).order_by(messages.c.seq)).all()


def statuses(ledger: Ledger) -> list[str]:
    return [row.status for row in rows(ledger)]


def tries(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return connection.execute(select(func.count()).select_from(attempts)).scalar_one()


def due(ledger: Ledger) -> list[str]:
    return due_lanes(ledger, now_ms=_now())


def over(ledger: Ledger, state: State = State.FAILING) -> None:
    """The pause is over: as if its time had passed."""
    past = _now() - 1
    with ledger.write() as connection:
        changed = connection.execute(
            update(destinations).where(destinations.c.state == state.value).values(until_ms=past)
        )
        assert changed.rowcount == 1
        connection.execute(update(lanes).values(not_before_ms=past))
        connection.execute(update(messages).where(messages.c.status == "waiting").values(due_ms=past))


def soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _now() -> int:
    return milliseconds(datetime.now(UTC))
