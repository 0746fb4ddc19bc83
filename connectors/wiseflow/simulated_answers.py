"""What the API of a simulated WISEflow answers to a GET, by path, and to a search; None is a 404, ELSEWHERE a 403."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from connectors.wiseflow.simulated_shapes import (
    STATES,
    Page,
    assessed_json,
    external,
    found_flow,
    iso,
    named,
    participant_json,
    status,
    unix,
)
from connectors.wiseflow.simulated_world import ASSESSOR, MORNING, SCALES, Flow, Paper, User, World

ELSEWHERE: Final = "Submission is not associated with flow"
"""What there is belongs to another flow."""

_Ids = Mapping[str, int]
_Query = Mapping[str, str]


def _flow(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and {
        "id": flow.id,
        "name": flow.name,
        "subName": flow.code,
        "creationDate": unix(MORNING - timedelta(days=30)),
        "type": 2,
        "state": flow.state,
        "variant": 0,
        "purpose": 0,
        "participantStartDate": unix(flow.starts_at),
        "participantEndDate": unix(flow.ends_at),
        "assessorStartDate": unix(flow.ends_at + timedelta(hours=1)),
        "assessorEndDate": unix(flow.marking_ends_at),
        "sisInformation": [{"code": flow.code}],
        "combinedMainFlowId": None,
        "combinedSubFlowIds": [],
    }


def _metadata(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and {
        "title": flow.name,
        "subtitle": flow.code,
        "code": flow.code,
        "term": "2026 summer",
        "examinationType": "ORDINARY",
        "purpose": "EXAMINATION",
    }


def _dates(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    if flow is None:
        return None
    start, end, mark_end = (unix(moment) for moment in (flow.starts_at, flow.ends_at, flow.marking_ends_at))
    mark_start = unix(flow.ends_at + timedelta(hours=1))
    return {
        "participation": {"start": start, "end": end, "earliestIndividualStart": start, "latestIndividualEnd": end},
        "marking": {
            "start": mark_start,
            "end": mark_end,
            "earliestIndividualEnd": mark_end,
            "latestIndividualEnd": mark_end,
        },
    }


def _participants(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and Page(flow.entries, query, lambda entry: participant_json(*entry))


def _found(world: World, ids: _Ids) -> tuple[Flow, int, User, Paper] | None:
    flow = world.flows.get(ids["flowId"])
    found = flow.by_participant.get(ids["participantId"]) if flow else None
    return (flow, *found) if flow and found else None


def _participant(world: World, ids: _Ids, query: _Query) -> Any:
    found = _found(world, ids)
    return found and participant_json(*found[1:])


def _assessed(world: World, ids: _Ids, query: _Query) -> Any:
    found = _found(world, ids)
    return found and assessed_json(found[1], found[3])


def _all_assessed(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    # Declared as a bare array, without parameters: all of them, whatever the query says.
    return flow and [assessed_json(number, paper) for number, _, paper in flow.entries]


def _submission(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    paper = flow.by_submission.get(ids["submissionId"]) if flow else None
    if paper is None:
        elsewhere = any(ids["submissionId"] in other.by_submission for other in world.flows.values())
        return ELSEWHERE if flow and elsewhere else None
    final = {"grade": paper.stored, "date": iso(paper.marked_at)} if paper.marked else None
    alternative = {"grade": paper.alternative, "date": iso(paper.alternative_at)} if paper.alternative else None
    return {
        "id": paper.id,
        "status": status(paper),
        "coverSheet": [],
        "similarityReports": [],
        "allocations": {"assessors": [{"id": 9001, "userId": 990001}], "assessorGroupIds": []},
        "participants": [
            {"id": number, "userId": user.id, "finalGrade": final, "alternativeGrade": alternative}
            for number, user in paper.participants
        ],
    }


def _submissions(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and Page(
        flow.papers, query, lambda paper: {"id": paper.id, "status": status(paper), "similarityReports": []}
    )


def _scale_of(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and {"gradingScaleId": flow.scale}


def _scales(world: World, ids: _Ids, query: _Query) -> Any:
    return list(SCALES)


def _user(world: World, ids: _Ids) -> User | None:
    return world.users_by_id.get(ids["userId"])


def _info(world: World, ids: _Ids, query: _Query) -> Any:
    user = _user(world, ids)
    return user and {
        "id": user.id,
        "firstName": user.given_name,
        "lastName": user.family_name,
        "phone": None,
        "externalIds": external(user),
        "language": "da_DK",
        "roles": [{"name": "Participant", "relationIds": [1]}],
        "emails": list(user.emails),
    }


def _emails(world: World, ids: _Ids, query: _Query) -> Any:
    user = _user(world, ids)
    return user and [
        {
            "emailId": user.id * 10 + position,
            "email": email,
            "primary": email == user.emails[-1],
            "fromExternalSource": False,
            "receiveNotifications": True,
            "activated": True,
        }
        for position, email in enumerate(user.emails)
    ]


def _explanation(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    request = flow.explanations.get(ids["explanationRequestId"]) if flow else None
    if flow is None or request is None:
        return None
    assessor = world.users_by_id[ASSESSOR]
    return {
        "explanationId": ids["explanationRequestId"],
        "flowId": flow.id,
        "title": flow.name,
        "subtitle": flow.code,
        "requestDate": unix(request.asked_at),
        "assignDate": unix(request.asked_at),
        "acceptDate": unix(request.asked_at),
        "dueDate": unix(request.asked_at + timedelta(days=14)),
        "state": 2 if request.answered else 0,
        "showJustification": request.answered,
        "participant": {
            "participantId": request.participant,
            "user": named(flow.by_participant[request.participant][1]),
            "ssoUrl": None,
        },
        "assignedAssessor": {"assessorId": ASSESSOR, "user": named(assessor)},
        "assignedBy": {"userId": ASSESSOR, "firstName": assessor.given_name, "lastName": assessor.family_name},
    }


def _assignments(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and [
        {
            "id": number,
            "publishedReference": f"A{number}",
            "assignment": {
                "name": f"Assignment {number}, version {version}.pdf",
                "size": 1000 * version,
                "content-type": "application/pdf",
                "url": f"https://files.example.test/assignments/{number}?version={version}",
            },
            "appendices": [],
            "data": {},
        }
        for number, version in flow.assignments.items()
    ]


def _external_sources(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and [
        {
            "id": 3,
            "reference": flow.code,
            "description": "Roster",
            "createdAt": MORNING.isoformat(),
            "updatedAt": MORNING.isoformat(),
            "lastRequestedSync": None,
            "lastSync": None,
            "state": flow.source_state,
        }
    ]


def search(world: World, body: Any, query: _Query) -> Page:
    """POST /flows/search: all flows, or those in the states that the body's `metadata` names."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    states = (metadata.get("states") if isinstance(metadata, dict) else None) or list(STATES)
    flows = [flow for flow in world.flows.values() if STATES[flow.state] in states]
    return Page(flows, query, found_flow)


