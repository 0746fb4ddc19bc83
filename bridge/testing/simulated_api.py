"""A simulated platform's API without a network: the real client, whose requests are answered in this process."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.core.contracts import Answer, ApiCall, Request, Settings, SimulatedPlatform
from bridge.core.manifest import SourceConnector
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import Context, HttpSourceApi, Platform
from bridge.outbound.tokens import TokenCache

Fault = Callable[[], Answer | None]
"""What happens to a request instead of its answer: another answer, an exception raised, or None for the real one."""

_PLACE: Final = re.compile(r"\\\{[A-Za-z]+\\\}")


class SimulatedSender:
    """A Sender that asks a simulated platform. `faults` are by call, as manifests write them: "GET /flow/{flowId}"."""

    def __init__(self, platform: SimulatedPlatform, base_url: str) -> None:
        self.faults: dict[str, Fault] = {}
        self.asked: Counter[str] = Counter()
        self._platform = platform
        self._base = urlsplit(base_url).path.rstrip("/")
        self._lock = threading.Lock()

    def send(self, request: Request) -> Answer:
        """The platform's answer, or what the fault for this call does."""
        call = f"{request.method} {urlsplit(request.url).path.removeprefix(self._base)}"
        with self._lock:
            self.asked[call] += 1
        fault = next((fault for name, fault in self.faults.items() if is_call(call, name)), None)
        answer = fault() if fault is not None else None
        return answer or _answered(self._platform, request)


def is_call(call: str, name: str) -> bool:
    """Whether "GET /flow/7" is a call "GET /flow/{flowId}"."""
    return re.fullmatch(_PLACE.sub("[^/]+", re.escape(name)), call) is not None


def simulated_api(
    connector: SourceConnector, platform: SimulatedPlatform, settings: Settings, context: Context | None = None
) -> tuple[HttpSourceApi, SimulatedSender]:
    """A client of a simulated platform, logged in like the real one, and what carries its requests."""
    access = connector.code.access(settings)
    assert access is not None, f"{connector.name}: these settings name no API"
    sender = SimulatedSender(platform, access.base_url)
    shared = Platform(settings=settings, access=access, sender=sender, tokens=TokenCache(None), kept=KeptAnswers())
    return shared.client(context), sender


def _answered(platform: SimulatedPlatform, request: Request) -> Answer:
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
