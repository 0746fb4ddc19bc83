"""Moodle: what its web services want to hear where the manifest alone cannot say it.

- Form only, written as PHP reads it: `users[0][customfields][0][type]=sid`; truth is 1 or 0, an empty list cannot be
  said. JSON bodies are ignored, and then the token is missing.
- Without `moodlewsrestformat=json` it answers in XML.
- HTTP 200 always; what failed is an object with an `errorcode` (see the manifest's answers). `null` is success.
- Whether somebody is there is asked first: that a name is taken is an error whose words only debug mode shows.
- More points than an assignment has are dropped, and the answer is that of success.
- Where a student has feedback, a grade without any fails: the feedback is read and sent along.

github.com/moodle/moodle, public/webservice/rest/locallib.php, public/user/externallib.php and public/mod/assign.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict

_LOOKED_UP_BY: Final = ("idnumber", "username", "email")
_NEEDED: Final = ("username", "firstname", "lastname", "email")
_GIVEN: Final = (*_NEEDED, "idnumber", "lang", "country", "customfields")
_FUNCTIONS: Final = (
    "core_course_get_course_module",
    "core_course_get_courses_by_field",
    "core_grades_update_grades",
    "core_user_create_users",
    "core_user_get_users_by_field",
    "core_user_update_users",
    "enrol_manual_enrol_users",
    "enrol_manual_unenrol_users",
    "mod_assign_save_grade",
)
_FORMATS: Final = {"html": 1, "plain": 2, "markdown": 4}

Rules = tuple[Mapping[str, Any], ...]

_CREATED: Final[Rules] = (
    {"status": 200, "json_path": "[0].id", "exists": True, "as": "ok", "target_id": "[0].id"},
    # Somebody else made the person since we looked. Only in debug mode: else it is one more invalidparameter.
    {"status": 200, "json_path": "errorcode", "equals": "invalidparameter", "body_regex": "already exists", "as": "ok"},
)
# Newer sites answer with warnings and change nothing where older ones threw.
_UPDATED: Final[Rules] = (
    {
        "status": 200,
        "json_path": "warnings[0].warningcode",
        "in": ["dmlwriteexception", "dmlreadexception", "locktimeout", "ex_unabletolock"],
        "as": "retry",
        # A username that somebody has comes to no more than this: only the database looks (user/lib.php).
        "reason": "Moodle's database is busy or away, or somebody else has the username",
    },
    {
        "status": 200,
        "json_path": "warnings[0]",
        "exists": True,
        "as": "permanent",
        "reason": "Moodle did not update the person: a name or an address that somebody else has is one cause",
    },
)
# core_course_get_course_module knows activities of all kinds.
_AN_ASSIGNMENT: Final[Rules] = (
    {"status": 200, "json_path": "cm.modname", "equals": "assign", "as": "ok"},
    {"status": 200, "json_path": "cm", "exists": True, "as": "permanent", "reason": "this activity is no assignment"},
)
_FEEDBACK_IN_THE_WAY: Final[Rules] = (
    {"status": 200, "json_path": "errorcode", "equals": "dmlwriteexception", "as": "ok"},
)
# Whether it can be read or not, the grade has yet to be saved; an answer may be too long to be read.
_FEEDBACK: Final[Rules] = (
    {"status": 200, "json_path": "errorcode", "exists": True, "as": "ok"},
    {"status": 200, "not_json": True, "as": "ok"},
)


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to ask Moodle for a message; no operation takes several at a time. Raises TargetError as it goes."""
    [message] = messages
    return _SAYING[message.operation](message, settings)


def _site_info(message: Message, settings: Settings) -> Conversation:
    answer = yield _call(settings, "core_webservice_get_site_info", {})
    try:
        listed = {entry["name"] for entry in json.loads(answer.body)["functions"]}
    except ValueError:
        return [Outcome(verdict=Verdict.OK, reason="the site answers; its list of functions is too long to be read")]
    missing = [name for name in message.params.get("functions") or _FUNCTIONS if name not in listed]
    if missing:
        reason = f"the token's service does not list {', '.join(missing)}"
        return [Outcome(verdict=Verdict.PERMANENT, reason=reason)]
    return [None]


