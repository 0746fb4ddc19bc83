"""What Edusign's API adds to its thin webhooks, kind by kind, and an API whose 200 says little."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from bridge.config.connectors import source_connector
from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.manifest import SourceConnector
from bridge.core.nouns import Data, Group, Person, Session
from bridge.core.settings import Settings
from bridge.core.simulation import ApiCall, ApiReply, Call
from bridge.core.source import Inbound, Verified
from bridge.engine.process import completed
from bridge.flow.process import enriched, events_of
from bridge.outbound.source_api import Context, HttpSourceApi
from bridge.testing.conforming_simulator import simulated_settings
from bridge.testing.simulated_api import Answering, always, simulated_api
from connectors.edusign import simulator, source
from connectors.edusign.enrichment import RECIPES
from connectors.edusign.simulated_api import API_KEY

OLD = datetime(2026, 1, 20, 9, 30, tzinfo=UTC)
"""Long enough ago that nothing is waited for."""


@cache
def connector() -> SourceConnector:
    return source_connector(Path(source.__file__).parent, source, simulator)


def settings(**options: object) -> Settings:
    whole = simulated_settings(connector())
    return replace(whole, options={**whole.options, **options})


def api_of(platform: Answering, configured: Settings | None = None, context: Context | None = None) -> HttpSourceApi:
    return simulated_api(connector(), platform, configured or settings(), context)[0]


def event_of(body: Json, at: datetime = OLD, configured: Settings | None = None) -> Event:
    raw = json.dumps(body).encode()
    inbound = Inbound(id="d1", source="edusign-main", received_at=at, headers={}, query={}, body=raw)
    verified = Verified(inbound=inbound, proof="test", dedupe_key="k", dedupe_window=timedelta(0))
    (event,) = events_of(connector(), verified, configured or settings())
    return event


def complete(event: Event, api: HttpSourceApi) -> Event:
    (result,) = enriched(connector(), event, api)
    return result


def a_signature(at: datetime = OLD) -> Event:
    return event_of({"type": "on_student_sign", "courseId": "crs1", "studentId": "stu1"}, at)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A platform that gives one answer to everything, or the answer for a path."""

    answer_of: object
    by_path: Mapping[str, object] | None = None

    def answer(self, call: ApiCall) -> ApiReply:
        return ApiReply(json=(self.by_path or {}).get(call.path, self.answer_of))


GONE = {"status": "error", "message": "No course with this ID found"}


def found(result: object) -> Json:
    return {"status": "success", "result": result}


# --- every kind -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_a_simulated_webhook_becomes_full_and_stays_about_the_same_thing(kind: str) -> None:
    platform = simulator.platform(people=60)
    event = event_of(platform.sample(kind).body, datetime.now(UTC))
    result = complete(event, api_of(platform))
    assert (result.enrichment, result.subject, result.id) == ("full", event.subject, event.id)
    assert result.observedat is not None
    assert not any("lock" in call for call in platform.calls)


def test_the_manifest_has_calls_for_exactly_the_kinds_that_have_a_recipe() -> None:
    kinds = connector().manifest.kinds
    assert {name for name, kind in kinds.items() if kind.calls} == set(RECIPES)


def test_the_manifest_tells_how_to_set_up_both_flavours() -> None:
    steps = connector().manifest.setup
    assert any(step.startswith("App") and "{url}" in step for step in steps)
    assert any(step.startswith("School") and "{url}?token=" in step for step in steps)
    budget = connector().manifest.budget
    assert (budget.calls, budget.seconds) == (480, 60)


def day_of_signatures(platform: simulator.Platform, count: int) -> Iterator[Call]:
    return itertools.islice((call for call in platform.day() if call.kind == "on_student_sign"), count)


