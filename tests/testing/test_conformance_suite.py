"""The conformance suite is content with a good connector, and notices each thing that can be wrong with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from toy import simulator, source

from bridge.config.connectors import source_connector
from bridge.core.contracts import Call, Challenge, Inbound, Notice, Settings, Simulator, Source, SourceApi, Verified
from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event
from bridge.core.manifest import SourceConnector
from bridge.core.payload import Payload
from bridge.core.signing import sign
from bridge.testing.conformance import QUESTIONS, complaints

FOLDER = Path(__file__).parent / "toy"
GOOD = source_connector(FOLDER, source, simulator)


def with_code(**functions: Callable[..., Any]) -> SourceConnector:
    names = ("verify", "parse", "normalise", "access", "enrich")
    code = SimpleNamespace(**{name: functions.get(name, getattr(source, name)) for name in names})
    return replace(GOOD, code=cast(Source, code))


def with_platform(**functions: Callable[..., Any]) -> SourceConnector:
    def platform(seed: int = 1, people: int = 200) -> Any:
        toy = simulator.platform(seed, people)
        names = ("day", "sample", "sign", "answer")
        return SimpleNamespace(**{name: functions.get(name, getattr(toy, name)) for name in names})

    made = SimpleNamespace(RULE=simulator.RULE, settings=simulator.settings, platform=platform)
    return replace(GOOD, simulator=cast(Simulator, made))


def without_fixture(tmp_path: Path, name: str) -> SourceConnector:
    folder = tmp_path / "toy"
    shutil.copytree(FOLDER, folder)
    for path in (folder / "fixtures").glob(f"{name}.*"):
        path.unlink()
    return replace(GOOD, folder=folder)


def believes_everything(inbound: Inbound, settings: Settings) -> Verified:
    return replace(cast(Verified, source.verify(signed(inbound, settings), settings)), inbound=inbound)


def believes_the_headers(inbound: Inbound, settings: Settings) -> Verified:
    if not any(settings.secrets) or len(inbound.headers.get("x-toy-signature", "")) != 64:
        raise NotGenuine("no_signature")
    return believes_everything(inbound, settings)


def signed(inbound: Inbound, settings: Settings) -> Inbound:
    secret = next((s for s in settings.secrets if s), "x")
    return replace(inbound, headers={"x-toy-signature": sign(secret, inbound.body)})


def believes_even_without_a_secret(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    if any(settings.secrets):
        return source.verify(inbound, settings)
    return believes_everything(inbound, replace(settings, secrets=("x",)))


def knows_the_first_secret_only(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    return source.verify(inbound, replace(settings, secrets=settings.secrets[:1]))


def says_nothing_of_the_secret(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    return replace(cast(Verified, source.verify(inbound, settings)), proof="hmac")


def tells_the_secret(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    return replace(cast(Verified, source.verify(inbound, settings)), proof=f"secret {settings.secrets[0]}")


def breaks_on_odd_signatures(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    bytes.fromhex(inbound.headers["x-toy-signature"])
    return source.verify(inbound, settings)


def parses_carelessly(verified: Verified, settings: Settings) -> Iterable[Notice]:
    body = json.loads(verified.inbound.body)
    yield from source.parse(verified, settings)
    int(body["paper"].removeprefix("p-"))


def loses_unknown_kinds(verified: Verified, settings: Settings) -> Iterable[Notice]:
    return [notice for notice in source.parse(verified, settings) if notice.kind in source.TYPES]


def renames_unknown_kinds(verified: Verified, settings: Settings) -> Iterable[Notice]:
    for notice in source.parse(verified, settings):
        yield notice if notice.kind in source.TYPES else replace(notice, kind="something-else")


def shows_the_value(notice: Notice, settings: Settings) -> Event:
    by = notice.payload.at("by")
    if by.exists and not notice.payload.at("paper").present:
        raise PayloadError("$.by", f"something other than {by.value}")
    return source.normalise(notice, settings)


def uses_the_delivery(verified: Verified, settings: Settings) -> Iterable[Notice]:
    for notice in source.parse(verified, settings):
        yield replace(notice, key=verified.inbound.id)


def _counting() -> Callable[[Notice, Settings], Event]:
    numbers = count()

    def normalise(notice: Notice, settings: Settings) -> Event:
        return replace(source.normalise(notice, settings), correlationid=str(next(numbers)))

    return normalise


def gives_a_bad_event(notice: Notice, settings: Settings) -> Event:
    return replace(source.normalise(notice, settings), tenant=cast(str, 5))


def passes_on_any_text(notice: Notice, settings: Settings) -> Event:
    event = source.normalise(notice, settings)
    by = notice.payload.at("by").value
    return replace(event, correlationid=by) if isinstance(by, str) and by else event


def has_two_subjects(notice: Notice, settings: Settings) -> Event:
    event = source.normalise(notice, settings)
    return event if notice.kind == "hand-in" else replace(event, subject="retraction/1")


def gives_another_type(notice: Notice, settings: Settings) -> Event:
    return replace(source.normalise(notice, settings), type="grade.published")


def trusts_the_api(event: Event, api: SourceApi) -> Iterable[Event]:
    answer = api.get("/papers/p-1") or Payload({})
    cast(dict[str, str], answer.value)["email"].lower()
    return source.enrich(event, api)


def moves_the_subject(event: Event, api: SourceApi) -> Iterable[Event]:
    return [replace(result, subject="paper/other") for result in source.enrich(event, api)]


BROKEN: dict[str, tuple[str, SourceConnector]] = {
    "believes everything: body": ("changed_body_refused", with_code(verify=believes_the_headers)),
    "believes everything: signature": ("wrong_signature_refused", with_code(verify=believes_everything)),
    "believes without a secret": ("wrong_signature_refused", with_code(verify=believes_even_without_a_secret)),
    "believes without a signature": ("missing_signature_refused", with_code(verify=believes_everything)),
    "one secret only": ("rotation", with_code(verify=knows_the_first_secret_only)),
    "proof without position": ("rotation", with_code(verify=says_nothing_of_the_secret)),
    "secret in the proof": ("no_secrets_in_errors", with_code(verify=tells_the_secret)),
    "e-mail address in an error": ("no_secrets_in_errors", with_code(normalise=shows_the_value)),
    "odd headers": ("hostile_bodies_raise_only_our_errors", with_code(verify=breaks_on_odd_signatures)),
    "odd bodies": ("hostile_bodies_raise_only_our_errors", with_code(parse=parses_carelessly)),
    "odd answers": ("hostile_bodies_raise_only_our_errors", with_code(enrich=trusts_the_api)),
    "odd texts": ("hostile_bodies_raise_only_our_errors", with_code(normalise=passes_on_any_text)),
    "unknown lost": ("unknown_kind_named_and_kept", with_code(parse=loses_unknown_kinds)),
    "unknown renamed": ("unknown_kind_named_and_kept", with_code(parse=renames_unknown_kinds)),
    "another result": ("expected_events", with_code(normalise=has_two_subjects)),
    "breaks": ("expected_events", with_code(normalise=lambda notice, settings: 1 / 0)),
    "ids of deliveries": ("same_input_same_events", with_code(parse=uses_the_delivery)),
    "never twice the same": ("same_input_same_events", with_code(normalise=_counting())),
    "not valid": ("events_validate", with_code(normalise=gives_a_bad_event)),
    "two subjects": ("subjects_order_families", with_code(normalise=has_two_subjects)),
    "subject moves": ("subjects_order_families", with_code(enrich=moves_the_subject)),
    "type not in the manifest": ("canonical_types_exist", with_code(normalise=gives_another_type)),
    "name": ("name_is_folder", replace(GOOD, name="other")),
    "kind without a sample": ("simulator_speaks_every_kind", with_platform(sample=lambda kind: {}[kind])),
    "sample of another kind": (
        "simulator_speaks_every_kind",
        with_platform(sample=lambda kind: simulator.platform().sample("hand-in")),
    ),
    "wrongly signed": (
        "simulator_speaks_every_kind",
        with_platform(sign=lambda call, secret, attempt, now: simulator.platform().sign(call, "x", attempt=1, now=now)),
    ),
    "attempts differ": (
        "simulator_repeats_itself",
        with_platform(
            sign=lambda call, secret, attempt, now: simulator.platform().sign(
                Call(kind=call.kind, body=call.body | {"id": attempt}), secret, attempt=attempt, now=now
            )
        ),
    ),
    "day repeats": (
        "simulated_day_is_understood",
        with_platform(day=lambda: (simulator.platform().sample("hand-in") for _ in count())),
    ),
    "day not understood": (
        "simulated_day_is_understood",
        with_platform(day=lambda: (Call(kind="x", body={"kind": "x", "id": number}) for number in count())),
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_good_connector_passes(question: str) -> None:
    assert complaints(GOOD, question) == []


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_connector_is_noticed(what: str) -> None:
    question, connector = BROKEN[what]
    assert complaints(connector, question)


@pytest.mark.parametrize(
    ("name", "question"),
    [
        ("take-back", "every_kind_has_a_fixture"),
        ("known-answer*", "known_answer"),
        ("unknown-kind", "unknown_kind_named_and_kept"),
        ("*", "expected_events"),
        ("*", "rotation"),
    ],
)
def test_a_missing_fixture_is_noticed(tmp_path: Path, name: str, question: str) -> None:
    assert complaints(without_fixture(tmp_path, name), question)


def test_a_waiver_silences_a_question_that_fails(tmp_path: Path) -> None:
    connector = without_fixture(tmp_path, "known-answer*")
    waived = replace(connector, manifest=replace(connector.manifest, waivers={"known_answer": "nobody publishes one"}))
    assert complaints(waived, "known_answer") == []


def test_a_stale_waiver_is_a_complaint() -> None:
    waived = replace(GOOD, manifest=replace(GOOD.manifest, waivers={"known_answer": "nobody publishes one"}))
    assert "stale" in complaints(waived, "known_answer")[0]


def test_a_waiver_for_no_question_is_a_complaint() -> None:
    waived = replace(GOOD, manifest=replace(GOOD.manifest, waivers={"no_such_question": "nobody asks"}))
    assert complaints(waived, "waivers_name_questions")


def test_an_unsigned_body_is_not_asked_about() -> None:
    connector = with_code(verify=believes_the_headers)
    unsigned = replace(connector, manifest=replace(connector.manifest, signed_body=False))
    assert complaints(unsigned, "changed_body_refused") == []


def test_every_question_says_what_it_asks() -> None:
    assert all((question.__doc__ or "").strip() for question in QUESTIONS.values())
