"""Pulling from real web processes on PostgreSQL: nothing skipped, nothing twice, and no webhook waits for it."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_parts import START, Stream, bearer, event, store
from sqlalchemy import insert, select
from web_parts import Client

from bridge.ledger.api_tokens import revoke_token
from bridge.ledger.database import Ledger
from bridge.ledger.feed import head_of, offer
from bridge.ledger.tables import events, feed
from bridge.web.api_cursor import position_of

CUTS = 50
WRITERS = 4
Seen = list[tuple[str, int]]


@pytest.fixture
def database(postgresql_database: str) -> Iterator[Ledger]:
    opened = Ledger(postgresql_database)
    opened.upgrade()
    yield opened
    opened.close()


@contextmanager
def served(folder: Path, ledger: Ledger, **web: Any) -> Iterator[Client]:
    """`campusbridge web` with this ledger."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = ledger.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    document = {
        "version": 1,
        "accept": "ledger",
        "storage": {"database": url},
        "sources": {"wiseflow": {"connector": "wiseflow", "secrets": ["a-secret-of-the-tests-4711"]}},
        "web": {"bind": f"127.0.0.1:{port}", "workers": 2} | web,
    }
    (folder / "bridge.yaml").write_text(json.dumps(document), "utf-8")
    process = subprocess.Popen([sys.executable, "-m", "bridge.main", "-c", folder / "bridge.yaml", "web"])
    client = Client(port)
    try:
        until(lambda: answers(client), 60)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def answers(client: Client) -> bool:
    try:
        return client.ask("GET", "/healthz").status == 200
    except OSError:
        return False


def until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


# -- complete, in order, no repeats -----------------------------------------------------------------------------------


