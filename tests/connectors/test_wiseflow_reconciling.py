"""What the lists say has happened, and that it is named as the webhook about it would be."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from wiseflow_parts import SETTINGS, Bridge, bridge

from bridge.core.events import Event
from connectors.wiseflow import source
from connectors.wiseflow.simulated_world import MORNING

BEGINNING = MORNING - timedelta(days=1)
LISTED = {"paper.submission", "final.mark", "flow.state"}


def same_story(parts: Bridge, since: datetime) -> list[Event]:
    """Every finding's body becomes an event that is named as the finding is."""
    events = []
    for found in parts.happened(since):
        event = parts.complete(parts.found_event(found))
        assert source.fact(event) == found.fact
        assert (event.sourceevent, event.origin) == (found.kind, "reconciled")
        events.append(event)
    return events


def test_a_day_that_nobody_heard_of_is_found() -> None:
    parts = bridge()
    calls = [parts.event(call) for call in islice(parts.platform.day(), 500)]
    events = same_story(parts, BEGINNING)
    assert {event.sourceevent for event in events} == LISTED
    found = {event.subject: event for event in events if event.sourceevent == "paper.submission"}
    papers = [paper for flow in parts.platform.world.flows.values() for paper in flow.papers]
    assert found.keys() == {f"submission/{paper.id}" for paper in papers if paper.handed_in_at}
    genuine = {source.fact(parts.complete(event)) for event in calls if event.sourceevent in LISTED}
    assert {source.fact(event) for event in events} <= genuine | {None}
    assert {event.source for event in events} == {"urn:edu:wiseflow:lic-123"}


def test_what_is_found_belongs_to_the_licence_of_earlier_webhooks_where_nobody_configured_it() -> None:
    """No answer of the API names the licence: license-info has no id (OpenAPI description 1.34)."""
    parts = bridge()
    api = {name: value for name, value in (SETTINGS.api or {}).items() if name != "license_id"}
    settings = replace(SETTINGS, api=api)
    unnamed = replace(parts.client(), platform=replace(parts.shared, settings=settings))
    calls = list(islice(parts.platform.day(), 60))

    def found() -> set[str]:
        bodies = [each.body for each in source.happened(BEGINNING, unnamed)]
        assert bodies
        return {str(body.get("licenseId")) for body in bodies}

    assert found() == {"None"}, "nothing was heard of yet"
    paper = next(call for call in calls if call.kind == "paper.submission")
    parts.take(paper)
    assert "123" in found()
    parts.memory.clear()
    parts.take(next(call for call in calls if call.kind == "flow.state"))
    assert "123" in found()


def test_after_a_day_that_was_heard_of_nothing_is_missing() -> None:
    parts = bridge()
    known = set()
    for call in islice(parts.platform.day(), 500):
        known.add(source.fact(parts.take(call)))
    assert [found.fact for found in parts.happened(BEGINNING) if found.fact not in known] == []


def test_what_happened_while_nobody_listened_is_found_and_nothing_else() -> None:
    parts = bridge()
    day = parts.platform.day()
    known = {source.fact(parts.take(call)) for call in islice(day, 300)}
    missed = [parts.event(call) for call in islice(day, 300)]
    found = {each.fact for each in parts.happened(BEGINNING)} - known
    late = {source.fact(parts.complete(event)) for event in missed if event.sourceevent in LISTED}
    assert len(found) > 100
    assert found <= late


def test_only_what_is_not_older_than_asked_for_is_told() -> None:
    parts = bridge()
    list(islice(parts.platform.day(), 200))
    whole = parts.happened(BEGINNING)
    middle = sorted(found.occurred_at for found in whole)[len(whole) // 2]
    later = parts.happened(middle)
    assert [found.fact for found in later] == [found.fact for found in whole if found.occurred_at >= middle]


def test_a_withdrawal_that_nobody_heard_of_is_found_against_what_is_known() -> None:
    parts = bridge()
    submitted = parts.take(parts.platform.sample("paper.submission"))
    paper = next(
        p for f in parts.platform.world.flows.values() for p in f.papers if submitted.subject.endswith(str(p.id))
    )
    paper.handed_in_at = None
    [withdrawn] = [found for found in parts.happened(BEGINNING) if found.kind == "paper.submission"]
    event = parts.complete(parts.found_event(withdrawn))
    assert (event.type, source.fact(event)) == ("submission.withdrawn", withdrawn.fact)
    assert [found for found in parts.happened(BEGINNING) if found.kind == "paper.submission"] == []
    # The webhook comes after all: the same happening.
    assert source.fact(parts.complete(parts.found_event(withdrawn))) == withdrawn.fact


def test_a_mark_revoked_in_silence_is_found_and_a_changed_one_is_another_fact() -> None:
    parts = bridge()
    published = parts.take(parts.platform.sample("final.mark"))
    world = parts.platform.world
    flow, paper = next((f, p) for f in world.flows.values() for p in f.papers if published.subject.endswith(str(p.id)))
    world.mark(flow, paper)
    [changed] = [found for found in parts.happened(BEGINNING) if found.kind == "final.mark"]
    assert changed.fact != source.fact(published)
    again = parts.complete(parts.found_event(changed))
    assert (again.type, source.fact(again)) == ("grade.updated", changed.fact)

    world.revoke(paper)
    [revoked] = [found for found in parts.happened(BEGINNING) if found.kind == "final.mark"]
    gone = parts.complete(parts.found_event(revoked))
    assert (gone.type, source.fact(gone)) == ("grade.revoked", revoked.fact)


def test_a_flow_that_moved_on_is_found_by_its_date_or_by_what_was_known() -> None:
    parts = bridge()
    world = parts.platform.world
    flow = next(iter(world.flows.values()))
    parts.take(parts.platform.sample("flow.state"))
    assert [found for found in parts.happened(BEGINNING) if found.kind == "flow.state"] == []
    world.move(flow, 4)
    [found] = [found for found in parts.happened(BEGINNING) if found.kind == "flow.state"]
    event = parts.complete(parts.found_event(found))
    assert (event.data.change and event.data.change.label, source.fact(event)) == ("CONCLUDED", found.fact)


def test_a_flow_that_was_opened_again_in_silence_comes_after_what_was_known_last() -> None:
    parts = bridge()
    flow = next(iter(parts.platform.world.flows.values()))
    first = parts.take(parts.platform.sample("flow.state"))
    state = flow.state
    parts.platform.world.move(flow, 4)
    [over] = [found for found in parts.happened(BEGINNING) if found.kind == "flow.state"]
    between = parts.complete(parts.found_event(over))
    parts.platform.world.move(flow, state)
    [found] = [found for found in parts.happened(BEGINNING) if found.kind == "flow.state"]
    assert (found.fact, found.after) == (source.fact(first), between.id)
    again = parts.complete(parts.found_event(found))
    assert source.returns(again)
    assert again.id not in (first.id, between.id)
    assert again.time > between.time, "no target takes it for older than what came between"
    assert [found for found in parts.happened(BEGINNING) if found.kind == "flow.state"] == []


def test_equal_findings_are_one_delivery_and_one_event() -> None:
    parts = bridge()
    parts.platform.sample("paper.submission")
    one, two = (parts.happened(BEGINNING) for _ in range(2))
    assert [parts.found_event(found).id for found in one] == [parts.found_event(found).id for found in two]


def test_what_is_in_no_list_has_no_name() -> None:
    parts = bridge()
    for kind in ("alternative.grade", "grade.justification", "assignment.added", "flow.period", "assessment"):
        assert source.fact(parts.take(parts.platform.sample(kind))) is None
