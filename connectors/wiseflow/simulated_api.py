"""The API of a simulated WISEflow as its help centre and its OpenAPI description 1.34 have it: two styles of answers
side by side, both ways to authenticate, its own errors, and its limits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.core.simulation import ApiCall, ApiReply
from connectors.wiseflow.simulated_answers import ANSWERS, ELSEWHERE, search
from connectors.wiseflow.simulated_limits import Limits
from connectors.wiseflow.simulated_shapes import Page
from connectors.wiseflow.simulated_webhooks import Webhooks
from connectors.wiseflow.simulated_world import World

_ROUTES: Final = [
    (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[0-9]{1,18})", template)), template, answer)
    for template, answer in ANSWERS.items()
]
_NUMBER: Final = re.compile(r"/[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    client_id: str
    client_secret: str = field(repr=False)
    api_key: str = field(repr=False)


class Api:
    """Answers calls about a world. `calls` counts them by method and path template.

    An access token says that it lives `token_seconds`; it dies after `token_calls` calls (0 is never), or with
    `expire_tokens`. The next `throttled` calls are answered with 429, and so are those beyond `limits`.
    """

    def __init__(self, world: World, credentials: Credentials) -> None:
        self.world = world
        self.credentials = credentials
        self.calls: Counter[str] = Counter()
        self.limits = Limits()
        self.webhooks = Webhooks()
        self.token_seconds = 3599
        self.token_calls = 0
        self.throttled = 0
        self._issued = 0
        self._tokens: dict[str, int] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        """One call; the base path /v1 may be there or not."""
        path = call.path.removeprefix("/v1")
        with self.world.lock:
            if call.method == "POST" and path == "/oauth2/token":
                self.calls["POST /oauth2/token"] += 1
                return self._token(call)
            credential = self._credential(call.headers)
            if credential is None:
                return ApiReply(status=401, text="Unauthorized")
            within, headers = self.limits.take(credential)
            if self.throttled:
                self.throttled -= 1
                within, headers = False, headers | {"Retry-After": "1"}
            if not within:
                return ApiReply(status=429, json=_error(429, "Too many requests"), headers=headers)
            return self._answered(call, path, headers)

    def expire_tokens(self) -> None:
        """All access tokens are refused from now on."""
        with self.world.lock:
            self._tokens.clear()

    def _answered(self, call: ApiCall, path: str, headers: Mapping[str, str]) -> ApiReply:
        if path.startswith("/webhooks"):
            status, data = self.webhooks.answer(call.method, path, call.json)
            self.calls[f"{call.method} {_NUMBER.sub('/{webhookId}', path)}"] += 1
            body = _error(status, "Bad request" if status == 400 else "Not found") if status >= 400 else _wrapped(data)
            return ApiReply(status=status, json=body, headers=headers)
        if (call.method, path) == ("POST", "/flows/search"):
            self.calls["POST /flows/search"] += 1
            return _reply("/flows/search", search(self.world, call.json, call.query), headers)
        for pattern, template, answer in _ROUTES:
            found = pattern.fullmatch(path) if call.method == "GET" else None
            if found:
                self.calls[f"GET {template}"] += 1
                ids = {name: int(value) for name, value in found.groupdict().items()}
                return _reply(template, answer(self.world, ids, call.query), headers)
        return ApiReply(status=404, json=_error(404, "Not found"), headers=headers)

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
        self._issued += 1
        token = f"simulated-token-{self._issued}"
        self._tokens[token] = 0
        body = {"access_token": token, "expires_in": self.token_seconds, "scope": "", "token_type": "bearer"}
        return ApiReply(json=body)

    def _credential(self, headers: Mapping[str, str]) -> str | None:
        """Whose call it is, since limits are by set of credentials; None for nobody's."""
        if headers.get("x-api-key") == self.credentials.api_key:
            return "key"
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or token not in self._tokens:
            return None
        self._tokens[token] += 1
        alive = not self.token_calls or self._tokens[token] <= self.token_calls
        return "client" if alive else None


def _error(code: int, message: str) -> dict[str, Any]:
    error = {"code": code, "message": message, "errors": [{"reason": "error", "message": message}]}
    return {"success": False, "data": None, "error": error}


def _wrapped(data: Any) -> dict[str, Any]:
    return {"success": True, "data": data, "error": None}


def _reply(template: str, data: Any, headers: Mapping[str, str]) -> ApiReply:
    """Older endpoints answer bare, and their 404 has no body; newer ones wrap both. Some do one but not the other."""
    newer = template.startswith(("/flows/", "/users/", "/license/grading-scales")) or "/assessments/" in template
    if data is None:
        missing = ApiReply(status=404, json=_error(404, "Not found"), headers=headers)
        silent = not newer or template.endswith("/submissions")
        return ApiReply(status=404, text="", headers=headers) if silent else missing
    if data is ELSEWHERE:
        return ApiReply(status=403, json=_error(403, ELSEWHERE), headers=headers)
    if not newer or template.endswith("/submissions/{submissionId}"):  # declared bare
        return ApiReply(json=data, headers=headers)
    if isinstance(data, Page):
        if not data.understood:
            return ApiReply(status=400, json=_error(400, "Invalid query parameters"), headers=headers)
        place = {"limit": data.limit, "offset": data.offset, "total": data.total}
        return ApiReply(json=_wrapped(data.items) | {"pagination": place}, headers=headers)
    return ApiReply(json=_wrapped(data), headers=headers)
