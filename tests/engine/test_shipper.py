"""From journal segments into the ledger: each record once and in order, wherever the shipper is killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from engine_parts import soon
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import delete, select

from bridge.core.source import Accepted, Inbound, Verified
from bridge.engine.hints import Hints
from bridge.engine.shipper import BATCH, Lanes, Shipper
from bridge.journal.reader import oldest_record, segments
from bridge.journal.writer import SEGMENT_BYTES, JournalWriter
from bridge.ledger.accepting import positions
from bridge.ledger.database import Ledger
from bridge.ledger.figures import totals
from bridge.ledger.lanes import due_lanes
from bridge.ledger.tables import deliveries_in, journal_positions, repeats

START = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)


class Killed(BaseException):
    """What ends the shipper in the middle of its work."""


class KilledAt:
    """Hints are given after each commit: a shipper with these ends after its nth."""

    def __init__(self, commits: int) -> None:
        self._left = commits

    def wake(self, lanes: Collection[str]) -> None:
        self._left -= 1
        if self._left <= 0:
            raise Killed


def no_redis() -> Redis:
    raise RedisConnectionError("away")


def shipper(folder: Path, ledger: Ledger, hints: Hints | KilledAt | None = None) -> Shipper:
    return Shipper(folder, ledger, Lanes(sources={}), hints or Hints(no_redis))  # type: ignore[arg-type]


def record(name: str, *, after: float = 0.0, key: str | None = None, ignored: bool = False, pad: int = 0) -> Accepted:
    inbound = Inbound(
        id=name,
        source="exams",
        received_at=START + timedelta(seconds=after),
        headers={"pad": "x" * pad},
        query={},
        body=name.encode(),
    )
    verified = Verified(inbound=inbound, proof="secret 1", dedupe_key=key or name, dedupe_window=timedelta(seconds=60))
    return Accepted(verified=verified, ignored=ignored, clock=time.monotonic_ns())


def shipped(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(deliveries_in.c.id).order_by(deliveries_in.c.seq)).scalars())


def everything(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return sorted([*shipped(ledger), *connection.execute(select(repeats.c.id)).scalars()])


def test_records_go_over_once_with_their_bytes(ledger: Ledger, tmp_path: Path) -> None:
    writer, moving = JournalWriter(tmp_path), shipper(tmp_path, ledger)
    writer.append(record("a"))
    writer.append(record("b", after=1))
    assert moving.round() == 2
    assert moving.round() == 0
    writer.append(record("c", after=2))
    assert moving.round() == 1
    assert shipped(ledger) == ["a", "b", "c"]
    with ledger.read() as connection:
        assert list(connection.execute(select(deliveries_in.c.body)).scalars()) == [b"a", b"b", b"c"]
    writer.close()


def test_what_was_shipped_has_work_in_a_lane(ledger: Ledger, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(record("a"))
    shipper(tmp_path, ledger).round()
    writer.close()
    [lane] = due_lanes(ledger, now_ms=10**15)
    assert lane.startswith("process:exams:")


def test_a_segment_is_deleted_when_its_writer_is_gone_and_all_is_shipped(ledger: Ledger, tmp_path: Path) -> None:
    writer, moving = JournalWriter(tmp_path), shipper(tmp_path, ledger)
    writer.append(record("a"))
    moving.round()
    [segment] = segments(tmp_path)
    assert positions(ledger, [segment.name])[segment.name] > 0
    writer.close()
    moving.round()
    assert segments(tmp_path) == []
    assert positions(ledger, [segment.name]) == {}


def test_two_writers_are_shipped_in_the_order_in_which_they_took_things_in(ledger: Ledger, tmp_path: Path) -> None:
    writers = [JournalWriter(tmp_path), JournalWriter(tmp_path)]
    names = []
    for number in range(40):
        names.append(f"r{number:02d}")
        writers[number * 7 % 3 % 2].append(record(names[-1], after=number / 1000))
    shipper(tmp_path, ledger).round()
    assert shipped(ledger) == names
    for writer in writers:
        writer.close()


BACKLOG = 1200
"""Records of 4 KiB: several times what is read of a segment at once."""


def backlog(folder: Path, *, writers: int, segment_bytes: int = SEGMENT_BYTES) -> list[str]:
    """What came in while the database was away; all its writers are gone."""
    writing = [JournalWriter(folder, segment_bytes=segment_bytes) for _ in range(writers)]
    names = [f"r{number:04d}" for number in range(BACKLOG)]
    for number, name in enumerate(names):
        writing[number * 7 % 3 % writers].append(record(name, after=number / 1000, pad=4000))
    for writer in writing:
        writer.close()
    return names


@pytest.mark.parametrize(("writers", "segment_bytes"), [(1, 3_000_000), (2, SEGMENT_BYTES), (2, 1_700_000)])
def test_a_long_backlog_is_shipped_in_the_order_in_which_it_came_in(
    tmp_path: Path, writers: int, segment_bytes: int
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    names = backlog(tmp_path / "journal", writers=writers, segment_bytes=segment_bytes)
    assert len(segments(tmp_path / "journal")) >= 2
    moving = shipper(tmp_path / "journal", ledger)
    moved = 0
    while batch := moving.round():
        moved += batch
    assert moved == BACKLOG
    assert shipped(ledger) == names
    assert segments(tmp_path / "journal") == []
    ledger.close()


def test_a_shipper_killed_again_and_again_in_a_long_backlog_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    names = backlog(tmp_path / "journal", writers=2, segment_bytes=1_700_000)
    for _ in range(BACKLOG // 50):
        with contextlib.suppress(Killed):
            shipper(tmp_path / "journal", ledger, KilledAt(2)).round()
    assert shipped(ledger) == names
    assert everything(ledger) == names
    assert segments(tmp_path / "journal") == []
    ledger.close()


def test_what_has_to_wait_in_a_long_backlog_is_not_read_in_every_round(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    names = backlog(tmp_path / "journal", writers=1, segment_bytes=1_700_000)
    moving = shipper(tmp_path / "journal", ledger)
    moving.round()
    newest = segments(tmp_path / "journal")[-1]
    away = newest.rename(newest.with_suffix(".away"))
    newest.symlink_to("nowhere")
    assert moving.round() > 0, "it did not look into the newest one"
    newest.unlink()
    away.rename(newest)
    while moving.round():
        pass
    assert shipped(ledger) == names
    ledger.close()


def test_a_repeat_in_another_writers_segment_is_recognised(ledger: Ledger, tmp_path: Path) -> None:
    writers = [JournalWriter(tmp_path), JournalWriter(tmp_path)]
    writers[0].append(record("second", after=5, key="same"))
    writers[1].append(record("first", after=1, key="same"))
    shipper(tmp_path, ledger).round()
    assert shipped(ledger) == ["first"]
    assert everything(ledger) == ["first", "second"]
    for writer in writers:
        writer.close()


def test_a_shipper_killed_after_its_commit_ships_nothing_twice(ledger: Ledger, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    for number in range(5):
        writer.append(record(f"r{number}", after=number))
    writer.close()
    with pytest.raises(Killed):
        shipper(tmp_path, ledger, KilledAt(1)).round()
    assert len(segments(tmp_path)) == 1, "it was killed before it deleted"
    moving = shipper(tmp_path, ledger)
    moving.round()
    assert shipped(ledger) == [f"r{number}" for number in range(5)]
    assert segments(tmp_path) == []


def test_a_ledger_that_forgot_how_far_it_got_takes_nothing_twice(ledger: Ledger, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    for number in range(5):
        writer.append(record(f"r{number}", after=number, key=f"k{number % 3}"))
    shipper(tmp_path, ledger).round()
    with ledger.write() as connection:
        connection.execute(delete(journal_positions))
    shipper(tmp_path, ledger).round()
    writer.close()
    assert shipped(ledger) == ["r0", "r1", "r2"]
    assert everything(ledger) == [f"r{number}" for number in range(5)]


def test_a_shipper_killed_between_two_batches_loses_nothing(ledger: Ledger, tmp_path: Path) -> None:
    """Threads of a web process reach the journal in another order than their requests came in."""
    writer = JournalWriter(tmp_path)
    writer.append(record("overtaken", after=3600))
    for number in range(BATCH):
        writer.append(record(f"r{number:03d}", after=number / 1000))
    with pytest.raises(Killed):
        shipper(tmp_path, ledger, KilledAt(1)).round()
    assert len(shipped(ledger)) == BATCH
    shipper(tmp_path, ledger).round()
    writer.close()
    assert everything(ledger) == ["overtaken", *(f"r{number:03d}" for number in range(BATCH))]


def test_records_that_overtook_each_other_on_their_way_to_the_journal_are_counted_once(
    ledger: Ledger, tmp_path: Path
) -> None:
    writer, moving = JournalWriter(tmp_path), shipper(tmp_path, ledger)
    for after in (3, 1, 2):
        writer.append(record(f"r{after}", after=after, key="same"))
    assert moving.round() == 3
    assert moving.round() == 0
    assert totals(ledger)["source:exams"] == {"repeats": 2}
    writer.close()


def test_what_a_writer_left_that_was_killed_while_it_made_a_segment_is_removed(ledger: Ledger, tmp_path: Path) -> None:
    maker = os.fork()
    if maker == 0:
        JournalWriter(tmp_path, segment_bytes=2**30).append(record("never promised"))
        os._exit(0)
    assert soon(lambda: bool(list(tmp_path.glob("*.new"))))
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    [left] = tmp_path.glob("*.new")
    moving = shipper(tmp_path, ledger)
    moving.round()
    assert left.exists(), "it may just be in the making"
    os.utime(left, (time.time() - 3600,) * 2)
    with left.open("rb") as being_made:
        fcntl.flock(being_made, fcntl.LOCK_EX)
        moving.round()
        assert left.exists(), "somebody makes it, slowly"
    moving.round()
    assert not left.exists()


def test_an_empty_journal_is_nothing_to_do(ledger: Ledger, tmp_path: Path) -> None:
    assert shipper(tmp_path / "none", ledger).round() == 0


def test_the_age_of_the_oldest_record_ends_when_it_is_shipped(ledger: Ledger, tmp_path: Path) -> None:
    writer, moving = JournalWriter(tmp_path), shipper(tmp_path, ledger)
    assert oldest_record(tmp_path) is None
    writer.append(record("a"))
    assert oldest_record(tmp_path) == START.timestamp()
    moving.round()
    assert oldest_record(tmp_path) is None
    writer.close()


def test_one_of_two_shippers_works_and_the_other_stands_by(ledger: Ledger, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    stopping = threading.Event()
    threads = [
        threading.Thread(target=shipper(tmp_path, ledger).run, args=(stopping.is_set,), daemon=True) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for number in range(30):
        writer.append(record(f"r{number:02d}", after=number / 1000))
    assert soon(lambda: len(shipped(ledger)) == 30)
    stopping.set()
    for thread in threads:
        thread.join(10)
    writer.close()
    assert shipped(ledger) == [f"r{number:02d}" for number in range(30)]
