"""What people do beside a running bridge: change mappings, look at events, send again what failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from watching import Make, account_for, ask, eventually, wait_for, write_mapping

from bridge.testing.campus import Campus, Day
from bridge.testing.target_server import TargetServer, serve_target

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e")]

TAKE_UP_SECONDS = 5.0


def mapping(title: str, *, target: str = "crm", events: str = "*", **leaves: str) -> dict[str, Any]:
    body = {"title": title, "id": "{{ event.id }}"} | leaves
    return {
        "version": 1,
        "description": "For a test",
        "events": [events],
        "target": target,
        "operation": "request",
        "with": {"method": "POST", "path": f"/{target}", "json": body},
    }


@pytest.fixture(scope="module")
def slow() -> Iterator[TargetServer]:
    """A second target, with knobs of its own."""
    with serve_target() as target:
        yield target


@pytest.fixture(scope="module")
def campus(make_campus: Make, slow: TargetServer) -> Campus:
    """One bridge for all tests here; each leaves it with good mappings and targets that answer."""
    started = make_campus(
        "edusign",
        mappings={"crm": mapping("first")},
        targets={"crm": {"connector": "http"}, "lms": {"connector": "http", "base_url": slow.url, "timeout": 5}},
        settings={"retry": {"first_delay_seconds": 1, "max_delay_seconds": 2}},
    )
    started.start_bridge()
    return started


@pytest.fixture(autouse=True)
def undone(campus: Campus, slow: TargetServer) -> Iterator[None]:
    """Whatever a test did to them, the next one finds good targets."""
    yield
    for target in (campus.target, slow):
        target.knobs.down = target.knobs.hang = False


def story(campus: Campus, name: str) -> dict[str, Any]:
    """What `events show` says, once there is an event."""

    def shown() -> dict[str, Any] | None:
        answer = campus.run("events", "show", name, "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    return eventually(shown, seconds=20, about="the delivery has become an event")


def delivered(campus: Campus, name: str, *, seconds: float = 20) -> list[dict[str, Any]]:
    """The messages of a delivery's event once all of them are delivered."""

    def done() -> list[dict[str, Any]]:
        messages = story(campus, name)["messages"]
        return messages if messages and all(message["status"] == "delivered" for message in messages) else []

    return eventually(done, seconds=seconds, about="all messages are delivered")


def send(campus: Campus) -> str:
    """One webhook; the id that its sender was given."""
    answer = ask(campus.signed("edusign"))
    assert answer.status == 200
    return str(answer.json["id"])


def title_of(campus: Campus, name: str) -> str:
    body = campus.target.body(delivered(campus, name)[0]["key"])
    assert body is not None
    return str(json.loads(body)["title"])


def test_a_changed_mapping_is_taken_up_and_a_broken_one_is_not(campus: Campus) -> None:
    assert title_of(campus, send(campus)) == "first"
    write_mapping(campus.mappings, "crm", mapping("second"))
    time.sleep(TAKE_UP_SECONDS)
    assert title_of(campus, send(campus)) == "second"

    write_mapping(campus.mappings, "crm", "version: 1\nevents: [\n")
    time.sleep(TAKE_UP_SECONDS)
    assert title_of(campus, send(campus)) == "second"
    ready = ask(f"{campus.url}/readyz")
    assert ready.status == 200
    assert ready.json["status"] == "degraded"
    assert "crm.yaml:" in ready.json["checks"]["mappings"][0]
    checked = campus.run("check")
    assert checked.returncode == 1
    assert f"{campus.mappings / 'crm.yaml'}:3" in checked.stderr or f"{campus.mappings / 'crm.yaml'}:2" in checked.stderr

    write_mapping(campus.mappings, "crm", mapping("third"))
    time.sleep(TAKE_UP_SECONDS)
    assert title_of(campus, send(campus)) == "third"
    assert ask(f"{campus.url}/readyz").json == {
        "status": "ready",
        "checks": {"storage": "ok", "ledger": "ok", "redis": "ok", "mappings": "ok"},
    }
    assert campus.run("check").returncode == 0


def test_a_broken_mapping_keeps_its_last_good_version_when_the_worker_is_killed(campus: Campus) -> None:
    write_mapping(campus.mappings, "crm", mapping("kept"))
    time.sleep(TAKE_UP_SECONDS)
    write_mapping(campus.mappings, "crm", "version: one\n")
    for name, pid in campus.pids().items():
        if name.startswith("worker"):
            os.kill(pid, signal.SIGKILL)
    assert title_of(campus, send(campus)) == "kept"
    write_mapping(campus.mappings, "crm", mapping("fourth"))
    time.sleep(TAKE_UP_SECONDS)


def test_a_target_that_was_down_gets_everything_and_the_retries_can_be_seen(campus: Campus) -> None:
    campus.target.reset()
    campus.target.knobs.down = True
    senders = campus.senders(Day(calls=100, rate=100, duplicates=0, disorder=0, forgeries=0))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=30)
    time.sleep(4.0)
    assert campus.target.state()["unique"] == 0
    campus.target.knobs.down = False
    assert campus.finished(30)
    names = senders["edusign"].accepted_ids()
    assert len(names) > 90
    for name in sorted(names)[:3]:
        tries = delivered(campus, name)[0]["tries"]
        assert len(tries) > 1
        assert [entry["verdict"] for entry in tries] == ["retry"] * (len(tries) - 1) + ["ok"]
    shown = campus.run("events", "show", sorted(names)[0]).stdout
    assert "try 1 at" in shown
    assert "delivered" in shown


