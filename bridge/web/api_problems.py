"""What the API answers when it cannot answer: application/problem+json, RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flask import Response

_NAMES: Final = "https://bridge.example/problems/"
"""As with the schema's `$id`: names, not addresses."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `about` says for the description when it happens."""

    name: str
    status: int
    title: str
    about: str

    @property
    def type(self) -> str:
        return _NAMES + self.name


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("bad-parameter", 400, "A parameter cannot be used", "A parameter is unknown or has no usable value"),
        Kind("bad-cursor", 400, "This is no cursor", "`after` or `Last-Event-ID` is not a cursor of this API"),
        Kind("bad-request", 400, "The request cannot be read", "The request is not proper HTTP"),
        Kind(
            "unauthorized", 401, "A valid bearer token is needed", "The token is missing, unknown, expired or revoked"
        ),
        Kind("forbidden", 403, "The token is not good for this", "The token lacks the scope, the source or the type"),
        Kind("not-found", 404, "There is nothing here", "There is no such event, or none that the token may read"),
        Kind("method-not-allowed", 405, "This method is not offered", "Everything here is read with GET"),
        Kind(
            "lost-cursor", 410, "The cursor is of another ledger", "The cursor is ahead of the feed or of another one"
        ),
        Kind("too-many-streams", 429, "This token has too many streams", "The token has its share of streams already"),
        Kind("failed", 500, "Something is wrong here", "A bug of ours; it is in the log"),
        Kind("busy", 503, "Try again in a moment", "All places are taken, or the database is away"),
    )
}


class ApiProblem(Exception):
    """Ends a request. Never quotes what was sent, apart from the name of a parameter."""

    def __init__(
        self, kind: str, detail: str, *, parameter: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = KINDS[kind]
        self.detail = detail
        self.parameter = parameter
        self.headers = dict(headers or {})

    def response(self) -> Response:
        document = {
            "type": self.kind.type,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.parameter is not None:
            document["parameter"] = self.parameter
        response = Response(json.dumps(document), self.kind.status, content_type="application/problem+json")
        response.headers.update(self.headers)
        response.headers["Cache-Control"] = "no-store"
        return response
