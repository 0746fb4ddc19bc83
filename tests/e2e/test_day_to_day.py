"""What people do beside a running bridge: change mappings, look at events, send again what failed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from watching import Make, ask, eventually, wait_for, write_mapping

from bridge.ledger.reading import find_event
from bridge.testing.campus import Campus, Day
from bridge.testing.target_server import TargetServer, serve_target

pytestmark = pytest.mark.e2e

TAKE_UP_SECONDS = 5.0
Messages = dict[str, dict[str, Any]]


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
        targets={
            "crm": {"connector": "http"},
            "lms": {"connector": "http", "base_url": slow.url, "timeout": 20, "concurrency": 16},
        },
        settings={"retry": {"first_delay_seconds": 1, "max_delay_seconds": 2}, "workers": {"processes": 1}},
    )
    started.start_bridge()
    return started


@pytest.fixture(autouse=True)
def undone(campus: Campus, slow: TargetServer) -> Iterator[None]:
    """Whatever a test did to them, the next one finds good targets."""
    yield
    for target in (campus.target, slow):
        target.knobs.down = target.knobs.hang = False
        target.knobs.fail_share = 0.0


def send(campus: Campus) -> str:
    """One webhook that was not there before; the id that its sender was given.

    The platform may tell somebody twice of one happening: here and to the senders of a whole day.
    """
    while True:
        answer = ask(campus.signed("edusign"))
        assert answer.status == 200
        name = str(answer.json["id"])
        story = eventually(lambda name=name: find_event(campus.ledger, name), seconds=20, about="it is an event")
        if story.delivery["id"] == name:
            return name


def messages(campus: Campus, name: str, *statuses: str) -> Messages:
    """The messages of a delivery's event by their mappings, once all of them have one of these states."""

    def settled() -> Messages:
        story = find_event(campus.ledger, name)
        found = story.messages if story else []
        return {row["mapping"]: row for row in found} if all(row["status"] in statuses for row in found) else {}

    return eventually(settled, seconds=20, about=f"all messages are {statuses}")


def take_up(campus: Campus, name: str, document: dict[str, Any]) -> None:
    """Change a mapping, and wait until the running worker uses it: 5 seconds at the most."""
    write_mapping(campus.mappings, name, document)
    title = document["with"]["json"]["title"]
    changed = time.monotonic()
    while not any(title in body for body in _bodies(campus, name)):
        assert time.monotonic() - changed < TAKE_UP_SECONDS + 1, "a second for the way through the bridge"


def delivered_keys(campus: Campus) -> set[str]:
    return set(campus.target.keys())


def _title(campus: Campus) -> str:
    row = messages(campus, send(campus), "delivered")["crm"]
    return str(row["params"]["json"]["title"])


def _bodies(campus: Campus, name: str) -> list[str]:
    row = messages(campus, send(campus), "delivered", "waiting", "dead").get(name)
    return [] if row is None else [json.dumps(row["params"]), f"{name}: {row['reason']}"]


