"""`/`: one plain page to look at. It shows figures and ids, and no person."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from flask import Blueprint, Response, render_template_string, request
from sqlalchemy.exc import DBAPIError

from bridge import __version__
from bridge.ledger.database import Ledger, moment
from bridge.ledger.destinations import listed
from bridge.ledger.figures import totals
from bridge.ledger.lanes import oldest_unfinished
from bridge.ledger.reading import list_events, list_messages

_LATEST = 25
_FORWARDED: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")
_OWN_NAME: Final = re.compile(r"(?:127\.0\.0\.1|\[::1\]|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)


def console(ledger: Callable[[], Ledger], *, only_local: bool) -> Blueprint:
    """The page's route. `only_local` answers nobody but this machine, and nobody behind a proxy."""
    blueprint = Blueprint("console", __name__)
    page = resources.files("bridge.web").joinpath("console.html").read_text("utf-8")

    @blueprint.get("/")
    def show() -> Response:
        if only_local and not _local():
            return Response("Not found\n", 404, content_type="text/plain")
        try:
            values = _values(ledger())
        except DBAPIError as error:
            values = {"unreachable": type(error).__name__}
        html = render_template_string(page, version=__version__, now=datetime.now(UTC), **values)
        response = Response(html, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint


def _local() -> bool:
    """From this machine, and under its own name: a page elsewhere can make a browser here ask under another one."""
    return (
        request.remote_addr in ("127.0.0.1", "::1")
        and _OWN_NAME.fullmatch(request.host) is not None
        and not any(name in request.headers for name in _FORWARDED)
    )


def _values(ledger: Ledger) -> dict[str, Any]:
    sums = totals(ledger)
    oldest = oldest_unfinished(ledger)
    return {
        "sources": _named(sums, "source:"),
        "targets": _named(sums, "target:"),
        "alone": listed(ledger),
        "oldest": {stage: moment(since) if since else None for stage, since in oldest.items()},
        "events": [
            {"id": row.id, "time": moment(row.time_ms), "source": row.source, "type": row.type, "subject": row.subject}
            for row in list_events(ledger, limit=_LATEST)
        ],
        "waiting_for_people": [
            {
                "key": row.key,
                "target": row.target,
                "mapping": row.mapping,
                "status": row.status,
                "step": row.step,
                "reason": row.reason,
            }
            for status in ("held", "dead")
            for row in list_messages(ledger, limit=10, status=status)
        ],
    }


def _named(sums: dict[str, dict[str, int]], prefix: str) -> dict[str, dict[str, int]]:
    return {name.removeprefix(prefix): figures for name, figures in sorted(sums.items()) if name.startswith(prefix)}
