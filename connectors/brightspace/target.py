"""Brightspace, D2L's Valence API (docs.valence.desire2learn.com): grades are written whole, comments included.

- A grade is PUT with both comments or refused ("Comments and PrivateComments are mandatory", seen in clients); an empty
  one erases what a teacher wrote. So the grade is read first, and what it says is said again.
- What is read as RichText {Text, Html} is written as RichTextInput {Content, Type}.
- What is read of a grade is none of the fields that are written, points apart: passes, symbols and texts are only in
  DisplayedGrade (res/grade.html, Grade.GradeValue).
- A grade item has no number of ours: it is known by its name, which is unique in the course, at most 128 characters
  long, and without /"*<>+=|,% (seen in clients).
- Users are asked for by orgDefinedId and come as a list, by userName as one object or 404.
- Enrolling somebody again changes the role.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict

_VALUE: Final = {"points": (1, "PointsNumerator"), "pass": (2, "Pass"), "value": (3, "Value"), "text": (4, "Text")}
"""Parameters, GRADEOBJ_T and the field that carries a grade of this type; 5 to 9 are calculated."""

_FIELD: Final[Mapping[Any, str]] = dict(_VALUE.values())
_NO_JSON: Final = {"status": "2xx", "not_json": True, "as": "retry", "reason": "Brightspace's answer is no JSON"}
_READ: Final = (_NO_JSON,)
_READ_OR_ABSENT: Final = (_NO_JSON, {"status": 404, "as": "ok"})
_REFUSED: Final = ({"status": 400, "as": "ok"},)
_FORBIDDEN: Final = re.compile(r'[/"*<>+=|,%\s]+')
_LONGEST_NAME: Final = 128

Asking = Generator[Ask, Answer, Any]


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """Find whom and what a message is about, and write it. Raises TargetError."""
    [message] = messages
    course = yield from _course(message, settings)
    if message.operation == "enrol_user":
        return (yield from _enrolled(message, settings, course))
    if message.operation == "unenrol_user":
        return (yield from _unenrolled(message, settings, course))
    grades = f"{settings.options['base_url']}/d2l/api/le/{settings.options['le_version']}/{course}/grades/"
    if message.operation == "ensure_grade_item":
        item = yield from _item(message, grades)
        return [Outcome(verdict=Verdict.OK, reason="", target_id=str(item["Id"]))]
    user = yield from _user(message, settings)
    return (yield from (_cleared if _clears(message) else _graded)(message, grades, user))


def _clears(message: Message) -> bool:
    nothing = all(message.params.get(name) is None for name in _VALUE)
    return message.operation == "clear_grade" or (message.operation == "sync_grade" and nothing)


# --- grades -----------------------------------------------------------------------------------------------------------


def _graded(message: Message, grades: str, user: str) -> Conversation:
    params = message.params
    item = yield from _item(message, grades)
    url = f"{grades}{item['Id']}/values/{user}"
    held = yield from _held(url)
    [name] = [name for name in _VALUE if params.get(name) is not None]
    kind, field = _VALUE[name]
    value = _points(params, item) if name == "points" else params[name]
    yield Ask(request=_put(message, url, kind, {field: value}, held))
    return [None]


def _cleared(message: Message, grades: str, user: str) -> Conversation:
    nothing = [Outcome(verdict=Verdict.DUPLICATE, reason="there is no such grade")]
    item = yield from _item(message, grades)
    if item is None:
        return nothing
    url = f"{grades}{item['Id']}/values/{user}"
    held = yield from _held(url)
    if not held:
        return nothing
    kind = held.get("GradeObjectType")
    field = _FIELD.get(kind)
    if field is None:
        raise TargetError("the grade is calculated by Brightspace and cannot be emptied")
    if held.get("DisplayedGrade" if field == "Text" else "PointsNumerator") in (None, ""):
        return nothing
    # Does null empty a grade? The documentation gives the number no null; a refusal ends as permanent.
    yield Ask(request=_put(message, url, kind, {field: None}, held))
    return [None]


def _held(url: str) -> Asking:
    """The grade as it is, empty for none."""
    answer = yield Ask(request=Request(method="GET", url=url), answers=_READ_OR_ABSENT, harmless=True)
    document = _document(answer)
    return document if answer.status < 300 and isinstance(document, dict) else {}


def _put(message: Message, url: str, kind: int, value: Json, held: Json) -> Request:
    params = message.params
    document = {
        "GradeObjectType": kind,
        **value,
        "Comments": _rich(params.get("comment"), held.get("Comments")),
        "PrivateComments": _rich(params.get("private_comment"), held.get("PrivateComments")),
    }
    return _request(message, "PUT", url, document)


def _rich(new: str | None, old: Any) -> Json:
    if new is not None:
        return {"Content": new, "Type": "Text"}
    old = old if isinstance(old, dict) else {}
    if old.get("Html"):
        return {"Content": old["Html"], "Type": "Html"}
    return {"Content": old.get("Text") or "", "Type": "Text"}


def _points(params: Json, item: Json) -> float:
    """Points out of the item's own maximum."""
    points: float = params["points"]
    given: float | None = params.get("points_maximum")
    own: float | None = item.get("MaxPoints")
    if not given or given == own:
        return points
    if not own:
        raise TargetError("points_maximum: the grade item has no maximum to convert to")
    return round(points * own / given, 6)


# --- grade items ------------------------------------------------------------------------------------------------------