@contextmanager
def writing(ledger: Ledger) -> Iterator[Callable[[], dict[str, int]]]:
    """Four processes that write; calling what is given ends them, and says what they committed."""
    url = ledger.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    script = Path(__file__).with_name("pull_writer.py")
    writers = [
        subprocess.Popen(
            [sys.executable, script, url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(1, WRITERS + 1)
    ]

    def ended() -> dict[str, int]:
        outputs = [writer.communicate("end\n", timeout=20)[0] for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * WRITERS
        lines = [line.split() for output in outputs for line in output.splitlines()]
        return {id: int(version) for id, version in lines}

    try:
        yield ended
    finally:
        for writer in writers:
            if writer.poll() is None:
                writer.kill()
                writer.communicate()


@dataclass(slots=True, kw_only=True)
class Consumer:
    """Reads until it is told that the writers are done and then finds nothing more; it is cut off again and again."""

    port: int
    headers: dict[str, str]
    seed: int
    seen: Seen = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    cuts: int = 0
    written: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    def run(self, read: Callable[[Consumer, random.Random], None]) -> None:
        try:
            read(self, random.Random(self.seed))
        except BaseException as error:
            self.failure = error
            raise

    def take(self, entry: Any) -> None:
        self.seen.append((entry["id"], version(entry)))


def version(entry: Any) -> int:
    observed = entry.get("observedat")
    return int((datetime.fromisoformat(observed) - START).total_seconds()) if observed else 0


def pull(consumer: Consumer, chance: random.Random) -> None:
    """A page counts when all of it is there; otherwise it is asked for again."""
    after = ""
    while True:
        last = consumer.written.is_set()
        cut = consumer.cuts < CUTS and chance.random() < 0.4
        with socket.create_connection(("127.0.0.1", consumer.port), timeout=20) as connection:
            lines = [
                f"GET /api/v1/events?limit={chance.randint(1, 40)}{after} HTTP/1.1",
                f"Host: x\r\nAuthorization: {consumer.headers['Authorization']}\r\n\r\n",
            ]
            connection.sendall("\r\n".join(lines).encode())
            if cut:
                time.sleep(chance.choice((0.0, 0.002, 0.01)))
                connection.recv(chance.randint(1, 4000))
                slam(connection, chance)
                consumer.cuts += 1
                continue
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert answer.status == 200
            page = json.loads(answer.read())
        for entry in page["events"]:
            consumer.take(entry)
        after = f"&after={page['next']}"
        consumer.cursors.append(page["next"])
        if not page["more"]:
            if last and consumer.cuts == CUTS:
                return
            time.sleep(0.02)


def follow(consumer: Consumer, chance: random.Random) -> None:
    """An event counts when all of its block is there."""
    last: str | None = None
    while True:
        stream = Stream(consumer.port, consumer.headers, last=last)
        if stream.answer.status in (429, 503):  # places of consumers that were cut off a moment ago
            stream.close()
            time.sleep(0.05)
            continue
        assert stream.answer.status == 200
        end = time.monotonic() + chance.uniform(0.0, 0.15)
        for block in stream.blocks():
            if "data" in block:
                consumer.take(json.loads(block["data"]))
            if "id" in block:
                consumer.cursors.append(block["id"])
            if consumer.cuts < CUTS and time.monotonic() > end:
                consumer.cuts += 1
                break
        last = stream.last
        stream.close()
        if consumer.written.is_set() and consumer.cuts == CUTS and at_end(consumer, last):
            return


def at_end(consumer: Consumer, last: str | None) -> bool:
    reply = Client(consumer.port).ask("GET", f"/api/v1/events?after={last}", consumer.headers)
    return reply.status == 200 and reply.json["events"] == []


def slam(connection: socket.socket, chance: random.Random) -> None:
    """Half of the time as if the network had gone: a reset instead of a farewell."""
    if chance.random() < 0.5:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.e2e
def test_cut_off_again_and_again_both_kinds_of_consumers_get_all_in_order_and_once(
    database: Ledger, tmp_path: Path
) -> None:
    with served(tmp_path, database, stream_minutes=0.02) as client, writing(database) as ended:
        consumers = {
            read: Consumer(port=client.port, headers=bearer(database, name), seed=seed)
            for seed, (name, read) in enumerate((("puller", pull), ("streamer", follow)))
        }
        threads = [
            threading.Thread(target=consumer.run, args=(read,), daemon=True) for read, consumer in consumers.items()
        ]
        for thread in threads:
            thread.start()
        until(
            lambda: all(consumer.cuts == CUTS or consumer.failure for consumer in consumers.values()),
            90,
        )
        committed = ended()
        for consumer in consumers.values():
            consumer.written.set()
        for thread in threads:
            thread.join(20)
    head = head_of(database)
    with database.read() as connection:
        query = select(events.c.body).join(feed, feed.c.event == events.c.cursor).order_by(feed.c.position)
        final = [(entry["id"], version(entry)) for entry in map(json.loads, connection.execute(query).scalars())]
    assert dict(final) == committed
    assert len(final) > 200
    for consumer in consumers.values():
        assert (consumer.failure, consumer.cuts) == (None, CUTS)
        assert len(consumer.seen) == len(set(consumer.seen))
        newest = set(final)
        assert [entry for entry in consumer.seen if entry in newest] == final
        positions = [position_of(cursor, head, parameter="after") for cursor in consumer.cursors]
        assert positions == sorted(positions)


# -- webhooks come first ------------------------------------------------------------------------------------------


def test_webhooks_are_answered_while_all_places_are_taken_and_nobody_reads(database: Ledger, tmp_path: Path) -> None:
    headers = [bearer(database, f"consumer {number}") for number in range(2)]
    make_heavy(database, 60)
    with served(tmp_path, database, workers=1, streams=4) as client, ExitStack() as stack:
        for number in range(4):
            stack.enter_context(deaf(client.port, headers[number % 2]))
        until(lambda: client.ask("GET", "/api/v1/events/stream", headers[0]).status in (429, 503), 10)
        took = []
        for _ in range(30):
            begun = time.monotonic()
            assert client.ask("POST", "/hooks/wiseflow", {}, b"{}").status == 401
            took.append(time.monotonic() - begun)
        assert sorted(took)[15] < 0.1
        assert max(took) < 1.0


def test_a_consumer_that_does_not_read_is_cut_off_and_others_get_its_place(database: Ledger, tmp_path: Path) -> None:
    headers = bearer(database)
    make_heavy(database, 60)
    with served(tmp_path, database, workers=1, streams=1) as client, deaf(client.port, headers):
        until(lambda: client.ask("GET", "/api/v1/events/stream", headers).status == 503, 5)
        begun = time.monotonic()
        until(lambda: place_is_free(client, headers), 15)
        assert time.monotonic() - begun > 2


def test_a_stream_ends_soon_when_the_server_does(database: Ledger, tmp_path: Path) -> None:
    store(database, event(1))
    with served(tmp_path, database) as client:
        stream = Stream(client.port, bearer(database))
        blocks = stream.blocks()
        assert "data" in [next(blocks), next(blocks)][1]
    assert list(blocks) == [{"": "reconnect"}]
    stream.close()


def test_an_open_stream_ends_after_its_token_was_revoked(database: Ledger, tmp_path: Path) -> None:
    with served(tmp_path, database) as client:
        stream = Stream(client.port, bearer(database))
        begun = time.monotonic()
        assert revoke_token(database, "warehouse", who="a test")
        assert [block for block in stream.blocks() if "data" in block] == []
        assert time.monotonic() - begun < 18
        stream.close()


def place_is_free(client: Client, headers: dict[str, str]) -> bool:
    stream = Stream(client.port, headers, "?after=newest")
    stream.close()
    return stream.answer.status == 200


@contextmanager
def deaf(port: int, headers: dict[str, str]) -> Iterator[None]:
    """A consumer with a small window that asks for everything, and then takes nothing."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        request = f"GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n\r\n"
        connection.sendall(request.encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        yield


def make_heavy(ledger: Ledger, count: int) -> None:
    """More than the kernel keeps for a connection: events of 200 kB each."""
    rows = []
    for number in range(count):
        entry = event(number)
        body = json.dumps(entry.to_json() | {"padding": "x" * 200_000})
        rows.append(
            {
                "id": entry.id,
                "delivery_seq": number,
                "source": "wiseflow",
                "type": entry.type,
                "subject": entry.subject,
                "state_key": entry.state_key,
                "time_ms": number,
                "recorded_ms": number,
                "body": body,
                "trace": "{}",
            }
        )
    with ledger.write() as connection:
        connection.execute(insert(events), rows)
        offer(connection, [row["id"] for row in rows])
