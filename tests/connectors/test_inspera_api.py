"""Inspera's API through the real client: every kind completed, what each failure does, files that take their time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.config.connectors import source_connector
from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.simulation import Call
from bridge.core.source import Found, Gathering, Inbound, Reconciling, Subscribing, Verified
from bridge.flow.process import enriched, events_of
from bridge.outbound.source_api import Context, HttpSourceApi
from bridge.testing.conforming_simulator import simulated_settings
from bridge.testing.simulated_api import SimulatedSender, always, once, simulated_api
from connectors.inspera import reconciling, simulator, source
from connectors.inspera.simulated_world import START

CONNECTOR = source_connector(Path(simulator.__file__).parent, source, simulator)
HOOK = "https://bridge.example.test/hooks/inspera-main"


def settings_with(**api: Any) -> Settings:
    settings = simulated_settings(CONNECTOR)
    return replace(settings, api={**(settings.api or {}), **api})


def event_of(call: Call, at: datetime | None = None, settings: Settings | None = None) -> Event:
    """The event of a call that arrived just now, or at another time."""
    settings = settings or settings_with()
    body = json.dumps(call.body).encode()
    received_at = at or datetime.now(UTC)
    inbound = Inbound(id="d-1", source="inspera", received_at=received_at, headers={}, query={}, body=body)
    verified = Verified(inbound=inbound, proof="by hand", dedupe_key="k", dedupe_window=timedelta(0))
    (event,) = events_of(CONNECTOR, verified, settings)
    return event


def api_of(
    platform: simulator.InsperaPlatform, settings: Settings | None = None, context: Context | None = None
) -> tuple[HttpSourceApi, SimulatedSender]:
    return simulated_api(CONNECTOR, platform, settings or settings_with(), context)


def completed(event: Event, api: HttpSourceApi) -> list[Event]:
    """Enrichment with the tries that the engine makes while a file is not done; any other failure is raised."""
    for _ in range(5):
        try:
            return enriched(CONNECTOR, event, api)
        except SourceUnavailable as error:
            if error.retry_after is None:
                raise
    raise AssertionError("never done")


def test_without_a_file_all_grades_are_missing_and_without_a_name_they_are_partial() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    event = event_of(platform.sample("confirm_final_grades"), at=datetime.now(UTC) - timedelta(minutes=1))
    for call in ("POST /v1/fileExport/order", "GET /v1/fileExport/status/{jobId}", "GET {signedResponseUrl}"):
        api, sender = api_of(platform, context=Context(last_try=True))
        sender.faults[call] = always(500)
        with pytest.raises(SourceUnavailable):
            enriched(CONNECTOR, event, api)
    for call in ("GET /v1/test/{testId}", "GET /v1/users/{userId}"):
        api, sender = api_of(platform)
        sender.faults[call] = always(404)
        results = enriched(CONNECTOR, event, api)
        assert {each.enrichment for each in results} == {"partial"}
        assert all(each.data.grade is not None for each in results[1:])


def test_a_grade_that_is_confirmed_and_not_there_is_waited_for_a_moment_and_then_missing() -> None:
    platform = simulator.platform()
    call = platform.sample("candidate.grade_confirmed")
    platform.tests[call.body["contextObjectId"]].confirmed.clear()
    with pytest.raises(SourceUnavailable, match="yet"):
        enriched(CONNECTOR, event_of(call), api_of(platform)[0])
    late = event_of(call, at=datetime.now(UTC) - timedelta(minutes=1))
    (event,) = enriched(CONNECTOR, late, api_of(platform)[0])
    assert (event.type, event.enrichment, event.data.grade) == ("grade.published", "missing", None)
    assert source.fact(event) is None


def test_a_job_that_the_platform_forgets_is_ordered_anew() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    api, sender = api_of(platform)
    sender.faults["GET /v1/fileExport/status/{jobId}"] = once(404)
    assert enriched(CONNECTOR, event_of(platform.sample("confirm_final_grades")), api)[0].enrichment == "full"
    assert platform.calls["POST /v1/fileExport/order"] == 2


def test_a_refused_token_is_renewed_once_and_nobody_notices() -> None:
    platform = simulator.platform()
    api, sender = api_of(platform)
    assert completed(event_of(platform.sample("user.updated")), api)[0].enrichment == "full"
    platform.forget_tokens()
    assert completed(event_of(platform.sample("user.updated")), api)[0].enrichment == "full"
    assert sender.asked["POST /authenticate/token/"] == 2


def test_two_tokens_at_once_are_a_conflict_that_passes() -> None:
    platform = simulator.platform()
    platform.conflicts = 1
    api, _ = api_of(platform)
    event = event_of(platform.sample("user.updated"))
    with pytest.raises(SourceUnavailable, match="409"):
        enriched(CONNECTOR, event, api)
    assert enriched(CONNECTOR, event, api)[0].enrichment == "full"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_a_key_in_the_query_is_in_no_error_and_in_no_story(status: int) -> None:
    platform = simulator.platform()
    api, sender = api_of(platform, settings_with(key_in="query"))
    event = event_of(platform.sample("candidate_submission_delivered"))
    assert enriched(CONNECTOR, event, api)[0].enrichment == "full"
    told = json.dumps(api.calls())
    assert "/authenticate/token/" in told

    api, sender = api_of(platform, settings_with(key_in="query"))
    sender.faults["POST /authenticate/token/"] = always(status, b'{"error": "x"}')
    with pytest.raises(SourceUnavailable) as raised:
        enriched(CONNECTOR, event, api)
    told += json.dumps(api.calls()) + str(raised.value) + repr(raised.value) + repr(api)
    assert simulator.API_KEY not in told
    assert "code=" not in told


def test_a_limit_is_obeyed_and_counted() -> None:
    platform = simulator.platform()
    platform.limit, platform.retry_after = 2, 7
    api, _ = api_of(platform)
    with pytest.raises(SourceUnavailable) as raised:
        enriched(CONNECTOR, event_of(platform.sample("candidate_submission_delivered")), api)
    assert raised.value.retry_after == 7
    assert platform.refused == 1


def test_a_user_that_was_changed_is_read_again_and_a_test_that_was_moved_too() -> None:
    platform = simulator.platform(people=10)
    api, _ = api_of(platform)
    first = completed(event_of(platform.sample("user.updated")), api)[0].data.person
    assert first is not None
    run = next(iter(platform.tests))
    assert api.get(f"/v1/test/{run}", keep=600) is not None
    for kind in ("user.updated", "test.date_changed"):
        for _ in range(12):
            (event,) = completed(event_of(platform.sample(kind)), api)
            person, exam = event.data.person, event.data.assessment
            if person is not None:
                assert person.family_name == platform.users[int(str(person.key).partition(":")[2])]["lastName"]
            if exam is not None:
                assert exam.ends_at == platform.tests[int(str(exam.key).partition(":")[2])].ends_at


def test_a_deleted_user_is_told_as_the_bridge_last_knew_them() -> None:
    platform = simulator.platform()
    platform.keeps_deleted = False
    call = platform.sample("user.created")
    created = completed(event_of(call), api_of(platform)[0])[0]
    deleted = platform.sample("user.deleted")
    assert deleted.body["contextObjectId"] == call.body["contextObjectId"]
    context = Context(known=lambda subject: created if subject == created.subject else None)
    (event,) = enriched(CONNECTOR, event_of(deleted), api_of(platform, context=context)[0])
    assert (event.type, event.enrichment) == ("person.deleted", "full")
    assert event.data.person == created.data.person
    assert event.observedat is not None


def test_nobody_is_read_whom_nobody_looks_at() -> None:
    platform = simulator.platform()
    api, sender = api_of(
        platform, context=Context(wants=lambda field: not field.startswith(("data.person", "data.actor")))
    )
    results = completed(event_of(platform.sample("confirm_final_grades")), api)
    assert {each.enrichment for each in results} == {"full"}
    assert not [call for call in sender.asked if "/users/" in call]


def test_ids_that_the_results_hold_need_no_user() -> None:
    platform = simulator.platform()
    looked_at = {"data.person.identifiers"}
    api, sender = api_of(platform, context=Context(wants=looked_at.__contains__))
    (event,) = completed(event_of(platform.sample("candidate.grade_confirmed")), api)
    assert event.data.person is not None
    assert "inspera.FEIDE" in {entry.scheme for entry in event.data.person.identifiers}
    assert not [call for call in sender.asked if "/users/" in call]
    completed(event_of(platform.sample("candidate_submission_delivered")), api)
    assert [call for call in sender.asked if "/users/" in call]


def test_one_candidate_s_confirmed_grade_needs_no_file() -> None:
    platform = simulator.platform()
    call = platform.sample("candidate.grade_confirmed")
    run, user = call.body["contextObjectId"], call.body["associatedObjectId"]
    api, sender = api_of(platform)
    (event,) = enriched(CONNECTOR, event_of(call), api)
    assert event.type == "grade.published"
    assert event.subject == f"submission/{run}.{user}"
    assert event.data.grade is not None
    assert event.data.grade.value == str(platform.tests[run].grades[user])
    assert not [call for call in sender.asked if "fileExport" in call]


def test_an_address_that_died_with_its_token_is_ordered_anew() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    api, sender = api_of(platform)
    event = event_of(platform.sample("confirm_final_grades"))

    expired = [platform.exports.expire]
    sender.faults["GET {signedResponseUrl}"] = lambda: expired.pop()() if expired else None
    assert enriched(CONNECTOR, event, api)[0].enrichment == "full"
    assert platform.calls["POST /v1/fileExport/order"] == 2
    assert platform.calls["GET {signedResponseUrl}"] == 2


def test_a_refused_key_is_told_as_such() -> None:
    platform = simulator.platform()
    api, _ = api_of(platform, settings_with(api_key="another"))
    with pytest.raises(SourceRefused, match="credentials"):
        enriched(CONNECTOR, event_of(platform.sample("user.updated")), api)


# --- reconciliation ---------------------------------------------------------------------------------------------------


def all_found(
    platform: simulator.InsperaPlatform, since: datetime = START, settings: Settings | None = None
) -> list[Found]:
    assert isinstance(source, Reconciling)
    api, _ = api_of(platform, settings)
    for _ in range(50):
        try:
            return list(source.happened(since, api))
        except SourceUnavailable as error:
            if error.retry_after is None:
                raise
    raise AssertionError("never done")


def test_what_is_found_is_told_in_the_words_of_the_webhooks() -> None:
    platform = simulator.platform()
    calls = list(islice(platform.day(), 400))
    found = all_found(platform)
    api, _ = api_of(platform)
    told = {each.fact for each in found}
    assert {each.kind for each in found} == {"candidate_submission_delivered", "candidate.grade_confirmed"}
    assert len(told) == len(found)

    for each in found:
        (event,) = completed(event_of(Call(kind=each.kind, body=each.body)), api)
        assert source.fact(event) == each.fact
        assert event.enrichment == "full"
        assert (event.time, event.tenant) == (each.occurred_at, "inspera-simulated")

    by_webhook = {
        (source.fact(event), event.source): event.subject
        for call in calls
        if call.kind in ("candidate_submission_delivered", "confirm_final_grades", "candidate.grade_confirmed")
        for event in completed(event_of(call), api)
        if source.fact(event)
    }
    assert {fact for fact, _ in by_webhook} == told
    assert {tenant for _, tenant in by_webhook} == {"urn:edu:inspera:1357554"}


def test_only_what_happened_since_then_is_found() -> None:
    platform = simulator.platform()
    calls = list(islice(platform.day(), 120))
    later = datetime.fromisoformat(calls[90].body["timestamp"])
    everything, lately = all_found(platform), all_found(platform, later)
    assert 0 < len(lately) < len(everything)
    assert {each.fact for each in lately} < {each.fact for each in everything}
    assert all(each.occurred_at >= later for each in lately)


def test_a_second_hand_in_and_another_grade_are_other_facts() -> None:
    platform = simulator.platform()
    paper = platform.sample("candidate_submission_delivered")
    again = replace(paper, body=paper.body | {"timestamp": "2026-06-06T09:30:00Z"})
    assert source.fact(event_of(paper)) != source.fact(event_of(again))

    call = platform.sample("candidate.grade_confirmed")
    api, _ = api_of(platform)
    before = completed(event_of(call), api)[0]
    test, user = platform.tests[call.body["contextObjectId"]], call.body["associatedObjectId"]
    test.grades[user] += 0.5
    test.confirm(user, START)
    after = completed(event_of(call), api)[0]
    assert source.fact(before) != source.fact(after)
    assert source.fact(event_of(platform.sample("user.updated"))) is None


def test_a_grade_that_is_given_again_as_it_was_comes_after_the_one_between() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    call = platform.sample("candidate.grade_confirmed")
    test, user = platform.tests[call.body["contextObjectId"]], call.body["associatedObjectId"]

    def given(change: float, hours: int) -> Event:
        """The grade is changed and confirmed, and its webhook comes."""
        at = START + timedelta(hours=hours)
        test.grades[user] += change
        test.confirm(user, at)
        body = call.body | {"timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return completed(event_of(replace(call, body=body)), api_of(platform)[0])[0]

    def listed(last: Event) -> list[Found]:
        api, _ = api_of(platform, None, Context(known=lambda subject: last if subject == last.subject else None))
        return [each for each in source.happened(START, api) if each.fact == source.fact(first)]

    first, between = given(0.5, 10), given(0.5, 20)
    assert [each.after for each in listed(first)] in ([], [None])
    assert [each.after for each in listed(between)] in ([], [None])
    again = given(-0.5, 30)
    assert source.fact(again) == source.fact(first)
    assert source.returns(again)
    assert between.id in [each.after for each in listed(between)]
    assert {each.after for each in listed(again)} == {None}


def test_files_are_ordered_once_however_often_one_asks() -> None:
    platform = simulator.platform(people=10)
    list(islice(platform.day(), 40))
    platform.exports.pending = 3
    api, _ = api_of(platform)
    waits = 0
    for _ in range(60):
        try:
            found = list(source.happened(START, api))
            break
        except SourceUnavailable:
            waits += 1
    assert found
    assert waits == 3
    missing = 8 - len(platform.tests)
    for what in ("events", "submissions"):
        assert platform.calls[f"POST /v1/test/{{testId}}/{what}"] == len(platform.tests) + missing * (waits + 1)
    assert platform.calls["GET {signedResponseUrl}"] == 2 * len(platform.tests)


@pytest.mark.parametrize("under_test", [None, "path", "query"])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_test_s_exports_are_had_wherever_their_status_is(method: str, under_test: str | None) -> None:
    """https://inspera.atlassian.net/wiki/spaces/KB/pages/185434233/Submissions+API: "Future calls have to include a
    jobId"; with which method a file is ordered, and where those calls go, is not printed."""
    platform = simulator.platform(people=10)
    list(islice(platform.day(), 40))
    platform.exports.method, platform.exports.under_test = method, under_test
    found = all_found(platform, settings=settings_with(test_export_method=method))
    assert {each.kind for each in found} == {"candidate_submission_delivered", "candidate.grade_confirmed"}


