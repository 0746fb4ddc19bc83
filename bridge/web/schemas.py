"""`/schemas/…`: the JSON Schema of the canonical event, as it ships with the package."""

from __future__ import annotations

from importlib import resources

from flask import Blueprint, Response


def schemas() -> Blueprint:
    """The schema routes."""
    blueprint = Blueprint("schemas", __name__)
    document = resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8")

    @blueprint.get("/schemas/edu-event/1.json")
    def event_schema() -> Response:
        return Response(document, content_type="application/schema+json")

    return blueprint
