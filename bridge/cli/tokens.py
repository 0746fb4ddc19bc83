"""`tokens create|list|revoke`: who may pull events from the API."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import click
from sqlalchemy import Row

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.core.events import Json
from bridge.core.vocabulary import short
from bridge.flow.mapping import types_named
from bridge.ledger.api_tokens import SCOPES, create_token, list_tokens, revoke_token
from bridge.ledger.database import moment


@click.group()
def tokens() -> None:
    """Tokens for consumers that pull events (GET /api/v1/events)."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(sorted(SCOPES)), help="What it is good for."
)
@click.option("--source", "sources", multiple=True, help="Only events of this source (its name in bridge.yaml).")
@click.option("--type", "types", multiple=True, help="Only events of these types; globs are allowed, as in grade.*")
@click.option("--expires", "days", type=click.IntRange(1, 3650), help="In so many days; without it, never.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def create(
    context: Context,
    name: str,
    *,
    scopes: tuple[str, ...],
    sources: tuple[str, ...],
    types: tuple[str, ...],
    days: int | None,
    json_output: bool,
) -> None:
    """Make a token, and print it: this once, for only its hash is kept."""
    for source in sources:
        if source not in context.configuration.sources:
            raise click.BadParameter(f"there is no source {source} in bridge.yaml", param_hint="--source")
    for pattern in types:
        if not types_named(short(pattern)):
            raise click.BadParameter(f"{pattern} matches no canonical type", param_hint="--type")
    token = create_token(
        context.ledger,
        name,
        scopes=scopes,
        sources=sources,
        types=types,
        lifetime=None if days is None else timedelta(days=days),
        who=context.user,
    )
    if token is None:
        raise click.ClickException(f"there is, or was, a token {name}: take another name")
    if json_output:
        as_json({"name": name, "token": token})
    else:
        click.echo(token)
        click.echo("It is not shown again. Give it to the consumer as: Authorization: Bearer …", err=True)


@tokens.command("list")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def list_(context: Context, *, json_output: bool) -> None:
    """All tokens, and what they are good for."""
    documents = [_row(row) for row in list_tokens(context.ledger)]
    if json_output:
        as_json(documents)
        return
    columns = ["name", "scopes", "sources", "types", "created", "used", "expires", "revoked"]
    as_table("Tokens", columns, [[_cell(document[column]) for column in columns] for document in documents])


@tokens.command()
@click.argument("name")
@pass_context
def revoke(context: Context, name: str) -> None:
    """End a token. Streams that it has open end within 15 s."""
    if not revoke_token(context.ledger, name, who=context.user):
        raise click.ClickException(f"there is no token {name} that could be revoked")
    click.echo(f"The token {name} is revoked.")


def _row(row: Row[Any]) -> Json:
    return {
        "name": row.name,
        "scopes": json.loads(row.scopes),
        "sources": json.loads(row.sources),
        "types": json.loads(row.types),
        "created": _time(row.created_ms),
        "used": _time(row.used_ms),
        "expires": _time(row.expires_ms),
        "revoked": _time(row.revoked_ms),
    }


def _time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else moment(milliseconds).isoformat(timespec="seconds").replace("+00:00", "Z")


def _cell(value: str | list[str] | None) -> str:
    return " ".join(value) if isinstance(value, list) else value or ""