def test_an_order_with_the_wrong_method_is_told_and_nothing_is_said_to_have_happened() -> None:
    platform = simulator.platform(people=10)
    platform.exports.method = "GET"
    with pytest.raises(SourceUnavailable, match="405"):
        list(source.happened(START, api_of(platform)[0]))


def test_letters_in_one_file_are_the_numbers_of_the_other_where_the_settings_say_which() -> None:
    """finalGrade is a decimal in results and a text in submissions
    (https://inspera.atlassian.net/wiki/spaces/KB/pages/1562214548 and .../222790166)."""
    platform = simulator.platform(people=10)
    call = platform.sample("candidate.grade_confirmed")
    test, user = platform.tests[call.body["contextObjectId"]], call.body["associatedObjectId"]
    test.grades[user] = 5.0
    test.confirm(user, START)
    settings = settings_with()
    lettered = replace(settings, options={**settings.options, "grade_labels": {"5.00": "A"}})
    event = completed(event_of(call, settings=lettered), api_of(platform, lettered)[0])[0]
    assert event.data.grade is not None
    assert (event.data.grade.value, event.data.grade.label) == ("5.0", "A")
    assert source.fact(event) == f"submission/{test.id}.{user}|final grade|A"
    for written, word in (("A", "A"), ("5.00", "A"), ("B", "B")):
        result = {"student": {"sourcedId": user}, "ext_inspera_finalGrade": written, "date": "2026-06-05T09:30:00Z"}
        file = Payload({"ext_inspera_candidates": [{"result": result}]})
        [told] = reconciling._grades(file, str(test.id), {}, lettered.options)
        assert told.fact == f"submission/{test.id}.{user}|final grade|{word}"


