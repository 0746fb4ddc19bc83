"""The JSON of a simulated WISEflow: its entries, its pages, and its two ways to write a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from connectors.wiseflow.simulated_world import MORNING, Flow, Paper, User

_T = TypeVar("_T")

STATES: Final = (
    "NOT_ACTIVATED",
    "ACTIVATED",
    "PARTICIPATION_STARTED",
    "PARTICIPATION_ENDED",
    "CONCLUDED",
    "ARCHIVED",
)


MOST: Final = 100
"""Entries of a page, and how many come where nobody says."""


class Page:
    """A slice of a list as `offset` and `limit` ask for it; only its entries are made into JSON. What they ask for is
    `understood` only if they are whole numbers and the limit is one of 1 to 100.
    """

    def __init__(self, items: Sequence[_T], query: Mapping[str, str], shown: Callable[[_T], Any]) -> None:
        offset, limit = _whole(query.get("offset", "0")), _whole(query.get("limit", str(MOST)))
        self.understood = offset is not None and limit is not None and 0 < limit <= MOST
        self.offset, self.limit = offset or 0, limit or 0
        self.total = len(items)
        self.items = [shown(item) for item in items[self.offset : self.offset + min(self.limit, MOST)]]


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def external(user: User) -> list[dict[str, str]]:
    numbers = [{"name": "studentNumber", "value": user.student_number}] if user.student_number else []
    return [*numbers, {"name": "wayf", "value": f"w{user.id}"}]


def participant_json(number: int, user: User, paper: Paper) -> dict[str, Any]:
    return {
        "user": named(user) | {"externalIds": external(user)},
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


def assessed_json(number: int, paper: Paper) -> dict[str, Any]:
    normal, admin = (None, paper.label) if paper.administrative else (paper.label, None)
    return {
        "id": paper.id + 5 if paper.marked else None,
        "participantId": number,
        "grade": normal,
        "adminGrade": admin,
        "adminGradeDate": unix(paper.marked_at) if admin else None,
        "date": unix(paper.marked_at) if normal else None,
        "exportState": 0,
        "exportDate": None,
        "exportMessage": None,
    }


def status(paper: Paper) -> dict[str, Any]:
    handed_in = paper.handed_in_at is not None
    return {
        "handedIn": handed_in,
        "handedInBlank": False,
        "handedInDate": iso(paper.handed_in_at),
        "handedInIp": "192.0.2.7" if handed_in else None,
    }


def named(user: User) -> dict[str, Any]:
    return {"id": user.id, "firstName": user.given_name, "lastName": user.family_name, "phone": None}


def found_flow(flow: Flow) -> dict[str, Any]:
    return {
        "flowId": flow.id,
        "title": flow.name,
        "subtitle": flow.code,
        "externalSourceReferences": [flow.code],
        "createdAt": unix(MORNING - timedelta(days=30)),
        "type": "FLOWassign",
        "state": STATES[flow.state],
        "variant": "ORDINARY",
        "purpose": "EXAMINATION",
        "participation": {"start": unix(flow.starts_at), "end": unix(flow.ends_at)},
        "marking": {"start": unix(flow.ends_at + timedelta(hours=1)), "end": unix(flow.marking_ends_at)},
    }
