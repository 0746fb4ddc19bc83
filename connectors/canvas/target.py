"""Canvas LMS: what its REST API wants to hear.

- Ids are 64 bits and break where numbers are floats; `Accept: application/json+canvas-string-ids` makes them text.
- A SIS id stands where an id stands, `sis_user_id:S-100`, in paths and in `user_id`; nothing is made by naming it.
- An enrolment can be ended only by its own id, so it is looked up; lists come in pages whose addresses are opaque.
- A grade is overwritten, a comment is added with every PUT: what was said is read before anything is said again.
- An empty `posted_grade` clears grade and score; null changes nothing.

github.com/instructure/canvas-lms, doc/api and app/controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Conversation, Message, Outcome, Verdict
from connectors.canvas.wire import NOT_FOUND_IS_NEWS, Looking, all_of, change, id_of, look, segment, the_object

# What can still be done to an enrolment in which state; deleted ones are never listed.
_OPEN: Final = ("active", "invited", "creation_pending")
_ENDED: Final = ("completed", "rejected")

Saying = Callable[[Message, Settings], Conversation]


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to ask Canvas for a message; no operation takes several at a time. Raises TargetError as it goes."""
    [message] = messages
    return _SAYING[message.operation](message, settings)


# --- people, assignments, enrolments ----------------------------------------------------------------------------------


def _upsert_user(message: Message, settings: Settings) -> Conversation:
    params = message.params
    name = f"sis_user_id:{params['sis_user_id']}"
    answer = yield look(settings, f"/users/{segment(name)}", answers=NOT_FOUND_IS_NEWS)
    if answer.status != 404:
        user = _present({"name": params["name"], "email": params.get("email")})
        yield change(message, settings, "PUT", f"/users/{segment(id_of(the_object(answer)))}", body={"user": user})
        return [None]
    login = params.get("login") or params.get("email")
    if login is None:
        raise TargetError("login: Canvas has no such person, and a new one needs a login or an e-mail address")
    pseudonym = {
        "unique_id": login,
        "sis_user_id": params["sis_user_id"],
        "send_confirmation": False,
        "authentication_provider_id": params.get("authentication_provider"),
    }
    body = {"user": {"name": params["name"], "skip_registration": True}, "pseudonym": _present(pseudonym)}
    if params.get("email") is not None:
        body["communication_channel"] = {"type": "email", "address": params["email"], "skip_confirmation": True}
    yield change(message, settings, "POST", f"/accounts/{segment(settings.options['account'])}/users", body=body)
    return [None]


def _upsert_assignment(message: Message, settings: Settings) -> Conversation:
    params = message.params
    place = f"/courses/{segment(params['course'])}/assignments"
    name = f"sis_assignment_id:{params['sis_assignment_id']}"
    given = {key: params.get(key) for key in ("name", "points_possible", "grading_type", "due_at")}
    answer = yield look(settings, f"{place}/{segment(name)}", answers=NOT_FOUND_IS_NEWS)
    if answer.status != 404:
        path = f"{place}/{segment(id_of(the_object(answer)))}"
        yield change(message, settings, "PUT", path, body={"assignment": _present(given)})
        return [None]
    # Nothing is handed in here: the work is on the exam's own platform. Grades reach students once it is published.
    made = {**given, "submission_types": ["none"], "published": True, "sis_assignment_id": params["sis_assignment_id"]}
    yield change(message, settings, "POST", place, body={"assignment": _present(made)})
    return [None]


def _enroll_user(message: Message, settings: Settings) -> Conversation:
    params = message.params
    user = yield from _user(params["user"], settings)
    enrollment = {
        "user_id": user,
        "type": _type(params),
        "role_id": params.get("role_id"),
        "enrollment_state": params.get("state") or "active",
        "course_section_id": params.get("section"),
        "notify": params.get("notify") or False,
        "start_at": params.get("start_at"),
        "end_at": params.get("end_at"),
        "limit_privileges_to_course_section": params.get("limit_to_section"),
    }
    path = f"/courses/{segment(params['course'])}/enrollments"
    yield change(message, settings, "POST", path, body={"enrollment": _present(enrollment)})
    return [None]


def _ending(task: str, states: Sequence[str]) -> Saying:
    """An end of one of three kinds for all enrolments in these states; where there are none it has come already."""

    def end(message: Message, settings: Settings) -> Conversation:
        found = yield from _enrollments(message.params, settings, states)
        for enrollment in found:
            path = f"/courses/{segment(message.params['course'])}/enrollments/{segment(id_of(enrollment))}"
            # Somebody else may have ended it since we looked.
            yield change(message, settings, "DELETE", f"{path}?task={task}", answers=NOT_FOUND_IS_NEWS)
        return [None if found else Outcome(verdict=Verdict.DUPLICATE, reason="there is no enrolment left to end")]

    return end


