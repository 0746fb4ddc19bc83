"""Every kind is completed over the simulated API, and the present truth wins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from wiseflow_parts import CONNECTOR, SETTINGS, Bridge, bridge

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event
from bridge.core.target import Answer
from bridge.testing.simulated_api import is_call
from connectors.wiseflow.simulated_world import Flow, Paper


def place(parts: Bridge, event: Event) -> tuple[Flow, Paper]:
    number = int(event.subject.partition("/")[2])
    return next(
        (flow, flow.by_submission[number])
        for flow in parts.platform.world.flows.values()
        if number in flow.by_submission
    )


def test_a_whole_day_is_completed_and_told_as_the_webhooks_told_it() -> None:
    parts = bridge()
    types: Counter[str] = Counter()
    for call in islice(parts.platform.day(), 400):
        event = parts.event(call)
        done = parts.complete(event)
        types[done.type] += 1
        assert done.type == event.type, "the API denies what the webhook said"
        if call.kind == "webhook.test":
            assert done == event
            continue
        assert done.enrichment == "full", call.kind
        assert done.observedat is not None
        data = done.data
        assert data.assessment is not None
        assert data.assessment.title
        assert data.course is not None
        if data.person is not None:
            assert str(data.person.email).endswith("@example.test")
            assert "private" not in str(data.person.email)
            assert data.person.key
            assert any(entry.scheme == "sis.studentNumber" for entry in data.person.identifiers)
    assert {"submission.submitted", "submission.withdrawn", "grade.published", "grade.updated"} <= set(types)
    assert types["grade.revoked"] > 0
    asked = {entry.call for kind in CONNECTOR.manifest.kinds.values() for entry in kind.calls}
    assert asked == set(parts.platform.calls) - {"POST /oauth2/token"}


def test_a_mark_costs_no_call_for_the_submission_while_it_is_there() -> None:
    parts = bridge(wanted=False)
    parts.take(parts.platform.sample("final.mark"))
    parts.sender.asked.clear()
    parts.take(parts.platform.sample("paper.submission"))
    assert parts.asked() == 2, "the submission and the participant; the flow is known"


def test_a_withdrawn_paper_is_told_as_withdrawn_though_the_webhook_said_handed_in() -> None:
    parts = bridge()
    event = parts.event(parts.platform.sample("paper.submission"))
    place(parts, event)[1].handed_in_at = None
    done = parts.complete(event)
    assert (done.type, done.data.submission and done.data.submission.status) == ("submission.withdrawn", "withdrawn")


def test_an_alternative_grade_has_its_code_its_person_and_who_gave_it() -> None:
    parts = bridge()
    added = parts.take(parts.platform.sample("alternative.grade"))
    data = added.data
    assert data.grade is not None
    assert data.person is not None
    assert data.actor is not None
    assert data.grade.label in ("Sick", "Absent")
    assert (data.grade.kind, data.grade.status, data.grade.published_at is None) == ("alternative", "published", False)
    assert data.person.key is not None
    assert data.person.key.startswith("wiseflow:8")
    assert (data.actor.given_name, data.actor.family_name) == ("Emil", "Post")

    removed = parts.take(parts.platform.sample("alternative.grade"))
    assert (removed.type, removed.data.grade and removed.data.grade.label) == ("grade.alternative_removed", None)


def test_an_alternative_grade_that_is_there_in_spite_of_its_removal_is_told_as_changed() -> None:
    parts = bridge()
    call = parts.platform.sample("alternative.grade")
    call.body["eventPayload"]["action"] = "removed"
    assert parts.take(call).type == "grade.alternative_changed"


def test_a_justification_is_answered_when_the_api_says_so_whatever_the_action() -> None:
    parts = bridge()
    call = parts.platform.sample("grade.justification")
    asked = parts.take(call)
    assert (asked.type, asked.data.change and asked.data.change.label) == ("grade.justification_requested", "REQUESTED")
    parts.platform.sample("grade.justification")
    answered = parts.take(call)
    assert answered.type == "grade.justification_answered"
    assert answered.data.actor is not None
    assert (answered.data.actor.key, answered.data.actor.family_name) == ("wiseflow:990001", "Hopper")


def test_an_assignment_taken_off_keeps_the_name_that_it_last_had() -> None:
    parts = bridge()
    added = parts.take(parts.platform.sample("assignment.added"))
    assert added.data.artifact is not None
    assert str(added.data.artifact.url).startswith("https://files.example.test/")
    assert added.data.artifact.url_expires_at is not None
    assert timedelta(hours=24) <= added.data.artifact.url_expires_at - datetime.now(UTC) <= timedelta(hours=25)
    assert added.data.artifact.media_type == "application/pdf"
    changed = parts.take(parts.platform.sample("assignment.added"))
    removed = parts.take(parts.platform.sample("assignment.added"))
    assert removed.type == "assignment.removed"
    assert removed.data.artifact is not None
    assert changed.data.artifact is not None
    assert (removed.data.artifact.title, removed.data.artifact.url) == (changed.data.artifact.title, None)


def test_a_state_is_the_present_one_and_a_period_has_fresh_dates() -> None:
    parts = bridge()
    event = parts.event(parts.platform.sample("flow.state"))
    [flow] = parts.platform.world.flows.values()
    parts.platform.world.move(flow, 4)
    moved = parts.complete(event)
    assert moved.data.change is not None
    assert (moved.data.change.new, moved.data.change.label) == ("4", "CONCLUDED")

    period = parts.event(parts.platform.sample("flow.period"))
    before = parts.complete(period).data.assessment
    newest = parts.platform.world.flows[max(parts.platform.world.flows)]
    newest.ends_at += timedelta(hours=1)
    after = parts.complete(period).data.assessment
    assert before is not None
    assert after is not None
    assert after.ends_at is not None
    assert before.ends_at is not None
    assert after.ends_at - before.ends_at == timedelta(hours=1), "the kept flow does not hide the new dates"


def test_a_synchronisation_names_its_sources_and_their_states() -> None:
    parts = bridge()
    done = parts.take(parts.platform.sample("flow.external.source"))
    assert done.data.change is not None
    assert (done.data.change.new, done.data.change.label) == ("COURSE-1000", "COURSE-1000: PENDING")


def test_what_is_not_there_yet_is_waited_for_and_then_goes_on() -> None:
    parts = bridge()
    parts.sender.faults["GET /flows/{flowId}/submissions/{submissionId}"] = lambda: Answer(
        status=404, headers={}, body=b""
    )
    call = parts.platform.sample("paper.submission")
    with pytest.raises(SourceUnavailable):
        parts.take(call)
    late = parts.complete(parts.event(call, datetime.now(UTC) - timedelta(seconds=20)))
    assert (late.type, late.enrichment) == ("submission.submitted", "missing")


@pytest.mark.parametrize("kind", [kind.name for kind in CONNECTOR.manifest.kinds.values() if kind.calls])
def test_an_expired_token_is_fetched_anew_and_the_event_is_whole(kind: str) -> None:
    parts = bridge()
    parts.take(parts.platform.sample("paper.submission"))
    parts.platform.api.expire_tokens()
    assert parts.take(parts.platform.sample(kind)).enrichment == "full"
    assert parts.platform.calls["POST /oauth2/token"] == 2


def test_nothing_that_changes_the_platform_is_ever_called() -> None:
    parts = bridge()
    for call in islice(parts.platform.day(), 200):
        parts.take(call)
    parts.happened(datetime(2026, 6, 1, tzinfo=UTC))
    posts = {call for call in parts.sender.asked if not call.startswith("GET ")}
    assert {call.partition("?")[0] for call in posts} == {"POST /oauth2/token", "POST /flows/search"}
    assert not [call for call in parts.sender.asked if is_call(call, "GET /webhooks")]


def test_names_stay_behind_where_nobody_may_know_them() -> None:
    parts = bridge()
    options = {**SETTINGS.options, "person_details": False}
    api = replace(parts.shared, settings=replace(SETTINGS, options=options)).client()
    for kind in ("paper.submission", "final.mark", "alternative.grade", "grade.justification"):
        done = parts.complete(parts.event(parts.platform.sample(kind)), api)
        assert done.enrichment == "full"
        for person in (done.data.person, done.data.actor):
            assert person is None or (person.given_name, person.family_name, person.email) == (None, None, None)
    assert not [call for call in parts.sender.asked if call.startswith(("GET /user/", "GET /users/"))]