def _license(world: World, ids: _Ids, query: _Query) -> Any:
    """How the licence is set up; neither its id nor its name."""
    return {
        "flowTypes": [{"id": 2, "name": "FLOWassign", "description": "Papers"}],
        "modules": [],
        "coverSheetElements": [],
        "flowPurposes": [{"id": 0, "name": "Examination", "value": "EXAMINATION"}],
        "userDataTypes": [{"id": 7, "name": "studentNumber", "type": 9, "description": "", "pattern": ".*"}],
        "settings": {"requireUniqueEmails": False},
        "markingScales": [{"id": scale["id"], "name": scale["name"]} for scale in SCALES],
        "licenseRoles": [{"roleId": 1, "name": "Participant", "isProtected": True}],
    }


ANSWERS: Final[Mapping[str, Callable[[World, _Ids, _Query], Any]]] = {
    "/flow/{flowId}": _flow,
    "/flow/{flowId}/assessments": _all_assessed,
    "/flow/{flowId}/assessments/{participantId}": _assessed,
    "/flow/{flowId}/assignments": _assignments,
    "/flow/{flowId}/explanation/request/{explanationRequestId}": _explanation,
    "/flows/{flowId}/metadata": _metadata,
    "/flows/{flowId}/dates": _dates,
    "/flows/{flowId}/participants": _participants,
    "/flows/{flowId}/participants/{participantId}": _participant,
    "/flows/{flowId}/submissions": _submissions,
    "/flows/{flowId}/submissions/{submissionId}": _submission,
    "/flows/{flowId}/external-sources": _external_sources,
    "/flows/{flowId}/grading-scale": _scale_of,
    "/license/grading-scales": _scales,
    "/license/info": _license,
    "/user/{userId}/info": _info,
    "/users/{userId}/emails": _emails,
}
