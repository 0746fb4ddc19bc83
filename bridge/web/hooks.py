"""`POST /hooks/<source>`: raw bytes once, verify, store, 200."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from flask import Blueprint, Response, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from bridge.core.errors import NotGenuine, StorageUnavailable
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.source import Accepted, Challenge, Inbound
from bridge.engine.metrics import PROOFS, RECEIVED
from bridge.flow.receive import verify

_RETRY_AFTER_SECONDS: Final = "5"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What the receiving side needs: the sources by name, and `keep`, which returns when the bytes are safe."""

    sources: Mapping[str, tuple[SourceConnector, Settings]]
    keep: Callable[[Accepted], None]


def hooks(receiver: Receiver) -> Blueprint:
    """The webhook routes."""
    blueprint = Blueprint("hooks", __name__)
    counters = {
        name: {
            outcome: RECEIVED.labels(name, outcome)
            for outcome in ("accepted", "ignored", "refused", "unavailable", "too_large")
        }
        for name in receiver.sources
    }

    @blueprint.post("/hooks/<source>")
    def receive(source: str) -> Response:
        known = receiver.sources.get(source)
        if known is None:
            return _answer(404, {"status": "unknown source"})
        connector, settings = known
        body = _whole_body()
        inbound = Inbound(
            id=new_id(),
            source=source,
            received_at=datetime.now(UTC),
            headers=_headers(request.environ),
            query=request.args.to_dict() if request.query_string else {},
            body=body,
        )
        try:
            proven = verify(connector, inbound, settings)
        except NotGenuine as refusal:
            counters[source]["refused"].inc()
            _log.warning("refused", source=source, id=inbound.id, reason=refusal.reason)
            return _answer(401, {"status": "refused"})
        if isinstance(proven, Challenge):
            return _challenged(source, proven)
        try:
            receiver.keep(Accepted(verified=proven, clock=time.monotonic_ns()))
        except StorageUnavailable as error:
            counters[source]["unavailable"].inc()
            _log.error("not_stored", source=source, id=inbound.id, error=str(error))
            return _unavailable()
        counters[source]["accepted"].inc()
        PROOFS.labels(source, proven.proof).inc()
        return Response(f'{{"status": "accepted", "id": "{inbound.id}"}}', content_type="application/json")

    def _challenged(source: str, challenge: Challenge) -> Response:
        _log.info("challenge", source=source, reason=challenge.reason)
        if challenge.keep is not None:
            try:
                receiver.keep(Accepted(verified=challenge.keep, ignored=True, clock=time.monotonic_ns()))
            except StorageUnavailable:
                counters[source]["unavailable"].inc()
                return _unavailable()
        counters[source]["ignored"].inc()
        return _answer(200, challenge.answer)

    @blueprint.app_errorhandler(400)
    def incomplete(_error: Exception) -> Response:
        return _answer(400, {"status": "incomplete"})

    @blueprint.app_errorhandler(413)
    def too_large(_error: Exception) -> Response:
        source = (request.view_args or {}).get("source", "")
        if source in counters:
            counters[source]["too_large"].inc()
        return _answer(413, {"status": "too large"})

    return blueprint


def new_id() -> str:
    """Twelve hexadecimal digits of milliseconds, then twenty random ones: ids grow with time."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def _headers(environ: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers as WSGI hands them on, names in lower case."""
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return headers


def _whole_body() -> bytes:
    """The raw bytes, all of them: gunicorn hands on what came before a sender died as if it were whole.

    A body without a length is cut at the limit by Werkzeug, without a word: such a one is refused.
    """
    try:
        body = request.get_data(cache=False)
    except (OSError, ParseException):  # pieces that are cut off or malformed
        raise BadRequest from None
    length, limit = request.content_length, request.max_content_length
    if length is None and limit is not None and len(body) >= limit:
        raise RequestEntityTooLarge
    if length is not None and len(body) < length:
        raise BadRequest
    return body


def _answer(status: int, document: Mapping[str, object] | list[Any]) -> Response:
    return Response(json.dumps(document), status, content_type="application/json")


def _unavailable() -> Response:
    response = _answer(503, {"status": "try again"})
    response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return response