def _reactivate(message: Message, settings: Settings) -> Conversation:
    found = yield from _enrollments(message.params, settings, (*_OPEN, "inactive"))
    if not found:
        reason = "there is no deactivated enrolment; enroll_user brings others back"
        return [Outcome(verdict=Verdict.PERMANENT, reason=reason)]
    # To everything that is not inactive Canvas answers 400, "enrollment not inactive".
    inactive = [enrollment for enrollment in found if enrollment.get("enrollment_state") == "inactive"]
    for enrollment in inactive:
        path = f"/courses/{segment(message.params['course'])}/enrollments/{segment(id_of(enrollment))}/reactivate"
        yield change(message, settings, "PUT", path)
    return [None if inactive else Outcome(verdict=Verdict.DUPLICATE, reason="the enrolment is active already")]


def _enrollments(params: Mapping[str, Any], settings: Settings, states: Sequence[str]) -> Looking:
    """Somebody's enrolments of one type. Without `state[]` Canvas would leave out all but active and invited ones."""
    user = yield from _user(params["user"], settings)
    section = params.get("section")
    place = f"/courses/{segment(params['course'])}" if section is None else f"/sections/{segment(section)}"
    kind = _type(params)
    query = [("user_id", user), ("type[]", kind), *(("state[]", state) for state in states)]
    found = yield from all_of(settings, f"{place}/enrollments", query)
    # What is ended here is ended for somebody: no trust in filters that a proxy may have dropped.
    return [
        entry
        for entry in found
        if entry.get("type", kind) == kind and entry.get("enrollment_state", states[0]) in states
    ]


def _user(name: str, settings: Settings) -> Looking:
    """What Canvas takes for a person's id; an e-mail address is looked up, and must be that of one person."""
    if not name.startswith("email:"):
        return name
    address = name.removeprefix("email:").strip().casefold()
    if "@" not in address:
        raise TargetError("user: expected an e-mail address after email:")
    path = f"/accounts/{segment(settings.options['account'])}/users"
    found = yield from all_of(settings, path, [("search_term", address), ("include[]", "email")])
    # The search finds parts of names and addresses, too.
    people = {id_of(user) for user in found if address in (_text(user, "email"), _text(user, "login_id"))}
    if len(people) != 1:
        raise TargetError(f"user: expected one person with this e-mail address, Canvas has {len(people)}")
    return people.pop()


# --- grades and comments ----------------------------------------------------------------------------------------------


def _set_grade(message: Message, settings: Settings) -> Conversation:
    body: dict[str, Any] = {"submission": {"posted_grade": _grade(message.params["grade"])}}
    if message.params.get("prefer_points_over_scheme") is not None:
        body["prefer_points_over_scheme"] = message.params["prefer_points_over_scheme"]
    return _on_submission(message, settings, body)


def _clear_grade(message: Message, settings: Settings) -> Conversation:
    # An empty text becomes nil for grade and score (app/models/abstract_assignment.rb, compute_grade_and_score).
    return _on_submission(message, settings, {"submission": {"posted_grade": ""}})


def _add_comment(message: Message, settings: Settings) -> Conversation:
    return _on_submission(message, settings, {})


def _on_submission(message: Message, settings: Settings, body: Mapping[str, Any]) -> Conversation:
    """One PUT of a grade, a comment, or both; a comment that is there already is not sent again.

    A request that Canvas is still at work on cannot be seen yet: the pause before a retry keeps the two apart.
    """
    params = message.params
    user = yield from _user(params["user"], settings)
    assignment = f"/courses/{segment(params['course'])}/assignments/{segment(params['assignment'])}"
    path = f"{assignment}/submissions/{segment(user)}"
    if params.get("comment") is not None:
        answer = yield look(settings, path, [("include[]", "submission_comments")])
        said = the_object(answer).get("submission_comments") or []
        if not any(message.key in str(comment.get("comment")) for comment in said):
            reference = settings.options["comment_reference"].replace("{key}", message.key)
            body = {**body, "comment": {"text_comment": f"{params['comment']}\n\n{reference}"}}
    if not body:
        return [Outcome(verdict=Verdict.DUPLICATE, reason="the comment is there already")]
    yield change(message, settings, "PUT", path, body=body)
    return [None]


# --- values -----------------------------------------------------------------------------------------------------------


def _grade(value: str | float) -> str:
    """A number as people write it: 83.0 is 83."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _type(params: Mapping[str, Any]) -> str:
    return str(params.get("type") or "StudentEnrollment")


def _text(user: Mapping[str, Any], field: str) -> str:
    return str(user.get(field) or "").casefold()


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_SAYING: Final[Mapping[str, Saying]] = {
    "upsert_user": _upsert_user,
    "upsert_assignment": _upsert_assignment,
    "enroll_user": _enroll_user,
    "conclude_enrollment": _ending("conclude", (*_OPEN, "inactive")),
    "deactivate_enrollment": _ending("deactivate", _OPEN),
    "reactivate_enrollment": _reactivate,
    "delete_enrollment": _ending("delete", (*_OPEN, "inactive", *_ENDED)),
    "set_grade": _set_grade,
    "clear_grade": _clear_grade,
    "add_comment": _add_comment,
}
