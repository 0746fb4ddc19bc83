"""The application factory; gunicorn's workers and the tests make their application here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Flask

from bridge.ledger.database import Ledger
from bridge.web.api import Api, api
from bridge.web.console import console
from bridge.web.health import Health, health
from bridge.web.hooks import Receiver, hooks
from bridge.web.schemas import schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class WebParts:
    """What the application is made of. `console` says who may see the page at `/`: local, on or off."""

    receiver: Receiver
    health: Health
    ledger: Callable[[], Ledger]
    console: str
    max_body_bytes: int
    api: Api = field(default_factory=Api)


def create_app(parts: WebParts) -> Flask:
    """The whole application. It opens the ledger only for pages; receiving in journal mode never does."""
    app = Flask("campusbridge", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = parts.max_body_bytes
    app.register_blueprint(hooks(parts.receiver))
    app.register_blueprint(health(parts.health))
    app.register_blueprint(schemas())
    app.register_blueprint(api(parts.ledger, parts.api))
    if parts.console != "off":
        app.register_blueprint(console(parts.ledger, only_local=parts.console == "local"))
    return app
