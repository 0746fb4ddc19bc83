"""Conformance questions about the manifest, and about what comes of a connector's fixtures."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any, Final

from bridge.core.events import Event, Json, event_from_json
from bridge.core.manifest import SourceConnector
from bridge.core.vocabulary import TYPES, short
from bridge.flow.process import events_of
from bridge.testing.conforming_proof import accepted, genuine
from bridge.testing.event_schema import faults
from bridge.testing.fixtures import Fixture, Result, read_fixtures, run_fixture
from bridge.testing.hostile import Caught, json_of, origin, places, value_at, wire, with_value

UNMAPPED: Final = "source.unmapped"
# Stand-ins for deliveries that name no kind at all.
_NAMELESS: Final = frozenset({"unreadable", "unknown", "unnamed"})
_UNKNOWN: Final = "AnEventThatNobodyKnows"
_SUBJECT: Final = re.compile(r"[a-z][a-z_-]*/.+", re.DOTALL)


def expected_events(connector: SourceConnector) -> list[str]:
    """Every fixture comes to the outcome, the reason and the events that stand beside it."""
    fixtures = read_fixtures(connector)
    complaints = [] if fixtures else ["there are no fixtures"]
    for fixture in fixtures:
        with Caught() as caught:
            complaints += [
                f"{fixture.name}: {entry}" for entry in _unexpected(fixture, run_fixture(connector, fixture))
            ]
        if caught.error is not None:
            complaints.append(f"{fixture.name}: raised {origin(caught.error)}: {caught.error}")
    return complaints


def same_input_same_events(connector: SourceConnector) -> list[str]:
    """A fixture comes to the same events every time, and its event ids do not hang on the id that we gave it."""
    complaints = []
    for fixture, result in _results(connector):
        again = run_fixture(connector, fixture)
        if result != again:
            complaints.append(f"{fixture.name}: another result the second time")
        other = replace(fixture, inbound=replace(fixture.inbound, id="another-delivery"))
        if _understood_ids(result) != _understood_ids(run_fixture(connector, other)):
            complaints.append(f"{fixture.name}: an event id changes with the id of the delivery")
    return complaints


def events_validate(connector: SourceConnector) -> list[str]:
    """Every event, enriched or not, is valid against the schema, and can be read back."""
    complaints = []
    for fixture, document in _documents(connector):
        complaints += [f"{fixture.name}: {fault}" for fault in faults(document)]
        if not faults(document) and event_from_json(document).to_json() != document:
            complaints.append(f"{fixture.name}: the event is another one after it was stored and read")
    return complaints


def unknown_kind_named_and_kept(connector: SourceConnector) -> list[str]:
    """A kind that the manifest does not have becomes `source.unmapped` with the platform's own word for it."""
    complaints, shown = [], False
    for fixture, result in _results(connector):
        for document in result.events:
            named = document["sourceevent"]
            if short(document["type"]) == UNMAPPED and named not in connector.manifest.kinds.keys() | _NAMELESS:
                shown = True
                if not _stands_in(fixture, named):
                    complaints.append(f"{fixture.name}: {named} is not the platform's own word")
    for fixture, body in _renamed(connector):
        proven = accepted(connector, fixture.inbound, fixture.settings)
        if proven is None:
            continue
        events = events_of(connector, replace(proven, inbound=replace(proven.inbound, body=body)), fixture.settings)
        if not events:
            complaints.append(f"{fixture.name}: with an unknown kind nothing is kept")
        if any(event.type == UNMAPPED and event.sourceevent != _UNKNOWN for event in events):
            complaints.append(f"{fixture.name}: an unknown kind loses its name")
    return complaints if shown else [*complaints, "no fixture shows an unknown kind"]


def every_kind_has_a_fixture(connector: SourceConnector) -> list[str]:
    """Every native kind of the manifest comes out of at least one fixture, understood."""
    seen = {document["sourceevent"] for _, document in _documents(connector) if short(document["type"]) != UNMAPPED}
    return [f"no fixture for the kind {kind}" for kind in connector.manifest.kinds if kind not in seen]


def name_is_folder(connector: SourceConnector) -> list[str]:
    """The connector is called as its folder is."""
    return [] if connector.name == connector.folder.name else [f"{connector.name} lives in {connector.folder.name}"]


def canonical_types_exist(connector: SourceConnector) -> list[str]:
    """The manifest names only types of the vocabulary, and all that come out."""
    kinds = connector.manifest.kinds
    complaints = [
        f"{kind.name}: there is no type {name}" for kind in kinds.values() for name in kind.types if name not in TYPES
    ]
    for fixture, document in _documents(connector):
        kind, type_ = kinds.get(document["sourceevent"]), short(document["type"])
        if kind is not None and type_ != UNMAPPED and type_ not in kind.types:
            complaints.append(f"{fixture.name}: {kind.name} became {type_}, which the manifest does not say")
    return sorted(set(complaints))