def _item(message: Message, grades: str) -> Asking:
    """The grade item, made if need be; None where a grade is to be emptied and there is no item."""
    params = message.params
    if "item" in params:
        if not params.get("points_maximum"):
            return {"Id": params["item"]}
        answer = yield Ask(request=Request(method="GET", url=f"{grades}{params['item']}"), answers=_READ, harmless=True)
        return {"Id": params["item"], **(_document(answer) or {})}
    name = _name(params["item_name"])
    item = yield from _item_called(name, grades)
    if item is not None or _clears(message):
        return item
    if not params.get("max_points"):
        raise TargetError("max_points: expected a number, since the grade item has to be made")
    new = {
        "MaxPoints": params["max_points"],
        "CanExceedMaxPoints": False,
        "IsBonus": False,
        "ExcludeFromFinalGradeCalculation": False,
        "GradeSchemeId": None,
        "Name": name,
        "ShortName": name,
        "GradeType": "Numeric",
        "CategoryId": None,
        "Description": {"Content": "", "Type": "Text"},
        "AssociatedTool": None,
    }
    # Another worker may have made it at the same time: the name is then refused, and found.
    yield Ask(request=_request(message, "POST", grades, new), answers=_REFUSED)
    item = yield from _item_called(name, grades)
    if item is None:
        raise TargetError("item_name, max_points: Brightspace does not make this grade item")
    return item


def _item_called(name: str, grades: str) -> Asking:
    answer = yield Ask(request=Request(method="GET", url=grades), answers=_READ, harmless=True)
    items = _document(answer)
    found = [item for item in items or () if isinstance(item, dict) and item.get("Name") == name]
    return found[0] if found else None


def _name(text: str) -> str:
    name = _FORBIDDEN.sub(" ", text).strip()[:_LONGEST_NAME].strip()
    if not name:
        raise TargetError("item_name: expected a name with letters or digits")
    return name


# --- enrolments, users and courses ------------------------------------------------------------------------------------


def _enrolled(message: Message, settings: Settings, course: int) -> Conversation:
    params = message.params
    role = params["role_id"] if "role_id" in params else settings.options["roles"].get(params["role"])
    if role is None:
        raise TargetError("role: expected one of `roles` in the target's settings")
    user = yield from _user(message, settings)
    document = {"OrgUnitId": course, "UserId": int(user), "RoleId": role}
    yield Ask(request=_request(message, "POST", _platform_url(settings, "enrollments/"), document))
    return [None]


def _unenrolled(message: Message, settings: Settings, course: int) -> Conversation:
    user = yield from _user(message, settings)
    url = _platform_url(settings, f"enrollments/users/{user}/orgUnits/{course}")
    gone = ({"status": 404, "as": "duplicate", "reason": "is not in the course"},)
    yield Ask(request=Request(method="DELETE", url=url), answers=gone)
    return [None]


def _course(message: Message, settings: Settings) -> Asking:
    """The course offering's number."""
    if "org_unit" in message.params:
        return int(message.params["org_unit"])
    code = message.params["course_code"]
    query = urlencode({"orgUnitType": settings.options["course_type"], "exactOrgUnitCode": code})
    url = f"{_platform_url(settings, 'orgstructure/')}?{query}"
    answer = yield Ask(request=Request(method="GET", url=url), answers=_READ, harmless=True)
    document = _document(answer)
    entries = document.get("Items") if isinstance(document, dict) else None
    found = {str(entry.get("Identifier")) for entry in entries or () if isinstance(entry, dict) and _is(entry, code)}
    match list(found):
        case [str(number)] if number.isdecimal():
            return int(number)
        case []:
            raise TargetError("course_code: no course offering has it")
    raise TargetError("course_code: several course offerings have it")


def _is(entry: Json, code: str) -> bool:
    return str(entry.get("Code")).casefold() == code.casefold()


def _user(message: Message, settings: Settings) -> Asking:
    """Brightspace's own number of somebody, as text."""
    user, kind = message.params["user"], settings.options["users_by"]
    if kind == "id":
        if not user.isdecimal():
            raise TargetError("user: expected a number")
        return user
    url = f"{_platform_url(settings, 'users/')}?{urlencode({kind: user})}"
    answer = yield Ask(request=Request(method="GET", url=url), answers=_READ_OR_ABSENT, harmless=True)
    document = _document(answer) if answer.status < 300 else []
    people = [entry for entry in (document if isinstance(document, list) else [document]) if isinstance(entry, dict)]
    found = {str(entry.get("UserId")) for entry in people if str(_told(entry, kind)).casefold() == user.casefold()}
    match list(found):
        case [str(number)] if number.isdecimal():
            return number
        case []:
            raise TargetError(f"user: nobody in Brightspace has this {kind}")
    raise TargetError(f"user: several people in Brightspace have this {kind}")


def _told(entry: Json, kind: str) -> Any:
    return entry.get("OrgDefinedId" if kind == "orgDefinedId" else "UserName")


# --- requests ---------------------------------------------------------------------------------------------------------


def _platform_url(settings: Settings, path: str) -> str:
    return f"{settings.options['base_url']}/d2l/api/lp/{settings.options['lp_version']}/{path}"


def _request(message: Message, method: str, url: str, document: Json) -> Request:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"{message.key}-{method.lower()}"}
    return Request(method=method, url=url, headers=headers, body=body)


def _document(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None