@pytest.mark.parametrize("pieces", [False, True])
def test_a_webhook_of_which_only_a_part_came_is_refused(campus: Campus, pieces: bool) -> None:
    whole = campus.signed("edusign")
    part = whole.data
    assert isinstance(part, bytes)
    length = ("Transfer-Encoding", "chunked") if pieces else ("Content-Length", str(len(part) + 10))
    headers = [*whole.header_items(), length, ("Host", "bridge")]
    sent = "\r\n".join([f"POST {whole.selector} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)])
    sized = b"%x\r\n%s" % (len(part), part) if pieces else part
    with socket.create_connection(("127.0.0.1", int(campus.url.rpartition(":")[2])), timeout=10) as connection:
        connection.sendall(sent.encode() + b"\r\n\r\n" + sized)  # genuine, if what came were all
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_changed_mapping_is_taken_up_and_a_broken_one_is_not(campus: Campus) -> None:
    assert _title(campus) == "first"
    take_up(campus, "crm", mapping("second"))
    write_mapping(campus.mappings, "crm", "version: 1\nevents: [\n")
    time.sleep(TAKE_UP_SECONDS)
    assert _title(campus) == "second"
    ready = ask(f"{campus.url}/readyz")
    assert ready.status == 200
    assert ready.json["status"] == "degraded"
    assert "crm.yaml:" in ready.json["checks"]["mappings"][0]
    checked = campus.run("check")
    assert checked.returncode == 1
    assert re.search(rf"^{re.escape(str(campus.mappings / 'crm.yaml'))}:[23]\b", checked.stderr, re.MULTILINE)

    take_up(campus, "crm", mapping("third"))
    assert ask(f"{campus.url}/readyz").json == {
        "status": "ready",
        "checks": {"storage": "ok", "ledger": "ok", "redis": "ok", "mappings": "ok", "sources": "ok", "targets": "ok"},
    }
    assert campus.run("check").returncode == 0


def test_a_broken_mapping_keeps_its_last_good_version_when_the_worker_is_killed(campus: Campus) -> None:
    take_up(campus, "crm", mapping("kept"))
    write_mapping(campus.mappings, "crm", "version: one\n")
    for name, pid in campus.pids().items():
        if name.startswith("worker"):
            os.kill(pid, signal.SIGKILL)
    assert _title(campus) == "kept"
    take_up(campus, "crm", mapping("fourth"))


def test_a_target_that_was_down_gets_everything_and_the_retries_can_be_seen(campus: Campus) -> None:
    campus.target.reset()
    campus.target.knobs.down = True
    senders = campus.senders(Day(calls=100, rate=100, duplicates=0, disorder=0, forgeries=0))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=30)
    time.sleep(2.0)
    assert campus.target.state()["unique"] == 0
    campus.target.knobs.down = False
    assert campus.finished(30)
    names = senders["edusign"].accepted_ids()
    assert len(names) > 90
    tried = {name: messages(campus, name, "delivered")["crm"]["tries"] for name in names}
    again = {name: tries for name, tries in tried.items() if len(tries) > 1}
    assert 1 <= len(again) < 50, "after a few tries the target was left alone, and the others waited"
    for tries in again.values():
        assert [entry["verdict"] for entry in tries] == ["retry"] * (len(tries) - 1) + ["ok"]
    shown = campus.run("events", "show", next(iter(again))).stdout
    assert "try 1 at" in shown
    assert "retry" in shown
    assert "delivered" in shown


def test_a_target_that_hangs_delays_no_other(campus: Campus, slow: TargetServer) -> None:
    take_up(campus, "lms", mapping("slow", target="lms"))
    assert campus.finished(20)
    slow.reset()
    campus.target.reset()
    slow.knobs.hang = True
    senders = campus.senders(Day(calls=300, rate=100, duplicates=0, disorder=0, forgeries=0))
    for sender in senders.values():
        sender.start()
    wait_for(senders.values(), seconds=30)
    expected = len(senders["edusign"].accepted_ids())
    eventually(lambda: campus.target.state()["unique"] >= expected - 10, seconds=15, about="the other has it all")
    assert slow.state()["unique"] == 0
    slow.knobs.hang = False
    assert campus.finished(40)
    assert slow.state()["unique"] == campus.target.state()["unique"]


def test_a_failing_template_is_a_dead_letter_that_a_replay_delivers_under_its_old_key(campus: Campus) -> None:
    take_up(campus, "failing", mapping("failing", number="{{ event.type | int }}"))
    assert campus.run("deliveries", "discard", "--yes", "--all-dead").returncode == 0
    name = send(campus)
    by_mapping = messages(campus, name, "delivered", "dead")
    assert by_mapping["crm"]["status"] == by_mapping["lms"]["status"] == "delivered"
    dead = by_mapping["failing"]
    assert (dead["status"], dead["step"]) == ("dead", "map")
    assert dead["reason"] == "with.json.number: expected a number"
    assert dead["tries"] == []

    listed = json.loads(campus.run("deliveries", "list", "--status", "dead", "--json").stdout)
    assert [(row["key"], row["mapping"], row["reason"]) for row in listed] == [(dead["key"], "failing", dead["reason"])]
    refused = campus.run("deliveries", "retry", dead["key"][:8])
    assert refused.returncode == 1
    assert "events replay" in refused.stderr

    take_up(campus, "failing", mapping("mended"))
    before = campus.target.keys()[by_mapping["crm"]["key"]]
    story = find_event(campus.ledger, name)
    assert story is not None
    assert campus.run("events", "replay", story.event["id"]).returncode == 0
    eventually(lambda: dead["key"] in delivered_keys(campus), seconds=20, about="the message that failed is delivered")
    after = messages(campus, name, "delivered")
    assert {row["key"] for row in after.values()} == {row["key"] for row in by_mapping.values()}
    assert campus.target.keys()[dead["key"]] == 1
    assert campus.target.keys()[by_mapping["crm"]["key"]] == before + 1


def test_dead_letters_are_sent_again_or_given_up_by_hand(campus: Campus) -> None:
    campus.target.knobs.fail_share, campus.target.knobs.fail_status = 1.0, 400
    first, second = (messages(campus, send(campus), "dead", "delivered")["crm"] for _ in range(2))
    campus.target.knobs.fail_share, campus.target.knobs.fail_status = 0.0, 503
    assert (first["status"], first["reason"]) == ("dead", "HTTP 400")
    assert campus.run("deliveries", "retry", first["key"][:8]).returncode == 0
    eventually(lambda: first["key"] in delivered_keys(campus), seconds=20, about="it is delivered")
    assert campus.run("deliveries", "discard", "--yes", second["key"]).stdout == "1 given up.\n"
    listed = json.loads(campus.run("deliveries", "list", "--mapping", "crm", "--json").stdout)
    assert {row["key"]: row["status"] for row in listed}[second["key"]] == "discarded"
    assert campus.run("deliveries", "retry", "--all-dead").returncode == 0
    assert campus.finished(20)
    dead = json.loads(campus.run("deliveries", "list", "--status", "dead", "--json").stdout)
    assert {row["step"] for row in dead} <= {"map"}  # those need a replay


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
    assert len({line["type"] for line in lines}) == 1
    listed = json.loads(campus.run("events", "list", "--limit", "20", "--json").stdout)
    assert {row["id"] for row in listed} == {line["id"] for line in lines}
    assert campus.finished(20)
