"""The REST API of a simulated WISEflow, in the shapes of its OpenAPI description 1.34: two styles of answers side by
side, both ways to authenticate, its own errors and rate-limit headers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.core.contracts import ApiCall, ApiReply
from connectors.wiseflow.simulated_answers import ANSWERS, Page
from connectors.wiseflow.simulated_world import World

_ROUTES: Final = [
    (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[0-9]{1,18})", template)), template, answer)
    for template, answer in ANSWERS.items()
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    client_id: str
    client_secret: str = field(repr=False)
    api_key: str = field(repr=False)


class Api:
    """Answers calls about a world. `calls` counts them by method and path template.

    An access token says that it lives `token_seconds`; since nobody here has a clock, it dies after `token_calls`
    calls (0 is never). The next `throttled` calls are answered with 429.
    """

    def __init__(self, world: World, credentials: Credentials) -> None:
        self.world = world
        self.credentials = credentials
        self.calls: Counter[str] = Counter()
        self.token_seconds = 3599
        self.token_calls = 0
        self.throttled = 0
        self._tokens: dict[str, int] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        """One call; the base path /v1 may be there or not."""
        path = call.path.removeprefix("/v1")
        with self.world.lock:
            if call.method == "POST" and path == "/oauth2/token":
                self.calls["POST /oauth2/token"] += 1
                return self._token(call)
            if not self._known(call.headers):
                return ApiReply(status=401, text="Unauthorized")
            if self.throttled:
                self.throttled -= 1
                return ApiReply(status=429, json=_error(429, "Too many requests"), headers=_limits(0, "1"))
            for pattern, template, answer in _ROUTES:
                found = pattern.fullmatch(path)
                if found and call.method == "GET":
                    self.calls[f"GET {template}"] += 1
                    ids = {name: int(value) for name, value in found.groupdict().items()}
                    return _reply(template, answer(self.world, ids, call.query))
        return ApiReply(status=404, json=_error(404, "Not found"), headers=_limits(199))

    def _token(self, call: ApiCall) -> ApiReply:
        form = call.form
        if form.get("grant_type") != "client_credentials":
            error = {"error": "unsupported_grant_type", "error_description": "The grant type is not supported"}
            return ApiReply(status=400, json=error)
        if (form.get("client_id"), form.get("client_secret")) != (
            self.credentials.client_id,
            self.credentials.client_secret,
        ):
            error = {"error": "invalid_client", "error_description": "Client authentication failed"}
            return ApiReply(status=400, json=error)
        token = f"simulated-token-{len(self._tokens) + 1}"
        self._tokens[token] = 0
        body = {"access_token": token, "expires_in": self.token_seconds, "scope": "", "token_type": "bearer"}
        return ApiReply(json=body)

    def _known(self, headers: Mapping[str, str]) -> bool:
        if headers.get("x-api-key") == self.credentials.api_key:
            return True
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or token not in self._tokens:
            return False
        self._tokens[token] += 1
        return not self.token_calls or self._tokens[token] <= self.token_calls


def _limits(left: int, retry_after: str | None = None) -> dict[str, str]:
    """help.wiseflow.net/service-centre/api-rate-limits: 200 a second and 5000 a minute for one set of credentials."""
    headers: dict[str, str] = {}
    for prefix, limit in (("RateLimit", 200), ("X-RateLimit-Second", 200), ("X-RateLimit-Minute", 5000)):
        headers |= {f"{prefix}-Limit": str(limit), f"{prefix}-Remaining": str(left), f"{prefix}-Reset": "1"}
    return headers | ({"Retry-After": retry_after} if retry_after else {})


def _error(code: int, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message, "errors": [{"reason": "error", "message": message}]}
    return {"success": False, "data": None, "error": error}


def _reply(template: str, data: Any) -> ApiReply:
    """Older endpoints answer bare, and their 404 has no body; newer ones wrap both."""
    wrapped = template.startswith(("/flows/", "/users/")) or "/assessments/" in template
    wrapped = wrapped and not template.endswith("/submissions/{submissionId}")  # declared bare
    if data is None:
        missing = ApiReply(status=404, json=_error(404, "Not found"), headers=_limits(199))
        return missing if wrapped else ApiReply(status=404, text="", headers=_limits(199))
    if not wrapped:
        return ApiReply(json=data, headers=_limits(199))
    body = {"success": True, "data": data, "error": None}
    if isinstance(data, Page):
        body |= {"data": data.items, "pagination": {"limit": data.limit, "offset": data.offset, "total": data.total}}
    return ApiReply(json=body, headers=_limits(199))
