"""What an outage of a platform's API leaves undone, and when it is made good; lists that are read for many events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_parts import EVERYTHING, PAPERS, Parts, parts_for
from sqlalchemy import update

from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from bridge.flow.mapping import compile_mapping
from bridge.ledger.database import Ledger
from bridge.ledger.feed import head_of
from bridge.ledger.tables import deliveries_in

Build = Callable[..., Parts]
WHOLE = PAPERS | {"requires": "full"}


@pytest.fixture
def build(ledger: Ledger, tmp_path: Path) -> Iterator[Build]:
    made: list[Parts] = []

    def make(**how: Any) -> Parts:
        made.append(parts_for(ledger, tmp_path, **how))
        return made[-1]

    yield make
    for parts in made:
        parts.close()


def test_a_mapping_that_requires_all_gets_the_event_when_the_api_is_back_and_the_others_did_not_wait(
    build: Build,
) -> None:
    parts = build(deadline=timedelta(0))
    parts.map("any", PAPERS)
    parts.map("whole", WHOLE)
    parts.api.fail(503)
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [at_once] = parts.messages()
    assert (at_once.mapping, parts.sent(at_once)["enrichment"]) == ("any", "missing")
    [row] = parts.deliveries()
    assert (row.status, row.purpose) == ("waiting", "completion")
    parts.settle(later=3600)
    assert [message.mapping for message in parts.messages()] == ["any"]
    parts.api.heal()
    parts.settle(later=7200)
    [_, later] = parts.messages()
    assert (later.mapping, later.status, parts.sent(later)["enrichment"]) == ("whole", "delivered", "full")
    [event] = parts.events()
    assert json.loads(event.body)["enrichment"] == "full"
    assert parts.deliveries()[0].status == "done"
    assert parts.target.keys() == {at_once.key: 1, later.key: 1}


def test_an_event_that_waits_for_the_rest_holds_up_nothing_about_its_subject(build: Build) -> None:
    parts = build(deadline=timedelta(0))
    parts.map("any", PAPERS)
    parts.map("whole", WHOLE)
    parts.api.fail(503)
    call = parts.platform.sample("paper.submission")
    parts.receive(call)
    parts.settle()
    parts.receive(replace(call, body={**call.body, "sequenceNumber": call.body["sequenceNumber"] + 1}))
    parts.settle()
    assert [message.status for message in parts.messages()] == ["delivered"] * 2


def test_without_a_mapping_that_requires_all_nobody_asks_again(build: Build) -> None:
    parts = build(deadline=timedelta(0))
    parts.map("any", PAPERS)
    parts.api.fail(503)
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert parts.deliveries()[0].status == "done"


@dataclass
class Lacking:
    """The code of a source that has to do without one of its calls, for good."""

    code: Any

    def enrich(self, event: Event, api: Any) -> list[Event]:
        found = list(self.code.enrich(event, api))
        api.lack("an extra call: 404", for_good=True)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.code, name)


def test_the_last_try_keeps_what_is_known_and_its_place_in_the_feed(build: Build) -> None:
    parts = build()
    parts.change_source(connector=replace(parts.source, code=Lacking(parts.source.code)))
    parts.map("any", EVERYTHING)
    parts.map("whole", EVERYTHING | {"requires": "full"})
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    before, place = [row.body for row in parts.events()], head_of(parts.ledger)
    assert {json.loads(body)["enrichment"] for body in before} == {"partial"}
    assert (parts.deliveries()[0].status, parts.deliveries()[0].purpose) == ("waiting", "completion")
    with parts.ledger.write() as connection:
        long_ago = deliveries_in.c.received_ms - 73 * 3600 * 1000
        connection.execute(update(deliveries_in).values(received_ms=long_ago))
    parts.api.fail(503)
    parts.settle(later=7200)
    assert parts.deliveries()[0].status == "done"
    assert [row.body for row in parts.events()] == before
    assert head_of(parts.ledger) == place
    assert {(row.mapping, row.status) for row in parts.messages()} == {("any", "delivered")}
    assert set(parts.target.keys().values()) == {1}


def test_the_last_try_for_what_became_many_events_adds_none_that_lacks_everything(build: Build) -> None:
    parts = build(source="wise")
    parts.map("any", EVERYTHING)
    long_ago = datetime.now(UTC) - timedelta(hours=73)
    parts.receive(parts.platform.sample("AttendanceComputedEvent"), at=long_ago)
    parts.settle()
    before, place = [row.body for row in parts.events()], head_of(parts.ledger)
    with parts.ledger.write() as connection:
        connection.execute(update(deliveries_in).values(status="waiting", purpose="completion", attempts=9))
    days_later = build(source="wise")
    days_later.map("any", EVERYTHING)
    days_later.api.fail(503)
    days_later.settle(later=7200)
    assert days_later.deliveries()[0].status == "done"
    assert [row.body for row in days_later.events()] == before
    assert head_of(parts.ledger) == place
    assert len(days_later.messages()) == len(before)


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass
class Listing:
    """The code of a source that offers each hand-in of a batch, as if it had read a list."""

    code: Any
    batches: list[tuple[int, int]]

    def gather(self, events: Sequence[Event], api: SourceApi, waiting: int) -> None:
        self.batches.append((len(events), waiting))
        for event in events:
            flow = next(entry.value for entry in event.data.assessment.identifiers)  # type: ignore[union-attr]
            paper = event.subject.partition("/")[2]
            api.offer(
                f"/flows/{flow}/submissions/{paper}",
                Payload({"status": {"handedIn": True, "handedInDate": "2026-06-05T09:30:00Z"}, "participants": []}),
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.code, name)


def test_what_a_list_told_is_not_asked_for_again(build: Build) -> None:
    parts = build()
    parts.map("any", PAPERS)
    listing = Listing(parts.source.code, [])
    parts.change_source(connector=replace(parts.source, code=listing))
    for _ in range(40):
        parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert sum(events for events, _ in listing.batches) > 30
    assert all(waiting == events for events, waiting in listing.batches)
    calls = [call for event in parts.events() for call in json.loads(event.trace)["enrichment"]["calls"]]
    papers = [call for call in calls if "/submissions/" in call["call"]]
    assert papers
    assert sum(call["cached"] for call in papers) > len(papers) * 0.9


# --- what is looked at ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "looks"),
    [
        ("{{ event.data.person.email }}", True),
        ("{{ ev['data']['person'] | tojson }}", True),
        ("{{ event }}", True),
        ("{% set p = event.data.person %}{{ p.email }}", True),
        ("{{ event.data.person.identifiers[0].value }}", False),
        ("{{ event.data[source].x }}", True),
        ("{{ event.data.person.givenName }}", False),
        ("{{ event.data.grade.value if event.type else '' }}", False),
        ("no template", False),
    ],
)
def test_a_mapping_says_which_fields_it_looks_at(template: str, looks: bool) -> None:
    mapping = compile_mapping("one", PAPERS | {"with": {"method": "POST", "path": "/x", "json": {"a": template}}})
    assert mapping.looks_at("data.person.email") is looks


def test_a_condition_looks_too() -> None:
    quiet = PAPERS | {"with": {"method": "POST", "path": "/x"}}
    assert compile_mapping("one", quiet | {"when": "event.data.person.email"}).looks_at("data.person.email")
    assert not compile_mapping("two", quiet).looks_at("data.person.email")
