"""What was acknowledged comes out of the journal again, whatever happened to the process that wrote it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import StorageUnavailable
from bridge.core.source import Accepted, Inbound, Verified
from bridge.journal.reader import Found, note_shipped, oldest_record, read, segments, sole_reader
from bridge.journal.record import MAGIC, SEAL, encode, scan
from bridge.journal.writer import JournalWriter

FOREVER = 2**62


def accepted(name: str, body: bytes = b"{}", clock: int = 0) -> Accepted:
    inbound = Inbound(
        id=name,
        source="wiseflow-main",
        received_at=datetime(2026, 6, 5, 9, 30, 0, 114000, tzinfo=UTC),
        headers={"event-type": "paper.submission"},
        query={"a": "b"},
        body=body,
    )
    verified = Verified(inbound=inbound, proof="secret 1", dedupe_key=name, dedupe_window=timedelta(hours=24))
    return Accepted(verified=verified, clock=clock)


def names(found: Found) -> list[str]:
    return [entry.verified.inbound.id for entry, _ in found.records]


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_a_record_comes_back_as_it_went_in(body: bytes, name: str) -> None:
    record = accepted(name.encode("utf-8", "ignore").decode(), body)
    found = scan(encode(record) + bytes(64), 100)
    assert found.records == ((record, 100 + len(encode(record))),)
    assert found.ending == "open"


def test_records_are_there_as_soon_as_append_returns(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(accepted("one", b"\x00\xff" * 100))
    (segment,) = segments(tmp_path)
    found = read(segment, 0, FOREVER)
    assert names(found) == ["one"]
    assert not found.finished
    writer.append(accepted("two"))
    assert names(read(segment, found.records[-1][1], FOREVER)) == ["two"]


def test_a_record_later_than_the_round_began_waits_for_the_next_round(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(accepted("early", clock=10))
    writer.append(accepted("late", clock=20))
    (segment,) = segments(tmp_path)
    assert names(read(segment, 0, 15)) == ["early"]


def test_what_stands_behind_a_record_that_waits_waits_too(tmp_path: Path) -> None:
    """Threads reach the journal in another order than they asked what time it is."""
    writer = JournalWriter(tmp_path)
    for name, clock in (("early", 10), ("late", 20), ("overtaken", 15)):
        writer.append(accepted(name, clock=clock))
    (segment,) = segments(tmp_path)
    first = read(segment, 0, 17)
    assert names(first) == ["early"]
    assert names(read(segment, first.records[-1][1], 25)) == ["late", "overtaken"]


def test_a_reading_says_whether_more_stands_behind_it(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    for number in range(3):
        writer.append(accepted(str(number), b"x" * 600_000, clock=number))
    (segment,) = segments(tmp_path)
    first = read(segment, 0, FOREVER)
    assert (names(first), first.more) == (["0"], True)
    assert not read(segment, 0, -1).more, "what is later than the round is not what the round has not reached"
    writer.close()
    second = read(segment, first.records[-1][1], FOREVER)
    assert (names(second), second.more, second.finished) == (["1"], True, False)
    third = read(segment, second.records[-1][1], FOREVER)
    assert (names(third), third.more, third.finished) == (["2"], False, True)


def test_a_full_segment_is_sealed_and_the_next_one_begun(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=4096)
    for number in range(20):
        writer.append(accepted(str(number), b"x" * 500))
    parts = [read(path, 0, FOREVER) for path in segments(tmp_path)]
    assert len(parts) > 2
    assert [name for part in parts for name in names(part)] == [str(number) for number in range(20)]
    assert [part.finished for part in parts] == [True] * (len(parts) - 1) + [False]


def test_a_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=4096)
    writer.append(accepted("large", os.urandom(3_000_000)))
    (segment,) = segments(tmp_path)
    assert len(read(segment, 0, FOREVER).records[0][0].verified.inbound.body) == 3_000_000


def test_threads_share_a_segment_and_lose_nothing(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=64 * 1024)

    def write(thread: int) -> None:
        for number in range(50):
            writer.append(accepted(f"{thread}-{number}", b"y" * 300))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [name for path in segments(tmp_path) for name in names(read(path, 0, FOREVER))]
    assert sorted(found) == sorted(f"{thread}-{number}" for thread in range(8) for number in range(50))


def _write_until_killed(folder: str, acknowledged: str) -> None:
    writer = JournalWriter(Path(folder))
    with open(acknowledged, "w") as log:
        for number in range(100_000):
            writer.append(accepted(str(number), b"z" * 700))
            log.write(f"{number}\n")
            log.flush()


def test_what_was_acknowledged_before_a_kill_is_found_in_the_dead_segment(tmp_path: Path) -> None:
    folder, log = tmp_path / "journal", tmp_path / "acknowledged"
    process = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(str(folder), str(log)))
    process.start()
    while not log.exists() or log.stat().st_size < 500:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    acknowledged = log.read_text().split()
    found: list[str] = []
    for path in segments(folder):
        offset = 0
        while True:
            part = read(path, offset, FOREVER)
            found += names(part)
            if not part.records:
                assert part.finished
                break
            offset = part.records[-1][1]
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1


def _dead_segment(folder: Path, content: bytes, zeros: int = 4096) -> Path:
    path = folder / "00000000000000000001-host-1-aa.seg"
    path.write_bytes(MAGIC + content + bytes(zeros))
    return path


def test_a_torn_last_record_was_never_acknowledged_and_ends_the_segment(tmp_path: Path) -> None:
    whole, torn = encode(accepted("whole")), encode(accepted("torn", b"t" * 400))[:200]
    path = _dead_segment(tmp_path, whole + torn)
    first = read(path, 0, FOREVER)
    assert names(first) == ["whole"]
    assert not first.finished
    rest = read(path, first.records[-1][1], FOREVER)
    assert rest.records == ()
    assert rest.finished
    assert rest.damaged == 0


def test_whole_records_behind_damage_are_saved_and_the_damage_is_told(tmp_path: Path) -> None:
    damaged = bytearray(encode(accepted("damaged", b"d" * 400)))
    damaged[100] ^= 0xFF
    path = _dead_segment(tmp_path, encode(accepted("before")) + bytes(damaged) + encode(accepted("behind")))
    first = read(path, 0, FOREVER)
    second = read(path, first.records[-1][1], FOREVER)
    assert (names(first), names(second), second.damaged) == (["before"], ["behind"], 1)
    assert read(path, second.records[-1][1], FOREVER).finished


@pytest.mark.parametrize("behind", [4096, 0])
@pytest.mark.parametrize("byte", [4, 6, 7])
def test_whole_records_behind_a_damaged_length_are_saved_and_the_damage_is_told(
    tmp_path: Path, byte: int, behind: int
) -> None:
    damaged = bytearray(encode(accepted("damaged", b"d" * 400)))
    damaged[byte] ^= 0x40
    path = _dead_segment(tmp_path, encode(accepted("before")) + bytes(damaged) + encode(accepted("behind")), behind)
    first = read(path, 0, FOREVER)
    assert (names(first), first.finished) == (["before"], False)
    second = read(path, first.records[-1][1], FOREVER)
    assert (names(second), second.damaged) == (["behind"], 1)
    assert read(path, second.records[-1][1], FOREVER).finished


@pytest.mark.parametrize("left", range(20))
def test_a_segment_that_is_full_to_its_last_bytes_is_not_damaged(tmp_path: Path, left: int) -> None:
    seal = SEAL if left >= len(SEAL) else b""
    path = _dead_segment(tmp_path, encode(accepted("last")) + seal, left - len(seal))
    found = read(path, 0, FOREVER)
    assert (names(found), found.finished, found.damaged) == (["last"], True, 0)


def test_a_body_that_looks_like_a_record_is_not_taken_for_one(tmp_path: Path) -> None:
    inner = encode(accepted("inner"))
    path = _dead_segment(tmp_path, encode(accepted("outer", inner)) + encode(accepted("next")))
    assert names(read(path, 0, FOREVER)) == ["outer", "next"]


def test_a_disk_that_takes_nothing_is_said_before_anything_is_promised(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    writer = JournalWriter(tmp_path / "journal")
    with pytest.raises(StorageUnavailable):
        writer.append(accepted("one"))


def test_a_writer_recovers_when_the_disk_does(tmp_path: Path) -> None:
    blocked = tmp_path / "journal"
    blocked.write_text("")
    writer = JournalWriter(blocked)
    with pytest.raises(StorageUnavailable):
        writer.append(accepted("one"))
    blocked.unlink()
    writer.append(accepted("two"))
    assert [name for path in segments(blocked) for name in names(read(path, 0, FOREVER))] == ["two"]


def test_a_forked_child_never_writes_into_its_parents_segment(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(accepted("parent"))
    child = os.fork()
    if child == 0:
        writer.append(accepted("child"))
        os._exit(0)
    os.waitpid(child, 0)
    writer.append(accepted("parent again"))
    found = [names(read(path, 0, FOREVER)) for path in segments(tmp_path)]
    assert found == [["parent", "parent again"], ["child"]]


def test_only_one_process_reads(tmp_path: Path) -> None:
    with sole_reader(tmp_path) as first, sole_reader(tmp_path) as second:
        assert first
        assert not second


def test_the_age_of_the_journal_counts_only_what_the_ledger_has_not_got(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    assert oldest_record(tmp_path) is None
    writer.append(accepted("one", clock=0))
    (segment,) = segments(tmp_path)
    arrived = datetime(2026, 6, 5, 9, 30, 0, 114000, tzinfo=UTC).timestamp()
    assert oldest_record(tmp_path) == arrived
    note_shipped(tmp_path, {segment.name: read(segment, 0, FOREVER).records[-1][1]})
    assert oldest_record(tmp_path) is None