def test_whoever_signs_in_a_day_has_signed_in_the_api_too() -> None:
    platform = simulator.platform(people=120)
    statuses: Counter[str | None] = Counter()
    methods: Counter[str | None] = Counter()
    for call in day_of_signatures(platform, 300):
        event = complete(event_of(call.body), api_of(platform))
        person, session, attendance = event.data.person, event.data.session, event.data.attendance
        assert event.enrichment == "full"
        assert person is not None
        assert session is not None
        assert attendance is not None
        assert person.email is not None
        assert person.email.endswith("@example.test")
        assert session.title
        assert session.scheduled_start is not None
        assert session.scheduled_end is not None
        assert attendance.signed_at is not None
        assert session.scheduled_start <= attendance.signed_at <= session.scheduled_end
        statuses[attendance.status] += 1
        methods[attendance.method] += 1
    assert set(statuses) == {"present", "late"}
    assert set(methods) == {"sheet", "email"}
    assert statuses["present"] > 5 * statuses["late"]


def test_nothing_sensitive_gets_from_the_api_into_an_event_and_no_sheet_is_locked() -> None:
    platform = simulator.platform(people=50)
    api = api_of(platform)
    for kind in [*sorted(RECIPES), *(["on_student_sign"] * 40)]:
        text = json.dumps(complete(event_of(platform.sample(kind).body), api).to_json())
        for sensitive in ("must-never-leave", "reset-", "push-", "pin-", "magic-", "img.example.test", API_KEY):
            assert sensitive not in text
    assert platform.calls["GET /v1/course/lock/{courseId}"] == 0
    assert platform.calls["GET /v1/student/{studentId}"] <= 60


def test_an_address_alone_is_looked_for_without_standing_in_a_path() -> None:
    platform = simulator.platform(people=25)
    api = api_of(platform)
    event = complete(event_of({"type": "on_email_invalid", "email": "Student.7@example.test"}), api)
    assert event.data.person is not None
    assert event.data.person.key == f"edusign:{platform.school.id_of('student', 7)}"
    assert event.data.person.email == "Student.7@example.test"
    assert all("@" not in str(call) and "student.7" not in str(call).lower() for call in api.calls())


def test_a_document_of_a_teacher_names_the_teacher() -> None:
    platform = simulator.platform(people=25)
    calls = [platform.sample("on_document_completed") for _ in range(3)]
    people = [complete(event_of(call.body), api_of(platform)).data.person for call in calls]
    assert [person.role for person in people if person] == ["learner", "learner", "instructor"]


def test_names_and_titles_that_nobody_looks_at_are_not_asked_for() -> None:
    platform = simulator.platform(people=25)
    body = platform.sample("on_student_sign").body
    event = complete(event_of(body), api_of(platform, context=Context(wants="data.attendance.status".__eq__)))
    assert (event.enrichment, set(platform.calls)) == ("full", {"GET /v1/course/{courseId}"})
    assert source.fact(event) == source.fact(complete(event_of(body), api_of(platform)))


# --- surveys ----------------------------------------------------------------------------------------------------------


def survey(**columns: object) -> Fixed:
    by_path = {
        "/v1/surveys/svy1": found({"ID": "svy1", "NAME": "Bilan", **columns}),
        "/v1/student/stu1": found({"ID": "stu1", "EMAIL": "ada@example.test"}),
    }
    return Fixed(GONE, by_path)


def an_answer(configured: Settings, at: datetime = OLD) -> Event:
    return event_of({"type": "on_survey_answer", "surveyId": "svy1", "studentId": "stu1"}, at, configured)


@pytest.mark.parametrize("flag", [1, True, "1", None, "", "perhaps", 7, [0], {"is": 0}])
def test_a_survey_answer_has_no_person_unless_the_api_says_that_it_is_not_anonymous(flag: object) -> None:
    configured = settings(name_survey_people=True)
    event = complete(an_answer(configured), api_of(survey(ANONYMOUS=flag), configured))
    assert (event.data.person, event.enrichment) == (None, "full")


@pytest.mark.parametrize("flag", [0, False, "0"])
def test_a_named_survey_answer_has_a_person_where_the_operator_wants_it(flag: object) -> None:
    configured = settings(name_survey_people=True)
    event = complete(an_answer(configured), api_of(survey(ANONYMOUS=flag), configured))
    assert event.data.person is not None
    assert event.data.person.email == "ada@example.test"
    assert complete(an_answer(settings()), api_of(survey(ANONYMOUS=flag))).data.person is None


