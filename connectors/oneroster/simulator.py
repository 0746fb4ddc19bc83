"""A student information system with a OneRoster 1.2 gradebook: PUT is an upsert, errors are imsx_StatusInfo."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_BASE: Final = "/ims/oneroster/gradebook/v1p2"
_LOGIN: Final = f"Basic {b64encode(b'bridge:oneroster-secret').decode()}"
_SCOPE: Final = "https://purl.imsglobal.org/spec/or/v1p2/scope"
_TOKEN: Final = "oneroster-token"
_STATUS: Final = re.compile(r"exempt|fully graded|not submitted|partially graded|submitted|ext:[A-Za-z0-9._-]+")
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_ALWAYS: Final = {"sourcedId", "status", "dateLastModified"}
_NEEDED: Final = {
    "results": ("result", _ALWAYS | {"lineItem", "student", "scoreStatus", "scoreDate"}),
    "lineItems": ("lineItem", _ALWAYS | {"title", "assignDate", "dueDate", "class", "school", "category"}),
}  # fmt: skip
_MAY: Final = {
    "results": {"class", "scoreScale", "score", "textScore", "comment", "metadata", "learningObjectiveSet"}
    | {"inProgress", "incomplete", "late", "missing"},
    "lineItems": {"description", "gradingPeriod", "academicSession", "scoreScale", "resultValueMin", "resultValueMax"}
    | {"metadata", "learningObjectiveSet"},
}
_REFERENCES: Final = {
    "lineItem": "lineItem",
    "student": "user",
    "class": "class",
    "school": "org",
    "category": "category",
    "gradingPeriod": "academicSession",
    "academicSession": "academicSession",
    "scoreScale": "scoreScale",
}
"""What each field refers to; additionalProperties is false in the binding's own schemas."""


class Gradebook:
    """`strict` lets it refuse results of line items that it does not have; `busy` lets it throttle, `read_only` take
    nothing.
    """

    def __init__(self) -> None:
        self.strict = False
        self.busy = False
        self.read_only = False
        self._held: dict[str, dict[str, Json]] = {"results": {}, "lineItems": {}}

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path == "/token":
            return _token(call)
        if call.headers.get("authorization") != f"Bearer {_TOKEN}":
            return _status(401, "unauthorisedrequest")
        if self.busy:
            return _status(429, "server_busy")
        kind, _, name = call.path.removeprefix(f"{_BASE}/").partition("/")
        if not call.path.startswith(_BASE) or kind not in self._held or not name:
            return _status(404, "unknownobject")
        if self.read_only:
            return _status(403, "forbidden")
        return self._changed(call, kind, name)

    def _changed(self, call: ApiCall, kind: str, name: str) -> ApiReply:
        held = self._held[kind]
        if call.method == "DELETE":
            if held.pop(name, None) is None:
                return _status(404, "unknownobject")
            return ApiReply(status=204, text="")
        if call.method != "PUT":
            return _status(405, "forbidden")
        wrapper, _ = _NEEDED[kind]
        given = call.json.get(wrapper) if isinstance(call.json, dict) and call.json.keys() == {wrapper} else None
        if not isinstance(given, dict) or given.get("sourcedId") != name or not self._fits(kind, given):
            return _status(422, "invaliddata")
        held[name] = given
        return ApiReply(status=201, json={wrapper: given})

    def _fits(self, kind: str, result: Json) -> bool:
        _, needed = _NEEDED[kind]
        if not needed <= result.keys() <= needed | _MAY[kind] or not _typed(result):
            return False
        if kind == "lineItems":
            return True
        known = not self.strict or result["lineItem"]["sourcedId"] in self._held["lineItems"]
        return known and _STATUS.fullmatch(result["scoreStatus"]) is not None

    def effects(self) -> Json:
        return dict(self._held)


def _typed(given: Json) -> bool:
    """Whether references, dates and numbers are what the schemas want."""
    references = all(
        isinstance(given[name], dict)
        and given[name].keys() == {"href", "sourcedId", "type"}
        and given[name]["type"] == to
        for name, to in _REFERENCES.items()
        if name in given
    )
    dates = all(
        _MOMENT.fullmatch(given[name]) for name in ("dateLastModified", "assignDate", "dueDate") if name in given
    )
    days = "scoreDate" not in given or _DAY.fullmatch(given["scoreDate"]) is not None
    numbers = [given[name] for name in ("score", "resultValueMin", "resultValueMax") if name in given]
    return references and dates and days and all(type(number) in (int, float) for number in numbers)


def _token(call: ApiCall) -> ApiReply:
    if call.headers.get("authorization") != _LOGIN or call.form.get("grant_type") != "client_credentials":
        return ApiReply(status=401, json={"error": "invalid_client"})
    scopes = set(call.form.get("scope", "").split())
    if not {f"{_SCOPE}/gradebook.createput", f"{_SCOPE}/gradebook.delete"} <= scopes:
        return ApiReply(status=400, json={"error": "invalid_scope"})
    return ApiReply(json={"access_token": _TOKEN, "token_type": "bearer", "expires_in": 3600})


def _status(status: int, minor: str) -> ApiReply:
    code: Any = {"imsx_codeMinorFieldName": "TargetEndSystem", "imsx_codeMinorFieldValue": minor}
    return ApiReply(
        status=status,
        json={
            "imsx_codeMajor": "failure",
            "imsx_severity": "error",
            "imsx_description": minor,
            "imsx_CodeMinor": {"imsx_codeMinorField": [code]},
        },
    )


def target() -> Gradebook:
    return Gradebook()


def settings(url: str) -> Json:
    return {
        "connector": "oneroster",
        "base_url": f"{url}{_BASE}",
        "auth": {
            "kind": "oauth2_client_credentials",
            "token_url": f"{url}/token",
            "client_id": "bridge",
            "client_secret": "oneroster-secret",
        },
    }
