"""A Moodle of its own: people, courses, enrolments, assignments and grades behind the REST endpoint.

Every course exists from the first time that somebody asks for it, unless its idnumber or shortname is in `missing`;
people are only those that were made. Assignments have the course-module id 1000 + their own id.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_TOKEN: Final = "moodle-token"
_ROLES: Final = ("3", "4", "5")
_STATES: Final = ("", "notmarked", "inmarking", "readyforreview", "inreview", "readyforrelease", "released")


class MoodleError(Exception):
    """What PHP throws; on the wire an object in an HTTP 200."""

    def __init__(self, errorcode: str, message: str = "", *, kind: str = "moodle_exception", debug: str = "") -> None:
        self.errorcode, self.message, self.kind, self.debug = errorcode, message or errorcode, kind, debug


class SimulatedMoodle:
    """Knobs: `missing` courses, `debug` mode, `namespaced` exceptions, a `failing` errorcode for every function,
    an HTML `page` instead of answers, `locked` activities, and the `functions` that the token's service lists.
    """

    def __init__(self) -> None:
        self.tokens = {_TOKEN}
        self.missing: set[str] = set()
        self.debug = False
        self.namespaced = True
        self.failing: str | None = None
        self.page: str | None = None
        self.locked: set[str] = set()
        self.functions = set(_FUNCTIONS)
        self._users: dict[int, Json] = {}
        self._courses: dict[int, Json] = {}
        self._enrolments: dict[str, Json] = {}
        self._gradebook: dict[str, float] = {}
        self._grades: dict[str, Json] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path != "/webservice/rest/server.php":
            return ApiReply(status=404, text="<html><body>Not found</body></html>")
        if self.page is not None:
            return ApiReply(text=self.page)
        # $_GET and $_POST are merged; a JSON body is neither.
        fields = {**call.query, **call.form}
        document = self._run(fields)
        if fields.get("moodlewsrestformat") != "json":
            return ApiReply(text=_xml(document), headers={"Content-Type": "application/xml; charset=utf-8"})
        return ApiReply(text=json.dumps(document), headers={"Content-Type": "application/json"})

    def effects(self) -> Json:
        """People by id; enrolments by `course/person`, grades by `activity/person`."""
        return {
            "users": {str(number): user for number, user in self._users.items()},
            "enrolments": dict(self._enrolments),
            "gradebook": dict(self._gradebook),
            "assignments": dict(self._grades),
        }

    def _run(self, fields: Mapping[str, str]) -> Any:
        """A function's answer, or its exception; what it had done before it threw is rolled back."""
        before = copy.deepcopy((self._users, self._enrolments, self._gradebook, self._grades))
        try:
            return self._called(fields)
        except MoodleError as error:
            self._users, self._enrolments, self._gradebook, self._grades = before
            kind = f"core\\exception\\{error.kind}" if self.namespaced else error.kind
            document = {"exception": kind, "errorcode": error.errorcode, "message": error.message}
            return {**document, "debuginfo": error.debug} if self.debug and error.debug else document

    def _called(self, fields: Mapping[str, str]) -> Any:
        if fields.get("wstoken") not in self.tokens:
            raise MoodleError("invalidtoken", "Invalid token - token not found")
        name = fields.get("wsfunction", "")
        if name not in self.functions:
            raise MoodleError("accessexception", "Access control exception", kind="webservice_access_exception")
        if self.failing is not None:
            raise MoodleError(self.failing)
        own = {
            key: value for key, value in fields.items() if key not in ("wstoken", "wsfunction", "moodlewsrestformat")
        }
        return _FUNCTIONS[name](self, _unflattened(own))

    # --- people

    def site_info(self, params: Json) -> Any:
        names = [{"name": name, "version": "2025100600"} for name in sorted(self.functions)]
        return {"sitename": "Simulated Moodle", "username": "bridge", "userid": 2, "release": "5.1", "functions": names}

    def users_by_field(self, params: Json) -> Any:
        field, values = params["field"], params["values"].values()
        if field not in ("id", "idnumber", "username", "email"):
            raise _invalid("field")
        return [
            {"id": number, **user}
            for number, user in self._users.items()
            if (str(number) if field == "id" else user.get(field)) in values
        ]

    def create_users(self, params: Json) -> Any:
        made = []
        for user in params["users"].values():
            for field in ("username", "firstname", "lastname", "email"):
                if not user.get(field):
                    raise _invalid(f"Missing required key in single structure: {field}")
            if user["username"] != user["username"].lower():
                raise _invalid("The username must be in lower case")
            self._taken(user, None)
            if user.get("auth", "manual") == "manual" and not (
                user.get("password") or user.get("createpassword") == "1"
            ):
                raise _invalid("Invalid password: you must provide a password, or set createpassword.")
            number = 5 + len(self._users)
            self._users[number] = {name: value for name, value in user.items() if name != "createpassword"}
            made.append({"id": number, "username": user["username"]})
        return made

    def update_users(self, params: Json) -> Any:
        for user in params["users"].values():
            number = int(user["id"])
            if number not in self._users:
                continue  # so does Moodle
            self._taken(user, number)
            self._users[number] |= {name: value for name, value in user.items() if name != "id"}
        return {"warnings": []}

    def _taken(self, user: Mapping[str, str], by: int | None) -> None:
        for field, words in (("username", "Username already exists"), ("email", "Email address already exists")):
            others = {known.get(field) for number, known in self._users.items() if number != by}
            if user.get(field) in others:
                raise _invalid(f"{words}: {user[field]}")

    # --- courses and enrolments

    def courses_by_field(self, params: Json) -> Any:
        field, value = params["field"], params["value"]
        if field not in ("id", "idnumber", "shortname"):
            raise _invalid("Invalid field name")
        if value not in self.missing and not any(course[field] == value for course in self._courses.values()):
            self._courses[10 + len(self._courses)] = {"idnumber": value, "shortname": value}
        found = [{"id": number, **course} for number, course in self._courses.items() if course[field] == value]
        return {"courses": found, "warnings": []}

    def enrol(self, params: Json) -> None:
        for entry in params["enrolments"].values():
            if entry["roleid"] not in _ROLES:
                raise MoodleError("wsusercannotassign", "You don't have the permission to assign this role")
            self._person(entry["userid"])
            times = {name: int(entry.get(name, 0)) for name in ("timestart", "timeend")}
            status = "suspended" if entry.get("suspend", "0") != "0" else "active"
            key = f"{entry['courseid']}/{entry['userid']}"
            self._enrolments[key] = {"role": entry["roleid"], "status": status, **times}

    def unenrol(self, params: Json) -> None:
        for entry in params["enrolments"].values():
            self._person(entry["userid"])
            self._enrolments.pop(f"{entry['courseid']}/{entry['userid']}", None)

    def _person(self, number: str) -> None:
        if int(number) not in self._users:
            raise _invalid(f"User id not exist: {number}")

    # --- grades

    def course_module(self, params: Json) -> Any:
        number = int(params["cmid"])
        if number < 1000:
            raise MoodleError("invalidcoursemodule", "Invalid course module ID")
        kind = "assign" if number < 2000 else "quiz"
        return {"cm": {"id": number, "modname": kind, "instance": number - 1000}, "warnings": []}

    def update_grades(self, params: Json) -> Any:
        if int(params["activityid"]) < 1000:
            raise MoodleError("invalidcoursemodule", "Invalid course module ID")
        if params["activityid"] in self.locked:
            return 4
        for entry in params["grades"].values():
            self._gradebook[f"{params['activityid']}/{entry['studentid']}"] = _number(entry["grade"])
        return 0

    def save_grade(self, params: Json) -> None:
        wanted = ("assignmentid", "userid", "grade", "attemptnumber", "addattempt", "workflowstate", "applytoall")
        for field in wanted:
            if field not in params:
                raise _invalid(f"Missing required key in single structure: {field}")
        if params["workflowstate"] not in _STATES:
            raise _invalid("workflowstate")
        self._person(params["userid"])
        grade = _number(params["grade"])
        known = self._grades.setdefault(f"{params['assignmentid']}/{params['userid']}", {"feedback": None})
        known |= {"grade": None if grade == -1 else grade, "state": params["workflowstate"]}
        if "plugindata" in params:
            known["feedback"] = params["plugindata"]["assignfeedbackcomments_editor"]["text"]


