"""What the API of a simulated WISEflow answers, by path; None is a 404."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from connectors.wiseflow.simulated_world import LICENSE_ID, MORNING, SCALES, Flow, Paper, User, World


class Page:
    """A slice of a list as `offset` and `limit` ask for it, at most 100 entries."""

    def __init__(self, items: list[Any], query: Mapping[str, str]) -> None:
        self.offset = _whole(query.get("offset", "0"), 0)
        self.limit = min(_whole(query.get("limit", "100"), 100), 100)
        self.total = len(items)
        self.items = items[self.offset : self.offset + self.limit]


def _whole(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


_Ids = Mapping[str, int]
_Query = Mapping[str, str]


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _external(user: User) -> list[dict[str, str]]:
    return [{"name": "studentNumber", "value": user.student_number}, {"name": "wayf", "value": f"w{user.id}"}]


def _flow(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and {
        "id": flow.id,
        "name": flow.name,
        "subName": flow.code,
        "creationDate": _unix(MORNING - timedelta(days=30)),
        "type": 2,
        "state": flow.state,
        "variant": 0,
        "purpose": 0,
        "participantStartDate": _unix(flow.starts_at),
        "participantEndDate": _unix(flow.starts_at + timedelta(hours=4)),
        "assessorStartDate": _unix(flow.starts_at + timedelta(hours=5)),
        "assessorEndDate": _unix(flow.starts_at + timedelta(days=21)),
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
        "examinationType": "Written",
        "purpose": "EXAMINATION",
    }


def _dates(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    if flow is None:
        return None
    hours = (0, 4, 5, 21 * 24)
    start, end, mark_start, mark_end = (_unix(flow.starts_at + timedelta(hours=after)) for after in hours)
    return {
        "participation": {"start": start, "end": end, "earliestIndividualStart": start, "latestIndividualEnd": end},
        "marking": {
            "start": mark_start,
            "end": mark_end,
            "earliestIndividualEnd": mark_end,
            "latestIndividualEnd": mark_end,
        },
    }


def _participant_json(number: int, user: User, paper: Paper) -> dict[str, Any]:
    person = {"id": user.id, "firstName": user.given_name, "lastName": user.family_name, "phone": None}
    return {
        "user": person | {"externalIds": _external(user)},
        "participantId": number,
        "uniqueExamId": f"U{number}",
        "userId": user.id,
        "number": number % 1000,
        "activated": True,
        "submissionId": paper.id,
        "groupId": paper.id % 1000 if len(paper.participants) > 1 else None,
        "assessorIds": [9001],
        "assessorGroupIds": [],
    }


def _participants(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and Page([_participant_json(*entry) for entry in flow.participants()], query)


def _found(world: World, ids: _Ids) -> tuple[Flow, int, User, Paper] | None:
    flow = world.flows.get(ids["flowId"])
    entries = flow.participants() if flow else iter(())
    found = next((entry for entry in entries if entry[0] == ids["participantId"]), None)
    return (flow, *found) if flow and found else None


def _participant(world: World, ids: _Ids, query: _Query) -> Any:
    found = _found(world, ids)
    return found and _participant_json(*found[1:])


def _assessed_json(flow: Flow, number: int, paper: Paper) -> dict[str, Any]:
    normal, admin = (None, paper.label) if paper.administrative else (paper.label, None)
    return {
        "id": paper.id + 5 if paper.marked else None,
        "participantId": number,
        "grade": normal,
        "adminGrade": admin,
        "adminGradeDate": _unix(paper.marked_at) if admin else None,
        "date": _unix(paper.marked_at) if normal else None,
        "exportState": 0,
        "exportDate": None,
        "exportMessage": None,
    }


def _assessed(world: World, ids: _Ids, query: _Query) -> Any:
    found = _found(world, ids)
    return found and _assessed_json(found[0], found[1], found[3])


def _all_assessed(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and [_assessed_json(flow, number, paper) for number, _, paper in flow.participants()]


def _submission(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    papers = flow.papers if flow else []
    paper = next((paper for paper in papers if paper.id == ids["submissionId"]), None)
    if paper is None:
        return None
    final = {"grade": paper.stored, "date": _iso(paper.marked_at)} if paper.marked else None
    alternative = {"grade": paper.alternative, "date": _iso(MORNING)} if paper.alternative else None
    return {
        "id": paper.id,
        "status": _status(paper),
        "coverSheet": [],
        "similarityReports": [],
        "allocations": {"assessors": [{"id": 9001, "userId": 990001}], "assessorGroupIds": []},
        "participants": [
            {"id": number, "userId": user.id, "finalGrade": final, "alternativeGrade": alternative}
            for number, user in paper.participants
        ],
    }


def _status(paper: Paper) -> dict[str, Any]:
    handed_in = paper.handed_in_at is not None
    return {
        "handedIn": handed_in,
        "handedInBlank": False,
        "handedInDate": _iso(paper.handed_in_at),
        "handedInIp": "192.0.2.7" if handed_in else None,
    }


def _submissions(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    papers = flow.papers if flow else []
    entries = [{"id": paper.id, "status": _status(paper), "similarityReports": []} for paper in papers]
    return flow and Page(entries, query)


def _scale_of(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and {"gradingScaleId": flow.scale}


def _scales(world: World, ids: _Ids, query: _Query) -> Any:
    return list(SCALES)


def _user(world: World, ids: _Ids) -> User | None:
    return next((user for user in world.users if user.id == ids["userId"]), None)


def _info(world: World, ids: _Ids, query: _Query) -> Any:
    user = _user(world, ids)
    return user and {
        "id": user.id,
        "firstName": user.given_name,
        "lastName": user.family_name,
        "phone": None,
        "externalIds": _external(user),
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
    return request and {
        "explanationId": ids["explanationRequestId"],
        "flowId": ids["flowId"],
        "requestDate": _unix(MORNING),
        "state": 2 if request[1] else 0,
        "participant": {"participantId": request[0]},
        "assignedAssessor": {"assessorId": 9001},
    }


def _assignments(world: World, ids: _Ids, query: _Query) -> Any:
    flow = world.flows.get(ids["flowId"])
    return flow and [{"id": number, "publishedReference": f"A{number}"} for number in flow.assignments]


def _license(world: World, ids: _Ids, query: _Query) -> Any:
    return {"id": LICENSE_ID, "name": "Simulated University"}


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
    "/flows/{flowId}/grading-scale": _scale_of,
    "/license/grading-scales": _scales,
    "/license/info": _license,
    "/user/{userId}/info": _info,
    "/users/{userId}/emails": _emails,
}
