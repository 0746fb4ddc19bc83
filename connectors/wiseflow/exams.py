"""The exam that an event is about: in WISEflow's words a flow, its metadata and its dates."""

from __future__ import annotations

from dataclasses import replace

from bridge.core.events import Event
from bridge.core.nouns import Assessment, Course, Identifier
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import FLOW, FLOW_KEPT, METADATA, ask, readable


def exam(event: Event, api: SourceApi) -> tuple[Event, bool]:
    """The event with its flow and course, and whether both answered. Both are kept: one call for a burst of events."""
    found = ask_readably(event, api, FLOW)
    with_flow, flow_known = (event, False) if found is None else (flow_told(event, api, found), True)
    with_course, course_known = course(with_flow, api)
    return with_course, flow_known and course_known


def ask_readably(event: Event, api: SourceApi, path: str) -> Payload | None:
    return readable(lambda: ask(api, event, path, keep=FLOW_KEPT, extra=True), None)


def flow_told(event: Event, api: SourceApi, flow: Payload) -> Event:
    """The event with what GET /flow/{flowId} says; times of another shape stay unknown."""
    before = event.data.assessment or Assessment()
    told = readable(lambda: _assessment(before, api, flow), before)
    return replace(event, data=replace(event.data, assessment=told))


def course(event: Event, api: SourceApi) -> tuple[Event, bool]:
    """The event with its course's code. Whether `code` is that of the course or of the exam is left to the licence."""
    if not api.wants("data.course"):
        return event, True
    found = ask_readably(event, api, METADATA)
    code = readable(lambda: found.at("code").maybe_text() if found else None, None)
    if found is None or code is None:
        return event, found is not None
    told = Course(identifiers=(Identifier(scheme="sis.courseCode", value=code),))
    return replace(event, data=replace(event.data, course=told)), True


def state_label(api: SourceApi, state: str) -> str:
    """The configured word for a state's number, else the number."""
    return str(api.settings.options["flow_state_labels"].get(state, state))


def _assessment(before: Assessment, api: SourceApi, flow: Payload) -> Assessment:
    state = flow.at("state").maybe_text()
    codes = [code for entry in flow.at("sisInformation").items() if (code := entry.at("code").maybe_text())]
    return replace(
        before,
        title=flow.at("name").maybe_text(),
        state=None if state is None else state_label(api, state),
        starts_at=flow.at("participantStartDate").maybe_time(),
        ends_at=flow.at("participantEndDate").maybe_time(),
        identifiers=(*before.identifiers, *(Identifier(scheme="sis.flowCode", value=code) for code in codes)),
    )
