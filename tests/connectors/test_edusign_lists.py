"""Edusign's lists: many events with few calls, and what happened while nobody listened."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bridge.config.connectors import source_connector
from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.simulation import Call
from bridge.core.source import Found, Gathering, Inbound, Reconciling, Verified
from bridge.flow.process import enriched, events_of
from bridge.outbound.source_api import Context, HttpSourceApi
from bridge.testing.conforming_simulator import simulated_settings
from bridge.testing.simulated_api import always, simulated_api
from connectors.edusign import facts, simulator, source
from connectors.edusign.world import LESSON, MORNING

LISTED = {
    "on_course_created", "on_course_edited", "on_course_start", "on_course_end", "on_course_locked",
    "on_student_sign", "on_teacher_sign", "on_justified_absence", "on_request_justified_absence",
    "on_student_created", "on_teacher_created", "on_group_created", "on_document_completed",
}  # fmt: skip


@cache
def connector() -> SourceConnector:
    return source_connector(Path(source.__file__).parent, source, simulator)


def settings(**options: object) -> Settings:
    whole = simulated_settings(connector())
    return replace(whole, options={**whole.options, **options})


def api_of(
    platform: simulator.Platform, configured: Settings | None = None, *, known: dict[str, Event] | None = None
) -> HttpSourceApi:
    about = known or {}
    context = Context(known=about.get)
    return simulated_api(connector(), platform, configured or settings(), context)[0]


def received(body: object, at: datetime, configured: Settings | None = None) -> list[Event]:
    """The events of a body that is taken for proven."""
    inbound = Inbound(
        id="d1", source="edusign-main", received_at=at, headers={}, query={}, body=json.dumps(body).encode()
    )
    verified = Verified(inbound=inbound, proof="reconciled", dedupe_key="k", dedupe_window=timedelta(0))
    return events_of(connector(), verified, configured or settings())


def told(platform: simulator.Platform, call: Call, api: HttpSourceApi) -> Event:
    """The completed event of a webhook that comes at the school's present time."""
    (event,) = received(call.body, platform.school.now())
    (complete,) = enriched(connector(), event, api)
    return complete


def of_found(found: Found, api: HttpSourceApi) -> Event:
    (event,) = received(found.body, datetime.now(UTC), api.settings)
    (complete,) = enriched(connector(), event, api)
    return complete


def everything(api: HttpSourceApi, since: datetime = MORNING) -> list[Found]:
    return list(source.happened(since, api))


def test_the_source_offers_lists_and_reconciliation() -> None:
    assert isinstance(source, Gathering)
    assert isinstance(source, Reconciling)


# --- what happened ----------------------------------------------------------------------------------------------------


def test_every_found_body_becomes_the_event_of_its_kind_with_its_fact_and_its_time() -> None:
    platform = simulator.platform(people=60)
    api = api_of(platform)
    for _ in itertools.islice(platform.day(), 500):
        pass
    for kind in sorted(LISTED):
        platform.sample(kind)
    kinds: Counter[str] = Counter()
    for found in everything(api):
        event = of_found(found, api)
        assert (event.sourceevent, source.fact(event)) == (found.kind, found.fact)
        assert event.enrichment == "full"
        kinds[found.kind] += 1
    assert kinds["on_student_sign"] > 200
    assert set(kinds) >= LISTED


def test_what_webhooks_told_is_found_by_the_same_names() -> None:
    platform = simulator.platform(people=60)
    known: dict[str, Event] = {}
    names: dict[str, str] = {}
    for call in itertools.islice(platform.day(), 600):
        event = told(platform, call, api_of(platform))
        known[event.subject] = event
        name = source.fact(event)
        if name is not None:
            names[name] = call.kind
    found = {entry.fact for entry in everything(api_of(platform, known=known))}
    running = {sheet.id for sheet in platform.school.sheets.values() if sheet.end - sheet.start == LESSON}
    assert {
        name for name in found - names.keys() if not ("ended" in name and any(id in name for id in running))
    } == set()
    gone = {sheet.id for sheet in platform.school.sheets.values() if sheet.deleted}
    missed = {name for name, kind in names.items() if kind in LISTED - {"on_course_end"} and name not in found}
    # An edit that a later one overtook and sheets that are gone are in no list.
    assert {name for name in missed if not any(id in name for id in gone) and "edited" not in name} == set()


def test_what_happened_while_nobody_listened_is_found_and_what_was_before_is_not() -> None:
    platform = simulator.platform(people=30)
    day = platform.day()
    for _ in itertools.islice(day, 120):
        pass
    since = platform.school.now()
    lost = [call for call in itertools.islice(day, 120) if call.kind in ("on_course_created", "on_student_sign")]
    found = everything(api_of(platform), since)
    assert all(entry.occurred_at >= since for entry in found)
    bodies = [{key: value for key, value in entry.body.items() if key != facts.DATE} for entry in found]
    gone = {sheet.id for sheet in platform.school.sheets.values() if sheet.deleted}
    for call in lost:
        if call.body["courseId"] not in gone:
            assert {key: value for key, value in call.body.items() if key != "appId"} in bodies


