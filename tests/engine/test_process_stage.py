"""Deliveries become events and messages, whatever the platform's API, a connector or a mapping does."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_parts import EVERYTHING, PAPERS, SECRET, SOURCE, TARGET, BrokenSource, Parts, parts_for
from sqlalchemy import update

from bridge.core.signing import sign
from bridge.core.simulation import Call
from bridge.engine.batches import MAX_STARTS
from bridge.ledger.byhand import replay
from bridge.ledger.database import Ledger, moment
from bridge.ledger.figures import totals
from bridge.ledger.tables import deliveries_in
from bridge.testing.event_schema import faults

Build = Callable[..., Parts]


@pytest.fixture
def build(ledger: Ledger, tmp_path: Path) -> Iterator[Build]:
    made: list[Parts] = []

    def make(**how: Any) -> Parts:
        made.append(parts_for(ledger, tmp_path, **how))
        made[-1].map("papers", PAPERS)
        return made[-1]

    yield make
    for parts in made:
        parts.close()


def hand_in(parts: Parts) -> Call:
    return parts.platform.sample("paper.submission")


def test_a_hand_in_is_completed_and_reaches_the_target(build: Build) -> None:
    parts = build()
    parts.receive(hand_in(parts))
    parts.settle()
    [event], [message] = parts.events(), parts.messages()
    document = json.loads(event.body)
    assert (document["type"], document["enrichment"]) == ("edu.submission.submitted.v1", "full")
    assert document["data"]["person"]["email"]
    assert faults(document) == []
    assert (message.status, message.step) == ("delivered", "deliver")
    assert parts.sent(message) == {"subject": event.subject, "status": "submitted", "enrichment": "full"}
    calls = json.loads(event.trace)["enrichment"]["calls"]
    assert {call["status"] for call in calls} == {200}


def test_while_the_api_is_away_the_delivery_waits_and_then_goes_on_whole(build: Build) -> None:
    parts = build()
    parts.api.fail(503)
    parts.receive(hand_in(parts))
    parts.settle()
    [row] = parts.deliveries()
    assert (row.status, row.attempts, row.starts) == ("waiting", 1, 0)
    assert row.reason == "the platform's API answered 503"
    assert moment(row.due_ms) > datetime.now(UTC)
    assert parts.events() == []
    parts.api.heal()
    parts.settle()
    assert parts.events() == [], "it was taken before it was due"
    parts.settle(later=10)
    [event] = parts.events()
    assert json.loads(event.body)["enrichment"] == "full"
    assert json.loads(event.trace)["enrichment"]["waits"] == 1
    assert parts.messages()[0].status == "delivered"


def test_the_api_says_when_to_come_back(build: Build) -> None:
    parts = build()
    parts.api.fail(429, retry_after=120)
    parts.receive(hand_in(parts))
    parts.settle()
    left = parts.deliveries()[0].due_ms / 1000 - time.time()
    assert 110 < left < 160


def test_after_its_deadline_the_event_goes_on_without_what_the_api_knows(build: Build) -> None:
    parts = build(deadline=timedelta(seconds=0.5))
    parts.api.fail(503)
    parts.receive(hand_in(parts))
    parts.settle()
    assert parts.deliveries()[0].status == "waiting"
    time.sleep(0.5)
    parts.settle(later=10)
    [event], [message] = parts.events(), parts.messages()
    document = json.loads(event.body)
    assert document["enrichment"] == "missing"
    assert faults(document) == []
    assert json.loads(event.trace)["enrichment"]["reason"] == "the platform's API answered 503"
    assert (message.status, parts.sent(message)["enrichment"]) == ("delivered", "missing")


def test_what_went_on_without_the_api_is_made_whole_by_a_replay(build: Build) -> None:
    parts = build(deadline=timedelta(seconds=0))
    parts.api.fail(503)
    name = parts.receive(hand_in(parts))
    parts.settle()
    [before] = parts.messages()
    parts.api.heal()
    replay(parts.ledger, [name], who="ada")
    parts.settle()
    [event], [after] = parts.events(), parts.messages()
    assert json.loads(event.body)["enrichment"] == "full"
    assert (after.key, after.status) == (before.key, "delivered")
    assert parts.sent(after)["enrichment"] == "full"
    assert parts.target.keys() == {after.key: 2}


def test_a_replay_of_an_old_delivery_waits_for_the_api_and_what_is_known_stays_until_then(build: Build) -> None:
    parts = build()
    name = parts.receive(hand_in(parts), at=datetime.now(UTC) - timedelta(hours=2))
    parts.settle()
    [before] = parts.events()
    parts.api.fail(503)
    replay(parts.ledger, [name], who="ada")
    for later in (0, 10, 60):
        parts.settle(later=later)
        assert parts.deliveries()[0].status == "waiting"
        assert [row.body for row in parts.events()] == [before.body]
    [message] = parts.messages()
    assert (message.status, parts.target.keys()) == ("delivered", {message.key: 1})
    parts.api.heal()
    parts.settle(later=3600)
    [event], [message] = parts.events(), parts.messages()
    assert json.loads(event.body)["enrichment"] == "full"
    assert (message.status, parts.sent(message)["enrichment"]) == ("delivered", "full")
    assert parts.target.keys() == {message.key: 2}
    assert parts.deliveries()[0].status == "done"


def test_a_replay_that_the_api_never_answers_leaves_what_is_known(build: Build) -> None:
    parts = build(deadline=timedelta(seconds=1))
    name = parts.receive(hand_in(parts))
    parts.settle()
    [before], keys = parts.events(), parts.target.keys()
    parts.api.fail(503)
    replay(parts.ledger, [name], who="ada")
    for later in (0, 3600, 7200):
        time.sleep(0.4)
        parts.settle(later=later)
    [delivery], [event] = parts.deliveries(), parts.events()
    assert (delivery.status, event.body, parts.target.keys()) == ("dead", before.body, keys)
    assert "replay it again" in delivery.reason
    parts.api.heal()
    replay(parts.ledger, [name], who="ada")
    parts.settle(later=7200)
    assert parts.deliveries()[0].status == "done"
    assert list(parts.target.keys().values()) == [2]


def test_a_backlog_that_is_older_than_the_deadline_waits_out_a_limit_and_goes_on_whole(build: Build) -> None:
    parts = build()
    old = datetime.now(UTC) - timedelta(hours=2)
    for _ in range(20):
        parts.receive(hand_in(parts), at=old)
    parts.api.fail(429, retry_after=1)
    parts.settle(rounds=1)
    assert {row.status for row in parts.deliveries()} == {"waiting"}
    assert parts.events() == []
    parts.api.heal()
    time.sleep(1.0)
    parts.settle(later=60)
    assert {row.status for row in parts.deliveries()} == {"done"}
    assert {json.loads(row.body)["enrichment"] for row in parts.events()} == {"full"}


def test_a_backlog_that_is_older_than_the_deadline_goes_on_after_a_while_without_the_api(build: Build) -> None:
    parts = build()
    parts.api.fail(503)
    parts.receive(hand_in(parts), at=datetime.now(UTC) - timedelta(hours=2))
    for later in (0, 10, 20, 40, 80, 160):
        parts.settle(later=later)
    [event] = parts.events()
    assert json.loads(event.body)["enrichment"] == "missing"
    assert 2 <= json.loads(event.trace)["enrichment"]["waits"] <= 5


@pytest.mark.parametrize("again", [False, True])
def test_a_deadline_of_nothing_means_that_nothing_waits_for_the_api(build: Build, again: bool) -> None:
    parts = build(deadline=timedelta(0))
    parts.api.fail(429, retry_after=60)
    name = parts.receive(hand_in(parts), at=datetime.now(UTC) - timedelta(hours=2))
    parts.settle()
    if again:
        replay(parts.ledger, [name], who="ada")
        parts.settle()
    [row], [event] = parts.deliveries(), parts.events()
    assert (row.status, json.loads(event.body)["enrichment"]) == ("done", "missing")


def test_one_subject_that_waits_does_not_hold_up_the_others_of_its_source(build: Build) -> None:
    parts = build()
    parts.map("all", EVERYTHING)
    parts.api.fail(503)
    parts.receive(hand_in(parts))
    for _ in range(3):
        parts.receive(parts.platform.sample("webhook.test"))  # nothing is asked about these
    parts.settle()
    assert len(parts.events()) == 3
    assert [row.status for row in parts.deliveries()] == ["waiting", "done", "done", "done"]


def test_deliveries_of_a_subject_behind_one_that_waits_do_not_overtake_it(build: Build) -> None:
    parts = build()
    first = hand_in(parts)
    second = Call(
        kind=first.kind,
        body=first.body
        | {
            "sequenceNumber": first.body["sequenceNumber"] + 100,
            "action": "updated",
            "eventPayload": first.body["eventPayload"] | {"isHandedIn": False},
        },
    )
    parts.api.fail(503)
    parts.receive(first)
    parts.settle()
    parts.api.heal()
    parts.receive(second)
    parts.settle()
    assert parts.events() == []
    parts.settle(later=10)
    assert [json.loads(row.body)["sequence"] for row in parts.events()] == [
        str(first.body["sequenceNumber"]),
        str(second.body["sequenceNumber"]),
    ]


def test_one_delivery_may_become_many_events(build: Build) -> None:
    parts = build(source="wise")
    parts.map("all", EVERYTHING)
    parts.receive(parts.platform.sample("AttendanceComputedEvent"))
    parts.settle()
    found = [json.loads(row.body) for row in parts.events()]
    assert len(found) > 3
    assert (
        len({event["id"] for event in found}) == len({event["data"]["person"]["key"] for event in found}) == len(found)
    )
    assert len({event["causationid"] for event in found}) == 1
    assert sorted(parts.target.keys().values()) == [1] * len(found)
    assert [row.status for row in parts.deliveries()] == ["done"]


def test_a_kind_that_nobody_knows_is_kept_and_goes_to_no_mapping_of_everything(build: Build) -> None:
    parts = build()
    parts.map("all", EVERYTHING)
    body = json.dumps({"event": "brand.new", "action": "created", "eventPayload": {}, "sequenceNumber": 1}).encode()
    parts.receive_bytes(body, {"Signature": sign(SECRET, body, encoding="base64")})
    parts.settle()
    [event] = parts.events()
    document = json.loads(event.body)
    assert (document["type"], document["sourceevent"]) == ("edu.source.unmapped.v1", "brand.new")
    assert faults(document) == []
    assert parts.messages() == []
    assert parts.deliveries()[0].body == body
    assert totals(parts.ledger)[f"source:{SOURCE}"]["unmapped"] == 1


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff\xfe", b"[" * 10_000, b'{"event": "paper.submission"}', b"null"])
def test_a_genuine_body_that_nobody_can_read_is_kept(build: Build, body: bytes) -> None:
    parts = build()
    parts.receive_bytes(body, {"Signature": sign(SECRET, body, encoding="base64"), "Event-Type": "paper.submission"})
    parts.settle()
    [event], [row] = parts.events(), parts.deliveries()
    assert event.type == "source.unmapped"
    assert (row.status, row.body) == ("done", body)


@pytest.mark.parametrize("index", [10**25, str(10**25), 2**63])
def test_a_number_that_nothing_of_ours_can_hold_is_kept_and_the_others_of_its_lane_go_on(
    build: Build, index: int | str
) -> None:
    parts = build(source="wise", with_api=False)
    parts.map("all", EVERYTHING)
    call = parts.platform.sample("FeeInvoiceChargedEvent")
    body = copy.deepcopy(call.body)
    body["payload"]["transaction"]["metadata"]["index"] = index
    parts.receive(replace(call, body=body))
    [lane] = {row.lane for row in parts.deliveries()}
    while sum(row.lane == lane for row in parts.deliveries()) < 4:
        parts.receive(parts.platform.sample("FeeInvoiceChargedEvent"))
    parts.settle()
    assert {(row.status, row.starts) for row in parts.deliveries()} == {("done", 0)}
    [event, *others] = sorted(parts.events(), key=lambda row: int(row.delivery_seq))
    assert (event.type, {row.type for row in others}) == ("source.unmapped", {"invoice.charged"})
    assert faults(json.loads(event.body)) == []
    assert len(parts.messages()) == len(others) >= 3


def test_a_bug_of_a_connector_makes_a_dead_delivery_that_a_replay_brings_back(build: Build) -> None:
    parts = build()
    good = parts.source
    parts.change_source(connector=replace(good, code=BrokenSource(good.code)))
    name = parts.receive(hand_in(parts))
    parts.settle()
    [row] = parts.deliveries()
    assert row.status == "dead"
    assert row.reason.startswith("KeyError in normalise (engine_parts.py:")
    assert "secret" not in row.reason
    assert parts.events() == []
    parts.change_source(connector=good)
    replay(parts.ledger, [name], who="ada")
    parts.settle()
    assert parts.deliveries()[0].status == "done"
    assert [row.status for row in parts.messages()] == ["delivered"]


def test_a_mapping_that_fails_makes_a_dead_letter_and_the_others_go_on(build: Build) -> None:
    parts = build()
    parts.map("all", EVERYTHING)
    parts.map("broken", PAPERS | {"with": {"method": "POST", "json": {"who": {"since": "{{ event.subject | iso }}"}}}})
    parts.map("choosy", PAPERS | {"when": "event.subject | iso == '2026'"})
    name = parts.receive(hand_in(parts))
    parts.settle()
    found = {row.mapping: row for row in parts.messages()}
    assert {name: row.status for name, row in found.items()} == {
        "papers": "delivered",
        "all": "delivered",
        "broken": "dead",
        "choosy": "dead",
    }
    assert (found["broken"].step, found["choosy"].step) == ("map", "map")
    assert found["broken"].reason.startswith("with.json.who.since: ")
    assert found["choosy"].reason.startswith("when: ")
    parts.map("broken", PAPERS)
    parts.map("choosy", PAPERS)
    replay(parts.ledger, [name], who="ada")
    parts.settle()
    assert {row.status for row in parts.messages()} == {"delivered"}
    assert {row.key for row in parts.messages()} == {row.key for row in found.values()}


@pytest.mark.parametrize("place", ["json", "query", "path"])
def test_half_a_character_that_a_template_renders_makes_a_dead_letter_and_the_others_go_on(
    build: Build, place: str
) -> None:
    parts = build()
    half = r"""/{{ "\ud83d" ~ event.subject }}"""
    there = {"json": {"json": {"a": {"b": half}}}, "query": {"query": {"a": half}}, "path": {"path": half}}[place]
    parts.map("broken", PAPERS | {"with": {"method": "PUT", "path": "/half"} | there})
    parts.map("pair", PAPERS | {"with": {"method": "PUT", "path": "/whole", "json": r"""{{ "\ud83d\ude00" }}"""}})
    parts.map("last", EVERYTHING)
    name = parts.receive(hand_in(parts))
    parts.receive(parts.platform.sample("webhook.test"))
    parts.settle()
    assert [row.status for row in parts.deliveries()] == ["done", "done"]
    found = {row.mapping: row for row in parts.messages() if row.mapping != "pair"}
    assert {mapping: row.status for mapping, row in found.items()} == {
        "papers": "delivered",
        "broken": "dead",
        "last": "delivered",
    }
    assert (found["broken"].step, found["broken"].reason.partition(":")[0][:4]) == ("map", "with")
    parts.map("broken", PAPERS)
    replay(parts.ledger, [name], who="ada")
    parts.settle()
    assert {row.status for row in parts.messages() if row.mapping == "broken"} == {"delivered"}


def test_a_mapping_to_a_target_that_is_not_there_is_told_in_the_story(build: Build) -> None:
    parts = build()
    parts.map("lost", PAPERS | {"target": "nowhere"})
    parts.receive(hand_in(parts))
    parts.settle()
    story = {entry["mapping"]: entry for entry in json.loads(parts.events()[0].trace)["mappings"]}
    assert (story["lost"]["matched"], story["lost"]["why"]) == (False, "no target nowhere")
    assert story["papers"]["matched"]


def test_a_delivery_of_a_source_that_was_taken_out_of_the_configuration_waits(build: Build) -> None:
    parts = build()
    parts.receive(hand_in(parts))
    sources = parts.line.sources
    stages = parts.stages()
    parts.line = replace(parts.line, sources={})
    parts.settle()
    [row] = parts.deliveries()
    assert (row.status, row.reason) == ("waiting", f"source {SOURCE} is not in bridge.yaml")
    parts.line = replace(parts.line, sources=sources)
    parts.settle(later=120)
    assert parts.deliveries()[0].status == "done"
    assert stages


def test_a_delivery_that_killed_its_workers_is_put_aside(build: Build) -> None:
    parts = build()
    parts.receive(hand_in(parts))
    parts.receive(hand_in(parts))
    with parts.ledger.write() as connection:
        connection.execute(update(deliveries_in).where(deliveries_in.c.seq == 1).values(starts=MAX_STARTS))
    parts.settle()
    first, second = parts.deliveries()
    assert (first.status, first.reason) == ("dead", "its worker died 5 times")
    assert second.status == "done"


def test_the_same_delivery_processed_twice_makes_one_of_everything(build: Build) -> None:
    """A worker that died after its commit, before its lease was given back."""
    parts = build()
    parts.receive(hand_in(parts))
    parts.settle(stage="process")
    with parts.ledger.write() as connection:
        connection.execute(update(deliveries_in).values(status="waiting"))
    parts.settle()
    assert len(parts.events()) == 1
    assert list(parts.target.keys().values()) == [1]


def test_lanes_of_new_messages_are_woken(build: Build) -> None:
    parts = build()
    parts.receive(hand_in(parts))
    parts.settle(stage="process")
    assert parts.woken == {row.lane for row in parts.messages()}
    assert {lane.rpartition(":")[0] for lane in parts.woken} == {f"deliver:{TARGET}"}