def _xml(document: Any) -> str:
    """Enough of it to see what somebody gets who did not ask for JSON."""
    said = "<RESPONSE>\n</RESPONSE>\n"
    if isinstance(document, dict) and "exception" in document:
        said = f"<EXCEPTION>\n<ERRORCODE>{document['errorcode']}</ERRORCODE>\n</EXCEPTION>\n"
    return f'<?xml version="1.0" encoding="UTF-8" ?>\n{said}'


def _invalid(debug: str) -> MoodleError:
    words = "Invalid parameter value detected"
    return MoodleError("invalidparameter", words, kind="invalid_parameter_exception", debug=debug)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise _invalid("grade: expected a float")
    return float(text)


def _unflattened(fields: Mapping[str, str]) -> Json:
    """`users[0][username]=a` as PHP reads it; lists stay objects with the keys 0, 1 …"""
    document: Json = {}
    for name, value in fields.items():
        *path, last = [name.partition("[")[0], *re.findall(r"\[([^\]]*)\]", name)]
        place = document
        for step in path:
            place = place.setdefault(step, {})
        place[last] = value
    return document


_FUNCTIONS: Final[Mapping[str, Callable[[SimulatedMoodle, Json], Any]]] = {
    "core_webservice_get_site_info": SimulatedMoodle.site_info,
    "core_user_get_users_by_field": SimulatedMoodle.users_by_field,
    "core_user_create_users": SimulatedMoodle.create_users,
    "core_user_update_users": SimulatedMoodle.update_users,
    "core_course_get_courses_by_field": SimulatedMoodle.courses_by_field,
    "core_course_get_course_module": SimulatedMoodle.course_module,
    "enrol_manual_enrol_users": SimulatedMoodle.enrol,
    "enrol_manual_unenrol_users": SimulatedMoodle.unenrol,
    "core_grades_update_grades": SimulatedMoodle.update_grades,
    "mod_assign_save_grade": SimulatedMoodle.save_grade,
}


def target() -> SimulatedMoodle:
    """A Moodle without people."""
    return SimulatedMoodle()


def settings(url: str) -> Json:
    """The entry of bridge.yaml's `targets` for one at this address."""
    return {"connector": "moodle", "base_url": url, "auth": {"kind": "form", "token": _TOKEN}}