def test_an_edit_again_is_another_fact_and_a_new_sheet_is_no_edit() -> None:
    platform = simulator.platform(people=25)
    sheet = platform.school.new_sheet(0)
    api = api_of(platform)

    def edits() -> list[str]:
        return [found.fact for found in everything(api) if found.kind == "on_course_edited"]

    assert edits() == []
    platform.school.edit(sheet)
    first = edits()
    platform.school.edit(sheet)
    assert len(first) == len(edits()) == 1
    assert first != edits()


def test_a_locked_sheet_is_no_edit_where_edits_are_found_by_content() -> None:
    platform = simulator.platform(people=25)
    platform.school.edits_by_anything = True
    sheet = platform.school.new_sheet(0)
    event = told(platform, Call(kind="", body={"type": "on_course_created", "courseId": sheet.id}), api_of(platform))
    platform.school.close(sheet)

    def kinds(by: str) -> set[str]:
        found = everything(api_of(platform, settings(edits_found_by=by), known={event.subject: event}))
        return {entry.kind for entry in found if entry.kind in ("on_course_edited", "on_course_locked")}

    assert kinds("update_date") == {"on_course_edited", "on_course_locked"}
    assert kinds("content") == {"on_course_locked"}
    platform.school.edit(sheet)
    assert kinds("content") == {"on_course_edited", "on_course_locked"}


def test_a_signature_by_email_days_after_the_class_is_found_within_the_days_of_late_signing() -> None:
    platform = simulator.platform(people=25)
    sheet = platform.school.new_sheet(0)
    later = MORNING + timedelta(days=5)
    platform.school.clock = lambda: later
    platform.school.sign(sheet, 3)

    def signatures(days: int) -> list[Found]:
        api = api_of(platform, settings(late_signing_days=days))
        return [found for found in everything(api, later) if found.kind == "on_student_sign"]

    (found,) = signatures(7)
    assert (found.occurred_at, signatures(2)) == (later, [])


def test_an_archived_student_who_is_back_is_found_as_restored_only_where_the_archiving_is_known() -> None:
    platform = simulator.platform(people=25)
    deleted = told(platform, platform.sample("on_student_deleted"), api_of(platform))
    number = next(member.number for member in platform.school.members["student"].values() if member.archived)
    platform.school.change("student", number, archived=False)

    def change(known: dict[str, Event]) -> str:
        (found,) = (entry for entry in everything(api_of(platform, known=known)) if entry.kind.startswith("on_student"))
        return found.kind

    assert change({}) == "on_student_edited"
    assert change({deleted.subject: deleted}) == "on_student_unremoved"
    restored = told(platform, Call(kind="", body={"type": "on_student_unremoved", **_ids(deleted)}), api_of(platform))
    (found,) = (
        e for e in everything(api_of(platform, known={restored.subject: restored})) if "student" in e.body["type"]
    )
    assert found.fact == source.fact(restored)


def _ids(event: Event) -> dict[str, str]:
    return {"studentId": event.subject.removeprefix("person/")}


@dataclass(frozen=True, slots=True)
class Remembering:
    """A client that also tells which sheets this bridge knows."""

    api: HttpSourceApi
    events: tuple[Event, ...]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.api, name)

    def newest(self, noun: str, since: datetime) -> Iterable[Event]:
        return (event for event in self.events if event.subject.startswith(f"{noun}/") and event.recordedtime >= since)


def test_a_sheet_that_was_deleted_unheard_is_missed_and_reported_once_the_api_denies_it() -> None:
    platform = simulator.platform(people=25)
    school = platform.school
    sheets = [school.new_sheet(0, starts_in=timedelta(days=400 * number)) for number in range(3)]
    api = api_of(platform)
    known = tuple(
        told(platform, Call(kind="", body={"type": "on_course_created", "courseId": sheet.id}), api) for sheet in sheets
    )
    known = tuple(replace(event, recordedtime=datetime.now(UTC)) for event in known)
    since = school.now()
    school.delete(sheets[2])

    def cancelled(events: tuple[Event, ...]) -> list[Found]:
        remembering: Any = Remembering(api_of(platform), events)
        return [found for found in source.happened(since, remembering) if found.kind == "on_course_deleted"]

    (found,) = cancelled(known)
    event = of_found(found, api_of(platform, known={known[2].subject: known[2]}))
    assert (event.type, source.fact(event)) == ("session.cancelled", found.fact)
    assert event.data.session is not None
    assert event.data.session.title is not None
    assert cancelled((*known[:2], replace(known[2], type="session.cancelled"))) == []


def test_anonymous_or_not_no_survey_answer_is_ever_found_in_a_list() -> None:
    platform = simulator.platform(people=25)
    for _ in range(10):
        platform.sample("on_survey_answer")
    assert everything(api_of(platform)) == []
    assert source.fact(told(platform, platform.sample("on_survey_answer"), api_of(platform))) is None


