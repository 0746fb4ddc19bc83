"""`targets list|pause|resume`: how the targets stand, and a person's word on whether anything is sent to them."""

from __future__ import annotations

import time

import click

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.core.events import Json
from bridge.flow.standing import FINE, FOREVER, Standing
from bridge.ledger.byhand import pause as pause_target
from bridge.ledger.byhand import resume as resume_target
from bridge.ledger.database import moment
from bridge.ledger.destinations import listed
from bridge.ledger.lanes import waiting


@click.group()
def targets() -> None:
    """Targets: which are left alone for a while, and why."""


@targets.command("list")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def list_(context: Context, *, json_output: bool) -> None:
    """All targets of bridge.yaml, how they stand, and how many messages wait for them."""
    standing = listed(context.ledger)
    documents = [
        _row(name, target.connector, standing.get(name, FINE), waiting(context.ledger, f"deliver:{name}:"))
        for name, target in sorted(context.configuration.targets.items())
    ]
    if json_output:
        as_json(documents)
        return
    columns = ["target", "connector", "state", "waiting", "until", "reason"]
    as_table("Targets", columns, [[str(row[column] or "") for column in columns] for row in documents])


@targets.command()
@click.argument("target")
@click.option("--reason", default="paused by hand", show_default=True, help="For those who wonder.")
@pass_context
def pause(context: Context, target: str, reason: str) -> None:
    """Send nothing to a target until it is resumed; its messages wait."""
    _known(context, target)
    pause_target(context.ledger, target, reason, who=context.user)
    click.echo(f"Nothing is sent to {target} until `campusbridge targets resume {target}`.")


@targets.command()
@click.argument("target")
@pass_context
def resume(context: Context, target: str) -> None:
    """Send to a target again, whatever it was that stopped it."""
    _known(context, target)
    context.hints.wake(resume_target(context.ledger, target, who=context.user))
    click.echo(f"{target} gets its messages again.")


def _known(context: Context, target: str) -> None:
    if target not in context.configuration.targets:
        raise click.ClickException(f"there is no target {target} in bridge.yaml")


def _row(name: str, connector: str, standing: Standing, waiting: int) -> Json:
    until = None
    if time.time() < standing.until < FOREVER:
        until = moment(int(standing.until * 1000)).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "target": name,
        "connector": connector,
        "state": standing.state.value,
        "waiting": waiting,
        "until": until,
        "reason": standing.reason or None,
    }
