"""Canvas' answers as it writes them: refusals, and lists in pages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_LETTERS: Final = {"A": 1.0, "A-": 0.93, "B": 0.86, "C": 0.76, "F": 0.0}
_PASSES: Final = {"pass": 1.0, "complete": 1.0, "fail": 0.0, "incomplete": 0.0}


class Refused(Exception):
    """An answer that ends the call."""

    def __init__(self, reply: ApiReply) -> None:
        self.reply = reply


def said(status: int, document: Any, headers: Mapping[str, str] | None = None) -> ApiReply:
    return ApiReply(
        status=status, json=document, headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    )


def refused(status: int) -> Refused:
    return Refused(said(status, {"errors": [{"message": "The specified resource does not exist."}]}))


def unauthorized(status: int) -> ApiReply:
    """The token is good and its account may not: 401 in older releases, 403 in newer ones; no WWW-Authenticate."""
    words = "user not authorized to perform that action"
    return said(status, {"status": "unauthorized", "errors": [{"message": words}]})


def throttled(status: int) -> ApiReply:
    """No JSON, and no Retry-After; 429 where the site says so (app/middleware/request_throttle.rb)."""
    words = "403 Forbidden" if status == 403 else "429 Too Many Requests"
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Rate-Limit-Remaining": "0.0"}
    return ApiReply(status=status, text=f"{words} (Rate Limit Exceeded)\n", headers=headers)


def score(posted: str) -> float | None:
    """Points, a percentage or a letter of an assignment of 100 points; None for what is none of these (interpret_grade,
    app/models/abstract_assignment.rb).
    """
    if re.fullmatch(r"[+-]?\d*\.?\d+%?", posted):
        return float(posted.removesuffix("%"))
    share = (_LETTERS | _PASSES).get(posted)
    return None if share is None else 100 * share


def page(call: ApiCall, found: list[Json]) -> ApiReply:
    """One page of a list, with the addresses of the others in `Link` (doc/api/pagination.md)."""
    number, size = int(call.query.get("page", 1)), int(call.query.get("per_page", 10))

    def link(to: int, rel: str) -> str:
        query = urlencode({**call.query, "page": to, "per_page": size})
        return f'<https://canvas.example.org{call.path}?{query}>; rel="{rel}"'

    links = [link(number, "current"), link(1, "first")]
    if len(found) > number * size:
        links.insert(1, link(number + 1, "next"))
    return said(200, found[(number - 1) * size : number * size], {"Link": ",".join(links)})
