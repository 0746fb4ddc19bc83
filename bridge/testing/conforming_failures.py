"""Conformance questions about enrichment when the platform's API fails: each call of each kind, in each way, once.

The client is the real one, and so is what the engine makes of its errors; only the sender is not.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge.core.manifest import EnrichingCall, SourceConnector
from bridge.flow.judge import AnswerLost, NotSent
from bridge.testing.hostile import hollow
from bridge.testing.scenes import Ending, Rehearsal, Trial, at_path, begin, rehearsals, unsound
from bridge.testing.simulated_api import Fault, always, is_call, once

_RETRY_AFTER: Final = 7.0
_ASKED_TO_WAIT: Final = "429 with Retry-After"
_OUTAGES: Final[Mapping[str, Fault]] = {
    "401": always(401),
    "403": always(403),
    _ASKED_TO_WAIT: always(429, headers={"retry-after": f"{_RETRY_AFTER:.0f}"}),
    "429": always(429),
    "500": always(500),
    "400": always(400),
    "no connection": always(error=NotSent("no connection")),
    "timeout": always(error=AnswerLost("no answer in time")),
    "malformed JSON": always(200, b'{"data": [{"id": 1, "na'),
    "HTML": always(200, b"<!doctype html><title>Maintenance</title>"),
}
# What an event, or one of its nouns, is by the platform's present word.
_TRUTHS: Final = (
    "type",
    "data.submission.status",
    "data.assessment.state",
    "data.grade.status",
    "data.session.status",
    "data.attendance.status",
    "data.enrolment.status",
    "data.payment.status",
    "data.group.action",
    "data.change",
)
_ENDS: Final = ("deleted", "removed", "cancelled", "revoked", "withdrawn")


def absent_as_declared(connector: SourceConnector) -> list[str]:
    """A 404 of a call does what the manifest says it does."""
    return _asked_of_every_call(connector, _absent)


def refused_once_heals(connector: SourceConnector) -> list[str]:
    """A token that is refused is fetched anew once, and nobody notices; without a token the event may wait."""
    return _asked_of_every_call(connector, _refused_once)


def broken_once_heals(connector: SourceConnector) -> list[str]:
    """A call that fails for a moment is made again, and nobody notices."""
    return _asked_of_every_call(connector, _broken_once)


def outages_wait_and_end(connector: SourceConnector) -> list[str]:
    """A call that keeps failing, in whatever way, makes the event wait, and at last go on as `failing` says."""
    return _asked_of_every_call(connector, _outages)


def odd_answers_break_nothing(connector: SourceConnector) -> list[str]:
    """An answer without what it should hold breaks nothing; one of another JSON type counts as no answer at all."""
    return _asked_of_every_call(connector, _odd_answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A call, and a scene that makes it and becomes full when nothing goes wrong, or is about a thing that is gone."""

    connector: SourceConnector
    call: EnrichingCall
    rehearsal: Rehearsal

    def begin(self, fault: Fault) -> Trial:
        return begin(self.connector, self.rehearsal.scene, {self.call.call: fault})

    def young_and_old(self, fault: Fault) -> tuple[Ending, Ending]:
        """What becomes of an event that has only just come, and of it at its last try."""
        trial = self.begin(fault)
        return trial.play_on(until=self.call.call), trial.play(last_try=True)


def _asked_of_every_call(connector: SourceConnector, ask: Callable[[_Case], Iterator[str]]) -> list[str]:
    """Calls that no scene makes are the matter of `calls_are_declared`."""
    played = rehearsals(connector)
    complaints = []
    for kind in connector.manifest.kinds.values():
        for call in kind.calls:
            showing = (each for each in played if each.scene.kind is kind and each.shows(call.call))
            for rehearsal in list(showing)[:1]:
                case = _Case(connector=connector, call=call, rehearsal=rehearsal)
                complaints += [f"{kind.name}, {call.call}: {complaint}" for complaint in ask(case)]
    return complaints


def _absent(case: _Case) -> Iterator[str]:
    return _together({"404": _absent_or_not(case)})


def _absent_or_not(case: _Case) -> Iterator[str]:
    young, old = case.young_and_old(always(404))
    yield from unsound(young)
    yield from (f"at the last try {fault}" for fault in unsound(old))
    match case.call.absent:
        case "waits":
            yield from _not_waiting(young)
            yield from _not_as(old, case.call.failing, "at the last try ")
        case "tells":
            if not _told(case.rehearsal, old):
                yield f"at the last try {old}, and it tells nothing: type and status stay as they are"
        case result:
            yield from _not_as(young, result)
            yield from _not_as(old, result, "at the last try ")


