"""A target that throttles, fails, refuses or is gone is left alone as a whole, by all workers, and nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from bridge.core.manifest import TargetConnector, target_manifest
from bridge.core.settings import Settings
from bridge.engine.deliver import DeliverStage
from bridge.engine.destination import RETRIES, Destination
from bridge.engine.line import Line, TargetLine
from bridge.flow.deliver import Patience
from bridge.flow.standing import FAILURES, State
from bridge.ledger.byhand import pause, resume
from bridge.ledger.database import Ledger, insert_new, milliseconds
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import claim, due_lanes, has_due, held_back, lane_of, release, take
from bridge.ledger.processing import NewMessage, message_row
from bridge.ledger.tables import attempts, destinations, events, lanes, messages
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.testing.answering import Asked, LocalServer, Reply

LANES = 3
MANIFEST = {
    "options": {"url": {}},
    "operations": {
        "one": {
            "about": "",
            "idempotent": True,
            "params": {"properties": {"id": {}}},
            "request": {"method": "POST", "url": "{{ settings.url }}/one", "json": "{{ params }}"},
            "answers": [{"status": 404, "as": "retry", "patience": 0.2, "finally": "gone"}],
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
    bad: frozenset[str] = frozenset()
    taken: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    batches: list[list[str]] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        self.requests += 1
        document = json.loads(asked.body)
        if self.status != 200:
            return Reply(self.status, b"{}", self.headers)
        if asked.target == "/one":
            self.taken[document["id"]] += 1
            return Reply(200, b"{}")
        self.batches.append(document)
        if len(document) > 1 and "poison" in document:
            return Reply(400, b"{}")
        self.taken.update(document)
        return Reply(200, json.dumps([{"id": id, "fine": id not in self.bad} for id in document]).encode())


@dataclass
class Worker:
    """One worker process, as far as targets go: its own memory, the common ledger."""

    ledger: Ledger
    url: str
    settings: str = "as it is"
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
            patience=Patience(
                first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=1), longest=timedelta(hours=1)
            ),
            send=target_sender(settings, policy),
            destination=Destination(self.ledger, "crm", self.settings, self.woken.update),
        )
        line = Line(ledger=self.ledger, sources={}, targets={"crm": target}, mappings=tuple, wake=self.woken.update)
        self.stage = DeliverStage(line, {"crm": self.pool})

    def work(self, lane: str, *, later: float = 0.0) -> bool:
        """One claim of a lane; whether there was anything."""
        lease = take(self.ledger, lane, "a worker")
        if lease is None:
            return False
        try:
            now = milliseconds(datetime.now(UTC)) + int(later * 1000)
            rows = claim(self.ledger, lease, now_ms=now, limit=self.stage.batch)
            if rows:
                self.stage.work(lease, rows)
            return bool(rows)
        finally:
            release(self.ledger, lease)

    def work_all(self, *, later: float = 0.0) -> None:
        for number in range(LANES):
            self.work(f"deliver:crm:{number}", later=later)


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def url(system: System) -> Iterator[str]:
    with LocalServer(system.answer) as server:
        yield server.url


@pytest.fixture
def worker(ledger: Ledger, url: str) -> Iterator[Worker]:
    made = Worker(ledger, url)
    yield made
    made.pool.shutdown()


def put(ledger: Ledger, *ids: str, operation: str = "one", same_key: bool = False) -> None:
    """Messages that wait, each for an event of its own."""
    now = milliseconds(datetime.now(UTC))
    with ledger.read() as connection:
        first = connection.execute(select(func.count()).select_from(messages)).scalar_one()
    rows = []
    for number, id in enumerate(ids, start=first):
        key = f"key-{number}"
        order_key = "paper" if same_key else key
        rows.append(
            NewMessage(
                key=key,
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
                time_ms=now + number,
                sequence=None,
            )
        )
    ledger.register({row.lane for row in rows})
    event = {"id": "e1", "delivery_seq": 1, "source": "s", "type": "t", "subject": "s", "state_key": "s"}
    event |= {"time_ms": now, "recorded_ms": now, "body": "{}", "trace": "{}"}
    with ledger.write() as connection:
        insert_new(connection, events, [event], "id")
        insert_new(connection, messages, [message_row(row, now) for row in rows], "key")


def statuses(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(messages.c.status).order_by(messages.c.seq)).scalars())


def tries(ledger: Ledger) -> int:
    with ledger.read() as connection:
        return connection.execute(select(func.count()).select_from(attempts)).scalar_one()


def due(ledger: Ledger) -> list[str]:
    return due_lanes(ledger, now_ms=milliseconds(datetime.now(UTC)))


def test_a_target_that_is_down_is_left_alone_after_a_few_tries(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    assert tries(ledger) == FAILURES
    standing = listed(ledger)["crm"]
    assert standing.state is State.FAILING
    assert 5 < standing.until - time.time() <= 10
    assert due(ledger) == [], "no lane of it is woken meanwhile"
    now = milliseconds(datetime.now(UTC))
    assert not has_due(ledger, "deliver:crm:0", now_ms=now)
    assert held_back(ledger, "deliver:crm:0", now_ms=now)
    assert not held_back(ledger, "deliver:crm:0", now_ms=now + 60_000)
    worker.work_all()
    assert tries(ledger) == FAILURES
    assert statuses(ledger) == ["waiting"] * 40


def test_another_worker_knows_it_too(ledger: Ledger, worker: Worker, system: System, url: str) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    other = Worker(ledger, url)
    other.work_all()
    assert tries(ledger) == FAILURES
    other.pool.shutdown()


def over(ledger: Ledger, state: State = State.FAILING) -> None:
    """The pause is over: as if its time had passed."""
    past = milliseconds(datetime.now(UTC)) - 1
    with ledger.write() as connection:
        changed = connection.execute(
            update(destinations).where(destinations.c.state == state.value).values(until_ms=past)
        )
        assert changed.rowcount == 1
        connection.execute(update(lanes).values(not_before_ms=past))
        connection.execute(update(messages).where(messages.c.status == "waiting").values(due_ms=past))


def test_after_the_pause_one_message_tries_and_all_go_when_it_went_well(
    ledger: Ledger, worker: Worker, system: System, url: str
) -> None:
    put(ledger, *map(str, range(40)))
    system.status = 503
    worker.work_all()
    other = Worker(ledger, url)
    over(ledger)
    worker.work_all()
    other.work_all()
    assert tries(ledger) == FAILURES + 1, "one probe of all lanes and workers"
    first = listed(ledger)["crm"]
    assert (first.state, first.rounds) == (State.FAILING, 2)
    system.status = 200
    over(ledger)
    worker.work("deliver:crm:1")
    assert listed(ledger) == {}
    assert worker.woken == {f"deliver:crm:{number}" for number in range(LANES)}
    worker.work_all()
    other.work_all()
    assert statuses(ledger).count("delivered") >= 40 - FAILURES - 2, "those tried before wait for their second try"
    over_again = milliseconds(datetime.now(UTC)) + 10_000
    for number in range(LANES):
        worker.work(f"deliver:crm:{number}", later=(over_again / 1000 - time.time()))
    assert statuses(ledger) == ["delivered"] * 40
    assert system.taken == {str(number): 1 for number in range(40)}
    other.pool.shutdown()


def test_who_had_nothing_to_try_with_lets_another_lane_try(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(20)))
    system.status = 503
    worker.work_all()
    over(ledger)
    with ledger.write() as connection:  # whatever this lane claims is given up without being sent
        connection.execute(update(messages).where(messages.c.lane == "deliver:crm:0").values(starts=99))
    worker.work("deliver:crm:0")
    system.status = 200
    worker.work("deliver:crm:1")
    assert listed(ledger) == {}


def test_a_target_that_throttles_is_paused_and_its_messages_use_up_no_tries(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    put(ledger, *map(str, range(20)))
    system.status, system.headers = 429, {"Retry-After": "120"}
    worker.work_all()
    assert system.requests == 1
    assert 115 < listed(ledger)["crm"].until - time.time() <= 120
    with ledger.read() as connection:
        assert connection.execute(select(func.sum(messages.c.attempts))).scalar_one() == 0
    system.status = 200
    over(ledger, State.THROTTLED)
    worker.work_all()
    assert statuses(ledger) == ["delivered"] * 20, "without a probe: it was never ill"


@pytest.mark.parametrize(("status", "state"), [(410, State.GONE), (401, State.REFUSED)])
def test_a_gone_address_and_refused_credentials_lose_nothing(
    worker: Worker, system: System, status: int, state: State
) -> None:
    ledger = worker.ledger
    put(ledger, *map(str, range(20)))
    system.status = status
    worker.work_all()
    assert system.requests == 1
    assert listed(ledger)["crm"].state is state
    assert statuses(ledger) == ["waiting"] * 20
    system.status = 200
    assert resume(ledger, "crm", who="somebody") == {f"deliver:crm:{number}" for number in range(LANES)}
    worker.work_all(later=90)
    assert statuses(ledger) == ["delivered"] * 20


def test_new_settings_are_a_new_beginning(ledger: Ledger, worker: Worker, system: System, url: str) -> None:
    put(ledger, "a", "b")
    system.status = 410
    worker.work_all()
    assert due(ledger) == []
    system.status = 200
    changed = Worker(ledger, url, settings="another address")
    changed.stage.line.targets["crm"].destination.begin()
    changed.work_all(later=90)
    assert statuses(ledger) == ["delivered"] * 2
    changed.pool.shutdown()


def test_what_a_person_paused_stays_so_whatever_the_settings(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "a")
    pause(ledger, "crm", "maintenance on Sunday", who="somebody")
    worker.stage.line.targets["crm"].destination.begin()
    worker.work_all()
    assert system.requests == 0
    assert listed(ledger)["crm"].reason == "maintenance on Sunday"
    resume(ledger, "crm", who="somebody")
    worker.work_all()
    assert statuses(ledger) == ["delivered"]


def test_an_address_that_comes_back_within_its_patience_is_not_gone(
    ledger: Ledger, worker: Worker, system: System
) -> None:
    put(ledger, "a")
    system.status = 404
    worker.work_all()
    assert listed(ledger) == {}
    time.sleep(0.3)
    worker.work_all(later=10)
    assert listed(ledger)["crm"].state is State.GONE


def test_messages_go_together_and_what_is_equal_goes_apart(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(25)), "3", operation="many")
    system.bad = frozenset({"7"})
    worker.work_all()
    assert max(len(batch) for batch in system.batches) > 4
    assert all(len(batch) == len(set(batch)) for batch in system.batches)
    assert Counter(statuses(ledger)) == {"delivered": 25, "dead": 1}
    assert system.taken == {str(number): 1 for number in range(25)} | {"3": 2}


def test_one_that_spoils_a_batch_is_found(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(9)), "poison", operation="many")
    worker.work_all()
    assert set(statuses(ledger)) == {"delivered"}, "by itself even that one was fine here"
    assert all(system.taken[str(number)] == 1 for number in range(9))


def test_those_of_one_order_key_never_share_a_batch(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "first", "second", "third", operation="many", same_key=True)
    worker.work_all()
    assert system.batches == [["first"], ["second"], ["third"]]


def test_a_batch_waits_a_moment_for_company(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, "a", operation="many", same_key=True)
    lane = lane_of("deliver", "crm", "paper", LANES)

    def late() -> None:
        time.sleep(0.03)
        with ledger.read() as connection:
            first = connection.execute(select(func.count()).select_from(messages)).scalar_one()
        # Messages of other subjects that fall into the same lane.
        found = [n for n in range(100) if lane_of("deliver", "crm", f"key-{first + n}", LANES) == lane][:1]
        put(ledger, *[f"late-{n}" for n in range(found[0] + 1)], operation="many")

    thread = threading.Thread(target=late)
    thread.start()
    worker.work(lane)
    thread.join()
    assert len(system.batches[0]) == 2


def test_second_tries_are_rationed(ledger: Ledger, worker: Worker, system: System) -> None:
    put(ledger, *map(str, range(int(RETRIES) * 4)))
    with ledger.write() as connection:
        connection.execute(update(messages).values(attempts=1))
    system.status = 400  # an answer, so the breaker stays shut; second tries that come to nothing are not refunded
    worker.work_all()
    assert RETRIES <= system.requests <= RETRIES * 2 + 10
