"""The API's description, OpenAPI 3.1. The tests compare it with the routes and with what they really answer."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final

from bridge import __version__
from bridge.core.events import Json
from bridge.web.api_cursor import NEWEST
from bridge.web.api_problems import KINDS

_EVENTS: Final = "/api/v1/events"
_EVENT: Final = "#/components/schemas/Event"

_PARAMETERS: Final[dict[str, Json]] = {
    "after": {
        "name": "after",
        "in": "query",
        "description": "A cursor: what follows it is given. Without one, from the beginning; "
        f"`{NEWEST}` stands for the end of the feed as it is now.",
        "schema": {"type": "string"},
    },
    "type": {
        "name": "type",
        "in": "query",
        "description": "Only these types, as in `grade.published` or `grade.*`; several with commas or repeated. "
        "Without it, all that the token may read but the internal `source.*`.",
        "schema": {"type": "array", "items": {"type": "string"}},
        "style": "form",
        "explode": True,
    },
    "source": {
        "name": "source",
        "in": "query",
        "description": "Only of these sources, by their names in bridge.yaml; several with commas or by repeating it.",
        "schema": {"type": "array", "items": {"type": "string"}},
        "style": "form",
        "explode": True,
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "How many events at most.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    },
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The last `id` that came, as the standard's clients send it when they reconnect. "
        "It counts, and `after` does not.",
        "schema": {"type": "string"},
    },
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The event's id.",
        "schema": {"type": "string"},
    },
}

_PAGE: Final[Json] = {
    "type": "object",
    "required": ["events", "next", "more"],
    "additionalProperties": False,
    "properties": {
        "events": {"type": "array", "maxItems": 1000, "items": {"$ref": _EVENT}},
        "next": {
            "type": "string",
            "pattern": "^[A-Za-z0-9_-]{16}$",
            "description": "The cursor to go on with. It is to be stored with the events; it never expires.",
        },
        "more": {
            "type": "boolean",
            "description": "Whether to ask again at once. A page may have no event and more to come: the filter left "
            "out all that it looked at.",
        },
    },
}

_STREAM: Final = (
    "Each event has a cursor as `id` and its JSON as `data`. A comment comes every 15 s. "
    "The stream ends after a while, and the consumer connects again."
)

_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "format": "uri", "enum": [kind.type for kind in KINDS.values()]},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "parameter": {"type": "string", "description": "The parameter that is meant."},
    },
}

_RETRY_AFTER: Final[Json] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
_HEADERS: Final[dict[int, Json]] = {
    401: {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}},
    403: {"WWW-Authenticate": {"description": "RFC 6750, where the scope is lacking.", "schema": {"type": "string"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


@cache
def description() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Campus Bridge: events",
            "version": __version__,
            "description": "Canonical events in a stable order, in pages or as a stream. An event that was completed "
            "or corrected comes once more, under its id, at a new place. Addresses and methods that are not "
            "described are answered 404 and 405, in the form of a Problem.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": "events", "description": "What happened on the platforms."}],
        "paths": {
            _EVENTS: {
                "get": _operation(
                    "listEvents",
                    "Events after a cursor, oldest first",
                    ["after", "type", "source", "limit"],
                    {"application/json": {"schema": {"$ref": "#/components/schemas/EventPage"}}},
                    [400, 401, 403, 410, 503],
                )
            },
            f"{_EVENTS}/stream": {
                "get": _operation(
                    "streamEvents",
                    "Events after a cursor, and then as they happen (server-sent events)",
                    ["after", "type", "source", "Last-Event-ID"],
                    {"text/event-stream": {"schema": {"type": "string", "description": _STREAM}}},
                    [400, 401, 403, 410, 429, 503],
                )
            },
            f"{_EVENTS}/{{id}}": {
                "get": _operation(
                    "getEvent",
                    "One event as it is now",
                    ["id"],
                    {"application/cloudevents+json": {"schema": {"$ref": _EVENT}}},
                    [400, 401, 403, 404, 503],
                )
            },
            "/api/v1/openapi.json": {
                "get": {
                    "operationId": "getDescription",
                    "summary": "This document",
                    "security": [],
                    "responses": {
                        "200": {
                            "description": "OpenAPI 3.1.",
                            "content": {"application/json": {"schema": {"type": "object"}}},
                        }
                    },
                }
            },
        },
        "components": {
            "schemas": {"Event": _event(), "EventPage": _PAGE, "Problem": _PROBLEM},
            "responses": {str(status): _problem(status) for status in sorted({kind.status for kind in KINDS.values()})},
            "parameters": _PARAMETERS,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`campusbridge tokens create`; the scope is `events:read`.",
                }
            },
        },
    }


def _operation(id: str, summary: str, parameters: list[str], content: Json, problems: list[int]) -> Json:
    return {
        "operationId": id,
        "summary": summary,
        "tags": ["events"],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in parameters],
        "responses": {"200": {"description": "As asked for.", "content": content}}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in problems},
    }


def _problem(status: int) -> Json:
    answer: Json = {
        "description": "; or: ".join(kind.about for kind in KINDS.values() if kind.status == status),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return answer | ({"headers": _HEADERS[status]} if status in _HEADERS else {})


def _event() -> Json:
    """The canonical event's schema, at home in this document: generators of clients follow no `$id`."""
    schema: Json = json.loads(resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8"))
    moved: Json = _moved({key: value for key, value in schema.items() if key not in ("$schema", "$id")})
    return moved


def _moved(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _EVENT + entry.removeprefix("#") if key == "$ref" and isinstance(entry, str) else _moved(entry)
            for key, entry in value.items()
        }
    return [_moved(entry) for entry in value] if isinstance(value, list) else value
