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
from bridge.core.errors import NotGenuine, PayloadError, SourceUnavailable
from bridge.core.events import Enrichment, Event
from bridge.core.manifest import SourceConnector
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import sign
from bridge.core.simulation import ApiCall, ApiReply, Call, Simulator
from bridge.core.source import ApiAccess, Challenge, Inbound, Notice, Source, SourceApi, Verified
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


def with_call(position: int, connector: SourceConnector = GOOD, **changes: Any) -> SourceConnector:
    """The toy, whose manifest says something else of one call of a hand-in."""
    kinds = dict(connector.manifest.kinds)
    calls = list(kinds["hand-in"].calls)
    calls[position] = replace(calls[position], **changes)
    kinds["hand-in"] = replace(kinds["hand-in"], calls=tuple(calls))
    return replace(connector, manifest=replace(connector.manifest, kinds=kinds))


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


def asks_for_more(event: Event, api: SourceApi) -> Iterable[Event]:
    api.get("/people/1")
    return source.enrich(event, api)


def asks_for_less(event: Event, api: SourceApi) -> Iterable[Event]:
    api.get(f"/papers/{event.subject.removeprefix('paper/')}")
    return [replace(event, enrichment="full", observedat=api.now)]


def is_never_content(event: Event, api: SourceApi) -> Iterable[Event]:
    return [replace(result, enrichment="partial") for result in source.enrich(event, api)]


def does_not_say_when(event: Event, api: SourceApi) -> Iterable[Event]:
    return [replace(result, observedat=None) for result in source.enrich(event, api)]


def loses_it_without_a_paper(event: Event, api: SourceApi) -> Iterable[Event]:
    return [result for result in source.enrich(event, api) if result.enrichment != "missing"]


def has_no_patience(event: Event, api: SourceApi) -> Iterable[Event]:
    try:
        return list(source.enrich(event, api))
    except SourceUnavailable:
        return [replace(event, enrichment="missing")]


def forgets_how_long_to_wait(event: Event, api: SourceApi) -> Iterable[Event]:
    try:
        return list(source.enrich(event, api))
    except SourceUnavailable as error:
        raise SourceUnavailable(error.reason) from None


def waits_for_ever(event: Event, api: SourceApi) -> Iterable[Event]:
    if api.get(f"/papers/{event.subject.removeprefix('paper/')}/author") is None:
        raise SourceUnavailable("an author must be there")
    return source.enrich(event, api)


def asks_only_once(event: Event, api: SourceApi) -> Iterable[Event]:
    if api.change("GET", f"/papers/{event.subject.removeprefix('paper/')}") is None:
        raise SourceUnavailable("the paper is not there yet")
    return source.enrich(event, api)


def takes_anything_for_an_answer(event: Event, api: SourceApi) -> Iterable[Event]:
    path = f"/papers/{event.subject.removeprefix('paper/')}"
    answers = [api.get(path), api.get(f"{path}/author", extra=True), api.get(f"{path}/receipt")]
    state: Enrichment = "missing" if answers[0] is None else "full" if answers[1] else "partial"
    return [replace(event, enrichment=state, observedat=api.now)]


def breaks_on_a_null(event: Event, api: SourceApi) -> Iterable[Event]:
    answer = api.get(f"/papers/{event.subject.removeprefix('paper/')}")
    if answer is not None:
        cast(dict[str, str], answer.value)["email"].lower()
    return source.enrich(event, api)


def keeps_its_token_to_itself(settings: Settings) -> ApiAccess | None:
    return replace(cast(ApiAccess, source.access(settings)), token=None)


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
    "asks too much": ("calls_are_declared", with_code(enrich=asks_for_more)),
    "never asks": ("calls_are_declared", with_code(enrich=asks_for_less)),
    "never full": ("samples_become_full", with_code(enrich=is_never_content)),
    "not dated": ("samples_become_full", with_code(enrich=does_not_say_when)),
    "fills a noun": ("calls_fill_their_fields", with_call(1, fills=("data.person",))),
    "fills what was there": ("calls_fill_their_fields", with_call(1, fills=("data.submission.key",))),
    "fills nothing": ("calls_fill_their_fields", with_call(1, fills=("data.person.familyName",))),
    "another call fills": (
        "calls_fill_their_fields",
        with_call(1, with_call(2, fills=("data.person.email",)), fills=("data.submission.submittedAt",)),
    ),
    "404 lost": ("absent_as_declared", with_code(enrich=loses_it_without_a_paper)),
    "404 waits": ("absent_as_declared", with_code(enrich=waits_for_ever)),
    "404 does not wait": ("absent_as_declared", with_call(1, absent="waits")),
    "404 is worse": ("absent_as_declared", with_call(0, absent="partial")),
    "404 tells nothing": ("absent_as_declared", with_call(1, absent="tells")),
    "token not renewed": ("refused_once_heals", with_code(access=keeps_its_token_to_itself, enrich=has_no_patience)),
    "no second try": ("broken_once_heals", with_code(enrich=asks_only_once)),
    "no patience": ("outages_wait_and_end", with_code(enrich=has_no_patience)),
    "Retry-After lost": ("outages_wait_and_end", with_code(enrich=forgets_how_long_to_wait)),
    "ends as more": ("outages_wait_and_end", with_call(0, failing="partial")),
    "ends as less": ("outages_wait_and_end", with_call(1, failing="missing")),
    "any answer will do": ("odd_answers_break_nothing", with_code(enrich=takes_anything_for_an_answer)),
    "null breaks it": ("odd_answers_break_nothing", with_code(enrich=breaks_on_a_null)),
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


def test_a_fixture_may_show_a_call_that_no_sample_makes(tmp_path: Path) -> None:
    def without_papers(call: ApiCall) -> ApiReply:
        return ApiReply(status=404) if call.path.startswith("/papers") else simulator.platform().answer(call)

    connector = with_platform(answer=without_papers)

    assert complaints(connector, "samples_become_full")
    assert complaints(connector, "calls_are_declared") == []
    assert complaints(connector, "outages_wait_and_end") == []
    unseen = replace(connector, folder=without_fixture(tmp_path, "hand-in").folder)
    assert "no sample and no fixture" in complaints(unseen, "calls_are_declared")[0]


def test_complaints_about_several_ways_to_fail_are_made_once() -> None:
    found = complaints(with_call(1, failing="missing"), "outages_wait_and_end")

    assert len(found) == 1
    assert (
        "with 401, 403, 429 with Retry-After, 429, 500, 400, no connection, timeout, malformed JSON, HTML:" in found[0]
    )
    assert found[0].endswith("at the last try goes on as partial, expected missing")


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
