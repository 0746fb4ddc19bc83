"""The scenes on which the suite tries enrichment, and the sender that fails as it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from toy import simulator, source

from bridge.config.connectors import source_connector
from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event
from bridge.core.source import Source, SourceApi
from bridge.testing.conforming_simulator import simulated_settings
from bridge.testing.scenes import begin, rehearsals, scenes
from bridge.testing.simulated_api import always, is_call, once, simulated_api

TOY = source_connector(Path(__file__).parent / "toy", source, simulator)
HAND_IN = TOY.manifest.kinds["hand-in"]
PAPER = "GET /papers/{id}"


@pytest.mark.parametrize(
    ("call", "name", "same"),
    [
        ("GET /papers/p-1", PAPER, True),
        ("GET /papers/p-1/author", PAPER, False),
        ("GET /papers/p-1/author", "GET /papers/{id}/author", True),
        ("POST /papers/p-1", PAPER, False),
        ("GET /papers", "GET /papers", True),
        ("GET https://files.example/a/b", "GET {signedUrl}", True),
        ("GET /papers/p-1", "GET {signedUrl}", False),
        ("GET https://files.example/papers/1", PAPER, False),
    ],
)
def test_calls_have_the_names_of_the_manifest(call: str, name: str, same: bool) -> None:
    assert is_call(call, name) == same


def test_a_call_that_is_not_logged_in_is_known_by_its_address() -> None:
    api, sender = simulated_api(TOY, simulator.platform(), simulated_settings(TOY))

    api.get("/papers/p-1")
    api.get("https://files.example/papers/p-2?signature=x")

    assert set(sender.asked) == {"POST /login", "GET /papers/p-1", "GET https://files.example/papers/p-2"}
    assert sender.token_call == "POST /login"
    assert sender.logged_in == {"GET /papers/p-1"}


def test_a_fault_hits_the_calls_of_its_name_and_no_others() -> None:
    api, sender = simulated_api(TOY, simulator.platform(), simulated_settings(TOY))
    sender.faults[PAPER] = always(429, headers={"retry-after": "7"})

    assert api.get("/papers/p-1/author") is not None
    with pytest.raises(SourceUnavailable) as caught:
        api.get("/papers/p-1")
    assert caught.value.retry_after == 7.0


def test_what_happens_once_does_not_happen_twice() -> None:
    fault = once(500)

    first, second = fault(), fault()

    assert first is not None
    assert (first.status, second) == (500, None)


def test_samples_come_from_several_platforms_and_fixtures_behind_them() -> None:
    found = list(scenes(TOY, HAND_IN))

    assert {scene.simulated for scene in found} == {True, False}
    assert len({scene.event.id for scene in found if scene.simulated}) == 3  # its samples differ by the seed alone
    assert [scene.name for scene in found if not scene.simulated] == ["hand-in, fixture hand-in"]


def test_two_scenes_are_enough_where_they_show_everything() -> None:
    assert len(rehearsals(TOY)) == 2


def test_a_young_event_waits_and_the_same_event_ends_when_it_is_old() -> None:
    scene = next(scenes(TOY, HAND_IN))
    trial = begin(TOY, scene, {PAPER: always(500)})

    young, old = trial.play(), trial.play(last_try=True)

    assert young.waits is not None
    assert (old.enrichment, old.reason, old.events[0].id) == (
        "missing",
        "the platform's API answered 500",
        scene.event.id,
    )
    assert trial.asked(PAPER) == 4  # each time with the quick second one


def test_what_breaks_is_told_with_its_place() -> None:
    def breaks(event: Event, api: SourceApi) -> Iterable[Event]:
        raise ZeroDivisionError

    names = ("verify", "parse", "normalise", "access")
    code = SimpleNamespace(**{name: getattr(source, name) for name in names}, enrich=breaks)
    broken = replace(TOY, code=cast(Source, code))

    ending = begin(broken, next(scenes(broken, HAND_IN))).play()

    assert ending.broke.startswith("ZeroDivisionError at test_scenes.py:")
    assert ending.events == ()
