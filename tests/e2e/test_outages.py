"""What the bridge stands on goes away under it: the Redis-compatible server's data, the database, the disk."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster
from redis import Redis
from watching import Answered, Make, account_for, ask, children, eventually, kill, killed, oldest, wait_for

from bridge.config.shipped import shipped_mappings
from bridge.engine.embedded import ensure, release, running
from bridge.testing.campus import Campus, Day
from bridge.testing.sender import Sender

pytestmark = pytest.mark.e2e

OUTAGE_SECONDS = float(os.environ.get("CAMPUSBRIDGE_OUTAGE_SECONDS", "8"))
EVERYTHING = {
    "version": 1,
    "description": "Every event as it is",
    "events": ["*"],
    "target": "crm",
    "operation": "request",
    "with": {"method": "POST", "path": "/events", "json": {"id": "{{ event.id }}", "type": "{{ event.type }}"}},
}
CRM = {"crm": {"connector": "http"}}


def test_redis_data_that_is_deleted_while_work_is_queued_costs_time_and_nothing_else(make_campus: Make) -> None:
    campus = make_campus("edusign", "wiseflow", mappings=shipped_mappings())
    campus.start_bridge()
    senders = campus.senders(Day(calls=800, rate=200))
    for sender in senders.values():
        sender.start()
    time.sleep(1.5)
    redis = campus.data / "redis"
    with Redis.from_url(ensure(redis)) as client:
        client.flushall()
    release(redis)
    time.sleep(1.0)
    killed(campus, "redis")
    shutil.rmtree(redis, ignore_errors=True)  # it may be starting again already
    time.sleep(1.0)
    shutil.rmtree(redis, ignore_errors=True)  # under a server that lives
    wait_for(senders.values(), seconds=60)
    assert campus.finished(30)
    assert account_for(campus, senders)["accepted"] > 700
    assert eventually(lambda: running(redis), seconds=5)


# --- the database -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What was seen of two bridges whose database was gone for a while: one accepts into its journal, one into it."""

    journal: Campus
    ledger: Campus
    senders: Mapping[str, Mapping[str, Sender]]
    ages: Sequence[float | None]
    ready: Sequence[Answered]
    refused: Sequence[Answered]
    finished_after: float


@pytest.fixture(scope="module")
def outage(make_campus: Make) -> Iterator[Outage]:
    with Cluster() as cluster:
        bridges = {
            accept: make_campus(
                "edusign" if accept == "journal" else "wiseflow",
                mappings={"all": EVERYTHING},
                targets=CRM,
                database=cluster.database(accept),
                accept=accept,
                settings={"workers": {"processes": 1}},
            )
            for accept in ("journal", "ledger")
        }
        for campus in bridges.values():
            campus.start_bridge()
        day = Day(calls=int(30 * (OUTAGE_SECONDS + 4)), rate=30, time_scale=0.002)
        senders = {accept: campus.senders(day) for accept, campus in bridges.items()}
        every = [sender for group in senders.values() for sender in group.values()]
        for sender in every:
            sender.start()
        time.sleep(1.5)
        cluster.stop()
        gone = time.monotonic()
        ages, ready, refused = [], [], []
        while time.monotonic() - gone < OUTAGE_SECONDS:
            ages.append(oldest(bridges["journal"], "journal"))
            ready.append(ask(f"{bridges['journal'].url}/readyz"))
            refused.append(ask(bridges["ledger"].signed("wiseflow")))
            time.sleep(1.0)
        cluster.start()
        wait_for(every, seconds=90)
        ended = time.monotonic()
        assert all(campus.finished(30) for campus in bridges.values())
        yield Outage(
            **bridges,
            senders=senders,
            ages=ages,
            ready=ready,
            refused=refused,
            finished_after=time.monotonic() - ended,
        )
        for campus in bridges.values():
            campus.stop_bridge()


def test_webhooks_are_taken_in_while_the_database_is_away(outage: Outage) -> None:
    account = outage.senders["journal"]["edusign"].account()
    assert account.failures == Counter()
    assert account.gave_up == 0
    assert {answer.status for answer in outage.ready} == {200}
    assert all(answer.json["checks"]["ledger"].startswith("unreachable") for answer in outage.ready)
    assert outage.finished_after < 90
    account_for(outage.journal, outage.senders["journal"])


def test_the_age_of_the_journal_grows_while_the_database_is_away_and_is_zero_afterwards(outage: Outage) -> None:
    ages = [age for age in outage.ages if age is not None]
    assert len(ages) == len(outage.ages)
    assert ages == sorted(ages)
    assert ages[-1] > ages[0] + OUTAGE_SECONDS / 2
    assert oldest(outage.journal, "journal") == 0


def test_a_bridge_that_accepts_into_the_database_asks_for_another_try_while_it_is_away(outage: Outage) -> None:
    assert "shipper" not in outage.ledger.pids()
    assert {answer.status for answer in outage.refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in outage.refused)
    assert outage.senders["ledger"]["wiseflow"].account().failures.keys() == {"503"}
    assert account_for(outage.ledger, outage.senders["ledger"])["gave_up"] == 0


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of its own that is soon full; None where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", place], check=False, capture_output=True
        ).returncode
    )
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_what_comes_later_is_taken_again(make_campus: Make, small_disk: Path | None) -> None:
    campus = make_campus("wiseflow", mappings={"all": EVERYTHING}, targets=CRM)
    if small_disk is not None:
        campus.data.symlink_to(small_disk, target_is_directory=True)
    campus.start_bridge()
    assert ask(campus.signed("wiseflow")).status == 200
    master = campus.pids()["web"]
    undo = _fill(small_disk) if small_disk is not None else _forbid_large_files(campus)
    kill(children(master))  # so that all of them need new segments at once, not after some megabytes of webhooks
    eventually(lambda: _answered(campus) != 0, seconds=15, about="new web processes take requests")
    refused = [ask(campus.signed("wiseflow")) for _ in range(20)]
    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert campus.pids()["web"] == master
    undo()
    senders = campus.senders(Day(calls=100, rate=100, time_scale=0.002))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=60)
    assert campus.finished(30)
    assert account_for(campus, senders)["gave_up"] == 0


def _answered(campus: Campus) -> int:
    try:
        return ask(campus.signed("wiseflow")).status
    except OSError:
        return 0


def _fill(disk: Path) -> Callable[[], None]:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            while True:
                try:
                    if file.write(bytes(size)) < size:
                        break
                except OSError:
                    break
    return filler.unlink


def _forbid_large_files(campus: Campus) -> Callable[[], None]:
    master = campus.pids()["web"]
    before = resource.prlimit(master, resource.RLIMIT_FSIZE)
    resource.prlimit(master, resource.RLIMIT_FSIZE, (1024 * 1024, before[1]))  # those that it forks inherit it

    def undo() -> None:
        for pid in (master, *children(master)):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    return undo