def test_without_tests_to_look_at_nothing_is_asked() -> None:
    platform = simulator.platform()
    api, sender = api_of(platform, settings_with(reconcile_tests=[]))
    assert list(source.happened(START, api)) == []
    assert not sender.asked
    assert not isinstance(source, Gathering)


def test_the_tenant_of_what_is_found_is_that_of_the_events_before() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    earlier = completed(event_of(platform.sample("test.date_changed")), api_of(platform)[0])[0]
    list(islice(platform.day(), 30))
    settings = settings_with()
    unnamed = replace(settings, options={**settings.options, "marketplace_id": None})
    api, _ = api_of(platform, unnamed, Context(known=lambda _: earlier))
    found = next(source.happened(START, api))
    assert event_of(Call(kind=found.kind, body=found.body), settings=unnamed).source == earlier.source


def test_where_candidates_numbers_are_no_user_ids_papers_are_found_by_number() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    call = next(call for call in platform.day() if call.kind == "candidate_submission_delivered")
    settings = settings_with()
    by_number = replace(settings, options={**settings.options, "user_object_types": ["USER"]})
    test = platform.tests[call.body["contextObjectId"]]
    seat = 10_000 + test.candidates.index(call.body["associatedObjectId"])
    genuine = event_of(replace(call, body=call.body | {"associatedObjectId": seat}), settings=by_number)
    api, _ = api_of(platform, by_number)
    assert source.fact(genuine) in {each.fact for each in source.happened(START, api)}


