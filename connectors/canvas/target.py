"""Canvas LMS: what its REST API wants to hear.

- Ids are 64 bits and break where numbers are floats; `Accept: application/json+canvas-string-ids` makes them text.
- A SIS id stands where an id stands, `sis_user_id:S-100`, in paths and in `user_id`; nothing is made by naming it.
- An enrolment can be ended only by its own id, so it is looked up; lists come in pages whose addresses are opaque.
- A grade is overwritten, a comment is added with every PUT: what was said is read before anything is said again.
- An empty `posted_grade` clears grade and score; null changes nothing. What is no grade of the assignment clears them
  as well, and the answer is 200.
- SIS ids that the token's account may not give are left out without a word.

github.com/instructure/canvas-lms, doc/api and app/controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Conversation, Message, Outcome, Verdict
from connectors.canvas.wire import NOT_FOUND_IS_NEWS, Looking, Rules, all_of, change, id_of, look, segment, the_object

# What can still be done to an enrolment in which state; deleted ones are never listed.
_OPEN: Final = ("active", "invited", "creation_pending")
_ENDED: Final = ("completed", "rejected")

# "should reject letter grades sent to a points assignment": 200 with neither score nor grade
# (spec/apis/v1/submissions_api_spec.rb; app/models/abstract_assignment.rb, grade_to_score).
_NO_GRADE: Final = (
    {
        "status": "2xx",
        "json_path": "score",
        "equals": None,
        "as": "permanent",
        "reason": "Canvas cannot read the grade, and has none now: does its form fit the assignment's kind of grading?",
    },
)

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
    user = {"name": params["name"], "skip_registration": True}
    body: dict[str, Any] = {"user": user, "pseudonym": _present(pseudonym)}
    if params.get("email") is not None:
        body["communication_channel"] = {"type": "email", "address": params["email"], "skip_confirmation": True}
    if params.get("reactivate"):
        # Canvas then reads skip_confirmation, whether there is a channel or not (users_controller.rb, create_user).
        body["enable_sis_reactivation"] = True
        body.setdefault("communication_channel", {"type": "email", "skip_confirmation": True})
    path = f"/accounts/{segment(settings.options['account'])}/users"
    made = yield change(message, settings, "POST", path, body=body)
    return (yield from _known(made, "sis_user_id", params, f"/users/{segment(name)}", settings))


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
    new = {**given, "submission_types": ["none"], "published": True, "sis_assignment_id": params["sis_assignment_id"]}
    made = yield change(message, settings, "POST", place, body={"assignment": _present(new)})
    return (yield from _known(made, "sis_assignment_id", params, f"{place}/{segment(name)}", settings))


def _known(made: Answer, field: str, params: Mapping[str, Any], path: str, settings: Settings) -> Conversation:
    """How a making ended: without the right to manage SIS data Canvas leaves the SIS id out, and a repeat would make
    another one (lib/api/v1/assignment.rb, update_from_params; app/controllers/users_controller.rb, create_user).
    """
    thing = the_object(made)
    if field in thing:
        known = str(thing[field]) == params[field]
    else:  # who may not read SIS data is not shown it
        answer = yield look(settings, path, answers=NOT_FOUND_IS_NEWS)
        known = answer.status != 404
    reason = (
        f"made without its {field}: the token's account may not manage SIS data. Give it that right and the id by hand"
    )
    return [None if known else Outcome(verdict=Verdict.PERMANENT, reason=reason)]


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
    answer = yield change(message, settings, "POST", path, body={"enrollment": _present(enrollment)})
    if enrollment["enrollment_state"] == "inactive":
        made = the_object(answer)
        if made.get("enrollment_state") in _OPEN:  # one that is active stays so (app/models/course.rb, enroll_user)
            yield change(message, settings, "DELETE", f"{path}/{segment(id_of(made))}?task=deactivate")
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
    return _on_submission(message, settings, body, _NO_GRADE)


def _clear_grade(message: Message, settings: Settings) -> Conversation:
    # An empty text becomes nil for grade and score (app/models/abstract_assignment.rb, compute_grade_and_score).
    return _on_submission(message, settings, {"submission": {"posted_grade": ""}})


def _add_comment(message: Message, settings: Settings) -> Conversation:
    return _on_submission(message, settings, {})


def _on_submission(message: Message, settings: Settings, body: Mapping[str, Any], answers: Rules = ()) -> Conversation:
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
    yield change(message, settings, "PUT", path, body=body, answers=answers)
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
