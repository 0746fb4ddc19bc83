"""A Moodle of its own: people, courses, enrolments, assignments and grades behind the REST endpoint.

Every course exists from the first time that somebody asks for it, unless its idnumber or shortname is in `missing`;
people are only those that were made. Assignments have the course-module id 1000 + their own id.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.moodle.simulated_parameters import parameters

_TOKEN: Final = "moodle-token"
_ROLES: Final = ("3", "4", "5")
_AUTHS: Final = ("manual", "email", "ldap", "oauth2", "saml2", "shibboleth", "cas", "db", "lti", "nologin", "none")


class MoodleError(Exception):
    """What PHP throws; on the wire an object in an HTTP 200."""

    def __init__(self, errorcode: str, message: str = "", *, kind: str = "moodle_exception", debug: str = "") -> None:
        self.errorcode, self.message, self.kind, self.debug = errorcode, message or errorcode, kind, debug


class SimulatedMoodle:
    """Knobs: `missing` courses, `debug` mode, `namespaced` exceptions, a `failing` errorcode for every function,
    an HTML `page` instead of answers, `locked` activities, the `most` points that an activity has, `rubric` for those
    that are graded with one, and the `functions` that the token's service lists.
    """

    def __init__(self) -> None:
        self.tokens = {_TOKEN}
        self.missing: set[str] = set()
        self.debug = False
        self.namespaced = True
        self.failing: str | None = None
        self.page: str | None = None
        self.locked: set[str] = set()
        self.most = 100.0
        self.rubric = False
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
        try:
            own = parameters(name, fields)
        except ValueError as error:
            raise _invalid(str(error)) from None
        return _FUNCTIONS[name](self, own)

    # --- people

    def site_info(self, params: Json) -> Any:
        names = [{"name": name, "version": "2025100600"} for name in sorted(self.functions)]
        return {"sitename": "Simulated Moodle", "username": "bridge", "userid": 2, "release": "5.1", "functions": names}

    def users_by_field(self, params: Json) -> Any:
        """By case, as PostgreSQL compares."""
        field, values = params["field"], params["values"].values()
        if field not in ("id", "idnumber", "username", "email"):
            raise MoodleError("codingerror", kind="coding_exception")
        for value in values:
            if value != (value.lower() if field == "username" else value.strip() if field == "email" else value):
                raise _invalid(f"The field '{field}' value is invalid: {value}")
        return [
            {"id": number, **user}
            for number, user in self._users.items()
            if (str(number) if field == "id" else user.get(field)) in values
        ]

    def create_users(self, params: Json) -> Any:
        made = []
        for user in params["users"].values():
            for field in ("username", "firstname", "lastname"):
                if not user[field].strip():
                    raise _invalid(f"The field {field} cannot be blank")
            if self._having("username", user["username"], None):
                raise _invalid(f"Username already exists: {user['username']}")
            if user.get("auth", "manual") not in _AUTHS:
                raise _invalid(f"Invalid authentication type: {user['auth']}")
            if user.get("auth", "manual") == "manual" and not (
                user.get("password") or user.get("createpassword") == "1"
            ):
                raise _invalid("Invalid password: you must provide a password, or set createpassword.")
            if "@" not in user["email"]:
                raise _invalid(f"Email address is invalid: {user['email']}")
            if self._having("email", user["email"], None):
                raise _invalid(f"Email address already exists: {user['email']}")
            number = 5 + len(self._users)
            self._users[number] = {name: value for name, value in user.items() if name != "createpassword"}
            made.append({"id": number, "username": user["username"]})
        return made

    def update_users(self, params: Json) -> Any:
        """What cannot be done to somebody is a warning; that a username is taken only the database knows."""
        warnings = []
        for user in params["users"].values():
            number = int(user["id"])
            failure = ""
            if number not in self._users:
                failure = "invaliduserid"
            elif self._having("email", user.get("email"), number):
                failure = "useremailduplicate"
            elif self._having("username", user.get("username"), number):
                failure = "dmlwriteexception"
            else:
                self._users[number] |= {name: value for name, value in user.items() if name != "id"}
            if failure:
                warnings.append({"item": "user", "itemid": number, "warningcode": failure, "message": failure})
        return {"warnings": warnings}

    def _having(self, field: str, value: str | None, but: int | None) -> bool:
        """Whether anybody else has this, whatever its case."""
        others = {str(known.get(field)).casefold() for number, known in self._users.items() if number != but}
        return value is not None and value.casefold() in others

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
            raise MoodleError("invaliduser", "Invalid user", kind="dml_missing_record_exception")

    # --- grades

    def course_module(self, params: Json) -> Any:
        number = int(params["cmid"])
        if number < 1000:
            raise MoodleError("invalidrecordunknown", kind="dml_missing_record_exception")
        areas = [{"area": "submissions", "method": "rubric" if self.rubric else ""}]
        module = {"id": number, "modname": _module(number), "instance": number - 1000}
        return {"cm": {**module, "grade": self.most, "advancedgrading": areas}, "warnings": []}

    def update_grades(self, params: Json) -> Any:
        number = int(params["activityid"])
        if number < 1000 or params["component"] != f"mod_{_module(number)}":
            raise MoodleError("invalidcoursemodule", "Invalid course module ID")
        if params["activityid"] in self.locked:
            return 4
        for entry in params.get("grades", {}).values():
            self._gradebook[f"{number}/{entry['studentid']}"] = min(float(entry["grade"]), self.most)
        return 0

    def save_grade(self, params: Json) -> None:
        self._person(params["userid"])
        known = self._grades.setdefault(
            f"{params['assignmentid']}/{params['userid']}", {"grade": None, "feedback": None}
        )
        editor = params.get("plugindata", {}).get("assignfeedbackcomments_editor")
        if editor is None and known["feedback"]:
            # The feedback becomes null, and its format as well, which may not be.
            raise MoodleError("dmlwriteexception", "Error writing to database", kind="dml_write_exception")
        known |= {"state": params["workflowstate"]} | ({} if editor is None else {"feedback": editor["text"]})
        grade = float(params["grade"])
        if f"{1000 + int(params['assignmentid'])}" not in self.locked and not self.rubric and grade <= self.most:
            known["grade"] = None if grade == -1 else grade

    def submission_status(self, params: Json) -> Any:
        known = self._grades.get(f"{params['assignid']}/{params.get('userid', '2')}")
        if known is None:
            return {"warnings": []}
        field = {"name": "comments", "description": "", "text": known["feedback"] or "", "format": 1}
        plugin = {"type": "comments", "name": "Feedback comments", "editorfields": [field]}
        return {"feedback": {"plugins": [plugin]}, "warnings": []}


def _module(number: int) -> str:
    return "assign" if number < 2000 else "quiz"


def _xml(document: Any) -> str:
    """Enough of it to see what somebody gets who did not ask for JSON."""
    said = "<RESPONSE>\n</RESPONSE>\n"
    if isinstance(document, dict) and "exception" in document:
        said = f"<EXCEPTION>\n<ERRORCODE>{document['errorcode']}</ERRORCODE>\n</EXCEPTION>\n"
    return f'<?xml version="1.0" encoding="UTF-8" ?>\n{said}'


def _invalid(debug: str) -> MoodleError:
    words = "Invalid parameter value detected"
    return MoodleError("invalidparameter", words, kind="invalid_parameter_exception", debug=debug)


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
    "mod_assign_get_submission_status": SimulatedMoodle.submission_status,
    "mod_assign_save_grade": SimulatedMoodle.save_grade,
}


def target() -> SimulatedMoodle:
    """A Moodle without people."""
    return SimulatedMoodle()


def settings(url: str) -> Json:
    """The entry of bridge.yaml's `targets` for one at this address."""
    return {"connector": "moodle", "base_url": url, "auth": {"kind": "form", "token": _TOKEN}}