def test_a_target_that_hangs_delays_no_other(campus: Campus, slow: TargetServer) -> None:
    write_mapping(campus.mappings, "lms", mapping("slow", target="lms"))
    time.sleep(TAKE_UP_SECONDS)
    campus.target.reset()
    slow.knobs.hang = True
    senders = campus.senders(Day(calls=300, rate=100, duplicates=0, disorder=0, forgeries=0))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=30)
    expected = len(senders["edusign"].accepted_ids())
    eventually(lambda: campus.target.state()["unique"] >= expected - 10, seconds=5, about="the other target has it all")
    assert slow.state()["unique"] == 0
    slow.knobs.hang = False
    assert campus.finished(40)
    assert slow.state()["unique"] == campus.target.state()["unique"]
    (campus.mappings / "lms.yaml").unlink()
    time.sleep(TAKE_UP_SECONDS)


def test_a_failing_template_is_a_dead_letter_that_a_replay_delivers_under_its_old_key(campus: Campus) -> None:
    write_mapping(campus.mappings, "failing", mapping("failing", number="{{ event.type | int }}"))
    time.sleep(TAKE_UP_SECONDS)
    name = send(campus)
    by_mapping = eventually(lambda: _closed(campus, name), seconds=20, about="both messages are closed")
    assert by_mapping["crm"]["status"] == "delivered"
    dead = by_mapping["failing"]
    assert (dead["status"], dead["step"]) == ("dead", "map")
    assert dead["reason"] == "with.json.number: expected a number"
    assert dead["tries"] == []

    listed = json.loads(campus.run("deliveries", "list", "--status", "dead", "--json").stdout)
    assert [(row["key"], row["mapping"]) for row in listed] == [(dead["key"], "failing")]
    refused = campus.run("deliveries", "retry", dead["key"][:8])
    assert refused.returncode == 1
    assert "events replay" in refused.stderr

    write_mapping(campus.mappings, "failing", mapping("mended"))
    time.sleep(TAKE_UP_SECONDS)
    before = campus.target.keys()[by_mapping["crm"]["key"]]
    assert campus.run("events", "replay", story(campus, name)["event"]["id"]).returncode == 0
    after = {message["mapping"]: message for message in delivered(campus, name)}
    assert after["failing"]["key"] == dead["key"]
    assert campus.target.keys()[dead["key"]] == 1
    assert campus.target.keys()[by_mapping["crm"]["key"]] == before + 1
    (campus.mappings / "failing.yaml").unlink()
    time.sleep(TAKE_UP_SECONDS)


def _closed(campus: Campus, name: str) -> dict[str, Any] | None:
    messages = {message["mapping"]: message for message in story(campus, name)["messages"]}
    closed = len(messages) == 2 and all(message["status"] != "waiting" for message in messages.values())
    return messages if closed else None


def test_dead_letters_are_sent_again_or_given_up_by_hand(campus: Campus) -> None:
    campus.target.knobs.fail_share, campus.target.knobs.fail_status = 1.0, 400
    names = [send(campus), send(campus)]
    first, second = (
        eventually(lambda name=name: _dead(campus, name), seconds=20, about="the message is dead") for name in names
    )
    campus.target.knobs.fail_share, campus.target.knobs.fail_status = 0.0, 503
    assert campus.run("deliveries", "retry", first["key"][:8]).returncode == 0
    assert delivered(campus, names[0])[0]["key"] == first["key"]
    assert campus.run("deliveries", "discard", "--yes", second["key"]).stdout == "1 given up.\n"
    assert story(campus, names[1])["messages"][0]["status"] == "discarded"
    assert json.loads(campus.run("deliveries", "list", "--status", "dead", "--json").stdout) == []


def _dead(campus: Campus, name: str) -> dict[str, Any] | None:
    messages: list[dict[str, Any]] = story(campus, name)["messages"]
    return messages[0] if messages and messages[0]["status"] == "dead" else None


def test_a_platform_can_be_played_and_its_events_be_followed(campus: Campus) -> None:
    command = [sys.executable, "-m", "bridge.main", "--config", str(campus.configuration), "events", "tail", "--json"]
    tail = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(2.0)
        played = campus.run(
            "simulate", "edusign-main", "--rate", "50", "--count", "20", "--kind", "on_course_created", "--json"
        )
        assert played.returncode == 0, played.stderr
        assert json.loads(played.stdout)["accepted"] == 20
        assert tail.stdout is not None
        lines = [json.loads(tail.stdout.readline()) for _ in range(20)]
    finally:
        tail.kill()
        tail.communicate()
    assert {line["type"] for line in lines} == {"com.campusbridge.session.scheduled"} or len(lines) == 20
    listed = json.loads(campus.run("events", "list", "--limit", "20", "--json").stdout)
    assert {row["id"] for row in listed} == {line["id"] for line in lines}
    assert campus.finished(20)


def test_the_account_of_all_that_happened_here_adds_up(campus: Campus) -> None:
    """Last in this file: the ledger knows every one of the calls above."""
    senders = campus.senders(Day(calls=20, rate=None, duplicates=0.5, forgeries=0.5))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=30)
    assert campus.finished(20)
    assert campus.report(senders, time.monotonic()).rejected > 0
    assert account_for