def known_answer(connector: SourceConnector) -> list[str]:
    """At least one request whose signature somebody else computed is proven."""
    names = [fixture.name for fixture in genuine(connector) if fixture.name.startswith("known-answer")]
    return [] if names else ["no fixture called known-answer… that is accepted"]


def subjects_order_families(connector: SourceConnector) -> list[str]:
    """Types of one family are about subjects of the same noun, and enrichment does not change the subject.

    The subject is the order key: two types of a family under different subjects could overtake each other. A family
    may be about several nouns (questions and documents), but no two types of it about wholly different ones.
    """
    nouns: defaultdict[str, set[str]] = defaultdict(set)
    complaints = []
    for fixture, result in _results(connector):
        before = [event_from_json(document) for document in result.events]
        after = [event_from_json(document) for document in result.enriched or []]
        for event in before + after:
            if event.type == UNMAPPED:
                continue
            nouns[event.type].add(event.subject.partition("/")[0])
            if not _SUBJECT.fullmatch(event.subject):
                complaints.append(f"{fixture.name}: the subject of {event.type} is not <noun>/<id>")
        if len(before) == len(after):
            complaints += [
                f"{fixture.name}: enrichment moved {new.type} to another subject"
                for old, new in zip(before, after, strict=True)
                if _moved(old, new)
            ]
    complaints += [
        f"{one} and {other} are of one family, and their subjects are never of one noun"
        for one, other in combinations(sorted(nouns), 2)
        if TYPES[one].family == TYPES[other].family and nouns[one].isdisjoint(nouns[other])
    ]
    return complaints


def _understood_ids(result: Result) -> list[str]:
    return [document["id"] for document in result.events if short(document["type"]) != UNMAPPED]


def _moved(old: Event, new: Event) -> bool:
    return old.kind.family == new.kind.family and old.subject != new.subject


def _unexpected(fixture: Fixture, result: Result) -> Iterator[str]:
    expected = fixture.expected
    if result.outcome != fixture.outcome:
        yield f"came to {result.outcome} ({result.reason or 'no reason'}), expected {fixture.outcome}"
    elif result.reason != expected.get("reason", ""):
        yield f"refused for {result.reason}, expected {expected.get('reason', 'no reason')}"
    yield from _differences(expected.get("events", []), result.events, "events")
    if ("api" in expected or "enriched" in expected) and result.outcome == "accepted":
        yield from _differences(expected.get("enriched"), result.enriched, "enriched")


def _differences(expected: Any, found: Any, where: str) -> Iterator[str]:
    """The places where two JSON values differ."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() | found.keys():
            yield from _differences(expected.get(key), found.get(key), f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for position, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{where}[{position}]")
    elif expected != found:
        yield f"{where} is {_cut(found)}, expected {_cut(expected)}"


def _cut(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _results(connector: SourceConnector) -> Iterator[tuple[Fixture, Result]]:
    """What the fixtures come to; one that breaks is the matter of `expected_events`."""
    for fixture in read_fixtures(connector):
        result: Result | None = None
        with Caught():
            result = run_fixture(connector, fixture)
        if result is not None:
            yield fixture, result


def _documents(connector: SourceConnector) -> Iterator[tuple[Fixture, Json]]:
    for fixture, result in _results(connector):
        for document in result.events + (result.enriched or []):
            yield fixture, document


def _stands_in(fixture: Fixture, word: str) -> bool:
    texts = [
        *fixture.inbound.headers.values(),
        *fixture.inbound.query.values(),
        fixture.inbound.body.decode("utf-8", "replace"),
    ]
    return any(word in text for text in texts)


def _renamed(connector: SourceConnector) -> Iterator[tuple[Fixture, bytes]]:
    """Bodies of known kinds under a name that nobody knows, where the name stands in the body as it is."""
    for fixture, result in _results(connector):
        understood = [document for document in result.events if short(document["type"]) != UNMAPPED]
        known = {document["sourceevent"] for document in understood}
        if result.outcome != "accepted" or len(known) != 1 or len(understood) != len(result.events):
            continue
        document, renamed = json_of(fixture.inbound.body), False
        for steps in list(places(document)):
            value = value_at(document, steps)
            if isinstance(value, str) and value in known:
                document, renamed = with_value(document, steps, _UNKNOWN), True
        if renamed:
            yield fixture, wire(document)
