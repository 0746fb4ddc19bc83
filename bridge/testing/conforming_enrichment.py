"""Conformance questions about enrichment while the platform's API answers: what is asked, and what it fills."""

from __future__ import annotations

import json
from collections.abc import Iterator

from bridge.core.manifest import EnrichingCall, Kind, SourceConnector
from bridge.testing.event_schema import fields
from bridge.testing.hostile import hollow
from bridge.testing.scenes import Ending, Rehearsal, begin, filled, rehearsals, unsound
from bridge.testing.simulated_api import Fault, always, is_call


def calls_are_declared(connector: SourceConnector) -> list[str]:
    """Enrichment makes the calls that the manifest declares, each of them in some scene, and no others."""
    complaints: list[str] = []
    played = rehearsals(connector)
    for rehearsal in played:
        kind = rehearsal.scene.kind
        complaints += [
            f"{rehearsal.scene.name}: asks {call}, which the manifest does not say"
            for call in rehearsal.trial.calls
            if not any(is_call(call, declared.call) for declared in kind.calls)
        ]
    complaints += [
        f"{kind.name}: no sample and no fixture that becomes full makes the call {call.call}"
        for kind in connector.manifest.kinds.values()
        for call in kind.calls
        if not any(rehearsal.scene.kind is kind and rehearsal.shows(call.call) for rehearsal in played)
    ]
    return complaints


def samples_become_full(connector: SourceConnector) -> list[str]:
    """With an API that answers, every sample becomes `full` and says when it was read; all results are valid."""
    complaints: list[str] = []
    for rehearsal in rehearsals(connector):
        scene, ending = rehearsal.scene, rehearsal.ending
        complaints += [f"{scene.name}: {fault}" for fault in unsound(ending)]
        if scene.simulated and not rehearsal.full and not rehearsal.gone:
            complaints.append(f"{scene.name}: {ending}{f' ({ending.reason})' if ending.reason else ''}, expected full")
    return complaints


def calls_fill_their_fields(connector: SourceConnector) -> list[str]:
    """What a call `fills` is not there before it, is there after it, and is not filled without it."""
    complaints: list[str] = []
    played = rehearsals(connector)
    for kind in connector.manifest.kinds.values():
        mine = [rehearsal for rehearsal in played if rehearsal.scene.kind is kind]
        for call in kind.calls:
            complaints += [
                f"{kind.name}, {call.call}: {complaint}"
                for path in call.fills
                for complaint in _unfilled(connector, kind, call, path, mine)
            ]
    return complaints


def _unfilled(
    connector: SourceConnector, kind: Kind, call: EnrichingCall, path: str, played: list[Rehearsal]
) -> Iterator[str]:
    """A field may come from one of several calls: then it is there until all of them fail."""
    if path not in fields():
        yield f"there is no field {path} in an event"
        return
    asking = [rehearsal for rehearsal in played if rehearsal.shows(call.call)]
    if asking and all(rehearsal.tells(call) for rehearsal in asking):
        return  # whatever is asked about is gone
    showing = [rehearsal for rehearsal in asking if rehearsal.shows(path)]
    if not showing:
        yield f"never fills {path}"
        return
    if not any(_is_filled_by(connector, kind, call, path, rehearsal) for rehearsal in showing):
        yield f"{path} is filled without it"


def _is_filled_by(connector: SourceConnector, kind: Kind, call: EnrichingCall, path: str, rehearsal: Rehearsal) -> bool:
    def without(*silent: EnrichingCall) -> list[Ending]:
        """How the scene ends without some calls, for each way to be without them."""
        endings = []
        for keep_lists in (True, False):
            mishaps = {each.call: _silence(rehearsal, each, keep_lists) for each in silent}
            trial = begin(connector, rehearsal.scene, mishaps)
            trial.play_on(until=call.call)
            endings.append(trial.play(last_try=True))
        return endings

    def remains(ending: Ending) -> list[object]:
        return filled(ending, path, rehearsal.scene)

    everything = remains(rehearsal.ending)
    if any(remains(ending) != everything for ending in without(call)):
        return True
    others = [other for other in kind.calls if other is not call and path in other.fills]
    if all(remains(ending) == everything for ending in without(call, *others)):
        return False
    # Where nothing at all is known without the others, nobody can tell.
    return any(remains(ending) or ending.enrichment == "missing" for ending in without(*others))


def _silence(rehearsal: Rehearsal, call: EnrichingCall, keep_lists: bool) -> Fault:
    """A call that tells nothing. One without which nothing at all is known is answered all the same, with nulls."""
    if call.failing == "partial":
        return always(500)
    return always(200, json.dumps(hollow(rehearsal.answer(call), keep_lists=keep_lists)).encode())
