"""A flow that starts with an HTTP request, open to whoever has its `sig` or a token of its tenant."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_INVOKE: Final = "/powerautomate/automations/direct/workflows/abc/triggers/manual/paths/invoke"
_TOKEN: Final = "/tenant/oauth2/v2.0/token"
_CLIENT: Final = ("bridge", "entra-client-secret")
_SIG: Final = "s1gnature"
# Checked with its final slash (learn.microsoft.com/power-automate/oauth-authentication).
_AUDIENCE: Final = "https://service.flow.microsoft.com/"


class PowerAutomate:
    """One flow and its tenant's token endpoint. `required` are keys that the trigger's schema wants; `on` is False when
    somebody switched the flow off.

    `response` is the status of a Response action, 502 where it was skipped and 504 where it came too late.
    """

    def __init__(self) -> None:
        self.deleted = False
        self.on = True
        self.required: tuple[str, ...] = ()
        self.response: int | None = None
        self._audiences: dict[str, str] = {}
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path == _TOKEN:
            return self._token(call)
        refused = self._refused(call)
        if refused is not None:
            return _error(*refused)
        self._runs.append(call.json)
        return ApiReply(status=self.response or 202, text="")

    def effects(self) -> Json:
        return {"runs": self._runs}

    def _refused(self, call: ApiCall) -> tuple[int, str, str] | None:
        found: tuple[int, str, str] | None = None
        if call.path != _INVOKE or self.deleted:
            found = 404, "WorkflowNotFound", "The workflow could not be found."
        elif "sig" in call.query and "authorization" in call.headers:
            found = 401, "DirectApiRequestHasMoreThanOneAuthorization", "Only one scheme should be used."
        elif not self._lets_in(call):
            found = 401, "DirectApiAuthorizationRequired", "The request must be authenticated."
        elif not self.on:
            found = 400, "WorkflowTriggerIsNotEnabled", "Could not execute it with state 'Disabled'."
        elif not isinstance(call.json, dict) or not set(self.required) <= call.json.keys():
            found = 400, "TriggerInputSchemaMismatch", "The input body for trigger 'manual' did not match."
        return found

    def _lets_in(self, call: ApiCall) -> bool:
        if "sig" in call.query:
            return call.query["sig"] == _SIG
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        return self._audiences.get(token) == _AUDIENCE

    def _token(self, call: ApiCall) -> ApiReply:
        form = call.form
        if (form.get("client_id"), form.get("client_secret")) != _CLIENT:
            return ApiReply(status=401, json={"error": "invalid_client"})
        if form.get("grant_type") != "client_credentials" or not form.get("scope", "").endswith("/.default"):
            return ApiReply(status=400, json={"error": "invalid_scope"})
        token = f"entra-token-{len(self._audiences) + 1}"
        self._audiences[token] = form["scope"].removesuffix("/.default")
        return ApiReply(json={"token_type": "Bearer", "expires_in": 3599, "access_token": token})


def _error(status: int, code: str, message: str) -> ApiReply:
    return ApiReply(status=status, json={"error": {"code": code, "message": message}})


def target() -> PowerAutomate:
    return PowerAutomate()


def settings(url: str) -> Json:
    return {
        "connector": "power_automate",
        "url": f"{url}{_INVOKE}?api-version=1",
        "auth": {
            "kind": "oauth2_client_credentials",
            "token_url": f"{url}{_TOKEN}",
            "client_id": _CLIENT[0],
            "client_secret": _CLIENT[1],
        },
    }
