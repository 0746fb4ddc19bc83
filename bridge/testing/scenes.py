"""Events of a connector with a platform behind them that knows more, to try enrichment on, mishaps included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.manifest import EnrichingCall, Kind, SourceConnector
from bridge.core.settings import Settings
from bridge.core.simulation import ApiCall, ApiReply, Call, SimulatedPlatform
from bridge.core.source import Challenge
from bridge.engine.process import completed
from bridge.flow.process import deadline_of, events_of
from bridge.flow.receive import verify
from bridge.outbound.source_api import Context, HttpSourceApi
from bridge.testing.conforming_simulator import MADE_UP, as_inbound, simulated_settings
from bridge.testing.event_schema import faults
from bridge.testing.fixtures import Fixture, read_fixtures
from bridge.testing.hostile import Caught, json_of, origin
from bridge.testing.simulated_api import Answering, Fault, SimulatedSender, is_call, simulated_api

TRIES: Final = 8
"""How often an event may wait for something that is only being made, such as an export."""

_SEEDS: Final = (7, 8, 9)
_SAMPLES: Final = 3
_PEOPLE: Final = 30
_ENOUGH: Final = 60
# Of the connector that was asked about last: one question follows the other.
_rehearsed: Final[list[tuple[SourceConnector, list[Rehearsal]]]] = []
_WORST_FIRST: Final[tuple[Enrichment, ...]] = ("skipped", "missing", "partial", "full")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """An event before enrichment; `platform` makes the platform anew, as it was when the event came."""

    name: str
    kind: Kind
    event: Event
    settings: Settings
    platform: Callable[[], Answering]
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What became of a try: events and the reason of what they lack, or why it waits, or where it broke."""

    events: tuple[Event, ...] = ()
    reason: str = ""
    waits: SourceUnavailable | None = None
    broke: str = ""

    @property
    def enrichment(self) -> Enrichment:
        """That of the least complete event."""
        return min((event.enrichment for event in self.events), key=_WORST_FIRST.index, default="missing")

    def __str__(self) -> str:
        if self.broke:
            return f"breaks ({self.broke})"
        return f"waits ({self.waits.reason})" if self.waits is not None else f"goes on as {self.enrichment}"


