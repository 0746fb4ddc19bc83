"""The same as in tests/e2e, for longer: ten rounds of kill -9, half a minute without the database."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from cluster import Cluster
from killing import survive
from watching import Make, account_for, alive, ask, eventually, family, oldest, wait_for

from bridge.config.shipped import shipped_mappings
from bridge.testing.campus import Day

pytestmark = pytest.mark.e2e

ROUNDS = int(os.environ.get("CAMPUSBRIDGE_SOAK_ROUNDS", "10"))
PLATFORMS = ("edusign", "inspera", "wise", "wiseflow")
EVERYTHING = {
    "version": 1,
    "description": "Every event as it is",
    "events": ["*"],
    "target": "crm",
    "operation": "request",
    "with": {"method": "POST", "path": "/events", "json": {"id": "{{ event.id }}", "type": "{{ event.type }}"}},
}


def test_ten_rounds_of_kill_9_at_200_webhooks_a_second_lose_nothing(make_campus: Make) -> None:
    campus = make_campus(*PLATFORMS, mappings=shipped_mappings())
    campus.start_bridge()
    figures = survive(campus, rounds=ROUNDS, pause=3.0, rate=200, patience=180)
    assert figures["accepted"] > 1000 * ROUNDS


def test_ten_rounds_of_kill_9_on_postgresql_lose_nothing(make_campus: Make) -> None:
    with Cluster() as cluster:
        campus = make_campus(*PLATFORMS, mappings=shipped_mappings(), database=cluster.database("soak"))
        campus.start_bridge()
        figures = survive(campus, rounds=max(1, ROUNDS // 3), pause=3.0, rate=200, patience=180)
        campus.stop_bridge()
    assert figures["accepted"] > 300 * ROUNDS


def test_half_a_minute_without_the_database_costs_nothing_but_time(make_campus: Make) -> None:
    with Cluster() as cluster:
        database = cluster.database("soak")
        campus = make_campus("edusign", "wiseflow", mappings=shipped_mappings(), database=database)
        campus.start_bridge()
        senders = campus.senders(Day(calls=4000, rate=100))
        for sender in senders.values():
            sender.start()
        time.sleep(3.0)
        cluster.stop()
        time.sleep(30.0)
        assert (oldest(campus, "journal") or 0) > 25
        cluster.start()
        wait_for(senders.values(), seconds=120)
        assert campus.finished(120)
        assert oldest(campus, "journal") == 0
        assert [sender.account().failures for sender in senders.values()] == [Counter(), Counter()]
        account_for(campus, senders)
        campus.stop_bridge()


def test_a_bridge_starts_while_its_database_is_away(make_campus: Make) -> None:
    with Cluster() as cluster:
        database = cluster.database("soak")
        campus = make_campus(
            "edusign", mappings={"all": EVERYTHING}, targets={"crm": {"connector": "http"}}, database=database
        )
        cluster.stop()
        campus.start_bridge()
        senders = campus.senders(Day(calls=100, rate=100))
        for sender in senders.values():
            sender.start()
        wait_for(senders.values(), seconds=30)
        cluster.start()
        eventually(lambda: campus.run("events", "list", "--json").returncode == 0, seconds=30)
        eventually(lambda: oldest(campus, "journal") == 0, seconds=30, about="the journal is in the ledger")
        assert campus.finished(60)
        assert [sender.account().failures for sender in senders.values()] == [Counter()]
        account_for(campus, senders)
        campus.stop_bridge()


def test_sigterm_is_heeded_while_a_target_hangs(make_campus: Make) -> None:
    campus = make_campus("edusign", mappings={"all": EVERYTHING}, targets={"crm": {"connector": "http"}})
    campus.start_bridge()
    campus.target.knobs.hang = True
    assert ask(campus.signed("edusign")).status == 200
    eventually(lambda: "crm" in campus.run("deliveries", "list").stdout, seconds=15, about="there is a message")
    time.sleep(1.0)
    pids = family(campus)
    os.kill(campus.pids()["supervisor"], signal.SIGTERM)
    eventually(lambda: not [pid for pid in pids if alive(pid)], seconds=20, about="all have ended")
    campus.target.knobs.hang = False
    campus.start_bridge()
    assert campus.finished(60)
    assert len(campus.target.keys()) == 1  # what hung and what came again carry one key