def _upsert_user(message: Message, settings: Settings) -> Conversation:
    given = _given(message.params)
    found = None
    for field in _LOOKED_UP_BY:
        if found is None and field in given:
            found = yield from _person(settings, field, given[field])
    if found is None:
        answer = yield _call(settings, "core_user_create_users", {"users": [_new(given)]}, _CREATED, message)
        if isinstance(json.loads(answer.body), list):
            return [None]
        field = "email" if b"Email" in answer.body else "username"
        found = yield from _person(settings, field, given[field])
    if found is None:
        raise TargetError(f"{field}: somebody has it whom the token's account may not see")
    if found.get("idnumber") and found["idnumber"] != given.get("idnumber", found["idnumber"]):
        raise TargetError("idnumber: the person with this username or e-mail address has another one")
    if "username" in found and given.get("username", found["username"]) != found["username"]:
        other = yield from _person(settings, "username", given["username"])
        if other is not None and other.get("id") != found["id"]:
            raise TargetError("username: somebody else has it")
    user = {"id": found["id"], **{name: value for name, value in given.items() if name != "auth"}}
    yield _call(settings, "core_user_update_users", {"users": [user]}, _UPDATED, message)
    return [None]


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: params[name] for name in (*_GIVEN, "auth", "suspended") if params.get(name) is not None}
    if "username" in given:  # user/externallib.php refuses capitals
        given["username"] = given["username"].lower()
    return given


def _new(given: Mapping[str, Any]) -> Mapping[str, Any]:
    missing = [name for name in _NEEDED if name not in given]
    if missing:
        raise TargetError(f"Moodle has no such person, and a new one needs {', '.join(missing)}")
    # Suspending is an update: core_user_create_users has no such key, and refuses keys that it does not know.
    user = {name: value for name, value in given.items() if name != "suspended"}
    return {**user, "createpassword": True} if given.get("auth", "manual") == "manual" else user


def _person(settings: Settings, field: str, value: str) -> Generator[Ask, Answer, Mapping[str, Any] | None]:
    """The one person whose field has this value. Raises TargetError when several have it."""
    # E-mail addresses are unique whatever their case, and looked up by what the database makes of it: by case in
    # PostgreSQL, where people are mostly known by small letters.
    values = [value, value.lower()] if field == "email" and value != value.lower() else [value]
    answer = yield _call(settings, "core_user_get_users_by_field", {"field": field, "values": values})
    people = json.loads(answer.body)
    if not isinstance(people, list):
        raise TargetError("Moodle's answer: expected a list of people")
    if len(people) > 1:
        raise TargetError(f"{field}: several people have it")
    return people[0] if people else None


def _save_assignment_grade(message: Message, settings: Settings) -> Conversation:
    params = message.params
    feedback = None
    if params.get("feedback") is not None:
        feedback = {"text": params["feedback"], "format": _FORMATS[params.get("feedback_format") or "html"]}
    return _grade(message, settings, params["grade"], params.get("workflow_state") or "", feedback)


def _clear_assignment_grade(message: Message, settings: Settings) -> Conversation:
    # -1 is ASSIGN_GRADE_NOT_SET: the grade becomes null in the gradebook. Is notmarked right on every site? It has no
    # meaning without marking workflow; another state can be given.
    state = message.params.get("workflow_state")
    return _grade(message, settings, -1, "notmarked" if state is None else state, None)


def _grade(
    message: Message, settings: Settings, points: float, state: str, feedback: Mapping[str, Any] | None
) -> Conversation:
    """One grade; the feedback that a student has stays unless there is another one."""
    params = message.params
    user = yield from _user(settings, params["user"])
    assignment = yield from _assignment(settings, params["assignment"], points)
    grade = {
        "assignmentid": assignment,
        "userid": user,
        "grade": points,
        "attemptnumber": -1,
        "addattempt": False,
        "workflowstate": state,
        "applytoall": params.get("whole_group") or False,
    }
    if feedback is None:
        answer = yield _call(settings, "mod_assign_save_grade", grade, _FEEDBACK_IN_THE_WAY, message)
        document = json.loads(answer.body)
        if not isinstance(document, Mapping) or "errorcode" not in document:
            return [None]
        # Moodle writes null where there was feedback and none is sent, which its own database refuses
        # (mod/assign/feedback/comments/locallib.php, is_feedback_modified and save; db/install.xml, commentformat).
        # One member's feedback is not that of a whole group.
        feedback = None if grade["applytoall"] else (yield from _feedback(settings, assignment, user))
    if feedback is None:
        reason = "Moodle's database is busy, or the student has feedback: then send feedback with the grade"
        return [Outcome(verdict=Verdict.RETRY, reason=reason)]
    grade["plugindata"] = {"assignfeedbackcomments_editor": feedback}
    yield _call(settings, "mod_assign_save_grade", grade, (), message)
    return [None]


