"""Questions to a platform's API on their way out, and what answers mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from bridge.core.errors import PayloadError, SourceRefused, SourceUnavailable
from bridge.core.payload import Payload
from bridge.core.source import ApiAccess
from bridge.core.target import Answer, Request
from bridge.flow.judge import wait_asked_for
from bridge.outbound.kept import Kept

_ABSOLUTE: Final = re.compile(r"https?://", re.IGNORECASE)


class Passing(SourceUnavailable):
    """Something that may be over in a moment."""


def meaning(answer: Answer, now: datetime) -> Kept | None:
    status = answer.status
    if status == 404:
        return None
    if status in (401, 403):
        raise SourceRefused(f"the platform's API answered {status}: check credentials and rights")
    if 200 <= status < 300:
        if not answer.body.strip():
            return Kept(None, 0)
        try:
            return Kept(Payload.parse(answer.body).value, len(answer.body))
        except PayloadError:
            raise Passing(f"the platform's API answered {status} without JSON") from None
    if status == 429:
        raise SourceUnavailable("the platform's API answered 429", retry_after=wait_asked_for(answer, now))
    if status >= 500:
        wait = wait_asked_for(answer, now, resets=False)
        raise Passing(f"the platform's API answered {status}", retry_after=wait)
    raise SourceUnavailable(f"the platform's API answered {status}")


@dataclass(frozen=True, slots=True)
class Asking:
    """A request, what it is called in the story, and whether it is logged in."""

    request: Request = field(repr=False)
    call: str
    login: bool


def asking_of(
    access: ApiAccess, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None
) -> Asking:
    headers: dict[str, str] = {"Accept": "application/json"}
    absolute = _ABSOLUTE.match(path) is not None
    if absolute:
        url = path
    else:
        if any(step.lower().replace("%2e", ".") in (".", "..") for step in path.partition("?")[0].split("/")):
            raise SourceUnavailable("a path may not climb with . or ..")
        url = f"{access.base_url.rstrip('/')}/{path.lstrip('/')}"
        headers |= access.headers
    if query:
        url += ("&" if urlsplit(url).query else "?") + urlencode(query)
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = Request(method=method, url=url, headers=headers, body=body or b"")
    return Asking(request, f"{method} {shown(path)}", login=not absolute)


def with_header(request: Request, name: str, value: str) -> Request:
    return replace(request, headers={**request.headers, name: value})


def shown(path: str) -> str:
    """A path for people; what stands behind `?` may be a signature or somebody's address."""
    return path.partition("?")[0].partition("#")[0]
