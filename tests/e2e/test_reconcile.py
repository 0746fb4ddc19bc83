"""An hour without a bridge: what the platforms could not deliver is fetched from their lists, once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from sqlalchemy import select
from watching import Make, dead_letters, wait_for

from bridge.config.configuration import load_configuration
from bridge.core.simulation import Call
from bridge.core.source import Inbound, Verified
from bridge.flow.process import events_of
from bridge.ledger.reading import closing
from bridge.ledger.tables import events
from bridge.main import registry
from bridge.testing.account import Plan
from bridge.testing.campus import Campus
from bridge.testing.sender import Sender

pytestmark = pytest.mark.e2e

EVERYTHING = {
    "version": 1,
    "description": "Every event as it is",
    "events": ["*"],
    "order": "none",
    "target": "crm",
    "operation": "request",
    "with": {"method": "POST", "path": "/events", "json": {"id": "{{ event.id }}", "type": "{{ event.type }}"}},
}
CRM = {"crm": {"connector": "http"}}
HOUR = timedelta(hours=1)


@dataclass(slots=True)
class Clock:
    """Simulated time: it begins two hours ago, and goes faster than ours when it is told to, up to what is now."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC) - 2 * HOUR)
    since: float = field(default_factory=time.monotonic)
    speed: float = 1.0

    def __call__(self) -> datetime:
        return min(self.moment + timedelta(seconds=self.speed * (time.monotonic() - self.since)), datetime.now(UTC))

    def go(self, speed: float) -> datetime:
        """Another speed from now on; what time it is."""
        self.moment, self.since, self.speed = self(), time.monotonic(), speed
        return self.moment


KINDS = {
    "edusign": frozenset(
        {
            "on_course_created",
            "on_student_sign",
            "on_teacher_sign",
            "on_course_end",
            "on_course_locked",
            "on_request_justified_absence",
            "on_justified_absence",
            "on_student_created",
        }
    ),
    "wiseflow": frozenset({"paper.submission"}),
}
"""What the platforms' lists can show."""


@dataclass(slots=True)
class Told:
    """The calls that a platform makes, noted as they are made."""

    calls: Iterator[Call]
    kinds: frozenset[str]
    made: list[Call] = field(default_factory=list)

    def some(self, number: int) -> Iterator[Call]:
        while number:
            call = next(self.calls)
            if call.kind in self.kinds:
                self.made.append(call)
                number -= 1
                yield call

    def again(self, number: int, before: int) -> list[Call]:
        """Those of which a list could tell."""
        some = self.made[-before - number : len(self.made) - before]
        return [call for call in some if not _taken_back(call, self.made)]


@dataclass(slots=True, kw_only=True)
class Platforms:
    """The platforms of a campus, sending what happens at them."""

    campus: Campus
    told: dict[str, Told]

    def send(self, number: int, *, seconds: float, before: int | None = None) -> dict[str, Sender]:
        """So many new calls of each within some seconds, or once more those `before` the last ones; until they end."""
        senders = {}
        for name, told in self.told.items():
            platform, _server, secret = self.campus._platforms[name]
            senders[name] = Sender(
                platform,
                self.campus.sources[name].simulator.RULE,
                secret=secret,
                url=f"{self.campus.url}/hooks/{name}-main",
                plan=Plan(rate=number / seconds, threads=4, time_scale=0.0005),
                calls=told.some(number) if before is None else told.again(number, before),
            ).start()
        wait_for(senders.values(), seconds=seconds + 60)
        return senders


def test_after_an_hour_away_every_change_is_at_the_target_once(make_campus: Make) -> None:
    campus = make_campus("edusign", "wiseflow", mappings={"all": EVERYTHING}, targets=CRM)
    # A signature on a sheet that was deleted since is not waited for half a minute.
    _changed(campus.configuration, "edusign-main", settling_seconds=1)
    clock = Clock()
    places: dict[str, Any] = {name: campus._platforms[name][0] for name in KINDS}
    places["edusign"].school.clock = clock
    places["wiseflow"].world.clock = clock
    platforms = Platforms(campus=campus, told={name: Told(places[name].day(), kinds) for name, kinds in KINDS.items()})

    campus.start_bridge()
    platforms.send(60, seconds=3)
    assert campus.finished(60)
    campus.stop_bridge()
    away = clock.go(240.0)
    lost = platforms.send(150, seconds=12)
    while clock() < away + HOUR:
        time.sleep(0.2)
    clock.go(1.0)
    assert {name: sender.account().gave_up for name, sender in lost.items()} == dict.fromkeys(KINDS, 150)

    campus.start_bridge()
    platforms.send(30, seconds=2)
    assert campus.finished(60)
    before = campus.target.state()["unique"]
    accounts = {name: compared(campus, name) for name in KINDS}
    assert all(account["missing"] > 50 for account in accounts.values()), accounts
    assert campus.finished(60)

    everything_once(campus, platforms)
    assert campus.target.state()["unique"] == before + sum(account["missing"] for account in accounts.values())
    assert [compared(campus, name, "--dry-run")["missing"] for name in KINDS] == [0, 0]

    unique = campus.target.state()["unique"]
    late = platforms.send(40, seconds=3, before=30)  # the last 40 of those that nobody took come after all
    assert campus.finished(60)
    assert all(30 < sender.account().accepted == sender.account().calls for sender in late.values())
    everything_once(campus, platforms)
    assert campus.target.state()["unique"] == unique


