"""The root of the command line. A verb's module is imported when the verb is used, so that the others cost nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

import click

from bridge import __version__
from bridge.cli.context import Context, pass_context

_VERBS: Final = {
    "init": "setting_up",
    "check": "setting_up",
    "doctor": "setting_up",
    "up": "processes",
    "web": "processes",
    "worker": "processes",
    "shipper": "processes",
    "sweeper": "processes",
    "db": "processes",
    "events": "events",
    "replay": "events",
    "deliveries": "deliveries",
    "targets": "targets",
    "mapping": "mapping",
    "simulate": "simulate",
    "connector": "connector",
    "new": "new",
    "subscriptions": "subscriptions",
    "reconcile": "reconcile",
    "tokens": "tokens",
    "demo": "demo",
}


class _Root(click.Group):
    """Finds verbs in their modules, and says in one line what a traceback would say in forty."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = getattr(import_module(f"bridge.cli.{_VERBS[cmd_name]}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        from sqlalchemy.exc import DBAPIError

        try:
            return super().invoke(ctx)
        except DBAPIError as error:
            raise click.ClickException(f"the ledger cannot be reached: {str(error.orig).splitlines()[0]}") from error


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("bridge.yaml"),
    envvar="CAMPUSBRIDGE_CONFIG",
    show_default=True,
    help="The configuration file.",
)
@click.version_option(__version__, prog_name="campusbridge")
@pass_context
def campusbridge(context: Context, config: Path) -> None:
    """Signed webhooks of education platforms in, canonical events out at real targets, nothing lost."""
    context.file = config