@pytest.mark.parametrize("body", [b"[]", b'{"candidates": 7}', b'{"result": null}', b'{"candidates": [{"events": 1}]}'])
def test_a_file_of_another_shape_is_no_reason_to_say_that_nothing_happened(body: bytes) -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    api, sender = api_of(platform)
    sender.faults["GET {signedResponseUrl}"] = always(200, body)
    with pytest.raises(SourceUnavailable, match="unexpected shape"):
        list(source.happened(START, api))


def test_one_file_that_cannot_be_had_holds_up_no_other_and_is_not_forgotten() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    list(islice(platform.day(), 120))
    api, sender = api_of(platform)
    sender.faults["POST /v1/test/350000000/events"] = always(400)
    found: list[Found] = []
    with pytest.raises(SourceUnavailable, match="400"):
        found.extend(source.happened(START, api))
    assert {each.kind for each in found} == {"candidate_submission_delivered", "candidate.grade_confirmed"}
    assert not [each for each in found if each.kind.endswith("delivered") and "/350000000." in each.fact]


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_a_subscription_is_a_row_for_every_event_that_is_offered() -> None:
    assert isinstance(source, Subscribing)
    platform = simulator.platform()
    api, _ = api_of(platform)
    assert source.subscriptions(api) == []
    made = source.subscribe(api, HOOK)
    assert source.subscriptions(api) == [made]
    assert made.active
    assert set(made.kinds) == set(platform.subscriptions.events())
    assert made.url == HOOK

    source.unsubscribe(api, made)
    source.unsubscribe(api, made)
    assert source.subscriptions(api) == []


