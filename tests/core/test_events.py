"""The canonical event: to JSON and back, ids that stay, and a schema that says the same as the classes."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.events import SCHEMA_ID, Event, child_id, event_from_json, event_id, idempotency_key, stamp
from bridge.core.nouns import Data, Person
from bridge.core.vocabulary import TYPES, matches, short
from bridge.testing.event_schema import faults

SCHEMA: dict[str, Any] = json.loads(resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8"))
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=8)
MOMENTS = st.integers(0, 32_000_000_000_000).map(
    lambda number: datetime(1971, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if isinstance(hint, types.UnionType):
        return st.one_of(*(values(part) for part in typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=2).map(tuple)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return st.builds(hint, **{field.name: values(hints[field.name]) for field in fields(hint)})
    plain: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        str: TEXT,
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
        bool: st.booleans(),
        datetime: MOMENTS,
    }
    return plain[hint]


EVENTS = st.builds(
    Event,
    id=st.uuids().map(str),
    source=TEXT,
    type=st.sampled_from(sorted(TYPES)),
    subject=TEXT,
    time=MOMENTS,
    recordedtime=MOMENTS,
    tenant=TEXT,
    sourceevent=TEXT,
    data=values(Data),
    timequality=st.sampled_from(["source", "received"]),
    sourceaction=st.none() | TEXT,
    sequence=st.none() | st.integers(-(2**63), 2**63 - 1),
    correlationid=st.none() | TEXT,
    causationid=st.none() | TEXT,
    enrichment=st.sampled_from(["full", "partial", "missing", "skipped"]),
    observedat=st.none() | MOMENTS,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_an_event_comes_back_from_json_as_it_was(event: Event) -> None:
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


def event(**changes: Any) -> Event:
    moment = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
    base = Event(
        id="00000000-0000-5000-8000-000000000001",
        source="urn:edu:wiseflow:lic-1",
        type="grade.published",
        subject="submission/1",
        time=moment,
        recordedtime=moment,
        tenant="exams",
        sourceevent="final.mark",
    )
    return dataclasses.replace(base, **changes)


def test_the_smallest_event_is_valid_and_has_all_nouns() -> None:
    document = event().to_json()
    assert faults(document) == []
    assert set(document["data"]) == {field.name for field in fields(Data)}
    assert not {"sourceaction", "sequence", "correlationid", "causationid", "observedat"} & set(document)
    assert (document["specversion"], document["dataschema"]) == ("1.0", SCHEMA_ID)


def test_times_are_utc_with_milliseconds() -> None:
    paris = timezone(timedelta(hours=2))
    assert stamp(datetime(2026, 6, 5, 9, 30, 0, 123_999, tzinfo=paris)) == "2026-06-05T07:30:00.123Z"


# --- ids --------------------------------------------------------------------------------------------------------------

CONTENT: dict[str, Any] = {
    "source": "urn:edu:wiseflow:lic-1",
    "sourceevent": "final.mark",
    "sourceaction": "created",
    "key": "sequence:1",
    "payload": {"b": 1, "a": [1, "é"]},
}


def test_an_id_is_the_same_for_the_same_content_and_stays_so_in_every_version() -> None:
    again = CONTENT | {"payload": {"a": [1, "é"], "b": 1}}
    assert event_id(**CONTENT) == event_id(**again) == "1896806f-9c40-50d6-9701-d1e5af175272"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "urn:edu:wiseflow:lic-2"},
        {"sourceevent": "final.marks"},
        {"sourceaction": None},
        {"key": "sequence:2"},
        {"payload": {"b": 1, "a": [1, "è"]}},
        {"payload": {"b": "1", "a": [1, "é"]}},
    ],
)
def test_an_id_differs_with_every_part_of_the_content(change: dict[str, Any]) -> None:
    assert event_id(**CONTENT) != event_id(**(CONTENT | change))


def test_ids_of_children_and_messages_are_stable_and_differ_from_each_other() -> None:
    parent = event_id(**CONTENT)
    assert child_id(parent, "1") == child_id(parent, "1") != child_id(parent, "2")
    keys = {idempotency_key(parent, mapping, target) for mapping in "ab" for target in "xy"}
    assert len(keys) == 4


def test_an_id_can_be_had_of_any_text() -> None:
    assert event_id(**(CONTENT | {"key": "\ud800", "payload": "\ud800"}))


# --- what orders an event ---------------------------------------------------------------------------------------------


def test_states_of_one_family_and_subject_share_an_order() -> None:
    assert event().state_key == event(type="grade.revoked").state_key
    assert event().state_key != event(type="submission.submitted").state_key
    assert event().state_key != event(subject="submission/2").state_key


def test_what_is_about_a_person_is_ordered_by_person() -> None:
    def about(key: str, type: str) -> str:
        return event(type=type, data=Data(person=Person(key=key))).state_key

    assert about("w:1", "grade.published") != about("w:2", "grade.published")
    assert about("w:1", "submission.submitted") == about("w:2", "submission.submitted")


def test_types_are_found_by_both_of_their_names() -> None:
    for name, type in TYPES.items():
        assert short(type.full) == short(name) == name
    assert matches("grade.*", "grade.published")
    assert not matches("*", "source.unmapped")


# --- the schema -------------------------------------------------------------------------------------------------------


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        node: Any = SCHEMA
        for step in schema["$ref"].removeprefix("#/").split("/"):
            node = node[step]
        schema = node
    return schema


def objects(schema: dict[str, Any]) -> dict[str, Any]:
    """The object form of a schema that may also be null."""
    schema = resolved(schema)
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return next(found for found in map(objects, schema[key]) if found.get("properties"))
    return schema


def check_noun(noun: Any, schema: dict[str, Any], path: str) -> None:
    found = objects(schema)
    hints = typing.get_type_hints(noun)
    wire = {field.name: _camel(field.name) for field in fields(noun)}
    assert set(found["properties"]) == set(wire.values()), path
    assert set(found["required"]) == set(wire.values()), path
    for name, key in wire.items():
        inner = [part for part in (hints[name], *typing.get_args(hints[name])) if is_dataclass(part)]
        if typing.get_origin(hints[name]) is tuple:
            items = resolved(resolved(found["properties"][key])["items"])
            check_noun(inner[0], items, f"{path}.{key}")
        elif inner:
            check_noun(inner[0], found["properties"][key], f"{path}.{key}")


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def test_the_schema_has_every_field_of_every_noun_and_wants_them_all() -> None:
    check_noun(Data, SCHEMA["properties"]["data"], "data")


def test_the_schema_has_every_attribute_of_the_envelope() -> None:
    whole = event(sourceaction="a", sequence=1, correlationid="c", causationid="d", observedat=event().time).to_json()
    assert set(whole) == set(SCHEMA["properties"])
    assert set(SCHEMA["required"]) <= set(event().to_json())


def test_the_schema_knows_exactly_the_types_of_the_vocabulary() -> None:
    for type in TYPES.values():
        assert faults(event(type=type.name).to_json()) == []
    assert faults(event().to_json() | {"type": "edu.grade.invented.v1"}) != []


@pytest.mark.parametrize(
    "change",
    [{"time": "yesterday"}, {"id": 5}, {"data": {}}, {"enrichment": "some"}, {"specversion": "0.3"}, {"sequence": 1}],
)
def test_the_schema_refuses_what_is_no_event(change: dict[str, Any]) -> None:
    assert faults(event().to_json() | change) != []


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_what_the_classes_can_say_without_bounds_the_schema_takes_with_them(event: Event) -> None:
    """Only values that the schema bounds on purpose (choices, patterns, ranges) may be refused."""
    document = event.to_json()
    text = [fault for fault in faults(document) if "type" in fault.rpartition(": ")[2].lower()]
    assert text == []
