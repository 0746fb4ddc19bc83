"""`reconcile`: compare a source with what its platform says has happened, and bring in what no webhook told."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.cli.context import Context, as_json, as_table, pass_context, set_up_logging
from bridge.cli.terminal import printable
from bridge.core.errors import SourceUnavailable
from bridge.core.events import Json, stamp

if TYPE_CHECKING:
    from bridge.engine.reconcile import Account, Reconciler

_SPAN: Final = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAYS_SHOWN: Final = 14
_COME_AGAIN: Final = 75
"""The exit status EX_TEMPFAIL of sysexits.h: nothing is wrong, it is only not the time yet."""


class _ComeAgain(click.ClickException):
    """The platform is making its list, or asked for a pause, for longer than somebody wanted to wait."""

    exit_code = _COME_AGAIN


class _Span(click.ParamType[timedelta]):
    """As in 90m, 36h or 7d; 0 is none."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if value == "0":
            return timedelta(0)
        found = _SPAN.fullmatch(str(value))
        if found is None:
            self.fail("expected a number and s, m, h, d or w, as in 36h", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


class _Since(click.ParamType[datetime]):
    """A date or time (UTC unless it says otherwise), or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        if _SPAN.fullmatch(str(value)):
            return datetime.now(UTC) - _Span().convert(value, param, ctx)
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                "expected a date as in 2026-06-01, a time as in 2026-06-01T08:00, or a span as in 36h", param, ctx
            )
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.argument("source")
@click.option(
    "--since",
    type=_Since(),
    help="From when on: 2026-06-01, 2026-06-01T08:00+02:00, 36h. [default: where the last one ended]",
)
@click.option(
    "--grace",
    type=_Span(),
    default="10m",
    show_default=True,
    help="Leave out what happened so recently: its webhook may be on its way.",
)
@click.option(
    "--wait",
    type=_Span(),
    default="15m",
    show_default=True,
    help="How long to wait for a platform that makes its list first, or asks for a pause.",
)
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def reconcile(
    context: Context,
    source: str,
    *,
    since: datetime | None,
    grace: timedelta,
    wait: timedelta,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Find what no webhook told: ask the platform of SOURCE (its name in bridge.yaml) what happened, and bring it in.

    What is missing becomes events marked `origin: reconciled`. A webhook about it that comes later is recognised. It
    can be run at any time, beside a running bridge or not, and again: nothing is made twice.

    Ends with status 75 where the platform wants to be asked again later, and with 1 where something is wrong.
    """
    set_up_logging(context.configuration.log, "reconcile")
    reconciler = _reconciler(context, source)
    until = datetime.now(UTC) - grace
    begin = since or reconciler.begins()
    if begin is None:
        raise click.UsageError("nobody looked after this source before: say since when, as in --since 36h")
    if begin >= until:
        raise click.ClickException(f"nothing to compare: up to {stamp(until)} it was done, or is within the grace")
    with _progress() as (progress, say):
        try:
            account = reconciler.run(
                since=begin,
                until=until,
                stopping=threading.Event(),
                dry_run=dry_run,
                progress=progress,
                patience=wait,
                waits=lambda error: say(printable(f"{source} waits, as of {stamp(datetime.now(UTC))}: {error.reason}")),
            )
        except SourceUnavailable as error:
            kept = "" if dry_run else "; what was found before is on its way, run it again for the rest"
            if error.retry_after is not None:
                again = f"not yet: {error.reason}; ask again in {error.retry_after:.0f} s{kept}"
                raise _ComeAgain(printable(again)) from error
            raise click.ClickException(printable(f"{error.reason}{kept}")) from error
    _show(context, account, dry_run=dry_run, json_output=json_output)


def _reconciler(context: Context, source: str) -> Reconciler:
    from bridge.engine.assembly import running_redis, sources_of
    from bridge.engine.reconcile import reconcilers

    configuration = context.configuration
    if source not in configuration.sources:
        raise click.UsageError(f"there is no source {source}: {', '.join(sorted(configuration.sources))}")
    sources = sources_of(configuration, context.registry, running_redis(configuration))
    able = reconcilers(context.ledger, sources, context.hints.wake)
    if source not in able:
        if sources[source].api is None:
            raise click.ClickException(f"{source} has no `api` in bridge.yaml: its platform cannot be asked")
        raise click.ClickException(f"the API of {sources[source].connector.title} has no lists of what happened")
    return able[source]


@contextmanager
def _progress() -> Iterator[tuple[Callable[[Account], None], Callable[[str], None]]]:
    """A bar on a terminal: how far through the span the list is. The second one takes lines for people."""
    if not sys.stderr.isatty():
        yield lambda _account: None, lambda line: click.echo(line, err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, counts="asking")

        def tell(account: Account) -> None:
            reached = (account.reached or account.since) - account.since
            counts = f"{account.expected:,} compared, {account.missing:,} missing"
            bar.update(task, completed=reached / (account.until - account.since), counts=counts)

        yield tell, lambda line: bar.console.print(line, markup=False, highlight=False)


def _show(context: Context, account: Account, *, dry_run: bool, json_output: bool) -> None:
    from bridge.ledger.figures import by_day

    first = (datetime.now(UTC) - timedelta(days=_DAYS_SHOWN)).date().isoformat()
    kept = by_day(context.ledger, f"reconcile:{account.source}", since=first)
    days = [
        {"day": day, **{figure: numbers.get(figure, 0) for figure in ("expected", "received", "reconciled")}}
        for day, numbers in sorted((account.days if dry_run else kept).items())
    ]
    document: Json = {
        "source": account.source,
        "since": stamp(account.since),
        "until": stamp(account.until),
        "dry_run": dry_run,
        "expected": account.expected,
        "received": account.received,
        "reconciled_before": account.reconciled,
        "missing": account.missing,
        "mark_moved": account.advanced,
        "days": days,
    }
    if json_output:
        as_json(document)
        return
    what = "are missing" if dry_run else "were missing and are on their way"
    click.echo(
        f"{account.source}, {stamp(account.since)} to {stamp(account.until)}: {account.expected:,} happened, "
        f"{account.received:,} came as webhooks, {account.reconciled:,} were reconciled before, "
        f"{account.missing:,} {what}."
    )
    if days:
        rows = [
            [str(day["day"]), *(f"{day[name]:,}" for name in ("expected", "received", "reconciled"))] for day in days
        ]
        as_table("By the day on which it happened", ["day", "expected", "received", "reconciled"], rows)