def _refused_once(case: _Case) -> Iterator[str]:
    return _together({"401 once": _refused_once_or_not(case)})


def _refused_once_or_not(case: _Case) -> Iterator[str]:
    trial, calm = case.begin(once(401)), case.rehearsal
    if any(is_call(call, case.call.call) for call in calm.trial.sender.logged_in):
        yield from _not_healed(trial, calm)
        if trial.tokens != calm.trial.tokens + 1:
            yield f"fetches {trial.tokens - calm.trial.tokens} more tokens, expected one"
    else:
        first = trial.play_on(until=case.call.call)  # it may wait, or find another way, such as another address
        yield from _not_as(first if first.waits is None else trial.play_on(), calm.ending.enrichment)


def _broken_once(case: _Case) -> Iterator[str]:
    faults = {"500 once": once(500), "timeout once": once(error=AnswerLost("no answer in time"))}
    return _together({way: _not_healed(case.begin(fault), case.rehearsal) for way, fault in faults.items()})


def _outages(case: _Case) -> Iterator[str]:
    return _together(
        {
            way: _waits_and_ends(case, fault, retry_after=_RETRY_AFTER if way == _ASKED_TO_WAIT else None)
            for way, fault in _OUTAGES.items()
        }
    )


def _odd_answers(case: _Case) -> Iterator[str]:
    real = case.rehearsal.answer(case.call)
    wrong: dict[str, Any] = {"a text": "x", "a number": 7}
    wrong |= {"an array for an object": []} if isinstance(real, dict) else {"an object for an array": {}}
    lacking: dict[str, Any] = {
        "null": None,
        "an empty object": {},
        "an empty array": [],
        "null in every place": hollow(real),
        "null in every entry": dict.fromkeys(real) if isinstance(real, dict) else [None],
    }
    return _together(
        {way: _waits_and_ends(case, _answering(document)) for way, document in wrong.items()}
        | {way: _survives(case, _answering(document)) for way, document in lacking.items()}
    )


def _survives(case: _Case, fault: Fault) -> Iterator[str]:
    for ending in case.young_and_old(fault):
        yield from unsound(ending)


def _waits_and_ends(case: _Case, fault: Fault, *, retry_after: float | None = None) -> Iterator[str]:
    """An event waits while a call fails so, and goes on as declared in the end, its reason kept."""
    young, old = case.young_and_old(fault)
    yield from _not_waiting(young)
    yield from unsound(young)
    if young.waits is not None and retry_after not in (None, young.waits.retry_after):
        yield f"waits {young.waits.retry_after} seconds, expected {retry_after}"
    yield from (f"at the last try {fault}" for fault in unsound(old))
    yield from _not_as(old, case.call.failing, "at the last try ")
    if old.events and not old.reason:
        yield f"at the last try {old}, and leaves no reason"


def _not_waiting(ending: Ending) -> Iterator[str]:
    if ending.waits is None:
        yield f"{ending}, expected that it waits"


def _not_healed(trial: Trial, calm: Rehearsal) -> Iterator[str]:
    ending = trial.play_on()
    if ending.waits is not None or trial.tries > calm.trial.tries:
        yield "makes it wait"
    yield from _not_as(ending, calm.ending.enrichment)


def _not_as(ending: Ending, expected: str, when: str = "") -> Iterator[str]:
    if not ending.events or ending.enrichment != expected:
        yield f"{when}{ending}, expected {expected}"


def _together(found: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Complaints by the way to fail; what is said of several ways is said once."""
    ways: defaultdict[str, list[str]] = defaultdict(list)
    for way, sentences in found.items():
        for sentence in dict.fromkeys(sentences):
            ways[sentence].append(way)
    yield from (f"with {', '.join(each)}: {sentence}" for sentence, each in ways.items())


def _told(rehearsal: Rehearsal, absent: Ending) -> bool:
    """Whether an event says that its thing is gone: something that neither it nor the platform said before."""
    if any(event.type.endswith(_ENDS) for event in absent.events):
        return True
    before = (rehearsal.scene.event, *rehearsal.ending.events)
    return not absent.reason and any(
        (now := at_path(event, path)) is not None and all(now != at_path(each, path) for each in before)
        for event in absent.events
        for path in _TRUTHS
    )


def _answering(document: Any) -> Fault:
    return always(200, json.dumps(document).encode())
