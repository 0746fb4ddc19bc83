"""Hints may be given twice, get lost, or find no server: work is found all the same."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_parts import PAPERS, Parts, parts_for, soon
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from bridge.engine import embedded, embedded_guard, embedded_socket
from bridge.engine.hints import QUEUE, Hints
from bridge.engine.owners import this_process
from bridge.engine.redis_server import connector, pinger
from bridge.engine.sweeper import sweep
from bridge.engine.worker import Lanes, run_lane
from bridge.ledger.database import Ledger
from bridge.ledger.lanes import BATCH, due_lanes, take

LANE = "deliver:crm:0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("redis")
    embedded.ensure(folder)
    yield folder
    embedded.release(folder)
    embedded_guard.stop(embedded_socket.known_socket(folder) or str(folder / "redis.sock"), seconds=0)


@pytest.fixture
def redis(server: Path) -> Iterator[Redis]:
    client = connector("embedded", server)()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def hints(server: Path) -> Hints:
    return Hints(connector("embedded", server, timeout=2.0))


@pytest.fixture
def parts(ledger: Ledger, tmp_path: Path) -> Iterator[Parts]:
    made = parts_for(ledger, tmp_path, with_api=False)
    made.map("papers", PAPERS)
    yield made
    made.close()


def hinted(redis: Redis) -> list[str]:
    """The lanes that hints on their way name."""
    queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer)
    return [str(job.args[0]) for job in queue.jobs]


def test_a_hint_carries_the_name_of_a_lane_and_nothing_else(redis: Redis, hints: Hints) -> None:
    hints.wake({LANE, "process:exams:1"})
    queue = Queue(QUEUE, connection=redis, serializer=JSONSerializer)
    assert sorted((job.func_name, job.args, job.kwargs) for job in queue.jobs) == [
        ("bridge.engine.worker.run_lane", [LANE], {}),
        ("bridge.engine.worker.run_lane", ["process:exams:1"], {}),
    ]


def test_a_lane_that_is_awake_gets_no_second_hint(redis: Redis, hints: Hints) -> None:
    for _ in range(5):
        hints.wake({LANE})
    assert hinted(redis) == [LANE]


def test_a_lane_that_was_left_can_be_woken_again(redis: Redis, hints: Hints) -> None:
    hints.wake({LANE})
    hints.asleep(LANE)
    hints.wake({LANE})
    assert hinted(redis) == [LANE, LANE]


def test_a_server_that_forgot_everything_does_not_keep_lanes_asleep(redis: Redis, hints: Hints) -> None:
    hints.wake({LANE})
    redis.flushall()
    time.sleep(0.35)  # a lane that was hinted at just now is not hinted at again by the same process
    hints.wake({LANE})
    assert hinted(redis) == [LANE]


def test_a_lost_hint_keeps_its_lane_asleep_for_seconds_only(redis: Redis, hints: Hints) -> None:
    hints.wake({LANE})
    flags = [key for key in redis.scan_iter() if LANE.encode() in key]
    assert flags
    assert all(0 < redis.ttl(key) <= 30 for key in flags)


def test_nothing_to_wake_asks_nobody() -> None:
    def connect() -> Redis:
        raise AssertionError("nobody should connect")

    Hints(connect).wake([])


def test_without_a_server_nothing_raises(tmp_path: Path) -> None:
    away = Hints(connector(f"unix://{tmp_path}/nothing.sock", tmp_path))
    away.wake([LANE])
    away.asleep(LANE)
    away.wake([LANE])


def test_hints_come_back_with_the_server(redis: Redis, server: Path, tmp_path: Path) -> None:
    addresses = [f"unix://{tmp_path}/nothing.sock"]
    hints = Hints(lambda: Redis.from_url(addresses[0]))
    hints.wake([LANE])
    addresses[0] = embedded.ensure(server)

    def woken() -> bool:
        hints.wake([LANE])
        return hinted(redis) == [LANE]

    assert soon(woken, 5)


def test_pinging_a_server_that_is_not_there_says_so_without_starting_one(tmp_path: Path) -> None:
    from redis.exceptions import RedisError

    with pytest.raises(RedisError):
        pinger("embedded", tmp_path / "redis")()
    assert not (tmp_path / "redis").exists()


# --- the sweeper ------------------------------------------------------------------------------------------------------


def swept(ledger: Ledger, hints: Hints, number: int = 1) -> None:
    left = iter(range(number))
    sweep(ledger, hints, lambda _seconds: next(left, None) is None)


def test_the_sweeper_finds_work_that_no_hint_tells_of(parts: Parts, redis: Redis, hints: Hints) -> None:
    parts.receive(parts.platform.sample("paper.submission"))
    swept(parts.ledger, hints)
    [lane] = due_lanes(parts.ledger, now_ms=10**15)
    assert hinted(redis) == [lane]


def test_the_sweeper_leaves_alone_what_somebody_works_on_and_what_is_not_due(
    parts: Parts, redis: Redis, hints: Hints
) -> None:
    parts.target.knobs.fail_share, parts.target.knobs.retry_after = 1.0, 600
    parts.receive(parts.platform.sample("paper.submission"))
    [lane] = due_lanes(parts.ledger, now_ms=10**15)
    assert take(parts.ledger, lane, "somebody") is not None
    swept(parts.ledger, hints)
    assert hinted(redis) == []
    with parts.ledger.write() as connection:
        connection.exec_driver_sql("update lanes set until_ms = 0")
    parts.settle()
    swept(parts.ledger, hints)
    assert hinted(redis) == []


def test_the_sweeper_frees_the_lanes_of_a_process_that_is_dead_and_of_no_other(
    parts: Parts, redis: Redis, hints: Hints
) -> None:
    parts.receive(parts.platform.sample("paper.submission"))
    [lane] = due_lanes(parts.ledger, now_ms=10**15)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    home, _, _ = this_process().rpartition(":")
    assert take(parts.ledger, lane, f"{home}:{child.pid}") is not None
    swept(parts.ledger, hints)
    assert hinted(redis) == [], "its owner lives"
    hints.wake({lane})
    assert hinted(redis) == [lane]
    child.kill()
    child.communicate()
    swept(parts.ledger, hints)
    assert hinted(redis) == [lane, lane], "whoever it was that was hinted at is dead"
    lease = take(parts.ledger, lane, f"another host:{child.pid}")
    assert lease is not None
    assert lease.suspects == BATCH
    redis.flushall()
    swept(parts.ledger, hints)
    assert hinted(redis) == [], "nobody can tell whether its owner lives"


def test_the_sweeper_lives_through_a_database_that_is_away(hints: Hints) -> None:
    away = Ledger("postgresql://bridge@127.0.0.1:1/nothing")
    swept(away, hints, 2)
    away.close()


# --- a worker's lanes -------------------------------------------------------------------------------------------------


def test_a_worker_drains_a_lane_and_leaves_it(parts: Parts, redis: Redis, hints: Hints) -> None:
    for _ in range(5):
        parts.receive(parts.platform.sample("paper.submission"))
    at_work = Lanes(parts.ledger, hints, parts.stages(), slots=4)

    def delivered() -> bool:
        for lane in due_lanes(parts.ledger, now_ms=10**15):  # as the sweeper finds them
            at_work.start(lane)
        return [row.status for row in parts.messages()] == ["delivered"] * 5

    assert soon(delivered)
    at_work.stop()
    with parts.ledger.read() as connection:
        held = connection.exec_driver_sql("select count(*) from lanes where until_ms > 0").scalar()
    assert held == 0


def test_a_lane_that_another_worker_has_is_left_to_it(parts: Parts, redis: Redis, hints: Hints) -> None:
    parts.receive(parts.platform.sample("paper.submission"))
    [lane] = due_lanes(parts.ledger, now_ms=10**15)
    assert take(parts.ledger, lane, "another") is not None
    hints.wake({lane})
    at_work = Lanes(parts.ledger, hints, parts.stages(), slots=2)
    at_work.start(lane)
    at_work.stop()
    assert parts.events() == []
    for process in (hints, Hints(lambda: redis)):
        process.wake({lane})
    assert hinted(redis) == [lane], "it is awake: more hints would come to nothing"


def test_a_hint_to_a_process_that_is_no_worker_does_nothing() -> None:
    run_lane(LANE)


def test_a_lane_of_no_stage_does_not_stop_the_others(parts: Parts, redis: Redis, hints: Hints) -> None:
    parts.receive(parts.platform.sample("paper.submission"))
    at_work = Lanes(parts.ledger, hints, parts.stages(), slots=1)
    at_work.start("nonsense:lane:0")
    for lane in due_lanes(parts.ledger, now_ms=10**15):
        at_work.start(lane)
    assert soon(lambda: len(parts.events()) == 1)
    at_work.stop()
