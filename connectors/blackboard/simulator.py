"""A Blackboard Learn site: accounts, courses, columns and grades, a day's calls, and a token that is told again.

github.com/blackboard/blackboard.github.io, rest-apis/learn.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

KEY: Final = "app-key"
SECRET: Final = "app-secret"
_API: Final = "/learn/api/public"
_USER: Final = re.compile(rf"{_API}/v1/users/(?P<user>[^/]+)")
_MEMBER: Final = re.compile(rf"{_API}/v1/courses/(?P<course>.+?)/users/(?P<user>[^/]+)")
_COLUMN: Final = re.compile(rf"{_API}/v2/courses/(?P<course>.+?)/gradebook/columns(?:/(?P<column>[^/]+))?")
_GRADE: Final = re.compile(rf"{_API}/v2/courses/(?P<course>.+?)/gradebook/columns/(?P<column>[^/]+)/users/(?P<user>.+)")


class Refused(Exception):
    """An answer that is no 2xx."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message


class Learn:
    """`calls_left` of the day's `calls`, which begin anew at `reset` (Unix seconds); `retry_after` is what a 429 says
    instead where the limits have been moved; `token_seconds` is how long the one token still lives.
    """

    def __init__(self) -> None:
        self.calls = self.calls_left = 10_000
        self.reset = int(time.time()) + 86_400
        self.retry_after: int | None = None
        self.token_seconds = 3600
        self.roles = {"Student", "Instructor", "TeachingAssistant"}
        self.courses: dict[str, Json] = {
            "_5_1": {"courseId": "DM507", "externalId": "sis-507"},
            "_6_1": {"courseId": "DM507/2026", "externalId": "sis-507-2026"},
        }
        self.users: dict[str, Json] = {}
        for number, name in enumerate(("ada", "grace", "alan"), start=100):
            self._add({"externalId": f"S-{number}", "userName": name, "contact": {"email": f"{name}@example.test"}})
        self._members: dict[tuple[str, str], Json] = {("_5_1", "_10_1"): {"courseRoleId": "Student"}}
        self._columns: dict[str, Json] = {}
        self._grades: dict[tuple[str, str], Json] = {}
        self._token: tuple[str, float] | None = None

    def effects(self) -> Json:
        """Accounts by external id, enrolments and grades by what a mapping calls them, columns."""
        name = {user: str(entry.get("externalId")) for user, entry in self.users.items()}
        course = {key: entry["courseId"] for key, entry in self.courses.items()}
        return {
            "users": {name[user]: dict(entry) for user, entry in self.users.items()},
            "enrolments": {f"{course[c]}/{name[u]}": dict(entry) for (c, u), entry in self._members.items()},
            "columns": [dict(entry) for entry in self._columns.values()],
            "grades": {
                f"{self._columns[column]['externalId']}/{name[user]}": dict(grade)
                for (column, user), grade in self._grades.items()
            },
        }

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path == f"{_API}/v1/oauth2/token":
            return self._told(call)
        try:
            status, document = self._served(call)
        except Refused as refused:
            status = refused.status
            document = {"status": status, "message": refused.message, "extraInfo": "4711"}
        headers = {
            "X-Rate-Limit-Limit": str(self.calls),
            "X-Rate-Limit-Remaining": str(self.calls_left),
            "X-Rate-Limit-Reset": str(self.reset),
        }
        if self.retry_after is not None:
            headers = {"Retry-After": str(self.retry_after)} if status == 429 else {}
        if status == 204:
            return ApiReply(status=204, text="", headers=headers)
        return ApiReply(status=status, json=document, headers=headers)

    def _told(self, call: ApiCall) -> ApiReply:
        """The same token until it dies, and what is left of its life."""
        known = "Basic " + base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
        if call.headers.get("authorization") != known:
            return ApiReply(status=401, json={"error": "invalid_client"})
        if call.form.get("grant_type") != "client_credentials":
            return ApiReply(status=400, json={"error": "unsupported_grant_type"})
        now = time.monotonic()
        if self._token is None or self._token[1] <= now:
            self._token = (f"token-{now}", now + self.token_seconds)
        token, until = self._token
        return ApiReply(json={"access_token": token, "token_type": "bearer", "expires_in": int(until - now)})

    def _served(self, call: ApiCall) -> tuple[int, Any]:
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token is None or token != self._token[0] or self._token[1] <= time.monotonic():
            raise Refused(401, "Bearer token is invalid")
        if self.calls_left <= 0:
            raise Refused(429, "Rate limit exceeded")
        self.calls_left -= 1
        if call.path == f"{_API}/v1/users" and call.method == "POST":
            return self._new_user(call.json)
        for pattern, serve in (
            (_GRADE, self._grade),
            (_COLUMN, self._column),
            (_MEMBER, self._member),
            (_USER, self._user),
        ):
            if (found := pattern.fullmatch(call.path)) is not None:
                return serve(call, found.groupdict())
        raise Refused(404, "The specified object was not found.")

    def _new_user(self, body: Json) -> tuple[int, Any]:
        if not body.get("password") or not body.get("userName") or not body.get("name"):
            raise Refused(400, "userName, password and name are required")
        if any(
            entry["userName"] == body["userName"] or entry["externalId"] == body["externalId"]
            for entry in self.users.values()
        ):
            raise Refused(409, "The user already exists")
        return 201, self._add(body)

    def _add(self, body: Json) -> Json:
        user = f"_{len(self.users) + 10}_1"
        self.users[user] = {"id": user, **{name: value for name, value in body.items() if name != "password"}}
        return self.users[user]

    def _user(self, call: ApiCall, names: Mapping[str, Any]) -> tuple[int, Any]:
        user = self._find(self.users, names["user"], "externalId", "userName", "uuid")
        if call.method == "PATCH":
            self.users[user] |= call.json
        return 200, self.users[user]

    def _member(self, call: ApiCall, names: Mapping[str, Any]) -> tuple[int, Any]:
        key = (self._course(names), self._find(self.users, names["user"], "externalId", "userName", "uuid"))
        if call.method == "PUT":
            if key in self._members:
                raise Refused(409, "The membership already exists")
            if call.json["courseRoleId"] not in self.roles:
                raise Refused(400, "Unknown course role")
            self._members[key] = call.json
            return 201, {"userId": key[1], "courseId": key[0], **call.json}
        if key not in self._members:
            raise Refused(404, "The membership was not found")
        if call.method == "DELETE":
            del self._members[key]
            return 204, None
        if call.method == "PATCH":
            self._members[key] = {**self._members[key], **call.json}
        return 200, {"userId": key[1], "courseId": key[0], **self._members[key]}

    def _column(self, call: ApiCall, names: Mapping[str, Any]) -> tuple[int, Any]:
        course = self._course(names)
        if call.method != "POST":
            return 200, self._columns[self._find(self._columns, names["column"] or "", "externalId")]
        if not call.json.get("name") or not call.json.get("score", {}).get("possible"):
            raise Refused(400, "name and score.possible are required")
        if any(entry["externalId"] == call.json["externalId"] for entry in self._columns.values()):
            raise Refused(409, "A column with this external id exists")
        column = f"_{len(self._columns) + 1}_1"
        self._columns[column] = {"id": column, "course": course, **call.json}
        return 201, self._columns[column]

    def _grade(self, call: ApiCall, names: Mapping[str, Any]) -> tuple[int, Any]:
        self._course(names)
        column = self._find(self._columns, names["column"], "externalId")
        key = (column, self._find(self.users, names["user"], "externalId", "userName", "uuid"))
        if call.method == "PATCH":
            self._grades[key] = {**self._grades.get(key, {}), **_said(call.json)}
        grade = self._grades.get(key, {})
        status = "Graded" if grade.get("score") is not None else "NeedsGrading"
        return 200, {"userId": key[1], "columnId": column, "status": status, **grade}

    def _course(self, names: Mapping[str, Any]) -> str:
        return self._find(self.courses, names["course"], "courseId", "externalId", "uuid")

    @staticmethod
    def _find(entries: Mapping[str, Json], named: str, *kinds: str) -> str:
        """Blackboard's own id of what is called `externalId:S-100` or `_12_1`."""
        kind, _, value = named.partition(":")
        for own, entry in entries.items():
            if own == named or (kind in kinds and entry.get(kind) == value):
                return own
        raise Refused(404, "The specified object was not found.")


def _said(grade: Json) -> Json:
    """What a PATCH changes: one of these clears what was given, whatever else it says (Learn's own API description)."""
    if grade.get("score", 0) is None or grade.get("text", "A") in (None, "", "-"):
        return {**grade, "score": None, "text": None}
    return grade


def target() -> Learn:
    """A site with two courses and three accounts, the first of them in a course."""
    return Learn()


def settings(url: str) -> Json:
    """An application that is registered there."""
    return {
        "connector": "blackboard",
        "base_url": url,
        "auth": {
            "kind": "oauth2_client_credentials",
            "token_url": f"{url}{_API}/v1/oauth2/token",
            "client_id": KEY,
            "client_secret": SECRET,
        },
    }
