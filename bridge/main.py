"""The composition root: the only module that imports the connectors. `campusbridge` and gunicorn begin here."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import connectors
from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.config.connectors import Lazily, source_connector, target_connector
from bridge.core.manifest import Registry

if TYPE_CHECKING:
    from flask import Flask

_FOLDER = Path(connectors.__file__).parent


def main() -> None:
    """The command `campusbridge`."""
    campusbridge(obj=Context(registry=registry(), web_app=web_app))


@cache
def registry() -> Registry:
    """All connectors of this installation."""
    return Registry(
        sources=Lazily(
            {
                name: partial(source_connector, _FOLDER / name, code, simulator)
                for name, (code, simulator) in connectors.SOURCES.items()
            }
        ),
        targets=Lazily(
            {
                name: partial(target_connector, _FOLDER / name, code, simulator)
                for name, (code, simulator) in connectors.TARGETS.items()
            }
        ),
    )


def web_app(context: Context) -> Flask:
    """The Flask application. It is made once, and gunicorn forks: each process connects, and opens a journal segment,
    for itself.
    """
    from bridge.engine.assembly import journal_folder, mapping_problems, receiving, redis_folder
    from bridge.engine.redis_server import pinger
    from bridge.engine.shipper import Lanes
    from bridge.journal.writer import JournalWriter
    from bridge.ledger.database import Ledger
    from bridge.web.api import Api
    from bridge.web.app import WebParts, create_app
    from bridge.web.health import Health
    from bridge.web.hooks import Receiver
    from bridge.web.keeping import in_journal, in_ledger

    configuration = context.configuration
    sources = receiving(configuration, context.registry)
    journal = journal_folder(configuration)

    @cache
    def ledger() -> Ledger:
        return Ledger(configuration.storage.database)

    keep = (
        in_journal(JournalWriter(journal))
        if configuration.accept == "journal"
        else in_ledger(ledger, Lanes(sources=sources), context.hints)
    )
    return create_app(
        WebParts(
            receiver=Receiver(sources=sources, keep=keep),
            health=Health(
                journal=journal,
                accept=configuration.accept,
                ledger=ledger,
                ping_redis=pinger(configuration.storage.redis, redis_folder(configuration)),
                mapping_problems=mapping_problems(configuration, context.registry),
            ),
            ledger=ledger,
            console=configuration.web.console,
            max_body_bytes=configuration.web.max_body_bytes,
            api=Api(
                sources=frozenset(configuration.sources),
                streams=configuration.web.streams,
                stream_seconds=configuration.web.stream_minutes * 60,
            ),
        )
    )


if __name__ == "__main__":
    main()
