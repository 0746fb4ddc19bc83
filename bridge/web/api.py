"""`/api/v1/…`: canonical events for those who pull. It is read only, for bearers of a token, and knows no CORS."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog
from flask import Blueprint, Response, request
from sqlalchemy.exc import DBAPIError
from werkzeug.exceptions import HTTPException

from bridge.ledger.api_tokens import Permission, permission_of
from bridge.ledger.database import Ledger
from bridge.ledger.feed import Head, Page, head_of, read_event, read_feed
from bridge.web.api_asking import Refusals, asking, bearer, permitted, wanted
from bridge.web.api_cursor import cursor_of, position_of
from bridge.web.api_description import description
from bridge.web.api_problems import ApiProblem
from bridge.web.api_stream import PIECE_BYTES, Following, Places, follow

ROOT: Final = "/api/v1"
SCOPE: Final = "events:read"
PAGES_AT_ONCE: Final = 4
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The names of the sources in bridge.yaml, how many streams one process serves, and for how long each."""

    sources: Collection[str] = ()
    streams: int = 8
    stream_seconds: float = 600.0


def api(ledger: Callable[[], Ledger], parts: Api) -> Blueprint:
    """The routes."""
    blueprint = Blueprint("api", __name__)
    refusals = Refusals()
    pages = Places(PAGES_AT_ONCE, PAGES_AT_ONCE)
    streams = Places(parts.streams, max(1, parts.streams // 2))
    document = json.dumps(description())

    def known() -> tuple[str, Permission]:
        if request.environ.get("campusbridge.crowded"):  # the server has no thread for it but the webhooks' one
            raise ApiProblem("busy", "too many requests at a time", headers={"Retry-After": "2"})
        return bearer(request, ledger(), SCOPE, refusals)

    @blueprint.get(f"{ROOT}/openapi.json")
    def openapi() -> Response:
        return Response(document, content_type="application/json")

    @blueprint.get(f"{ROOT}/events")
    def list_() -> Response:
        _, permission = known()
        asked = asking(request.args, {"after", "type", "source", "limit"})
        filter = wanted(asked, permission, parts.sources)
        give_back = pages.take(permission.name)
        try:
            head = head_of(ledger())
            after = _start(head, asked.after, "after")
            page = read_feed(ledger(), filter, after=after, limit=asked.limit)
            body = _page_body(page, head.line)
        except BaseException:
            give_back()
            raise
        response = Response(_in_pieces(body), content_type="application/json")
        response.content_length = len(body)
        response.headers["Cache-Control"] = "no-store"
        response.call_on_close(give_back)
        return response

    @blueprint.get(f"{ROOT}/events/<id>")
    def show(id: str) -> Response:
        _, permission = known()
        asking(request.args, ())
        body = read_event(ledger(), permitted(permission), id) if "\0" not in id else None
        if body is None:
            raise ApiProblem("not-found", "there is no event of this id that the token may read")
        response = Response(body, content_type="application/cloudevents+json; charset=utf-8")
        response.headers["Cache-Control"] = "no-store"
        return response

    @blueprint.get(f"{ROOT}/events/stream")
    def stream() -> Response:
        token, permission = known()
        asked = asking(request.args, {"after", "type", "source"})
        last = request.headers.get("Last-Event-ID")
        head = head_of(ledger())
        after = _start(head, last, "Last-Event-ID") if last else _start(head, asked.after, "after")
        following = Following(
            ledger=ledger(),
            line=head.line,
            wanted=wanted(asked, permission, parts.sources),
            after=after,
            seconds=parts.stream_seconds,
            allowed=lambda: permission_of(following.ledger, token) is not None,
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        give_back = streams.take(permission.name)
        response = Response(follow(following, request.environ), headers=headers, content_type="text/event-stream")
        response.call_on_close(give_back)
        return response

    _answer_problems(blueprint)
    return blueprint


def _answer_problems(blueprint: Blueprint) -> None:
    """Whatever goes wrong under the API's addresses is told in one form."""

    @blueprint.errorhandler(ApiProblem)
    def told(problem: ApiProblem) -> Response:
        return problem.response()

    @blueprint.errorhandler(DBAPIError)
    def away(error: DBAPIError) -> Response:
        _log.warning("api_without_ledger", error=type(error).__name__)
        return ApiProblem("busy", "the database is away", headers={"Retry-After": "5"}).response()

    @blueprint.errorhandler(400)
    def unreadable(_error: HTTPException) -> Response:
        return ApiProblem("bad-request", "expected a proper request").response()

    @blueprint.errorhandler(500)
    def failed(_error: HTTPException) -> Response:
        return ApiProblem("failed", "try again later").response()

    @blueprint.app_errorhandler(404)
    def nothing(error: HTTPException) -> Any:
        """Addresses that no route knows belong to no blueprint."""
        return ApiProblem("not-found", "there is no such address").response() if _ours() else error

    @blueprint.app_errorhandler(405)
    def not_offered(error: HTTPException) -> Any:
        if not _ours():
            return error
        allowed = dict(error.get_headers(request.environ)).get("Allow", "GET, HEAD, OPTIONS")
        return ApiProblem("method-not-allowed", "expected GET", headers={"Allow": allowed}).response()


def _ours() -> bool:
    return request.path == ROOT or request.path.startswith(f"{ROOT}/")


def _start(head: Head, cursor: str | None, parameter: str) -> int:
    return 0 if cursor is None else position_of(cursor, head, parameter=parameter)


def _page_body(page: Page, line: str) -> bytes:
    """The events are JSON already, as they stand in the ledger."""
    events = ",\n".join(entry.body for entry in page.entries)
    more = "true" if page.more else "false"
    return f'{{"events": [{events}], "next": "{cursor_of(line, page.next)}", "more": {more}}}'.encode()


def _in_pieces(body: bytes) -> Iterator[bytes]:
    """The server's patience is for each piece: who reads slowly gets a large page all the same."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
