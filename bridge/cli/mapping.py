"""`mapping list|preview|test`: look at what a mapping does before it goes live."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.config.mappings import loader
from bridge.core.errors import MappingError
from bridge.core.events import Json, idempotency_key
from bridge.flow.mapping import CompiledMapping
from bridge.ledger.reading import event_bodies, find_event


@click.group()
def mapping() -> None:
    """Mappings: which events go where, and what is made of them."""


@mapping.command("list")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def list_(context: Context, *, json_output: bool) -> None:
    """All mappings of the folder, and the files that are broken."""
    from bridge.config.mappings import load_mappings

    found, problems = load_mappings(context.configuration, context.registry.sources, context.registry.targets)
    documents = [
        {
            "name": entry.name,
            "version": entry.version,
            "events": list(entry.events),
            "target": entry.target,
            "operation": entry.operation,
            "tests": len(entry.tests),
            "description": entry.description,
        }
        for entry in found.values()
    ]
    if json_output:
        as_json({"mappings": documents, "problems": [str(problem) for problem in problems]})
        return
    columns = ["name", "events", "target", "operation", "tests", "description"]
    rows = [
        [", ".join(value) if isinstance(value := document[column], list) else str(value) for column in columns]
        for document in documents
    ]
    as_table("Mappings", columns, rows)
    for problem in problems:
        click.secho(str(problem), fg="red", err=True)


@mapping.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--event", "event_id", help="Try it on this stored event.")
@click.option("--last", type=click.IntRange(1, 10_000), help="Try it on the newest N stored events.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def preview(context: Context, file: Path, *, event_id: str | None, last: int | None, json_output: bool) -> None:
    """What a mapping file would send for stored events; nothing is sent."""
    compiled = _compiled(context, file)
    results = [_tried(compiled, source, event) for source, event in _events(context, event_id, last or 20)]
    if json_output:
        as_json(results)
        return
    counts = Counter(result["result"] for result in results)
    rows = [[result["result"], result["type"], result["event"], result["detail"]] for result in results]
    as_table(f"{compiled.name} on {len(results)} events", ["result", "type", "event", "detail"], rows)
    click.echo(", ".join(f"{number} {result}" for result, number in counts.most_common()) or "no events stored yet")
    if event_id is not None and results and results[0]["params"] is not None:
        as_json(results[0]["params"])


@mapping.command("test")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_context
def test_(context: Context, files: tuple[Path, ...]) -> None:
    """Run the tests inside mapping files."""
    for file in files:
        compiled = _compiled(context, file)
        click.echo(f"{file}: {len(compiled.tests)} tests passed")


def _compiled(context: Context, file: Path) -> CompiledMapping:
    load = loader(context.configuration, context.registry.sources, context.registry.targets)
    loaded = load(file.stem, file.read_bytes(), file=str(file))
    for problem in loaded.problems:
        click.secho(str(problem), fg="red", err=True)
    if loaded.mapping is None:
        raise click.exceptions.Exit(1)
    return loaded.mapping


def _events(context: Context, event_id: str | None, last: int) -> list[tuple[str, Json]]:
    if event_id is None:
        return event_bodies(context.ledger, last=last)
    story = find_event(context.ledger, event_id)
    if story is None:
        raise click.ClickException(f"there is no event {event_id}")
    return [(story.source, story.event)]


def _tried(compiled: CompiledMapping, source: str, event: Json) -> Json:
    result: Json = {"event": event["id"], "type": event["type"], "params": None}
    try:
        decision = compiled.consider(event, source)
        if not decision.matches:
            return result | {"result": "skipped", "detail": decision.why}
        key = idempotency_key(event["id"], compiled.name, compiled.target)
        params = compiled.render(event, source, {"key": key})
    except MappingError as error:
        return result | {"result": "failed", "detail": f"{error.field}: {error.reason}"}
    return result | {"result": "sent", "detail": "", "params": params}
