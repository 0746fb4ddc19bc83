"""A student information system with a OneRoster 1.2 gradebook: PUT is an upsert, errors are imsx_StatusInfo."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_BASE: Final = "/ims/oneroster/gradebook/v1p2"
_LOGIN: Final = f"Basic {b64encode(b'bridge:oneroster-secret').decode()}"
_SCOPE: Final = "https://purl.imsglobal.org/spec/or/v1p2/scope"
_TOKEN: Final = "oneroster-token"
_STATUSES: Final = {"exempt", "fully graded", "not submitted", "partially graded", "submitted"}
_ALWAYS: Final = {"sourcedId", "status", "dateLastModified"}
_NEEDED: Final = {
    "results": ("result", _ALWAYS | {"lineItem", "student", "scoreStatus", "scoreDate"}),
    "lineItems": ("lineItem", _ALWAYS | {"title", "assignDate", "dueDate", "class", "school", "category"}),
}  # fmt: skip


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
        wrapper, needed = _NEEDED[kind]
        given = call.json.get(wrapper) if isinstance(call.json, dict) and call.json.keys() == {wrapper} else None
        if not isinstance(given, dict) or not needed <= given.keys() or given["sourcedId"] != name:
            return _status(422, "invaliddata")
        if kind == "results" and not self._fits(given):
            return _status(422, "invaliddata")
        held[name] = given
        return ApiReply(status=201, json={wrapper: given})

    def _fits(self, result: Json) -> bool:
        known = not self.strict or result["lineItem"]["sourcedId"] in self._held["lineItems"]
        return known and result["scoreStatus"] in _STATUSES and len(result["scoreDate"]) == len("2026-01-02")

    def effects(self) -> Json:
        return dict(self._held)


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
