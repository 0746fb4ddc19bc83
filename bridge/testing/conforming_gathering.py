"""Conformance questions about lists that are read for a whole batch; answered by all that read none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.simulation import SimulatedPlatform
from bridge.core.source import Challenge, Gathering
from bridge.engine.process import completed
from bridge.flow.process import events_of
from bridge.flow.receive import verify
from bridge.outbound.source_api import Context
from bridge.testing.conforming_simulator import MADE_UP, as_inbound, simulated_settings
from bridge.testing.hostile import Caught, origin
from bridge.testing.simulated_api import Fault, always, is_call, simulated_api

_OF_A_DAY: Final = 150
_SEED: Final = 7
_SETTLED: Final = timedelta(minutes=10)
_FAILING: Final[Mapping[str, Fault]] = {
    "404": always(404),
    "500": always(500),
    "a text": always(200, b'"x"'),
    "an empty object": always(200, b"{}"),
    "an array of odd entries": always(200, b'[null, 1, "x", [], {}]'),
}


def lists_only_save_calls(connector: SourceConnector) -> list[str]:
    """A day's events come to the same with lists read first and without, with fewer calls, also where a list fails."""
    if not isinstance(connector.code, Gathering):
        return []
    now = datetime.now(UTC) - _SETTLED
    alone, gathered = _worked(connector, now, gather=False), _worked(connector, now, gather=True)
    complaints = _differences(alone, gathered, "with its list")
    if not gathered.lists:
        return [*complaints, "no list is worth its call for the events of a whole day"]
    if gathered.calls >= alone.calls:
        complaints.append(f"{gathered.calls} calls with lists, {alone.calls} without")
    lists = [call for call in gathered.lists if not _declared(connector, call)]
    for way, fault in _FAILING.items():
        failed = _worked(connector, now, gather=True, mishaps=dict.fromkeys(lists, fault))
        complaints += _differences(alone, failed, f"when its list answers with {way}")
    return complaints


@dataclass(frozen=True, slots=True, kw_only=True)
class _Day:
    """Events of a day, all of which wait, and the platform as it is after that day."""

    platform: SimulatedPlatform
    settings: Settings
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worked:
    """What the events came to in order, how many calls that took, and which of them gathering made."""

    results: tuple[list[Json] | str, ...]
    calls: int
    lists: tuple[str, ...]
    broke: str


def _day(connector: SourceConnector, now: datetime) -> _Day:
    settings = simulated_settings(connector)
    platform = connector.simulator.platform(seed=_SEED)
    events: list[Event] = []
    for number, call in enumerate(islice(platform.day(), _OF_A_DAY)):
        signed = platform.sign(call, MADE_UP, attempt=1, now=now)
        inbound = replace(as_inbound(signed, settings.name, now), id=f"simulated-{number}")
        proven = verify(connector, inbound, settings)
        if not isinstance(proven, Challenge):
            events += events_of(connector, proven, settings)
    return _Day(platform=platform, settings=settings, events=tuple(events))


def _worked(
    connector: SourceConnector, now: datetime, *, gather: bool, mishaps: Mapping[str, Fault] | None = None
) -> _Worked:
    """All events of a day as one batch, in the way of the engine; each time of the same day anew."""
    day = _day(connector, now)
    api, sender = simulated_api(connector, day.platform, day.settings)
    sender.faults.update(mishaps or {})
    context, broke = Context(), ""
    if gather and isinstance(connector.code, Gathering):
        with Caught() as caught:
            connector.code.gather(day.events, api.platform.client(context), len(day.events))
        if caught.error is not None and not isinstance(caught.error, SourceUnavailable):
            broke = f"breaks ({origin(caught.error)})"
    lists = tuple(call for call in sender.asked if call != sender.token_call)
    results: list[list[Json] | str] = []
    for event in day.events:
        results.append("breaks")
        with Caught() as caught:
            found, _ = completed(connector, event, api.platform.client(context), last_try=False)
            results[-1] = [replace(result, observedat=None).to_json() for result in found]
        if caught.error is not None:
            results[-1] = str(caught.error)
    return _Worked(results=tuple(results), calls=sender.asked.total(), lists=lists, broke=broke)


def _differences(alone: _Worked, other: _Worked, how: str) -> list[str]:
    """One complaint per kind of difference, not one per event."""
    return [f"gathering {other.broke} {how}"] * bool(other.broke) + sorted(
        {
            f"{_kind(one)} becomes another event {how}{_places(one, two)}"
            for one, two in zip(alone.results, other.results, strict=True)
            if one != two
        }
    )


def _kind(result: list[Json] | str) -> str:
    return str(result[0]["sourceevent"]) if isinstance(result, list) and result else "something"


def _places(one: list[Json] | str, two: list[Json] | str) -> str:
    """Which parts of an event differ, without their values."""
    if not isinstance(one, list) or not isinstance(two, list):
        return f" ({two if isinstance(two, str) else 'not waiting'}, alone {one if isinstance(one, str) else 'not'})"
    if len(one) != len(two):
        return f" ({len(two)} events, alone {len(one)})"
    names = {
        f"data.{noun}" if name == "data" else name
        for mine, yours in zip(one, two, strict=True)
        for name in mine.keys() | yours.keys()
        if mine.get(name) != yours.get(name)
        for noun in (_nouns(mine["data"], yours["data"]) if name == "data" else [""])
    }
    return f" ({', '.join(sorted(names))})"


def _nouns(one: Json, two: Json) -> list[str]:
    return [noun for noun in one if one[noun] != two.get(noun)]


def _declared(connector: SourceConnector, call: str) -> bool:
    kinds = connector.manifest.kinds.values()
    return any(is_call(call, declared.call) for kind in kinds for declared in kind.calls)
