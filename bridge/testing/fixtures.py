"""Fixtures of a source: a request as exact bytes, and beside it what has to come of it.

`<name>.http` is an HTTP/1.1 request as it came over the wire. `<name>.json` says what is expected:

    about        one sentence
    received_at  when it reached us
    settings     laid over `fixtures/settings.json`, key by key
    outcome      accepted (default) · ignored (answered, nothing kept) · refused
    reason       the slug of a refusal
    events       the canonical events before enrichment
    api          what the platform's API answers: {"GET /flow/1": {"json": …}, "GET /x?page=1": {"status": 404}}
    enriched     the canonical events after enrichment, if `api` is there
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from bridge.core.errors import NotGenuine, SourceRefused, SourceUnavailable
from bridge.core.events import Json
from bridge.core.manifest import SourceConnector
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import Challenge, Inbound, Verified
from bridge.flow.process import enriched, events_of
from bridge.flow.receive import verify
from bridge.testing.offline import Offline


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixture:
    """One captured request and what is expected of it."""

    name: str
    path: Path
    inbound: Inbound
    settings: Settings
    expected: Json

    @property
    def outcome(self) -> str:
        return str(self.expected.get("outcome", "accepted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a fixture came to."""

    outcome: str
    reason: str = ""
    verified: Verified | None = None
    events: list[Json] = field(default_factory=list)
    enriched: list[Json] | None = None


@dataclass(slots=True, kw_only=True)
class RecordedApi(Offline):
    """A platform's API that answers from a fixture, and says so when a call is not in it."""

    settings: Settings
    now: datetime
    answers: Mapping[str, Any]
    asked: list[str] = field(default_factory=list)

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return self._answer("GET", path, query)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        return self._answer("POST", path, None)

    def _answer(self, method: str, path: str, query: Mapping[str, str] | None) -> Payload | None:
        call = f"{method} {path}" + (f"?{urlencode(query)}" if query else "")
        self.asked.append(call)
        if call not in self.answers:
            raise AssertionError(f"the fixture has no answer for {call}")
        answer = self.answers[call]
        status = answer.get("status", 200)
        if status == 404:
            return None
        if status in (401, 403):
            raise SourceRefused(f"HTTP {status}")
        if status >= 300:
            raise SourceUnavailable(f"HTTP {status}")
        return Payload(answer.get("json"))


def read_fixtures(connector: SourceConnector) -> list[Fixture]:
    """All fixtures of a connector's source, by name."""
    folder = connector.folder / "fixtures"
    return [read_fixture(path) for path in sorted(folder.glob("*.http"))]


def read_fixture(path: Path) -> Fixture:
    """One fixture from its two files."""
    expected = json.loads(path.with_suffix(".json").read_text("utf-8"))
    base = json.loads((path.parent / "settings.json").read_text("utf-8"))
    values = base | expected.get("settings", {})
    return Fixture(
        name=path.stem,
        path=path,
        inbound=parse_request(path.read_bytes(), datetime.fromisoformat(expected["received_at"]), path.stem),
        settings=Settings(
            name=values.get("name", "fixture"),
            secrets=tuple(values.get("secrets", ())),
            options=values.get("options", {}),
            api=values.get("api"),
        ),
        expected=expected,
    )


def parse_request(raw: bytes, received_at: datetime, name: str) -> Inbound:
    """An HTTP/1.1 request as bytes; header lines end with CRLF or LF, the body is everything after the empty line."""
    separator = b"\r\n\r\n" if b"\r\n\r\n" in raw else b"\n\n"
    head, _, body = raw.partition(separator)
    request_line, *lines = head.decode("latin-1").replace("\r\n", "\n").split("\n")
    target = urlsplit(request_line.split(" ")[1])
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return Inbound(
        id=f"fixture-{name}",
        source="fixture",
        received_at=received_at,
        headers=headers,
        query=dict(parse_qsl(target.query)),
        body=body,
    )


def run_fixture(connector: SourceConnector, fixture: Fixture) -> Result:
    """Take a fixture through the line: verify, parse, normalise, enrich."""
    try:
        proven = verify(connector, fixture.inbound, fixture.settings)
    except NotGenuine as refusal:
        return Result(outcome="refused", reason=refusal.reason)
    if isinstance(proven, Challenge):
        events = events_of(connector, proven.keep, fixture.settings) if proven.keep else []
        return Result(outcome="ignored", verified=proven.keep, events=[event.to_json() for event in events])
    events = events_of(connector, proven, fixture.settings)
    completed: list[Json] | None = None
    if "api" in fixture.expected:
        api = RecordedApi(settings=fixture.settings, now=fixture.inbound.received_at, answers=fixture.expected["api"])
        completed = [result.to_json() for event in events for result in enriched(connector, event, api)]
    return Result(outcome="accepted", verified=proven, events=[event.to_json() for event in events], enriched=completed)


def write_expectations(connector: SourceConnector, fixture: Fixture) -> None:
    """Write what a fixture comes to into its `.json`, for its author to read and to agree with."""
    result = run_fixture(connector, fixture)
    expected = dict(fixture.expected) | {"outcome": result.outcome, "events": result.events}
    if result.reason:
        expected["reason"] = result.reason
    if result.enriched is not None:
        expected["enriched"] = result.enriched
    text = json.dumps(expected, indent=2, ensure_ascii=False)
    fixture.path.with_suffix(".json").write_text(text + "\n", "utf-8")
