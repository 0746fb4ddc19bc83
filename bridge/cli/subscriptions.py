"""`subscriptions list|sync|remove`: what tells the platforms to send here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from bridge.cli.context import Context, as_json, as_table, pass_context
from bridge.cli.listening import NO_PUBLIC_URL, look_at_own_address, public_url, wait_for_call
from bridge.cli.terminal import printable
from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.events import Json
from bridge.core.source import Subscribing, Subscription
from bridge.engine.assembly import running_redis, sources_of
from bridge.engine.line import SourceLine
from bridge.engine.subscriptions import Desk, carry_out, desk_of, listed, plan_for, remove_ours, seen
from bridge.flow.subscribing import hook_url, is_at
from bridge.ledger.silence import newest_delivery
from bridge.ledger.subscriptions import remembered

_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


class _Duration(click.ParamType[timedelta]):
    """`30s`, `10m`, `2h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,5})([smh])", value)
        if match is None:
            self.fail("expected a number and s, m or h, such as 10m", param, ctx)
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@click.group()
def subscriptions() -> None:
    """Webhook subscriptions at the platforms."""


@subscriptions.command("list")
@click.argument("source", required=False)
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def list_(context: Context, *, source: str | None, json_output: bool) -> None:
    """What the platforms have, and which of it sends to this bridge (by the address)."""
    found = [_listing(context, line) for line in _chosen(context, source)]
    if json_output:
        as_json(found)
    else:
        rows = [
            [
                entry["source"],
                one["id"],
                one["url"],
                _yes(one["active"]),
                ", ".join(one["kinds"]) or "all",
                _yes(one["ours"]),
            ]
            for entry in found
            for one in entry["subscriptions"]
        ]
        as_table("Subscriptions", ["source", "id", "url", "active", "kinds", "ours"], rows)
        for entry in found:
            if entry["problem"]:
                click.secho(printable(f"{entry['source']}: {entry['problem']}"), fg="yellow", err=True)
    if any(entry["failed"] for entry in found):
        raise click.exceptions.Exit(1)


def _listing(context: Context, line: SourceLine) -> Json:
    document: Json = {"source": line.name, "url": None, "api": False, "subscriptions": []}
    document |= {"problem": None, "failed": False}
    base = context.configuration.web.public_url
    document["url"] = hook_url(base, line.name) if base else None
    if not isinstance(line.connector.code, Subscribing):
        document["problem"] = f"its platform has no API for this: campusbridge subscriptions sync {line.name} says how"
        return document
    document["api"] = True
    desk = desk_of(line, document["url"] or "")
    if desk is None:
        return document | {"problem": _no_api(line), "failed": True}
    try:
        there = listed(desk)
    except SourceUnavailable as error:
        return document | {"problem": _words(error), "failed": True}
    ours = [entry for entry in there if document["url"] and is_at(entry, desk.url)]
    document["subscriptions"] = [_row(entry, ours=entry in ours) for entry in there]
    if not document["url"]:
        document["problem"] = NO_PUBLIC_URL
    elif (plan := plan_for(desk, remembered(context.ledger, line.name), there)).because is not None:
        document["problem"] = f"{plan.because}: campusbridge subscriptions sync {line.name}"
    elif plan.remove:
        document["problem"] = f"{len(plan.remove)} too many: campusbridge subscriptions sync {line.name}"
    return document


@subscriptions.command()
@click.argument("source", required=False)
@click.option("--rotate", is_flag=True, help="Make a new one with the first secret, then remove the old one.")
@click.option("--wait", type=_Duration(), help="Listen so long for the first genuine call, such as 10m.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def sync(context: Context, *, source: str | None, rotate: bool, wait: timedelta | None, json_output: bool) -> None:
    """Make the subscription that is missing, and remove duplicates of it.

    Where the platform has no API for this, the steps to take there are printed. Before this is called the secret has to
    be in bridge.yaml, and the bridge running with it: some platforms check the address at once.
    """
    lines = _chosen(context, source)
    if wait is not None and len(lines) != 1:
        raise click.UsageError("--wait needs one SOURCE")
    base = public_url(context)
    since = newest_delivery(context.ledger)
    with_api = [line for line in lines if isinstance(line.connector.code, Subscribing)]
    if with_api:
        look_at_own_address(context, with_api[0].name)
    results = [
        _synced(context, line, hook_url(base, line.name), rotate=rotate)
        if line in with_api
        else _by_hand(line, hook_url(base, line.name), quiet=json_output)
        for line in lines
    ]
    if not json_output:
        for result in results:
            if result["said"]:
                click.secho(printable(f"{result['source']}: {result['said']}"), fg="red" if result["failed"] else None)
    if wait is not None and not results[0]["failed"]:
        results[0]["heard"] = wait_for_call(context, lines[0], since, wait, quiet=json_output)
    if json_output:
        as_json(results)
    if any(result["failed"] or ("heard" in result and result["heard"] is None) for result in results):
        raise click.exceptions.Exit(1)


def _synced(context: Context, line: SourceLine, url: str, *, rotate: bool) -> Json:
    """One source over its API; a failure of one leaves the others their turn."""
    result: Json = {"source": line.name, "url": url, "failed": True, "subscriptions": []}
    desk = desk_of(line, url)
    if desk is None:
        return result | {"said": _no_api(line)}
    if not context.configuration.sources[line.name].enabled:
        return result | {"said": "it is not enabled in bridge.yaml, so its webhooks are answered 404"}
    if not any(line.settings.secrets):
        return result | {"said": "it has no secret in bridge.yaml: put one there first, and restart the bridge"}
    now = datetime.now(UTC)
    try:
        there = listed(desk)
        plan = plan_for(desk, remembered(context.ledger, line.name), there, rotate=rotate)
        if plan.nothing:
            seen(context.ledger, desk, there, now)
            said = "is in order"
        else:
            there = carry_out(context.ledger, desk, plan, who=context.user, now=now)
            made = "" if plan.because is None else f"made anew, because {plan.because}"
            removed = f"{len(plan.remove)} removed" if plan.remove else ""
            said = "; ".join(part for part in (made, removed) if part)
    except SourceUnavailable as error:
        return result | {"said": _words(error)}
    return result | {"said": said, "failed": False, "subscriptions": [_row(one, ours=is_at(one, url)) for one in there]}


def _by_hand(line: SourceLine, url: str, *, quiet: bool) -> Json:
    """The steps of the manifest, numbered, with the right address. A token in it is named and not shown."""
    whole = url
    if line.settings.options.get("url_token"):
        parameter = line.settings.options.get("token_parameter") or "token"
        whole += f"?{parameter}=<the value of url_token in bridge.yaml>"
    setup = line.connector.manifest.setup or ("Enter {url} for every kind of webhook that you want.",)
    steps = [step.replace("{url}?", f"{url}?").replace("{url}", whole) for step in setup]
    if not quiet:
        click.echo(f"{line.name}: {line.connector.title} has no API for subscriptions. Take these steps there:")
        for number, step in enumerate(steps, 1):
            click.echo(f"  {number}. {step}")
    return {"source": line.name, "url": url, "failed": False, "subscriptions": [], "said": "", "steps": steps}


@subscriptions.command()
@click.argument("source", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "json_output", is_flag=True, help="For programs.")
@pass_context
def remove(context: Context, *, source: str | None, yes: bool, json_output: bool) -> None:
    """Remove the subscriptions that send to this bridge, and leave those of others alone."""
    base = public_url(context)
    desks = [desk for line in _chosen(context, source) if (desk := _desk(line, base)) is not None]
    if not desks:
        raise click.ClickException("none of these sources has an API for subscriptions: remove them at the platform")
    found = [(desk, _there(desk)) for desk in desks]
    ours = [f"{desk.source} {entry.id}" for desk, there in found for entry in there if is_at(entry, desk.url)]
    if ours and not yes:
        question = f"Remove {', '.join(ours)}? Nothing will be sent here any more."
        click.confirm(printable(question), abort=True, err=True)
    results = []
    for desk, there in found:
        try:
            number = remove_ours(context.ledger, desk, there, who=context.user, now=datetime.now(UTC))
        except SourceUnavailable as error:
            raise click.ClickException(printable(f"{desk.source}: {_words(error)}")) from None
        results.append({"source": desk.source, "removed": number})
    if json_output:
        as_json(results)
        return
    for result in results:
        click.echo(f"{result['source']}: {result['removed']} removed")


def _desk(line: SourceLine, base: str) -> Desk | None:
    return desk_of(line, hook_url(base, line.name))


def _there(desk: Desk) -> list[Subscription]:
    try:
        return listed(desk)
    except SourceUnavailable as error:
        raise click.ClickException(printable(f"{desk.source}: {_words(error)}")) from None


def _chosen(context: Context, name: str | None) -> list[SourceLine]:
    """One source, or all that are enabled."""
    configuration = context.configuration
    lines = sources_of(configuration, context.registry, running_redis(configuration))
    if name is None:
        return [line for line in lines.values() if configuration.sources[line.name].enabled]
    if name not in lines:
        raise click.ClickException(f"there is no source {name} in bridge.yaml; there is {', '.join(lines) or 'none'}")
    return [lines[name]]


def _no_api(line: SourceLine) -> str:
    return (
        f"sources.{line.name} has no `api` in bridge.yaml: without it nobody may be asked for subscriptions "
        f"(docs/sources/{line.connector.name}.md)"
    )


def _words(error: SourceUnavailable) -> str:
    if isinstance(error, SourceRefused):
        return f"{error.reason}; the credential needs the right to manage webhooks"
    return error.reason


def _row(entry: Subscription, *, ours: bool) -> Json:
    return {
        "id": entry.id,
        "url": entry.url.partition("?")[0],  # what stands behind may be somebody's token
        "active": entry.active,
        "kinds": list(entry.kinds),
        "ours": ours,
    }


def _yes(value: bool) -> str:
    return "yes" if value else "no"
