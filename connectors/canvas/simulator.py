"""A Canvas of its own: people, enrolments, submissions and comments, the token's leaky bucket, pages and refusals.

Whoever and whatever is named exists from then on, unless its name is in `missing`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.canvas.simulated_answers import Refused, page, refused, said, score, throttled, unauthorized

_TOKEN: Final = "canvas-token"
_TYPES: Final = frozenset(f"{role}Enrollment" for role in ("Student", "Teacher", "Ta", "Observer", "Designer"))
_ISO_8601: Final = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"


class SimulatedCanvas:
    """Knobs: `missing` names (without sis_…:), `deleted` people, `unassigned` students, `groups` of an assignment,
    `forbidden` where the token may do nothing, its `refusal`, `sis` for what it may do with SIS data (manage, read or
    nothing), and of the bucket its `level`, `leak` in units a second, and `throttled_status`.
    """

    def __init__(self) -> None:
        self.tokens = {_TOKEN}
        self.missing: set[str] = set()
        self.deleted: set[str] = set()
        self.sis = "manage"
        self.refusal = 403
        self.unassigned: set[str] = set()
        self.groups: dict[str, tuple[str, ...]] = {}
        self.forbidden = False
        self.throttled_status = 403
        self.high_water, self.level, self.leak = 600.0, 0.0, 10.0
        self._looked = time.monotonic()
        self._ids: dict[tuple[str, str], str] = {}
        self._users: dict[str, Json] = {}
        self._assignments: dict[str, Json] = {}
        self._enrollments: dict[str, Json] = {}
        self._submissions: dict[tuple[str, str], Json] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        try:
            return self._answer(call)
        except Refused as refusal:
            return refusal.reply

    def effects(self) -> Json:
        """Enrolments by id; grades and comments by `assignment/person`, everything in SIS ids where there are any."""
        names = {number: name for (_, name), number in self._ids.items()}
        graded = {
            f"{names[assignment]}/{names[user]}": submission
            for (assignment, user), submission in self._submissions.items()
        }
        return {
            "assignments": {names[number]: assignment for number, assignment in self._assignments.items()},
            "users": {names[number]: user for number, user in self._users.items()},
            "enrollments": {
                number: [names[entry["user_id"]], names[entry["course_id"]], entry["type"], entry["enrollment_state"]]
                for number, entry in self._enrollments.items()
            },
            "grades": {name: entry["grade"] for name, entry in graded.items() if entry["grade"] is not None},
            "scores": {name: entry["score"] for name, entry in graded.items() if entry["score"] is not None},
            "comments": {
                name: [comment["comment"] for comment in entry["submission_comments"]]
                for name, entry in graded.items()
                if entry["submission_comments"]
            },
        }

    def _answer(self, call: ApiCall) -> ApiReply:
        if call.path == "/login/oauth2/token":
            return self._token(call)
        spent = self._spend()
        if call.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            bearer = {"WWW-Authenticate": 'Bearer realm="canvas-lms"'}
            return said(401, {"errors": [{"message": "Invalid access token."}]}, bearer)
        if self.forbidden:
            return unauthorized(self.refusal)
        for method, pattern, handle in _ROUTES:
            if method == call.method and (found := re.fullmatch(pattern, call.path)):
                reply = handle(self, call, *found.groups())
                return replace(reply, headers={**spent, **reply.headers})
        raise refused(404)

    def _spend(self) -> Mapping[str, str]:
        """Take a request's cost out of the bucket (app/middleware/request_throttle.rb)."""
        now = time.monotonic()
        self.level = max(0.0, self.level - (now - self._looked) * self.leak)
        self._looked = now
        if self.level >= self.high_water:
            raise Refused(throttled(self.throttled_status))
        self.level += 1.0
        return {"X-Request-Cost": "1.0", "X-Rate-Limit-Remaining": str(self.high_water - self.level)}

    def _token(self, call: ApiCall) -> ApiReply:
        """A refresh token's answer: a new access token for an hour, and no new refresh token."""
        wanted = {"grant_type": "refresh_token", "refresh_token": "canvas-refresh", "client_id": "1"}
        if any(call.form.get(name) != value for name, value in wanted.items()):
            return said(400, {"error": "invalid_grant", "error_description": "refresh_token not found"})
        token = f"{_TOKEN}-{len(self.tokens)}"
        self.tokens.add(token)
        return said(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    # --- people and enrolments

    def show_user(self, call: ApiCall, user: str) -> ApiReply:
        number = self._find("user", user)
        return said(200, self._shown(number, self._users[number]))

    def _shown(self, number: str, thing: Json) -> Json:
        """What the token's account may see of it."""
        seen = {name: value for name, value in thing.items() if self.sis or not name.startswith("sis_")}
        return {"id": number, **seen}

    def update_user(self, call: ApiCall, user: str) -> ApiReply:
        number = self._find("user", user)
        self._users[number] |= {
            name: call.json["user"][name] for name in ("name", "email") if name in call.json["user"]
        }
        return said(200, self._shown(number, self._users[number]))

    def create_user(self, call: ApiCall, account: str) -> ApiReply:
        login, sis = call.json["pseudonym"]["unique_id"], call.json["pseudonym"].get("sis_user_id")
        if any(user["login_id"] == login for user in self._users.values()):
            taken = [{"attribute": "unique_id", "type": "taken", "message": "ID already in use for this account"}]
            return said(400, {"errors": {"pseudonym": {"unique_id": taken}}})
        if sis in self.deleted and not call.json.get("enable_sis_reactivation"):
            taken = [{"attribute": "sis_user_id", "type": "taken", "message": "SIS ID is already in use"}]
            return said(400, {"errors": {"pseudonym": {"sis_user_id": taken}}})
        if self.sis != "manage":
            sis = None
        self.missing.discard(sis)
        number = self._find("user", f"sis_user_id:{sis}" if sis else login)
        address = call.json.get("communication_channel", {}).get("address")
        self._users[number] = {
            "name": call.json["user"]["name"], "login_id": login, "sis_user_id": sis, "email": address,
        }  # fmt: skip
        return said(200, self._shown(number, self._users[number]))

    def show_assignment(self, call: ApiCall, course: str, assignment: str) -> ApiReply:
        number = self._find("assignment", assignment)
        if number not in self._assignments:
            raise refused(404)
        return said(200, self._shown(number, self._assignments[number]))

    def save_assignment(self, call: ApiCall, course: str, assignment: str = "") -> ApiReply:
        wanted = dict(call.json["assignment"])
        if "due_at" in wanted and not re.fullmatch(_ISO_8601, wanted["due_at"]):
            return said(400, {"errors": {"assignment[due_at]": [{"message": "Invalid datetime for due_at"}]}})
        if self.sis != "manage":
            wanted["sis_assignment_id"] = None
        named = wanted.get("sis_assignment_id")
        new = f"sis_assignment_id:{named}" if named else str(800 + len(self._assignments))
        number = self._find("assignment", assignment or new)
        self._assignments[number] = self._assignments.get(number, {}) | wanted
        return said(200 if assignment else 201, self._shown(number, self._assignments[number]))

    def find_users(self, call: ApiCall, account: str) -> ApiReply:
        term = call.query["search_term"].casefold()
        found = [
            {"id": number, **user}
            for number, user in self._users.items()
            if any(term in str(user[field] or "").casefold() for field in ("name", "email", "login_id"))
        ]
        return page(call, found)

    def enroll(self, call: ApiCall, course: str) -> ApiReply:
        wanted = call.json["enrollment"]
        if wanted.get("type") not in _TYPES:
            return said(400, {"message": "Invalid type"})
        place, user = self._find("course", course), self._find("user", wanted["user_id"])
        section = wanted.get("course_section_id")
        same = {
            "course_id": place, "user_id": user, "type": wanted["type"],
            "course_section_id": self._find("section", section) if section else f"default-{place}",
        }  # fmt: skip
        number = next((key for key, entry in self._enrollments.items() if same.items() <= entry.items()), None)
        number = number or str(70_000 + len(self._enrollments))
        state = wanted.get("enrollment_state", "invited")
        if self._enrollments.get(number, {}).get("enrollment_state") == "active":
            state = "active"  # app/models/course.rb, enroll_user
        self._enrollments[number] = {**same, "enrollment_state": state}
        return said(200, {"id": number, **self._enrollments[number]})

    def list_enrollments(self, call: ApiCall, kind: str, place: str) -> ApiReply:
        field = "course_id" if kind == "courses" else "course_section_id"
        wanted = {
            field: self._find(kind.removesuffix("s"), place),
            "user_id": self._find("user", call.query["user_id"]),
        }
        # Of several state[] only the last comes through to here: any of them means all.
        states = {"active", "invited", *(("inactive", "completed") if "state[]" in call.query else ())}
        found = [
            {"id": number, **entry}
            for number, entry in self._enrollments.items()
            if wanted.items() <= entry.items()
            and entry["enrollment_state"] in states
            and call.query.get("type[]") in (None, entry["type"])
        ]
        return page(call, found)

    def end(self, call: ApiCall, course: str, number: str) -> ApiReply:
        entry = self._enrollment(number)
        ends = {"delete": "deleted", "deactivate": "inactive", "inactivate": "inactive"}
        entry["enrollment_state"] = ends.get(call.query.get("task", ""), "completed")
        return said(200, {"id": number, **entry})

    def reactivate(self, call: ApiCall, course: str, number: str) -> ApiReply:
        entry = self._enrollment(number)
        if entry["enrollment_state"] != "inactive":
            return said(400, {"error": "enrollment not inactive"})
        entry["enrollment_state"] = "active"
        return said(200, {"id": number, **entry})

    def _enrollment(self, number: str) -> Json:
        entry = self._enrollments.get(number)
        if entry is None or entry["enrollment_state"] == "deleted":
            raise refused(404)
        return entry

    # --- grades and comments

    def show_submission(self, call: ApiCall, course: str, assignment: str, user: str) -> ApiReply:
        submission = self._submission(assignment, user)
        if call.query.get("include[]") != "submission_comments":
            submission = {**submission, "submission_comments": None}
        return said(200, submission)

    def grade(self, call: ApiCall, course: str, assignment: str, user: str) -> ApiReply:
        submission = self._submission(assignment, user)
        if user.partition(":")[2] in self.unassigned:
            return unauthorized(self.refusal)
        posted = call.json.get("submission", {}).get("posted_grade")
        if posted is not None:
            points = score(posted)
            members = self.groups.get(assignment.partition(":")[2], ())
            for member in [submission, *(self._submission(assignment, f"sis_user_id:{name}") for name in members)]:
                member |= {
                    "grade": None if points is None else posted,
                    "score": points,
                    "workflow_state": "unsubmitted" if points is None else "graded",
                }
        text = call.json.get("comment", {}).get("text_comment")
        if text is not None:
            comments = submission["submission_comments"]
            comments.append({"id": str(90_000 + len(comments)), "author_id": "1", "comment": text})
        return said(200, submission)

    def _submission(self, assignment: str, user: str) -> Json:
        key = (self._find("assignment", assignment), self._find("user", user))
        blank: Json = {"grade": None, "score": None, "workflow_state": "unsubmitted", "submission_comments": []}
        return self._submissions.setdefault(key, {"id": f"8{key[0]}{key[1]}", "user_id": key[1], **blank})

    def _find(self, kind: str, name: str) -> str:
        """The number of what is called so."""
        own = re.sub(r"^sis_[a-z_]+:", "", name)
        if own in self.missing:
            raise refused(404)
        if name not in self._ids.values():
            number = own if own == name else str(10_000_000_000_000_001 + len(self._ids))
            name = self._ids.setdefault((kind, own), number)
        if kind == "user":
            self._users.setdefault(name, {"name": own, "login_id": own, "sis_user_id": own, "email": None})
        return name


_Route = Callable[..., ApiReply]
_ROUTES: Final[tuple[tuple[str, str, _Route], ...]] = (
    ("GET", r"/api/v1/accounts/(.+)/users", SimulatedCanvas.find_users),
    ("POST", r"/api/v1/accounts/(.+)/users", SimulatedCanvas.create_user),
    ("GET", r"/api/v1/users/(.+)", SimulatedCanvas.show_user),
    ("PUT", r"/api/v1/users/(.+)", SimulatedCanvas.update_user),
    ("POST", r"/api/v1/courses/(.+)/enrollments", SimulatedCanvas.enroll),
    ("GET", r"/api/v1/(courses|sections)/(.+)/enrollments", SimulatedCanvas.list_enrollments),
    ("DELETE", r"/api/v1/courses/(.+)/enrollments/([^/]+)", SimulatedCanvas.end),
    ("PUT", r"/api/v1/courses/(.+)/enrollments/([^/]+)/reactivate", SimulatedCanvas.reactivate),
    ("GET", r"/api/v1/courses/(.+)/assignments/(.+)/submissions/(.+)", SimulatedCanvas.show_submission),
    ("PUT", r"/api/v1/courses/(.+)/assignments/(.+)/submissions/(.+)", SimulatedCanvas.grade),
    ("GET", r"/api/v1/courses/(.+)/assignments/(.+)", SimulatedCanvas.show_assignment),
    ("PUT", r"/api/v1/courses/(.+)/assignments/(.+)", SimulatedCanvas.save_assignment),
    ("POST", r"/api/v1/courses/(.+)/assignments", SimulatedCanvas.save_assignment),
)


def target() -> SimulatedCanvas:
    """A Canvas in which nobody is enrolled yet."""
    return SimulatedCanvas()


def settings(url: str) -> Json:
    """The entry of bridge.yaml's `targets` for one at this address."""
    return {"connector": "canvas", "base_url": url, "auth": {"kind": "bearer", "token": _TOKEN}}