def test_a_row_that_was_dropped_makes_the_subscription_inactive() -> None:
    platform = simulator.platform()
    api, _ = api_of(platform)
    made = source.subscribe(api, HOOK)
    platform.subscriptions.rows.pop(int(made.id.split(",")[0]))
    (left,) = source.subscriptions(api)
    assert not left.active
    assert left.id == made.id.partition(",")[2]


def test_a_secret_is_rotated_by_making_new_rows_and_deleting_the_old_ones() -> None:
    platform = simulator.platform()
    api, _ = api_of(platform)
    before = source.subscribe(api, HOOK)
    after = source.subscribe(api, HOOK)
    assert source.subscriptions(api) == [before, after]
    assert set(before.id.split(",")).isdisjoint(after.id.split(","))
    source.unsubscribe(api, before)
    assert source.subscriptions(api) == [after]


def test_chosen_events_alone_are_subscribed_to() -> None:
    platform = simulator.platform()
    api, _ = api_of(platform, settings_with(subscribe_to=["confirm_final_grades"]))
    made = source.subscribe(api, HOOK)
    assert made.kinds == ("confirm_final_grades",)
    assert source.subscriptions(api)[0].active


@pytest.mark.parametrize(
    "shape",
    [
        ["qti_export_ready", "verification"],
        {"events": ["qti_export_ready"]},
        {"result": {"events": [{"event": "qti_export_ready", "description": "…"}]}},
    ],
)
def test_the_list_of_events_is_read_in_every_shape_that_fits(shape: object) -> None:
    platform = simulator.platform()
    api, sender = api_of(platform)
    body = json.dumps(shape).encode()
    sender.faults["GET /v1/subscription/events"] = always(200, body)
    assert source.subscribe(api, HOOK).kinds == ("qti_export_ready",)


