"""`demo`: everything with embedded defaults, four simulated platforms, a local target, and an account at the end."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bridge.cli.context import Context, pass_context
from bridge.config.shipped import shipped_mappings
from bridge.testing.campus import Campus, Day, NoCampus
from bridge.testing.report import Report
from bridge.testing.sender import Sender

_PATIENCE_SECONDS = 60.0


@click.command()
@click.option("--events", "number", default=600, show_default=True, type=click.IntRange(1), help="How many webhooks.")
@click.option("--rate", default=200.0, show_default=True, help="Webhooks a second; 0 is as fast as it goes.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("data/demo"), show_default=True)
@click.option("--port", default=8080, show_default=True, help="Where the bridge listens; another one if it is taken.")
@click.option("--seed", default=1, show_default=True, help="The same seed makes the same day.")
@click.option("--json", "json_output", is_flag=True, help="End with one JSON object on standard output.")
@pass_context
def demo(context: Context, *, number: int, rate: float, folder: Path, port: int, seed: int, json_output: bool) -> None:
    """Watch a day of exams and classes pass through the bridge.

    Four simulated platforms send signed webhooks, some of them twice, out of order or forged. The bridge forwards them
    through its shipped mappings to a local target that counts. Ends with status 0 only if nothing was lost. With a
    terminal on its output it keeps serving until Ctrl-C.
    """
    console = Console(stderr=json_output or not sys.stdout.isatty())
    campus = Campus(folder=folder, sources=context.registry.sources, mappings=shipped_mappings(), port=port)
    try:
        report = _run(campus, Day(calls=number, rate=rate or None, seed=seed), console, json_output=json_output)
    except NoCampus as error:
        raise click.ClickException(str(error)) from error
    if report.lost:
        raise click.exceptions.Exit(1)


def _run(campus: Campus, day: Day, console: Console, *, json_output: bool) -> Report:
    with campus:
        console.print("Starting the bridge, four simulated platforms and a target …")
        began = time.monotonic()
        campus.start_bridge()
        console.print(f"The bridge listens at [bold]{campus.url}[/] — open it to watch.")
        report = _watched(campus, campus.senders(day), day.calls, began, console)
        if json_output:
            click.echo(json.dumps({key: value for key, value in asdict(report).items() if key != "by_source"}))
        else:
            _show(report, Console())
        if sys.stdout.isatty() and not json_output:
            _keep_serving(campus, console)
    return report


def _watched(campus: Campus, senders: dict[str, Sender], number: int, began: float, console: Console) -> Report:
    columns = (SpinnerColumn(), TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=False) as progress:
        sending = progress.add_task("webhooks sent", total=number)
        delivering = progress.add_task("messages at the target", total=None)

        def show() -> None:
            settled = sum(sender.account().settled for sender in senders.values())
            progress.update(sending, completed=settled)
            progress.update(delivering, completed=campus.target.state()["unique"])

        for sender in senders.values():
            sender.start()
        while any(sender.running for sender in senders.values()):
            show()
            time.sleep(0.2)
        complete = campus.finished(_PATIENCE_SECONDS, show)
        done = campus.target.state()["unique"]
        progress.update(delivering, total=done, completed=done)
    if not complete:
        console.print("[red]Something is still on its way, and has not moved for a minute.[/]")
    return campus.report(senders, began)


def _show(report: Report, console: Console) -> None:
    sources = Table(title="What the platforms sent", title_justify="left", header_style="bold")
    for column in ("platform", "webhooks", "requests", "accepted", "sent twice", "forged and refused", "retries"):
        sources.add_column(column, justify="left" if column == "platform" else "right")
    for name, account in report.by_source.items():
        numbers = (
            account.calls,
            account.sent,
            account.accepted,
            account.duplicates,
            account.forgeries_refused,
            account.retries,
        )
        sources.add_row(name, *(f"{value:,}" for value in numbers))
    console.print(sources)
    table = Table(title="What became of it", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("how many", justify="right")
    rows = {
        "requests sent": report.sent,
        "accepted (answered 200 after an fsync)": report.accepted,
        "rejected (forged)": report.rejected,
        "duplicates recognised": report.duplicates,
        "canonical events": report.events,
        "messages delivered, counted by the target": report.delivered,
        "states overtaken by a newer one (superseded)": report.superseded,
        "dead letters": report.dead,
        "lost": report.lost,
    }
    for label, value in rows.items():
        style = ("bold green" if value == 0 else "bold red") if label == "lost" else None
        table.add_row(label, f"{value:,}", style=style)
    console.print(table)


def _keep_serving(campus: Campus, console: Console) -> None:
    console.print(f"\nStill serving at [bold]{campus.url}[/]. Look around from another terminal:")
    console.print(f"  campusbridge -c {campus.configuration} events list", highlight=False)
    console.print(f"  campusbridge -c {campus.configuration} events show ID", highlight=False)
    console.print("Ctrl-C ends it.")
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        console.print("Stopping …")
