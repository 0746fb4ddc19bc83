"""`connector fixtures|conformance`: what the author of a source needs between two changes of its code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bridge.cli.context import Context, as_table, pass_context
from bridge.core.manifest import SourceConnector
from bridge.core.vocabulary import short

if TYPE_CHECKING:
    from bridge.testing.fixtures import Fixture, Result


@click.group()
def connector() -> None:
    """For authors of connectors: fixtures and the conformance suite."""


@connector.command()
@click.argument("name")
@click.option(
    "--write", is_flag=True, help="Write what each fixture comes to into its .json, to be read and agreed with."
)
@pass_context
def fixtures(context: Context, *, name: str, write: bool) -> None:
    """Run all fixtures of source NAME through its code, and list the kinds that have none."""
    from bridge.testing.conforming_events import every_kind_has_a_fixture
    from bridge.testing.fixtures import read_fixtures, run_fixture, write_expectations

    source = _source(context, name)
    rows = []
    differing = unanswered = 0
    for fixture in read_fixtures(source):
        try:
            if write:
                write_expectations(source, fixture)
            result = run_fixture(source, fixture)
        except AssertionError as missing:  # the recorded API lacks an answer: its author has to add it
            unanswered += 1
            rows.append([fixture.name, "", "", str(missing)])
            continue
        differs = [] if write else _differences(fixture, result)
        differing += bool(differs)
        types = sorted({short(event["type"]) for event in (result.enriched or result.events)})
        outcome = f"{result.outcome} ({result.reason})" if result.reason else result.outcome
        verdict = "differs: " + ", ".join(differs) if differs else "written" if write else "as expected"
        rows.append([fixture.name, outcome, ", ".join(types), verdict])
    as_table(f"{len(rows)} fixtures of {name}", ["fixture", "outcome", "events", "result"], rows)
    for lack in () if unanswered else every_kind_has_a_fixture(source):
        click.secho(lack, fg="yellow", err=True)
    if differing or unanswered:
        click.secho(f"{differing + unanswered} fixtures do not come to what their .json says.", fg="red", err=True)
        raise click.exceptions.Exit(1)


@connector.command()
@click.argument("name")
@pass_context
def conformance(context: Context, *, name: str) -> None:
    """Ask source NAME every question of the conformance suite, and print what it has to be told."""
    from bridge.testing.conformance import QUESTIONS, complaints

    source = _source(context, name)
    failed = 0
    for question in QUESTIONS:
        found = complaints(source, question)
        waived = question in source.manifest.waivers
        failed += bool(found)
        word = "FAILED" if found else "waived" if waived else "passed"
        click.secho(f"{word}  {question}", fg="red" if found else None)
        for complaint in found:
            click.echo(f"        {complaint}")
    if failed:
        click.secho(f"{failed} of {len(QUESTIONS)} questions failed.", fg="red", err=True)
        raise click.exceptions.Exit(1)


def _source(context: Context, name: str) -> SourceConnector:
    source = context.registry.sources.get(name)
    if source is None:
        raise click.ClickException(f"{name} is not a source; there are {', '.join(context.registry.sources)}")
    return source


def _differences(fixture: Fixture, result: Result) -> list[str]:
    """What a fixture came to that its `.json` does not say."""
    expected = fixture.expected
    pairs = {
        "outcome": (fixture.outcome, result.outcome),
        "reason": (expected.get("reason", ""), result.reason),
        "events": (expected.get("events", []), result.events),
        "enriched": (expected.get("enriched"), result.enriched),
    }
    return [name for name, (wanted, found) in pairs.items() if wanted != found]