@dataclass(slots=True, kw_only=True)
class Trial:
    """One scene on one client, which keeps its token and its answers from try to try as a worker does."""

    connector: SourceConnector
    scene: Scene
    api: HttpSourceApi
    sender: SimulatedSender
    tries: int = 0

    def play(self, *, last_try: bool = False) -> Ending:
        """One try of an event that has only just come, or the last one of an event that is old."""
        self.tries += 1
        event, now = self.scene.event, datetime.now(UTC)
        deadline = deadline_of(self.connector, event, self.connector.manifest.deadline)
        age = deadline + timedelta(minutes=1) if last_try else timedelta(0)
        client = self.api.platform.client(Context(last_try=last_try))
        event = replace(event, recordedtime=now - age)
        with Caught() as caught:
            events, story = completed(self.connector, event, client, last_try=last_try)
            return Ending(events=tuple(events), reason=story["reason"])
        if isinstance(caught.error, SourceUnavailable):
            return Ending(waits=caught.error)
        return Ending(broke=origin(caught.error) if caught.error is not None else "nothing came")

    def play_on(self, until: str | None = None) -> Ending:
        """Try until it does not wait any more, or a call was made; what waits for something else may do so a while."""
        ending = self.play()
        while ending.waits is not None and self.tries < TRIES and not (until and self.asked(until)):
            ending = self.play()
        return ending

    def asked(self, name: str) -> int:
        """How often a call was made, the quick second try and the one with another token counted."""
        return sum(times for call, times in self.sender.asked.items() if is_call(call, name))

    @property
    def calls(self) -> list[str]:
        """The calls made so far, those for a token aside."""
        return [call for call in self.sender.asked if call != self.sender.token_call]

    @property
    def tokens(self) -> int:
        """How many tokens were fetched."""
        return self.sender.asked[self.sender.token_call] if self.sender.token_call else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A scene played without a mishap: how it ends, and after how many tries."""

    scene: Scene
    trial: Trial
    ending: Ending

    @property
    def full(self) -> bool:
        return self.ending.enrichment == "full"

    @property
    def gone(self) -> bool:
        """Whether the platform says that what the event is about is not there any more."""
        return any(self.tells(call) for call in self.scene.kind.calls)

    def tells(self, call: EnrichingCall) -> bool:
        """Whether a call was answered with a 404 that is the news."""
        answers = self.trial.sender.answers.items()
        return call.absent == "tells" and any(
            answer.status == 404 and is_call(name, call.call) for name, answer in answers
        )

    def answer(self, call: EnrichingCall) -> Any:
        """The JSON that the platform has for a call."""
        answers = self.trial.sender.answers.items()
        return next((json_of(answer.body) for name, answer in answers if is_call(name, call.call)), None)

    def shows(self, what: str) -> bool:
        """Whether, all being well, a call ("GET /flow/{flowId}") is made or a path of the events is filled."""
        if not (self.full or self.gone):
            return False
        return self.trial.asked(what) > 0 if " " in what else bool(filled(self.ending, what, self.scene))


@dataclass(slots=True)
class _Drawn:
    """A simulated platform as it is after some samples, made anew when it has answered so much that a limit is near."""

    draw: Callable[[], SimulatedPlatform]
    platform: SimulatedPlatform
    answered: int = 0

    def __call__(self) -> Answering:
        if self.answered >= _ENOUGH:
            self.platform, self.answered = self.draw(), 0
        return self

    def answer(self, call: ApiCall) -> ApiReply:
        """The platform's answer, counted."""
        self.answered += 1
        return self.platform.answer(call)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The platform of a fixture."""

    answers: Mapping[str, Any]
    base: str

    def answer(self, call: ApiCall) -> ApiReply:
        """What the fixture says; a token for whoever sends a form; 404 for the rest."""
        for name, answer in self.answers.items():
            method, _, address = name.partition(" ")
            split = urlsplit(address)
            path = unquote(split.path if split.netloc else self.base + split.path)
            query = dict(parse_qsl(split.query, keep_blank_values=True))
            if (method, path, query) == (call.method, call.path, dict(call.query)):
                return ApiReply(status=answer.get("status", 200), json=answer.get("json"))
        if call.form:
            return ApiReply(json={"access_token": "recorded", "expires_in": 3600})
        return ApiReply(status=404, json=None)


def begin(connector: SourceConnector, scene: Scene, mishaps: Mapping[str, Fault] | None = None) -> Trial:
    """A scene on a client of its own, with what happens to some calls instead of their answer."""
    api, sender = simulated_api(connector, scene.platform(), scene.settings)
    sender.faults.update(mishaps or {})
    return Trial(connector=connector, scene=scene, api=api, sender=sender)


def rehearsals(connector: SourceConnector) -> list[Rehearsal]:
    """For each kind with calls as many scenes as it takes to see every call made and every field filled, two at least.

    Scenes that break are left out: questions about events and simulators tell of them.
    """
    if not any(known is connector for known, _ in _rehearsed):
        kinds = [kind for kind in connector.manifest.kinds.values() if kind.calls]
        _rehearsed[:] = [(connector, [each for kind in kinds for each in _telling(connector, kind)])]
    return _rehearsed[0][1]


def unsound(ending: Ending) -> Iterator[str]:
    """What is wrong with the events of an ending, however little they say; nothing for one that waits."""
    if ending.broke:
        yield str(ending)
    elif ending.waits is None and not ending.events:
        yield "no event is left"
    for event in ending.events:
        yield from faults(event.to_json())
        if event.enrichment == "skipped":
            yield "an event is marked as if nobody had asked"
        if event.enrichment in ("full", "partial") and event.observedat is None:
            yield "an event does not say when the platform was read"


def filled(ending: Ending, path: str, scene: Scene) -> list[object]:
    """What stands at a path of the events and did not before they were completed."""
    nothing: tuple[object, ...] = (None, "", [], at_path(scene.event, path))
    return [value for event in ending.events if (value := at_path(event, path)) not in nothing]


def at_path(event: Event, path: str) -> object:
    """What stands at `data.person.givenName`; None where a noun on the way is not there."""
    found: Any = event.to_json()
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _telling(connector: SourceConnector, kind: Kind) -> list[Rehearsal]:
    """Scenes of a kind, those left out that show nothing new."""
    missing = {call.call for call in kind.calls} | {path for call in kind.calls for path in call.fills}
    chosen: list[Rehearsal] = []
    for number, scene in enumerate(scenes(connector, kind)):
        trial = begin(connector, scene)
        rehearsal = Rehearsal(scene=scene, trial=trial, ending=trial.play_on())
        shown = {what for what in missing if rehearsal.shows(what)}
        if number < 2 or shown:
            chosen.append(rehearsal)
        missing -= shown
        if number > 0 and not missing:
            break
    return chosen


def scenes(connector: SourceConnector, kind: Kind) -> Iterator[Scene]:
    """Samples of a kind from several simulated platforms, then its fixtures that have answers of an API."""
    for number, seed in product(range(_SAMPLES), _SEEDS):
        with Caught():
            yield from _simulated(connector, kind, seed, number)
    for fixture in read_fixtures(connector):
        if fixture.outcome == "accepted" and fixture.expected.get("api"):
            with Caught():
                yield from _recorded(connector, kind, fixture)


def _simulated(connector: SourceConnector, kind: Kind, seed: int, number: int) -> Iterator[Scene]:
    def drawn() -> tuple[SimulatedPlatform, Call]:
        platform = connector.simulator.platform(seed=seed, people=_PEOPLE)
        calls = [platform.sample(kind.name) for _ in range(number + 1)]
        return platform, calls[-1]

    now = datetime.now(UTC)
    settings = simulated_settings(connector)
    platform, call = drawn()
    signed = platform.sign(call, MADE_UP, attempt=1, now=now)
    proven = verify(connector, as_inbound(signed, settings.name, now), settings)
    if isinstance(proven, Challenge):
        return
    for event in events_of(connector, proven, settings):
        if event.sourceevent == kind.name:
            yield Scene(
                name=f"{kind.name}, sample {number + 1} of seed {seed}",
                kind=kind,
                event=event,
                settings=settings,
                platform=_Drawn(lambda: drawn()[0], platform),
                simulated=True,
            )


def _recorded(connector: SourceConnector, kind: Kind, fixture: Fixture) -> Iterator[Scene]:
    access = connector.code.access(fixture.settings)
    proven = verify(connector, fixture.inbound, fixture.settings)
    if access is None or isinstance(proven, Challenge):
        return
    platform = _Recorded(fixture.expected["api"], urlsplit(access.base_url).path.rstrip("/"))
    for event in events_of(connector, proven, fixture.settings):
        if event.sourceevent == kind.name:
            yield Scene(
                name=f"{kind.name}, fixture {fixture.name}",
                kind=kind,
                event=event,
                settings=fixture.settings,
                platform=lambda: platform,
                simulated=False,
            )
