"""`new connector NAME --target`: a connector in one file, to begin with."""

from __future__ import annotations

import re
from importlib import resources

import click

from bridge.cli.context import Context, pass_context
from bridge.config.own_connectors import folder_beside


@click.group()
def new() -> None:
    """Write files to begin with."""


@new.command()
@click.argument("name")
@click.option("--target", is_flag=True, required=True, help="One that receives; the only kind that is one file.")
@pass_context
def connector(context: Context, *, name: str, target: bool) -> None:
    """Write connectors/NAME.yaml beside bridge.yaml: a made-up target with its tests, to be changed into a real one.

    A source takes Python: see CONTRIBUTING.md.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise click.ClickException("a connector's name is lower-case letters, digits and _, and begins with a letter")
    if name in context.registry.targets:
        raise click.ClickException(f"there is a connector {name} already")
    file = folder_beside(context.file) / f"{name}.yaml"
    text = resources.files("bridge.config").joinpath("starter_files", "connector.yaml").read_text("utf-8")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text.replace("connector: NAME", f"connector: {name}"))
    except FileExistsError:
        raise click.ClickException(f"{file} is there already") from None
    click.echo(f"wrote {file}\n\nNext: change it, run `campusbridge check`, and name it in bridge.yaml.")