@pytest.mark.parametrize("status", [200, 401, 404, 429, 500])
@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{}", b"<html>", b'{"status":"error","message":"later"}'])
def test_an_api_that_fails_to_the_end_clears_nobody(status: int, body: bytes) -> None:
    configured = settings(name_survey_people=True)
    api, sender = simulated_api(connector(), survey(ANONYMOUS=0), configured, Context(last_try=True))
    sender.faults["GET /v1/surveys/{surveyId}"] = always(status, body)
    events, _ = completed(connector(), an_answer(configured), api, last_try=True)
    assert [(event.data.person, event.enrichment) for event in events] == [(None, "missing")]


# --- what is gone -----------------------------------------------------------------------------------------------------


def known(event: Event, data: Data) -> Context:
    return Context(known={event.subject: replace(event, data=data)}.get)


def test_a_deleted_sheet_is_completed_from_what_was_last_known_of_it() -> None:
    event = event_of({"type": "on_course_deleted", "courseId": "crs1"})
    session = Session(key="edusign:crs1", title="Algèbre", scheduled_start=OLD, status="scheduled")
    result = complete(event, api_of(Fixed(GONE), context=known(event, Data(session=session))))
    assert result.data.session == replace(session, status="cancelled")
    assert (result.type, result.enrichment) == ("session.cancelled", "full")


def test_a_deleted_student_and_group_are_completed_from_what_was_last_known_of_them() -> None:
    event = event_of({"type": "on_student_deleted", "studentId": "stu1"})
    person = Person(key="edusign:stu1", role="learner", email="ada@example.test", given_name="Ada")
    result = complete(event, api_of(Fixed(GONE), context=known(event, Data(person=person))))
    assert result.data.person is not None
    assert (result.data.person.email, result.enrichment) == ("ada@example.test", "full")
    event = event_of({"type": "on_group_deleted", "groupId": "grp1"})
    group = Group(key="edusign:grp1", name="Promo 1", action="updated")
    result = complete(event, api_of(Fixed(GONE), context=known(event, Data(group=group))))
    assert result.data.group == replace(group, action="deleted")


def test_an_edit_of_a_sheet_that_is_gone_by_now_is_partial_with_a_known_copy_and_missing_without() -> None:
    event = event_of({"type": "on_course_edited", "courseId": "crs1"})
    session = Session(key="edusign:crs1", title="Algèbre")
    assert complete(event, api_of(Fixed(GONE), context=known(event, Data(session=session)))).enrichment == "partial"
    assert complete(event, api_of(Fixed(GONE))).enrichment == "missing"


@pytest.mark.parametrize(
    "said",
    [
        "No course with this ID found",
        "This professor was deleted",
        "Error - cannot get professor by email",
        "Student not found",
        ["Groupe introuvable"],
    ],
)
def test_a_message_that_says_that_there_is_no_such_object_is_no_outage(said: object) -> None:
    event = event_of({"type": "on_course_edited", "courseId": "crs1"})
    assert complete(event, api_of(Fixed({"status": "error", "message": said}))).enrichment == "missing"


def test_other_messages_are_an_outage_and_wait() -> None:
    event = event_of({"type": "on_course_edited", "courseId": "crs1"})
    with pytest.raises(SourceUnavailable):
        complete(event, api_of(Fixed({"status": "error", "message": "course locked"})))


def test_the_simulated_api_says_of_a_sheet_that_is_gone_what_the_real_one_says() -> None:
    answer = simulator.platform().answer(api_call("/v1/course/nothing"))
    assert (answer.status, answer.json) == (200, GONE)


def test_an_absence_that_names_its_sheet_is_completed_with_it() -> None:
    entry = {"ID": "abs1", "STUDENT_ID": "stu1", "COURSE_ID": "crs1"}
    answers = {
        "/v1/justified-absence": found([entry]),
        "/v1/student/stu1": found({"ID": "stu1", "FIRSTNAME": "Ada"}),
        "/v1/course/crs1": found({"ID": "crs1", "NAME": "Algèbre"}),
    }
    event = event_of({"type": "on_request_justified_absence", "absenceId": "abs1"})
    result = complete(event, api_of(Fixed(GONE, answers)))
    assert result.enrichment == "full"
    assert result.data.session == Session(key="edusign:crs1", title="Algèbre")
    assert complete(event, api_of(Fixed(GONE, answers | {"/v1/course/crs1": GONE}))).enrichment == "partial"


