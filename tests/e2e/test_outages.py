"""What the bridge stands on goes away under it: the Redis-compatible server's data, the database, the disk."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from redis import Redis
from watching import Make, account_for, ask, children, eventually, kill, killed, oldest, wait_for

from bridge.config.shipped import shipped_mappings
from bridge.engine.embedded import ensure, release, running
from bridge.testing.campus import Campus, Day

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as started:
        yield started


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
    shutil.rmtree(redis)
    time.sleep(1.0)
    shutil.rmtree(redis, ignore_errors=True)  # under a server that lives
    wait_for(senders.values(), seconds=60)
    ended = time.monotonic()
    assert campus.finished(30)
    assert time.monotonic() - ended < 30
    assert account_for(campus, senders)["accepted"] > 700
    assert eventually(lambda: running(redis), seconds=5)


def test_webhooks_are_taken_in_while_the_database_is_away(make_campus: Make, cluster: Cluster) -> None:
    campus = make_campus("edusign", "wiseflow", mappings={"all": EVERYTHING}, targets=CRM, database=cluster.database("journal"))
    campus.start_bridge()
    rate = 50.0
    senders = campus.senders(Day(calls=int(rate * (OUTAGE_SECONDS + 5)), rate=rate))
    for sender in senders.values():
        sender.start()
    time.sleep(1.5)
    cluster.stop()
    gone = time.monotonic()
    ages = []
    while time.monotonic() - gone < OUTAGE_SECONDS:
        ages.append(oldest(campus, "journal"))
        assert ask(f"{campus.url}/readyz").json["checks"]["ledger"].startswith("unreachable")
        time.sleep(1.0)
    cluster.start()
    wait_for(senders.values(), seconds=60)
    ended = time.monotonic()
    assert campus.finished(30)
    assert time.monotonic() - ended < 30
    assert [sender.account().failures for sender in senders.values()] == [Counter(), Counter()]
    assert ages == sorted(ages)
    assert ages[-1] > ages[0] + OUTAGE_SECONDS / 2
    assert oldest(campus, "journal") == 0
    assert account_for(campus, senders)["gave_up"] == 0


def test_a_bridge_that_accepts_into_the_database_asks_for_another_try_while_it_is_away(
    make_campus: Make, cluster: Cluster
) -> None:
    campus = make_campus(
        "wiseflow",
        mappings={"all": EVERYTHING},
        targets=CRM,
        database=cluster.database("ledger"),
        accept="ledger",
    )
    campus.start_bridge()
    assert "shipper" not in campus.pids()
    senders = campus.senders(Day(calls=300, rate=50, time_scale=0.002))
    for sender in senders.values():
        sender.start()
    time.sleep(1.5)
    cluster.stop()
    refused = [ask(campus.signed("wiseflow")) for _ in range(3)]
    time.sleep(2.0)
    cluster.start()
    wait_for(senders.values(), seconds=60)
    assert {answer.status for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
    assert senders["wiseflow"].account().failures.keys() == {"503"}
    assert campus.finished(30)
    figures = account_for(campus, senders)
    assert figures["gave_up"] == 0
    assert figures["delivered"] > 250


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of its own that is soon full; None where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", place], check=False, capture_output=True
    ).returncode
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