LISTED = {
    "inspera": frozenset({"candidate_submission_delivered", "candidate.grade_confirmed"}),
    "wise": frozenset(
        {
            "MeetingStartedEvent",
            "MeetingEndedEvent",
            "RecordingCompletedEvent",
            "SessionsCreatedEvent",
            "FeePaymentCompletedEvent",
        }
    ),
}
"""What the lists of these platforms show one by one, and not only as the newest of several."""


def test_what_wise_and_inspera_sent_to_nobody_is_at_the_target_once_and_a_file_that_is_being_made_is_no_failure(
    make_campus: Make,
) -> None:
    campus = make_campus("inspera", "wise", mappings={"all": EVERYTHING}, targets=CRM)
    told = {name: Told(campus._platforms[name][0].day(), kinds) for name, kinds in LISTED.items()}
    for calls in told.values():
        assert len(list(calls.some(60))) == 60
    files: Any = campus._platforms["inspera"][0]
    _changed(campus.configuration, "inspera-main", budget={"calls": 100, "seconds": 1, "concurrent": 8})
    campus.start_bridge()

    span = ("--since", "2026-01-01", "--grace", "0", "--json")  # before the fixed days of both simulators
    early = campus.run("reconcile", "inspera-main", *span, "--wait", "1s")
    assert (early.returncode, early.stdout) == (75, ""), early.stderr
    assert "not yet: export is being made" in early.stderr
    files.exports.pending = 2
    patient = campus.run("reconcile", "inspera-main", *span)
    assert patient.returncode == 0, patient.stderr
    assert "inspera-main waits" in patient.stderr
    assert json.loads(patient.stdout)["missing"] >= 60
    wise = campus.run("reconcile", "wise-main", *span)
    assert wise.returncode == 0, wise.stderr
    assert json.loads(wise.stdout)["missing"] >= 60
    assert campus.finished(60)
    assert [event["origin"] for event in _kept(campus)] == ["reconciled"] * len(_kept(campus))

    unique = campus.target.state()["unique"]
    late = Platforms(campus=campus, told=told).send(60, seconds=2, before=0)
    assert campus.finished(60)
    assert {name: sender.account().accepted for name, sender in late.items()} == dict.fromkeys(LISTED, 60)
    assert campus.target.state()["unique"] == unique, [event["sourceevent"] for event in _kept(campus)][-5:]
    assert set(campus.target.keys().values()) == {1}
    assert set(closing(campus.ledger).messages.values()) == {"delivered"}, dead_letters(campus)


def _kept(campus: Campus) -> list[dict[str, Any]]:
    with campus.ledger.read() as connection:
        return [json.loads(body) for body in connection.execute(select(events.c.body)).scalars()]


def _changed(file: Path, source: str, **settings: Any) -> None:
    document = YAML().load(file.read_text("utf-8"))
    document["sources"][source] |= settings
    with file.open("w", encoding="utf-8") as stream:
        YAML().dump(document, stream)


def compared(campus: Campus, name: str, *words: str) -> dict[str, Any]:
    done = campus.run("reconcile", f"{name}-main", "--since", "4h", "--grace", "0", "--json", *words)
    assert done.returncode == 0, done.stderr
    account: dict[str, Any] = json.loads(done.stdout)
    return account


def everything_once(campus: Campus, platforms: Platforms) -> None:
    """Each change is one event, and one message that arrived under one key."""
    book = closing(campus.ledger)
    assert set(book.messages.values()) == {"delivered"}, dead_letters(campus)
    with campus.ledger.read() as connection:
        found = Counter(_words(json.loads(body)) for body in connection.execute(select(events.c.body)).scalars())
    arrived = campus.target.keys()
    assert set(arrived.values()) == {1}
    assert set(arrived) == set(book.messages)
    made = {
        name: {_expected(campus, name, call) for call in told.made if not _taken_back(call, told.made)}
        for name, told in platforms.told.items()
    }
    for name, changes in made.items():
        lacking = [change for change in changes if found[change] == 0]
        assert not lacking, (name, len(lacking), Counter(kind for kind, _, _ in lacking))
    assert {change: number for change, number in found.items() if change[0] in KINDS["edusign"] and number > 1} == {}


def _taken_back(call: Call, made: list[Call]) -> bool:
    """Whether a paper was withdrawn in the end: of one that nobody here heard of, no list shows anything."""
    paper = call.body.get("eventPayload", {}).get("submissionId")
    last = next(other for other in reversed(made) if other.body.get("eventPayload", {}).get("submissionId") == paper)
    return paper is not None and not last.body["eventPayload"]["isHandedIn"]


def _words(event: dict[str, Any]) -> tuple[str, str, str]:
    person = (event["data"]["person"] or {}).get("key") if event["sourceevent"].endswith("_sign") else None
    return event["sourceevent"], event["subject"], person or ""


def _expected(campus: Campus, name: str, call: Call) -> tuple[str, str, str]:
    """What a call tells, before any completion."""
    connector, (platform, _server, secret) = campus.sources[name], campus._platforms[name]
    signed = platform.sign(call, secret, attempt=1, now=datetime.now(UTC))
    inbound = Inbound(
        id="x",
        source=f"{name}-main",
        received_at=datetime.now(UTC),
        headers=dict(signed.headers),
        query={},
        body=signed.body,
    )
    verified = Verified(inbound=inbound, proof="", dedupe_key="", dedupe_window=timedelta(0))
    [event] = events_of(connector, verified, _settings(campus)[f"{name}-main"].settings)
    return _words(event.to_json())


@cache
def _settings_of(file: Path) -> Any:
    known = registry()
    return load_configuration(file, sources=known.sources, targets=known.targets, environ={}).sources


def _settings(campus: Campus) -> Any:
    return _settings_of(campus.configuration)