def test_a_new_sheet_that_the_api_does_not_show_yet_is_waited_for_and_a_deleted_one_is_not() -> None:
    now = datetime.now(UTC)
    with pytest.raises(SourceUnavailable, match="does not show it yet"):
        complete(event_of({"type": "on_course_created", "courseId": "crs1"}, now), api_of(Fixed(GONE)))
    deleted = complete(event_of({"type": "on_course_deleted", "courseId": "crs1"}, now), api_of(Fixed(GONE)))
    assert deleted.enrichment == "full"


def test_a_sheet_that_was_deleted_at_once_holds_up_what_comes_after_it_for_ten_seconds_only() -> None:
    body = {"type": "on_course_created", "courseId": "crs1"}
    for age, waits in ((9, True), (11, False)):
        event = event_of(body, datetime.now(UTC) - timedelta(seconds=age))
        if waits:
            with pytest.raises(SourceUnavailable):
                complete(event, api_of(Fixed(GONE)))
        else:
            assert complete(event, api_of(Fixed(GONE))).enrichment == "missing"


# --- times ------------------------------------------------------------------------------------------------------------


def edited(date: str, received: datetime) -> Event:
    answer = found({"ID": "stu1", "DATE_CREATED": "2025-09-01T06:00:00.000Z", "DATE_UPDATED": date})
    return complete(event_of({"type": "on_student_edited", "studentId": "stu1"}, received), api_of(Fixed(answer)))


def test_an_edit_has_the_platforms_own_time_where_it_fits_the_delivery() -> None:
    event = edited("2026-01-20T09:29:58.000Z", OLD)
    assert (event.time, event.timequality) == (OLD - timedelta(seconds=2), "source")
    # State that is newer than the event: edited again before it was asked for.
    assert edited("2026-01-20T10:15:00.000Z", OLD).time == OLD + timedelta(minutes=45)


@pytest.mark.parametrize("date", ["2025-12-11T18:18:38.000Z", "2999-01-01T00:00:00.000Z", "soon", ""])
def test_a_date_that_cannot_be_that_of_the_edit_is_not_taken_for_it(date: str) -> None:
    event = edited(date, OLD)
    assert (event.time, event.timequality, source.fact(event)) == (OLD, "received", None)


def test_what_an_event_is_about_is_never_older_than_the_event() -> None:
    platform = simulator.platform(people=25)
    sheet = platform.school.new_sheet(0)
    api = api_of(platform)
    body = {"type": "on_course_edited", "courseId": sheet.id}
    titles = []
    for _ in range(2):
        platform.school.edit(sheet)
        event = complete(event_of(body, datetime.now(UTC)), api)
        titles.append(event.data.session.title if event.data.session else None)
    assert titles[0] != titles[1]


# --- the simulated API ------------------------------------------------------------------------------------------------


def api_call(path: str, *, key: str = API_KEY, method: str = "GET", body: object = None, **query: str) -> ApiCall:
    headers = {"authorization": f"Bearer {key}"}
    return ApiCall(method=method, path=path, query=query, headers=headers, form={}, json=body)


def test_the_simulated_api_refuses_in_plain_text_and_reports_absence_with_200() -> None:
    platform = simulator.platform()
    refused = platform.answer(api_call("/v1/school", key="another"))
    assert (refused.status, refused.text) == (401, "Unauthorized")
    gone = platform.answer(api_call("/v1/student/nobody"))
    assert (gone.status, gone.json["status"]) == (200, "error")
    assert platform.answer(api_call("/v9/student")).status == 404
    assert platform.answer(api_call("/v1/course/x", method="DELETE")).status == 404
    platform.api.forbidden = frozenset({"student"})
    assert platform.answer(api_call("/v1/student/nobody")).text == "Forbidden"
    platform.api.unpaid = True
    assert platform.answer(api_call("/v1/school")).status == 402
    platform.api.maintenance = True
    assert platform.answer(api_call("/v1/school")).status == 500


