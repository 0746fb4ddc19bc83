"""Canvas' answers as it writes them: refusals, and lists in pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply


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


def unauthorized() -> ApiReply:
    """The token is good and its account may not; no WWW-Authenticate."""
    words = "user not authorized to perform that action"
    return said(401, {"status": "unauthorized", "errors": [{"message": words}]})


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