def test_looking_for_what_happened_changes_nothing_and_reads_pages_only() -> None:
    platform = simulator.platform(people=150)
    for _ in itertools.islice(platform.day(), 2000):
        pass
    platform.calls.clear()
    found = sum(1 for _ in source.happened(MORNING, api_of(platform)))
    assert found > 1500
    assert not any("lock" in call or "{" in call for call in platform.calls)
    assert platform.calls.total() < 120


@pytest.mark.parametrize("path", ["/v1/course", "/v1/student", "/v1/justified-absence", "/v2/documents"])
@pytest.mark.parametrize(
    "body", [b"Unauthorized", b'{"status":"error","message":"later"}', b'{"status":"success","result":7}']
)
def test_a_list_that_cannot_be_read_ends_the_comparison_with_an_error(path: str, body: bytes) -> None:
    """Were it taken for an empty list, the watermark would go past what was never seen."""
    api, sender = simulated_api(connector(), simulator.platform(people=25), settings())
    sender.faults[f"GET {path}"] = always(200, body)
    with pytest.raises(SourceUnavailable):
        list(source.happened(MORNING, api))


def test_a_list_that_does_not_heed_the_page_is_read_once() -> None:
    api, sender = simulated_api(connector(), simulator.platform(people=25), settings())
    same = json.dumps({"status": "success", "result": [{"ID": "s1", "DATE_UPDATED": "2026-01-20T08:00:00.000Z"}]})
    sender.faults["GET /v1/student"] = always(200, same.encode())
    assert [found.fact for found in source.happened(MORNING, api)] == ["person/s1|edited|2026-01-20T08:00:00.000Z"]
    assert sender.asked["GET /v1/student"] == 2


def test_a_body_found_in_a_list_has_its_ids_where_this_source_expects_them() -> None:
    configured = settings(course_id_paths=["course.ID"], student_id_paths=["student.ID"])
    platform = simulator.platform(people=25)
    platform.sample("on_student_sign")
    api = api_of(platform, configured)
    (found,) = (entry for entry in everything(api) if entry.kind == "on_student_sign")
    assert set(found.body) == {"type", "course", "student", facts.DATE}
    assert source.fact(of_found(found, api)) == found.fact


# --- many at once -----------------------------------------------------------------------------------------------------


def batch(platform: simulator.Platform, calls: Iterable[Call]) -> list[Event]:
    return [event for call in calls for event in received(call.body, platform.school.now())]


def day_of(platform: simulator.Platform, kind: str, count: int) -> Iterator[Call]:
    return itertools.islice((call for call in platform.day() if call.kind == kind), count)


def test_a_hundred_signatures_cost_one_call_for_all_students_and_one_per_sheet() -> None:
    platform = simulator.platform(people=100)
    calls = list(day_of(platform, "on_student_sign", 80))
    events, sheets = batch(platform, calls), {call.body["courseId"] for call in calls}
    platform.calls.clear()
    api = api_of(platform)
    source.gather(events, api, len(events))
    complete = [result for event in events for result in enriched(connector(), event, api)]
    assert {event.enrichment for event in complete} == {"full"}
    assert platform.calls["POST /v1/student/by-ids"] == 1
    assert platform.calls["GET /v1/student/{studentId}"] == 0
    assert platform.calls["GET /v1/course/{courseId}"] == len(sheets)
    assert platform.calls.total() <= 1 + len(sheets) + 3


def test_a_timetable_of_five_hundred_sheets_is_read_by_pages() -> None:
    platform = simulator.platform(people=25)
    school = platform.school
    calls = [Call(kind="", body={"type": "on_course_created", "courseId": school.new_sheet(0).id}) for _ in range(500)]
    events = batch(platform, calls)
    api = api_of(platform)
    for first in range(0, 500, 100):
        source.gather(events[first : first + 100], api, 500 - first)
    complete = [result for event in events for result in enriched(connector(), event, api)]
    assert {event.enrichment for event in complete} == {"full"}
    assert platform.calls["GET /v1/course/{courseId}"] == 0
    assert platform.calls["GET /v1/course"] <= 14


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_events_read_no_list(count: int) -> None:
    platform = simulator.platform(people=25)
    events = batch(platform, day_of(platform, "on_student_sign", count))
    platform.calls.clear()
    source.gather(events, api_of(platform), count)
    assert platform.calls.total() == 0


def test_people_of_surveys_are_never_asked_for_before_it_is_known_whether_they_are_anonymous() -> None:
    platform = simulator.platform(people=60)
    configured = settings(name_survey_people=True)
    bodies = [platform.sample("on_survey_answer").body for _ in range(20)]
    events = [event for body in bodies for event in received(body, platform.school.now(), configured)]
    assert all(event.data.person is not None for event in events)
    source.gather(events, api_of(platform, configured), 20)
    assert platform.calls.total() == 0