def test_the_simulated_api_counts_pages_from_zero_and_finds_people_by_address() -> None:
    platform = simulator.platform(people=230)
    pages = [platform.answer(api_call("/v1/student", page=str(page))).json["result"] for page in range(4)]
    assert [len(page) for page in pages] == [100, 100, 30, 0]
    someone = platform.answer(api_call(f"/v1/student/by-email/{pages[2][3]['EMAIL']}")).json["result"]
    assert someone["ID"] == pages[2][3]["ID"]
    assert platform.answer(api_call("/v1/student", page="x")).json["status"] == "error"
    some = platform.answer(
        api_call("/v1/student/by-ids", method="POST", body={"studentIds": [someone["ID"], "nobody"]})
    )
    assert [entry["ID"] for entry in some.json["result"]] == [someone["ID"]]


def test_an_archived_student_is_hidden_in_the_api_until_restored() -> None:
    platform = simulator.platform(people=1)

    def hidden() -> object:
        return platform.answer(api_call("/v1/student")).json["result"][0]["HIDDEN"]

    platform.sample("on_student_deleted")
    assert hidden() == 1
    platform.sample("on_student_unremoved")
    assert hidden() == 0


def test_a_list_of_sheets_spans_ninety_days_at_most() -> None:
    platform = simulator.platform(people=25)
    platform.school.new_sheet(0)
    wide = platform.answer(api_call("/v1/course", start="2026-01-01", end="2026-12-31"))
    assert wide.json["status"] == "error"
    near = platform.answer(api_call("/v1/course", start="2026-01-01", end="2026-03-01"))
    assert len(near.json["result"]) == 1


def test_calls_beyond_the_limit_wait_longer_and_longer_and_none_is_refused() -> None:
    platform = simulator.platform(people=1)
    waits: list[float] = []
    platform.api.sleep = waits.append
    platform.api.slows_down = True
    statuses = {platform.answer(api_call("/v1/school")).status for _ in range(483)}
    assert statuses == {200}
    assert waits == pytest.approx([0.1, 0.2, 0.3])
    assert platform.api.delayed == 3


# --- an API that answers 200 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["Too many requests", ["Rate exceeded", "try later"], "", None, {"a": 1}, 7])
def test_a_refusal_in_a_200_that_may_pass_is_tried_again(message: object) -> None:
    api = api_of(Fixed({"status": "error", "message": message}))
    with pytest.raises(SourceUnavailable) as caught:
        complete(a_signature(datetime.now(UTC)), api)
    assert "crs1" not in str(caught.value)
    assert "Too many" not in str(caught.value)


def test_a_refusal_in_words_of_a_secondary_call_is_left_out_after_a_while() -> None:
    """The right to read students is given per resource: without it every event would wait for its whole deadline."""
    platform = simulator.platform(people=25)
    call = platform.sample("on_student_sign")
    refused = always(200, b'{"status":"error","message":"Access denied"}')
    for age, ending in ((timedelta(minutes=14), "waits"), (timedelta(minutes=16), "partial")):
        api, sender = simulated_api(connector(), platform, settings())
        sender.faults["GET /v1/student/{studentId}"] = refused
        event = event_of(call.body, datetime.now(UTC) - age)
        if ending == "waits":
            with pytest.raises(SourceUnavailable):
                complete(event, api)
        else:
            assert complete(event, api).enrichment == ending
            assert "answered 200" in api.lacking[0]


@pytest.mark.parametrize(
    "answer", [b'{"status":"error","message":"Access denied"}', b"Access denied", b'{"status":"success","result":"x"}']
)
def test_a_refusal_of_a_secondary_call_costs_only_its_fields_on_the_last_try_and_is_named(answer: bytes) -> None:
    platform = simulator.platform(people=25)
    call = platform.sample("on_student_sign")
    api, sender = simulated_api(connector(), platform, settings(), Context(last_try=True))
    sender.faults["GET /v1/student/{studentId}"] = always(200, answer)
    events, story = completed(connector(), event_of(call.body), api, last_try=True)
    [event] = events
    assert event.enrichment == "partial"
    assert event.data.attendance is not None
    assert event.data.session is not None
    assert event.data.session.title
    assert "/v1/student/{studentId}" in story["reason"] or "without JSON" in story["reason"]
    assert "denied" not in story["reason"]