def test_without_a_list_of_events_those_that_the_connector_knows_are_subscribed_to() -> None:
    platform = simulator.platform()
    api, sender = api_of(platform)
    sender.faults["GET /v1/subscription/events"] = always(404)
    made = source.subscribe(api, HOOK)
    assert {"confirm_final_grades", "candidate_submission_delivered", "user_deleted"} <= set(made.kinds)
    assert "verification" not in made.kinds


def test_a_refused_endpoint_leaves_no_row_behind_and_its_error_says_nothing_secret() -> None:
    platform = simulator.platform()
    checks = iter([200, 200, 503])
    platform.subscriptions.check = lambda _: next(checks)
    settings = settings_with()
    api, _ = api_of(platform, settings)
    with pytest.raises(SourceUnavailable, match="400") as raised:
        source.subscribe(api, HOOK)
    assert platform.subscriptions.rows == {}
    assert settings.secrets[0] not in str(raised.value) + json.dumps(api.calls())


def test_every_new_row_has_its_check_and_each_endpoint_one_every_eight_hours() -> None:
    platform = simulator.platform()
    settings = settings_with()
    api, _ = api_of(platform, settings)
    made = source.subscribe(api, HOOK)
    assert len(platform.pending_verifications) == len(made.kinds)
    for due in (*platform.pending_verifications, *platform.subscriptions.checks()):
        assert due.endpoint == HOOK
        signed = platform.sign(due.call, due.secret, attempt=1, now=datetime.now(UTC))
        headers = {name.lower(): value for name, value in signed.headers.items()}
        inbound = Inbound(
            id="v", source="inspera", received_at=datetime.now(UTC), headers=headers, query={}, body=signed.body
        )
        assert source.verify(inbound, settings).__class__.__name__ == "Challenge"
    assert len(platform.subscriptions.checks()) == 1
    for status in (500, 200, 500, 500):
        platform.subscriptions.checked(HOOK, status)
    assert source.subscriptions(api) == [made]
    platform.subscriptions.checked(HOOK, 500)
    assert source.subscriptions(api) == []


def test_without_a_secret_nothing_is_subscribed() -> None:
    platform = simulator.platform()
    api, _ = api_of(platform, replace(settings_with(), secrets=()))
    with pytest.raises(SourceUnavailable, match="secret"):
        source.subscribe(api, HOOK)
    assert platform.subscriptions.rows == {}


def test_an_answer_of_200_with_errors_inside_is_a_refusal() -> None:
    platform = simulator.platform()
    api, sender = api_of(platform)
    sender.faults["POST /v1/subscription"] = always(200, b'{"errors": ["no"]}')
    with pytest.raises(SourceUnavailable, match="refused"):
        source.subscribe(api, HOOK)
    assert urlsplit(HOOK).path not in json.dumps(api.calls())