def _user(settings: Settings, named: Mapping[str, str]) -> Generator[Ask, Answer, str]:
    [(field, value)] = named.items()
    if field == "id":
        return value
    found = yield from _person(settings, field, value.lower() if field == "username" else value)
    if found is None:
        raise TargetError(
            "user: there is no such person, or the token's account may not see the field that names people"
        )
    return _id(found, "id")


def _id(thing: Mapping[str, Any], name: str) -> str:
    if isinstance(thing.get(name), str | int):
        return str(thing[name])
    raise TargetError("Moodle's answer: expected an id")


def _assignment(settings: Settings, named: Mapping[str, str], points: float) -> Generator[Ask, Answer, str]:
    """An assignment's own id. Raises TargetError where it takes no such grade, if the token's account may see that."""
    if "id" in named:
        return named["id"]
    answer = yield _call(settings, "core_course_get_course_module", {"cmid": named["cmid"]}, _AN_ASSIGNMENT)
    activity = json.loads(answer.body)["cm"]
    if any(area.get("method") for area in activity.get("advancedgrading") or ()):
        raise TargetError("assignment: it is graded with a rubric or a guide, and a plain grade would be dropped")
    # The most points, or less than 0 for a scale (course/externallib.php). What is more is dropped without a word
    # (mod/assign/locallib.php, update_grade).
    most = activity.get("grade")
    if isinstance(most, int | float) and most < 0:
        most = len(str(activity.get("scale") or "").split(","))
    if isinstance(most, int | float) and 0 < most < points:
        raise TargetError("grade: the assignment has fewer points, and Moodle would drop the grade without a word")
    return _id(activity, "instance")


def _feedback(settings: Settings, assignment: str, user: str) -> Generator[Ask, Answer, Mapping[str, Any] | None]:
    """A student's feedback comments as they are stored; None where there are none, or none that can be read."""
    # Neither filtered nor with addresses put in (webservice/lib.php, set_web_service_call_settings).
    as_stored = {"moodlewssettingraw": True, "moodlewssettingfileurl": False}
    asked = {"assignid": assignment, "userid": user, **as_stored}
    answer = yield _call(settings, "mod_assign_get_submission_status", asked, _FEEDBACK)
    try:
        plugins = json.loads(answer.body)["feedback"]["plugins"]
        fields = [field for plugin in plugins if plugin["type"] == "comments" for field in plugin["editorfields"]]
        return next(({"text": field["text"], "format": field["format"]} for field in fields if field["text"]), None)
    except (ValueError, LookupError, TypeError):
        return None


def _call(
    settings: Settings,
    function: str,
    parameters: Mapping[str, Any],
    answers: Rules = (),
    message: Message | None = None,
) -> Ask:
    """One call of a function; one without a message only looks. The login is added by whoever sends it."""
    fields = [("wsfunction", function), ("moodlewsrestformat", "json"), *_flat(parameters)]
    request = Request(
        method="POST",
        url=f"{str(settings.options['base_url']).rstrip('/')}/webservice/rest/server.php",
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            **({} if message is None else {"Idempotency-Key": message.key}),
        },
        body=urlencode(fields).encode(),
    )
    return Ask(request=request, answers=answers, harmless=message is None)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping | list):
        steps = value.items() if isinstance(value, Mapping) else enumerate(value)
        for step, entry in steps:
            yield from _flat(entry, f"{name}[{step}]" if name else str(step))
    else:
        yield name, str(int(value) if isinstance(value, bool) else value)


_SAYING: Final[Mapping[str, Callable[[Message, Settings], Conversation]]] = {
    "site_info": _site_info,
    "upsert_user": _upsert_user,
    "save_assignment_grade": _save_assignment_grade,
    "clear_assignment_grade": _clear_assignment_grade,
}