@pytest.mark.parametrize("answer", [[], "Unauthorized", 7, {"status": "success", "result": "x"}, {"result": {}}, {}])
def test_an_answer_of_another_shape_is_tried_again(answer: object) -> None:
    with pytest.raises(SourceUnavailable):
        complete(a_signature(datetime.now(UTC)), api_of(Fixed(answer)))


def test_a_sheet_whose_rows_are_no_list_is_tried_again() -> None:
    api = api_of(Fixed(found({"ID": "crs1", "STUDENTS": "all"})))
    with pytest.raises(SourceUnavailable, match=r"\$\.result\.STUDENTS: expected a list"):
        complete(a_signature(), api)


def test_a_refusal_is_never_kept_as_long_as_a_name() -> None:
    platform = simulator.platform(people=25)
    call = platform.sample("on_student_sign")
    api, sender = simulated_api(connector(), platform, settings())
    sender.faults["GET /v1/student/{studentId}"] = always(200, b'{"status":"error","message":"Student not found"}')
    assert complete(event_of(call.body), api).enrichment == "partial"
    sender.faults.clear()
    assert complete(event_of(call.body), api).enrichment == "full"


def test_a_signature_that_the_api_does_not_show_yet_is_waited_for_and_then_believed() -> None:
    platform = simulator.platform(people=1)
    body = platform.sample("on_justified_absence").body | {"type": "on_student_sign"}
    with pytest.raises(SourceUnavailable, match="does not show the signature yet"):
        complete(event_of(body, datetime.now(UTC)), api_of(platform))
    late = complete(event_of(body, datetime.now(UTC) - timedelta(seconds=31)), api_of(platform))
    assert late.data.attendance is not None
    assert (late.data.attendance.status, late.enrichment) == ("excused", "full")
    assert source.fact(late) is None


def test_a_kept_sheet_from_before_the_signature_is_looked_at_anew() -> None:
    platform = simulator.platform(people=25)
    sheet = platform.school.new_sheet(0)
    api = api_of(platform)
    for student in (3, 4):
        platform.school.sign(sheet, student)
        body = {"type": "on_student_sign", "courseId": sheet.id, "studentId": platform.school.id_of("student", student)}
        event = complete(event_of(body), api)
        assert event.data.attendance is not None
        assert event.data.attendance.signed_at is not None
    # The first sheet was kept; the second signature is not on it, so the present one was asked for.
    assert platform.calls["GET /v1/course/{courseId}"] == 2


def test_the_api_in_maintenance_is_waited_for() -> None:
    platform = simulator.platform()
    platform.api.maintenance = True
    with pytest.raises(SourceUnavailable):
        complete(a_signature(), api_of(platform))


@pytest.mark.parametrize(
    "id",
    [
        "lock/crs1",
        "lock",
        "..",
        "../course/lock/crs1",
        "crs1?x=1",
        "crs1#",
        "é",
        "a" * 65,
        "restore",
        "send-sign-emails",
    ],
)
def test_an_id_that_is_no_plain_id_is_never_put_into_a_path(id: str) -> None:
    api, sender = simulated_api(connector(), Fixed(found({"ID": "x"})), settings())
    for kind in ("on_student_sign", "on_course_edited", "on_teacher_sign", "on_justified_absence"):
        complete(event_of({"type": kind, "courseId": id, "studentId": "stu1", "teacherId": "prf1"}), api)
    assert set(sender.asked) == {"GET /v1/student/stu1", "GET /v1/professor/prf1"}


def test_a_time_zone_that_does_not_exist_is_named_and_stops_nothing_for_good() -> None:
    rows = [{"studentId": "stu1", "signature": "x", "timestamp": "2026-01-20 09:00:00"}]
    api = api_of(Fixed(found({"ID": "crs1", "STUDENTS": rows})), settings(naive_timezone="Mars/Olympus"))
    with pytest.raises(SourceUnavailable, match="naive_timezone"):
        complete(a_signature(), api)
