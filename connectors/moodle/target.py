"""Moodle: what its web services want to hear where the manifest alone cannot say it.

- Form only, written as PHP reads it: `users[0][customfields][0][type]=sid`; truth is 1 or 0, an empty list cannot be
  said. JSON bodies are ignored, and then the token is missing.
- Without `moodlewsrestformat=json` it answers in XML.
- HTTP 200 always; what failed is an object with an `errorcode` (see the manifest's answers). `null` is success.
- Whether somebody is there is asked first: that a name is taken is an error whose words only debug mode shows.

github.com/moodle/moodle, public/webservice/rest/locallib.php and public/user/externallib.php.
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
        "reason": "Moodle's database is busy or away",
    },
    {
        "status": 200,
        "json_path": "warnings[0]",
        "exists": True,
        "as": "permanent",
        "reason": "Moodle did not update the person: a name or an address that somebody else has is one cause",
    },
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
    answer = yield _call(settings, "core_user_get_users_by_field", {"field": field, "values": [value]})
    people = json.loads(answer.body)
    if not isinstance(people, list):
        raise TargetError("Moodle's answer: expected a list of people")
    if len(people) > 1:
        raise TargetError(f"{field}: several people have it")
    return people[0] if people else None


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
}
