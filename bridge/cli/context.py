"""What every verb needs: the configuration, and the ledger once it is asked for."""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import sys
from collections import ChainMap
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click
import structlog
from rich.console import Console
from rich.table import Table

from bridge.cli.terminal import as_text, printable_json, printable_lines
from bridge.core.errors import ConfigurationError
from bridge.core.manifest import Registry, TargetConnector

if TYPE_CHECKING:  # what only some verbs need is imported when they run
    from flask import Flask

    from bridge.config.own_connectors import OwnConnectors
    from bridge.config.values import Configuration, LogConfig
    from bridge.engine.hints import Hints
    from bridge.ledger.database import Ledger

_RETRY_SECONDS = 1.0
_WIDE = 1000  # columns of a table that goes into a pipe or a file: there ids must stay whole


class Context:
    """One run of the command. Reads bridge.yaml when a verb first needs it, and ends in words if it cannot be used.

    `registry` is what ships; the connectors that stand beside bridge.yaml join it.
    """

    def __init__(
        self, registry: Registry, web_app: Callable[[Context], Flask], file: Path = Path("bridge.yaml")
    ) -> None:
        self._shipped = registry
        self.web_app = web_app
        self.file = file

    @cached_property
    def own_connectors(self) -> OwnConnectors:
        """The connectors that stand beside bridge.yaml, and what is wrong with others."""
        from bridge.config.own_connectors import own_connectors

        return own_connectors(self.file, taken=self._shipped.targets)

    @cached_property
    def registry(self) -> Registry:
        """All connectors that can be used."""
        own = {name: entry.connector for name, entry in self.own_connectors.connectors.items()}
        return replace(self._shipped, targets=ChainMap(own, cast("dict[str, TargetConnector]", self._shipped.targets)))

    @cached_property
    def configuration(self) -> Configuration:
        from bridge.config.configuration import load_configuration

        problems = self.own_connectors.problems
        try:
            if problems:
                raise ConfigurationError(problems)
            return load_configuration(
                self.file, sources=self.registry.sources, targets=self.registry.targets, environ=os.environ
            )
        except ConfigurationError as error:
            for problem in error.problems:
                click.secho(str(problem), fg="red", err=True)
            raise click.exceptions.Exit(2) from None

    @cached_property
    def ledger(self) -> Ledger:
        from bridge.ledger.database import Ledger

        opened = Ledger(self.configuration.storage.database)
        if not opened.is_current():
            opened.upgrade()
        return opened

    def forget_ledger(self) -> None:
        """The next one who asks opens it anew: a connection must not be shared with a forked child."""
        self.__dict__.pop("ledger", None)

    def open_ledger(self, wait: Callable[[float], bool]) -> Ledger:
        """The ledger for a process that runs for long: it waits for a database that is away, until `wait` says stop."""
        from sqlalchemy.exc import DBAPIError

        while True:
            try:
                return self.ledger
            except DBAPIError as error:
                structlog.get_logger(__name__).warning("ledger_unreachable", error=type(error).__name__)
            if wait(_RETRY_SECONDS):
                raise click.exceptions.Exit(0)

    @cached_property
    def hints(self) -> Hints:
        from bridge.engine.assembly import redis_of
        from bridge.engine.hints import Hints

        return Hints(redis_of(self.configuration, timeout=2.0))

    @property
    def user(self) -> str:
        """Who is named in the audit trail."""
        return getpass.getuser()


pass_context = click.make_pass_decorator(Context)


def as_json(document: Any) -> None:
    """Print a document for programs."""
    click.echo(printable_json(json.dumps(document, indent=2, ensure_ascii=False, default=str)))


def as_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print rows for people; numbers are to the right."""
    table = Table(title=as_text(title, "table.title"), title_justify="left", header_style="bold")
    for position, column in enumerate(columns):
        numbers = bool(rows) and all(row[position].replace(",", "").isdigit() for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(as_text, row))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


class _Unfailing:
    """A log that cannot be written, on a full disk or into a closed pipe, must end no process and refuse no webhook."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def set_up_logging(log: LogConfig, process: str) -> None:
    """Structured logs on standard error: one line an event, as text for people or as JSON for machines."""
    level = getattr(logging, log.level.upper())
    # structlog's own tracebacks show the values of local variables, and so people's data and secrets.
    for_people = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderers: list[Any] = (
        [structlog.processors.JSONRenderer()] if log.format == "json" else [_printable_values, for_people]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    logging.basicConfig(level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s")


def _printable_values(_logger: Any, _method: str, event: Any) -> Any:
    return {key: printable_lines(value) if isinstance(value, str) else value for key, value in event.items()}
