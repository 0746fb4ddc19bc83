"""`deliveries list|retry|discard`: messages on their way to targets, and those that a person has to look at."""

from __future__ import annotations

import json
from typing import Any

import click
from sqlalchemy import Row

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.core.events import Json
from bridge.ledger.byhand import discard as discard_messages
from bridge.ledger.byhand import retry as retry_messages
from bridge.ledger.database import moment
from bridge.ledger.reading import keys_beginning, list_messages

_STATUSES = ("waiting", "delivered", "superseded", "dead", "held", "discarded")


@click.group()
def deliveries() -> None:
    """Messages to targets."""


@deliveries.command("list")
@click.option("--limit", default=25, show_default=True, help="How many.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only those in this state.")
@click.option("--target", help="Only to this target (its name in bridge.yaml).")
@click.option("--mapping", help="Only of this mapping.")
@click.option("--event", "event_id", help="Only of this event.")
@click.option("--json", "json_output", is_flag=True, help="For programs; holds the messages' parameters too.")
@pass_context
def list_(
    context: Context,
    *,
    limit: int,
    status: str | None,
    target: str | None,
    mapping: str | None,
    event_id: str | None,
    json_output: bool,
) -> None:
    """The newest messages, newest first."""
    rows = list_messages(context.ledger, limit=limit, status=status, target=target, mapping=mapping, event_id=event_id)
    documents = [_row(row) for row in rows]
    if json_output:
        as_json(documents)
        return
    columns = ["key", "status", "target", "mapping", "attempts", "step", "reason"]
    as_table("Messages", columns, [[_short(column, document) for column in columns] for document in documents])


@deliveries.command()
@click.argument("keys", nargs=-1)
@click.option("--all-dead", is_flag=True, help="All dead letters.")
@click.option("--target", help="With --all-dead: only those to this target.")
@pass_context
def retry(context: Context, keys: tuple[str, ...], *, all_dead: bool, target: str | None) -> None:
    """Send dead, held or discarded messages again."""
    lanes = retry_messages(context.ledger, _chosen(context, keys, all_dead=all_dead, target=target), who=context.user)
    if not lanes:
        nothing = "nothing to send again: a message that could not be mapped needs `events replay`"
        if not all_dead:
            raise click.ClickException(nothing)
        click.echo(nothing)
        return
    context.hints.wake(lanes)
    click.echo("Sent again, under their old idempotency keys.")


@deliveries.command()
@click.argument("keys", nargs=-1)
@click.option("--all-dead", is_flag=True, help="All dead letters.")
@click.option("--target", help="With --all-dead: only those to this target.")
@click.confirmation_option(prompt="Give these messages up for good?")
@pass_context
def discard(context: Context, keys: tuple[str, ...], *, all_dead: bool, target: str | None) -> None:
    """Give messages up for good."""
    number = discard_messages(
        context.ledger, _chosen(context, keys, all_dead=all_dead, target=target), who=context.user
    )
    click.echo(f"{number} given up.")


def _chosen(context: Context, keys: tuple[str, ...], *, all_dead: bool, target: str | None) -> list[str]:
    """Whole keys from the beginnings of keys that a person types."""
    if all_dead:
        return [row.key for row in list_messages(context.ledger, limit=100_000, status="dead", target=target)]
    if not keys:
        raise click.UsageError("name messages by their keys, or say --all-dead")
    chosen = []
    for name in keys:
        found = keys_beginning(context.ledger, name)
        if len(found) != 1:
            raise click.ClickException(
                f"{name} is {'more than one message' if found else 'no message'}: give 8 characters or more"
            )
        chosen += found
    return chosen


def _row(row: Row[Any]) -> Json:
    return {
        "key": row.key,
        "event": row.event_id,
        "status": row.status,
        "target": row.target,
        "mapping": row.mapping,
        "mapping_version": row.mapping_version,
        "operation": row.operation,
        "attempts": row.attempts,
        "step": row.step,
        "reason": row.reason,
        "due": moment(row.due_ms).isoformat(),
        "params": json.loads(row.params),
    }


def _short(column: str, document: Json) -> str:
    value = document[column]
    return str(value)[:8] if column == "key" else "" if value is None else str(value)
