"""Canvas' REST API as bytes: paths with SIS ids, pages of lists, ids as text."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Request

NOT_FOUND_IS_NEWS: Final = ({"status": 404, "as": "ok"},)

_NAMED_ID: Final = re.compile(r"((?:sis|lti)_[a-z0-9_]+:)(.+)", re.DOTALL)
_NEXT_PAGE: Final = re.compile(r"<([^>]*)>[^<]*?;\s*rel=\"?next\b", re.IGNORECASE)

Rules = tuple[Mapping[str, Any], ...]
Looking = Generator[Ask, Answer, Any]
"""Part of a conversation: it asks, and ends with what it found."""


def look(settings: Settings, path: str, query: Sequence[tuple[str, str]] = (), answers: Rules = ()) -> Ask:
    """A GET below `/api/v1`."""
    url = f"{_base(settings)}/api/v1{path}"
    return _ask("GET", f"{url}?{urlencode(query)}" if query else url, answers=answers)


def change(
    message: Message,
    settings: Settings,
    method: str,
    path: str,
    *,
    body: Mapping[str, Any] | None = None,
    answers: Rules = (),
) -> Ask:
    """A request that changes something, with a JSON body or none. Raises TargetError for text that is none."""
    # Canvas knows nothing of an Idempotency-Key; it is for whoever reads the logs in between.
    return _ask(method, f"{_base(settings)}/api/v1{path}", {"Idempotency-Key": message.key}, body, answers)


def all_of(settings: Settings, path: str, query: Sequence[tuple[str, str]]) -> Looking:
    """A whole list of objects, page by page, as its links lead on (RFC 8288)."""
    found: list[Mapping[str, Any]] = []
    ask = look(settings, path, [*query, ("per_page", str(settings.options["page_size"]))])
    seen: set[str] = set()
    while ask.request.url not in seen:
        seen.add(ask.request.url)
        answer = yield ask
        found += _list(answer)
        following = _NEXT_PAGE.search(answer.headers.get("link", ""))
        if following is not None:
            # The token goes to no host but the one it is for, whatever Canvas calls itself.
            page, origin = urlsplit(following[1]), urlsplit(_base(settings))
            ask = _ask("GET", f"{origin.scheme}://{origin.netloc}{page.path}?{page.query}")
    return found


def segment(value: str) -> str:
    """An id in a path: `sis_course_id:CS/101.11é` is `sis_course_id:CS%2F101%2E11%C3%A9` (doc/api/object_ids.md)."""
    named = _NAMED_ID.fullmatch(value)
    name, rest = (named[1], named[2]) if named else ("", value)
    if not name and rest.strip(".") == "":
        raise TargetError("an id: expected something that can be a segment of a path")
    return name + quote(rest, safe="").replace(".", "%2E")


def the_object(answer: Answer) -> Mapping[str, Any]:
    """The answer's JSON object. Raises TargetError."""
    document = json.loads(answer.body)
    if not isinstance(document, Mapping):
        raise TargetError("Canvas' answer: expected an object")
    return document


def id_of(thing: Mapping[str, Any]) -> str:
    """What Canvas calls it, as text. Raises TargetError."""
    if isinstance(thing.get("id"), str | int):
        return str(thing["id"])
    raise TargetError("Canvas' answer: expected an id")


def _ask(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
    answers: Rules = (),
) -> Ask:
    kind = {} if body is None else {"Content-Type": "application/json"}
    try:
        content = b"" if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except ValueError:
        raise TargetError("expected what JSON and UTF-8 can hold") from None
    request = Request(
        method=method,
        url=url,
        headers={"Accept": "application/json+canvas-string-ids", **kind, **(headers or {})},
        body=content,
    )
    return Ask(request=request, answers=answers, harmless=method == "GET")


def _base(settings: Settings) -> str:
    return str(settings.options["base_url"]).rstrip("/")


def _list(answer: Answer) -> Iterator[Mapping[str, Any]]:
    document = json.loads(answer.body)
    if not isinstance(document, list):
        raise TargetError("Canvas' answer: expected a list")
    return (entry for entry in document if isinstance(entry, Mapping))
