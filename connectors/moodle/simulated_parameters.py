"""What the simulated functions take, checked as Moodle checks it: nothing missing, nothing else, each of its kind.

github.com/moodle/moodle, public/lib/external/classes/external_api.php, validate_parameters; the functions' own
`…_parameters`; public/lib/classes/param.php.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json

_KINDS: Final = {
    "int": r"-?(0|[1-9]\d*)",
    "bool": r"[01]",
    "float": r"(?=[^e]*\d)[+-]?\d*\.?\d*(e[-+]?\d+)?",
    "alpha": r"[A-Za-z]*",
    "alphanumext": r"[A-Za-z0-9_-]*",
    "component": r"[a-z][a-z0-9_]*",
    "username": r"[-.@_a-z0-9]*",
    "trimmed": r"(\S(.*\S)?)?",
    "notags": r"[^<>]*",
    "raw": r".*",
}
_FIELDS: Final = {"type": "alphanumext", "value": "raw"}
_PERSON: Final = {"idnumber?": "raw", "lang?": "notags", "country?": "alpha", "customfields?": [_FIELDS]}

# A name that ends in ? may be missing.
_PARAMETERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "core_webservice_get_site_info": {},
    "core_user_get_users_by_field": {"field": "alpha", "values": ["raw"]},
    "core_user_create_users": {
        "users": [
            {
                "username": "username",
                "firstname": "notags",
                "lastname": "notags",
                "email": "trimmed",
                "auth?": "alphanumext",
                "password?": "raw",
                "createpassword?": "bool",
                **_PERSON,
            }
        ]
    },
    "core_user_update_users": {
        "users": [
            {
                "id": "int",
                "username?": "username",
                "firstname?": "notags",
                "lastname?": "notags",
                "email?": "trimmed",
                "auth?": "alphanumext",
                "password?": "raw",
                "suspended?": "bool",
                **_PERSON,
            }
        ]
    },
    "core_course_get_courses_by_field": {"field?": "alpha", "value?": "raw"},
    "core_course_get_course_module": {"cmid": "int"},
    "enrol_manual_enrol_users": {
        "enrolments": [
            {
                "roleid": "int",
                "userid": "int",
                "courseid": "int",
                "timestart?": "int",
                "timeend?": "int",
                "suspend?": "int",
            }
        ]
    },
    "enrol_manual_unenrol_users": {"enrolments": [{"userid": "int", "courseid": "int"}]},
    "core_grades_update_grades": {
        "source": "raw",
        "courseid": "int",
        "component": "component",
        "activityid": "int",
        "itemnumber": "int",
        "grades?": [{"studentid": "int", "grade": "float", "str_feedback?": "raw"}],
    },
    "mod_assign_get_submission_status": {"assignid": "int", "userid?": "int", "groupid?": "int"},
    "mod_assign_save_grade": {
        "assignmentid": "int",
        "userid": "int",
        "grade": "float",
        "attemptnumber": "int",
        "addattempt": "bool",
        "workflowstate": "alpha",
        "applytoall": "bool",
        "plugindata?": {"assignfeedbackcomments_editor?": {"text": "raw", "format": "int"}},
    },
}


def parameters(function: str, fields: Mapping[str, str]) -> Json:
    """A function's parameters out of a form. Raises ValueError with what debug mode would show."""
    own = {name: value for name, value in fields.items() if not name.startswith(("wstoken", "wsfunction", "moodlews"))}
    document = _unflattened(own)
    _check(document, _PARAMETERS[function], function)
    return document


def _check(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, str):
        if not isinstance(value, str):
            raise ValueError(f"{where} => Scalar type expected, array or object received.")
        if not re.fullmatch(_KINDS[wanted], value, re.DOTALL):
            raise ValueError(f"{where} => the server was expecting {wanted}")
        return
    if not isinstance(value, dict):
        raise ValueError(f"{where} => Only arrays accepted.")
    if isinstance(wanted, list):
        for entry in value.values():
            _check(entry, wanted[0], where)
        return
    known = {name.removesuffix("?"): kind for name, kind in wanted.items()}
    if value.keys() - known:
        raise ValueError(f"Unexpected keys ({', '.join(sorted(value.keys() - known))}) detected in parameter array.")
    for name, kind in known.items():
        if name in value:
            _check(value[name], kind, name)
        elif name in wanted:
            raise ValueError(f"Missing required key in single structure: {name}")


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
