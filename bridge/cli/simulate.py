"""`simulate SOURCE`: one platform that sends to a bridge, signed and retried as it would. `simulate target NAME`: one
system that receives.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict

import click
from ruamel.yaml import YAML

from bridge.cli.context import Context, pass_context
from bridge.core.manifest import TargetConnector
from bridge.testing.platform_server import serve_platform
from bridge.testing.sender import Account, Plan, Sender
from bridge.testing.simulated_target import SimulatedTargetServer
from bridge.testing.target_faults import NAMES, Fault, fault_in


class _Simulate(click.Group):
    """A first word that is no command is a source: `simulate wiseflow-main` is `simulate source wiseflow-main`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.commands.get(cmd_name, self.commands["source"])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["source", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Simulate)
def simulate() -> None:
    """Play what is around the bridge: the platform behind a SOURCE, or with `target NAME` a system that receives."""


@simulate.command()
@click.argument("source")
@click.option("--url", help="The webhook address; by default that of this bridge.")
@click.option("--secret", help="The secret to sign with; by default the source's first.")
@click.option("--rate", default=5.0, show_default=True, help="Webhooks a second; 0 is as fast as it goes.")
@click.option("--count", type=click.IntRange(1), help="Stop after so many; by default Ctrl-C does.")
@click.option("--kind", help="Only this kind of event, instead of a whole day's mixture.")
@click.option("--duplicates", default=0.0, help="Share of calls that are sent twice.")
@click.option("--disorder", default=0.0, help="Share of calls that later ones overtake.")
@click.option("--forgeries", default=0.0, help="Share of calls beside which a forged one is sent.")
@click.option("--time-scale", default=1.0, show_default=True, help="Shortens the pauses before retries: 0.01 …")
@click.option("--api-port", type=int, help="Also serve the platform's simulated API at this port.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "json_output", is_flag=True, help="End with the account as JSON.")
@pass_context
def source(
    context: Context,
    source: str,
    *,
    url: str | None,
    secret: str | None,
    rate: float,
    count: int | None,
    kind: str | None,
    duplicates: float,
    disorder: float,
    forgeries: float,
    time_scale: float,
    api_port: int | None,
    seed: int,
    json_output: bool,
) -> None:
    """Play the platform behind SOURCE: a source of bridge.yaml, or a connector with --url and --secret."""
    connector = context.registry.sources.get(source)
    if url is None or secret is None or connector is None:
        configuration = context.configuration
        configured = configuration.sources.get(source)
        if configured is None:
            known = ", ".join(context.registry.sources)
            raise click.ClickException(
                f"{source} is not a source of {context.file}; with --url and --secret it may be one of {known}"
            )
        connector = context.registry.sources[configured.connector]
        host = "127.0.0.1" if configuration.web.host in ("0.0.0.0", "::") else configuration.web.host  # noqa: S104
        url = url or f"http://{host}:{configuration.web.port}/hooks/{source}"
        secret = secret or configured.settings.secrets[0]
    platform = connector.simulator.platform(seed)
    calls = None if kind is None else iter(lambda: platform.sample(kind), None)
    plan = Plan(
        rate=rate or None,
        calls=count,
        duplicates=duplicates,
        disorder=disorder,
        forgeries=forgeries,
        time_scale=time_scale,
        seed=seed,
    )
    server = None if api_port is None else serve_platform(platform, port=api_port)
    sender = Sender(
        platform,
        connector.simulator.RULE,
        secret=secret,
        url=url,
        plan=plan,
        calls=calls,
        on_progress=None if json_output else _progress,
        progress_seconds=1.0,
    )
    sender.start()
    try:
        while sender.running:
            sender.wait(0.5)
    except KeyboardInterrupt:
        sender.stop(now=True)
    account = sender.wait(5)
    if server is not None:
        server.close()
    if json_output:
        # Python 3.11 copies a Counter wrongly in asdict.
        counters = {"failures": dict(account.failures), "kinds": dict(account.kinds)}
        click.echo(json.dumps(asdict(account) | counters))
    if account.gave_up or account.forgeries_taken:
        raise click.exceptions.Exit(1)


class _FaultType(click.ParamType[Fault]):
    name = "FAULT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Fault:
        try:
            return fault_in(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FAULTS = "; ".join(f"{name}: {about.replace('`', '')}" for name, about in NAMES.items())


@simulate.command(epilog=f"Faults, as in --fault status:status=500,calls=3,share=0.1,path=^/api: {_FAULTS}.")
@click.argument("name")
@click.option("--port", default=0, show_default=True, help="Where to listen on 127.0.0.1; 0 takes a free port.")
@click.option("--fault", "faults", type=_FaultType(), multiple=True, help="NAME or NAME:key=value,…; may be repeated.")
@click.option("--seed", default=1, show_default=True, help="For faults that strike only a share of the calls.")
@click.option("--json", "json_output", is_flag=True, help="Say where it is as JSON.")
@pass_context
def target(context: Context, *, name: str, port: int, faults: tuple[Fault, ...], seed: int, json_output: bool) -> None:
    """Play the system behind the target NAME of bridge.yaml, or that of a connector, until Ctrl-C.

    It keeps what it is told: GET /__sim__/state. GET /__sim__/calls has the last calls, POST /__sim__/faults takes a
    JSON list of other faults, POST /__sim__/reset makes it forget.
    """
    connector = _target(context, name)
    if connector.simulator is None:
        raise click.ClickException(f"{connector.name} has no simulator")
    with SimulatedTargetServer(connector.simulator, port=port, faults=faults, seed=seed) as server:
        if json_output:
            click.echo(json.dumps({"url": server.url, "settings": server.settings()}))
        else:
            click.echo(f"{connector.title} at {server.url}, until Ctrl-C. For bridge.yaml:\n")
            host = server.url.removeprefix("http://")
            YAML(typ="safe", pure=True).dump(
                {"network": {"allow_hosts": [host]}, "targets": {connector.name: server.settings()}}, sys.stdout
            )
            click.echo(f"\nWhat it holds: {server.url}/__sim__/state  Its last calls: {server.url}/__sim__/calls")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


def _target(context: Context, name: str) -> TargetConnector:
    known = context.registry.targets
    configured = context.configuration.targets.get(name) if context.file.exists() else None
    connector = known.get(name if configured is None else configured.connector)
    if connector is None:
        raise click.ClickException(f"{name} is no target of {context.file}, and no connector: {', '.join(known)}")
    return connector


def _progress(account: Account) -> None:
    click.echo(
        f"{account.seconds:7.1f} s  {account.calls} webhooks, {account.sent} requests: {account.accepted} accepted, "
        f"{account.ignored} ignored, {account.duplicates_accepted} sent twice, {account.forgeries_refused} forged ones "
        f"refused, {account.retries} retries, {account.gave_up} given up"
    )
