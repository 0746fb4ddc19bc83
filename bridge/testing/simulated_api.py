"""A simulated platform's API without a network: the real client, whose requests are answered in this process."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.simulation import ApiCall, ApiReply
from bridge.core.source import ApiAccess
from bridge.core.target import Answer, Request
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import Context, HttpSourceApi, Platform
from bridge.outbound.tokens import TokenCache

Fault = Callable[[], Answer | None]
"""What happens to a request instead of its answer: another answer, an exception raised, or None for the real one."""

_PLACE: Final = re.compile(r"\\\{[A-Za-z]+\\\}")


def always(
    status: int = 200, body: bytes = b"", *, headers: Mapping[str, str] | None = None, error: Exception | None = None
) -> Fault:
    """A fault that is there every time: this answer, or this error."""

    def fault() -> Answer:
        if error is not None:
            raise error
        return Answer(status=status, headers=headers or {}, body=body)

    return fault


def once(status: int = 200, body: bytes = b"", *, error: Exception | None = None) -> Fault:
    """A fault that is there the first time only."""
    left = [always(status, body, error=error)]

    def fault() -> Answer | None:
        return left.pop()() if left else None

    return fault


class Answering(Protocol):
    """The part of a SimulatedPlatform that is its API."""

    def answer(self, call: ApiCall) -> ApiReply: ...


class SimulatedSender:
    """A Sender that asks a simulated platform. `faults` are by call, as manifests write them: "GET /flow/{flowId}".

    `asked` counts the calls; one that is not logged in has its whole address without the query, and is what manifests
    write as "GET {signedUrl}". `logged_in` are those with a fetched token, `answers` the last that the platform gave.
    """

    def __init__(self, platform: Answering, access: ApiAccess) -> None:
        self.faults: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self.logged_in: set[str] = set()
        self.answers: dict[str, Answer] = {}
        self.token_call = _call("POST", access.token.url, access.base_url) if access.token is not None else None
        self._platform = platform
        self._access = access
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        """The platform's answer, or what the fault for this call does."""
        headers, token = request.headers, self._access.token
        with_token = token is not None and headers.get("Authorization", "").startswith("Bearer ")
        ours = with_token if token is not None else self._access.headers.items() <= headers.items()
        call = _call(request.method, request.url, self._access.base_url)
        if not ours and call != self.token_call:
            call = f"{request.method} {request.url.partition('?')[0]}"
        with self._lock:
            self.asked[call] += 1
            if with_token:
                self.logged_in.add(call)
        fault = next((fault for name, fault in self.faults.items() if is_call(call, name)), None)
        answer = fault() if fault is not None else None
        if answer is None:
            answer = self.answers[call] = _answered(self._platform, request)
        return answer


def is_call(call: str, name: str) -> bool:
    """Whether "GET /flow/7" is a call "GET /flow/{flowId}", and "GET https://files.example/7" one "GET {signedUrl}"."""
    method, _, target = name.partition(" ")
    pattern = r"https?://.+" if _PLACE.fullmatch(re.escape(target)) else _PLACE.sub("[^/]+", re.escape(target))
    return re.fullmatch(f"{method} {pattern}", call) is not None


def simulated_api(
    connector: SourceConnector, platform: Answering, settings: Settings, context: Context | None = None
) -> tuple[HttpSourceApi, SimulatedSender]:
    """A client of a simulated platform, logged in like the real one, and what carries its requests."""
    access = connector.code.access(settings)
    assert access is not None, f"{connector.name}: these settings name no API"
    sender = SimulatedSender(platform, access)
    shared = Platform(
        settings=settings, access=access, sender=sender, tokens=TokenCache(None), kept=KeptAnswers(), pause=0.0
    )
    return shared.client(context), sender


def _call(method: str, url: str, base_url: str) -> str:
    return f"{method} {urlsplit(url).path.removeprefix(urlsplit(base_url).path.rstrip('/'))}"


def _answered(platform: Answering, request: Request) -> Answer:
    target = urlsplit(request.url)
    headers = {name.lower(): value for name, value in request.headers.items()}
    form: Mapping[str, str] = {}
    document: Any = None
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    elif request.body:
        document = json.loads(request.body)
    reply = platform.answer(
        ApiCall(
            method=request.method,
            path=unquote(target.path),
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers=headers,
            form=form,
            json=document,
        )
    )
    body = json.dumps(reply.json) if reply.text is None else reply.text
    return Answer(
        status=reply.status, headers={name.lower(): value for name, value in reply.headers.items()}, body=body.encode()
    )
