"""`events list|show|tail|replay`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree
from sqlalchemy import Row

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.cli.terminal import as_text, printable
from bridge.core.events import Json
from bridge.ledger.byhand import replay as replay_deliveries
from bridge.ledger.database import moment
from bridge.ledger.reading import EventStory, find_event, list_events, list_unprocessed

_POLL_SECONDS = 0.5


@click.group()
def events() -> None:
    """Canonical events: what came in, and what became of it."""


@events.command("list")
@click.option("--limit", default=25, show_default=True, help="How many.")
@click.option("--source", help="Only of this source (its name in bridge.yaml).")
@click.option("--type", "type_pattern", help="Only of these types; globs are allowed, as in grade.*")
@click.option("--subject", help="Only about this subject, for instance submission/65253469.")
@click.option("--unprocessed", is_flag=True, help="Deliveries that could not be processed at all, instead of events.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def list_(
    context: Context,
    *,
    limit: int,
    source: str | None,
    type_pattern: str | None,
    subject: str | None,
    unprocessed: bool,
    json_output: bool,
) -> None:
    """The newest events, newest first."""
    if unprocessed:
        rows = list_unprocessed(context.ledger, limit=limit)
        documents = [
            {"id": row.id, "source": row.source, "received": _time(row.received_ms), "reason": row.reason}
            for row in rows
        ]
        columns = ["id", "source", "received", "reason"]
    else:
        rows = list_events(context.ledger, limit=limit, source=source, type_pattern=type_pattern, subject=subject)
        documents = [_row(row) for row in rows]
        columns = ["time", "type", "source", "subject", "id"]
    if json_output:
        as_json(documents)
    else:
        title = "Deliveries that could not be processed" if unprocessed else "Events"
        as_table(title, columns, [[str(document[column]) for column in columns] for document in documents])


@events.command()
@click.argument("id")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def show(context: Context, id: str, *, json_output: bool) -> None:
    """The whole story of one event, by its id (its first 8 characters do) or by the id that its sender was given."""
    story = find_event(context.ledger, id)
    if story is None:
        raise click.ClickException(f"there is no event {id}; a delivery takes a moment to become one")
    if json_output:
        as_json(
            {
                "event": story.event,
                "source": story.source,
                "delivery": story.delivery,
                "repeats": story.repeats,
                "trace": story.trace,
                "messages": story.messages,
            }
        )
    else:
        Console().print(_tree(story))


@events.command()
@click.option("--source", help="Only of this source.")
@click.option("--type", "type_pattern", help="Only of these types; globs are allowed.")
@click.option("--json", "json_output", is_flag=True, help="One JSON object a line.")
@pass_context
def tail(context: Context, *, source: str | None, type_pattern: str | None, json_output: bool) -> None:
    """Follow new events until Ctrl-C."""
    newest = list_events(context.ledger, limit=1)
    cursor = newest[0].cursor if newest else 0
    while True:
        for row in list_events(context.ledger, limit=500, after=cursor, source=source, type_pattern=type_pattern):
            cursor = row.cursor
            if json_output:
                import json

                click.echo(json.dumps(_row(row)))
            else:
                line = f"{_time(row.time_ms)}  {row.type:<32} {row.source:<20} {row.subject:<32} {row.id}"
                click.echo(printable(line))
        time.sleep(_POLL_SECONDS)


def _replay(context: Context, ids: tuple[str, ...]) -> None:
    lanes = replay_deliveries(context.ledger, ids, who=context.user)
    if not lanes:
        raise click.ClickException("no such event or delivery")
    context.hints.wake(lanes)
    click.echo("Replayed: messages go out again under their old idempotency keys.")


@events.command("replay")
@click.argument("ids", nargs=-1, required=True)
@pass_context
def replay_event(context: Context, ids: tuple[str, ...]) -> None:
    """Take deliveries from their stored bytes once more: by ids of events or of deliveries."""
    _replay(context, ids)


@click.command()
@click.argument("ids", nargs=-1, required=True)
@pass_context
def replay(context: Context, ids: tuple[str, ...]) -> None:
    """The same as `events replay`."""
    _replay(context, ids)


def _row(row: Row[Any]) -> Json:
    return {
        "cursor": row.cursor,
        "id": row.id,
        "type": row.type,
        "source": row.source,
        "subject": row.subject,
        "time": _time(row.time_ms),
        "recorded": _time(row.recorded_ms),
    }


def _time(milliseconds: int) -> str:
    return moment(milliseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tree(story: EventStory) -> Tree:
    event, delivery = story.event, story.delivery
    root = Tree(Text.assemble(as_text(event["type"], "bold"), f"  {event['id']}"))
    _add(root, f"subject {event['subject']}, at {event['time']} ({event['timequality']})")
    received = _add(root, f"received {delivery['received']} as delivery {delivery['id']} from {story.source}")
    _add(received, f"{delivery['bytes']} bytes, verified by {delivery['proof']}")
    _add(received, f"{delivery['repeats']} repeats recognised" if delivery["repeats"] else "no repeats")
    for again in story.repeats:
        _add(received, f"repeat {again['id']} at {again['received']}")
    _add(root, f"normalised from {event['sourceevent']}" + _action(event))
    _enrichment(root, story.trace.get("enrichment", {}), event)
    matched = root.add("mappings")
    for entry in story.trace.get("mappings", []):
        _add(matched, f"{entry['mapping']}: " + ("matched" if entry["matched"] and not entry["why"] else entry["why"]))
    for message in story.messages:
        _message(root, message)
    return root


def _action(event: Json) -> str:
    return f", {event['sourceaction']}" if event.get("sourceaction") else ""


def _enrichment(root: Tree, enrichment: Json, event: Json) -> None:
    branch = _add(root, f"enrichment: {event['enrichment']}")
    for call in enrichment.get("calls", []):
        how = "kept answer" if call["cached"] else f"{call['ms']} ms"
        _add(branch, f"{call['call']} → {call['status'] or 'no answer'} ({how})")
    if enrichment.get("waits"):
        _add(branch, f"waited {enrichment['waits']} times for the platform's API")
    if enrichment.get("reason"):
        _add(branch, f"given up: {enrichment['reason']}")


def _message(root: Tree, message: Json) -> None:
    colour = {"delivered": "green", "waiting": "yellow", "superseded": "cyan"}.get(message["status"], "red")
    branch = root.add(
        Text.assemble(
            as_text(
                f"message {message['key'][:8]} by {message['mapping']} ({message['mapping_version']}) "
                f"to {message['target']}, {message['operation']}: "
            ),
            (message["status"], colour),
        )
    )
    if message["reason"]:
        _add(branch, f"{message['step']}: {message['reason']}")
    for attempt in message["tries"]:
        status = f" {attempt['status']}" if attempt["status"] else ""
        _add(
            branch, f"try {attempt['number']} at {attempt['at']}:{status} {attempt['verdict']}, {attempt['took_ms']} ms"
        )
    if message["due"]:
        _add(branch, f"next try at {message['due']} (now {datetime.now(UTC).isoformat(timespec='seconds')})")


def _add(branch: Tree, line: str) -> Tree:
    return branch.add(as_text(line))
