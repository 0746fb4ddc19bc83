"""The event with nothing in it: what templates may name, and what an event written by hand is laid over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.events import Event, Json, event_from_json
from bridge.core.nouns import (
    Artifact,
    Assessment,
    Attendance,
    Change,
    Course,
    Data,
    Enrolment,
    Grade,
    Group,
    Identifier,
    Payment,
    Person,
    Raw,
    Session,
    Submission,
)
from bridge.core.vocabulary import TYPES, short
from bridge.flow.filters import Fault

OPTIONAL: Final = frozenset(("sourceaction", "sequence", "correlationid", "causationid", "observedat"))
"""Attributes that an event leaves out when there is nothing to say; templates see null."""

_MOMENT: Final = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def _blank(type: str, data: Data) -> Json:
    return Event(
        id="00000000-0000-4000-8000-000000000000",
        source="urn:edu:example:1",
        type=type,
        subject=f"{TYPES[type].noun}/1",
        time=_MOMENT,
        recordedtime=_MOMENT,
        tenant="example",
        sourceevent="example",
        enrichment="full",
        data=data,
    ).to_json()


_FILLED: Final = _blank(
    "source.tick",
    Data(
        person=Person(),
        actor=Person(),
        course=Course(),
        assessment=Assessment(),
        submission=Submission(),
        grade=Grade(),
        session=Session(),
        attendance=Attendance(),
        enrolment=Enrolment(),
        payment=Payment(),
        artifact=Artifact(),
        group=Group(),
        change=Change(),
        raw=Raw(ref="example", sha256="0" * 64),
    ),
)
_IDENTIFIER: Final = tuple(Identifier.__dataclass_fields__)


def keys_at(path: tuple[str | int, ...]) -> tuple[str, ...] | None:
    """The keys that an event has at a path; none where it holds a list, None where it holds a single value.

    Raises KeyError for a path that no event has.
    """
    here: Any = _FILLED | dict.fromkeys(OPTIONAL)
    for place, step in enumerate(path):
        if isinstance(here, list) and isinstance(step, int):
            here = dict.fromkeys(_IDENTIFIER)  # the only lists of an event
        elif isinstance(here, dict) and step in here:
            here = here[str(step)]
        else:
            raise KeyError(place)
    if isinstance(here, dict):
        return tuple(here)
    return () if isinstance(here, list) else None


def inline_event(document: Mapping[str, Any]) -> Json:
    """A whole event from the few keys that matter; `type` is needed, in its short or its long form.

    Every noun that is named gets all its other keys as null. Raises Fault for keys and types that no event has.
    """
    type = short(str(document.get("type", "")))
    if type not in TYPES:
        raise Fault("type: expected a canonical type such as grade.published")
    given = {key: value for key, value in document.items() if key not in ("type", "data")}
    if unknown := set(given) - set(_FILLED) - OPTIONAL:
        raise Fault(f"{min(unknown)}: an event has no such attribute")
    event = _blank(type, Data()) | given
    nouns = document.get("data") or {}
    if not isinstance(nouns, Mapping):
        raise Fault("data: expected an object")
    for noun, values in nouns.items():
        if noun not in event["data"]:
            raise Fault(f"data.{noun}: an event has no such noun")
        if values is None:
            continue
        if not isinstance(values, Mapping):
            raise Fault(f"data.{noun}: expected an object or null")
        if unknown := set(values) - set(_FILLED["data"][noun]):
            raise Fault(f"data.{noun}.{min(unknown)}: there is no such key")
        event["data"][noun] = _FILLED["data"][noun] | dict(values)
    try:
        return event_from_json(event).to_json()
    except (TypeError, ValueError, KeyError, AttributeError):
        raise Fault("a value has another shape than events have (times are ISO 8601, ids are text)") from None
