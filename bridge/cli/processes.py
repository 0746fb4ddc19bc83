"""`up`, `web`, `worker`, `shipper`, `sweeper`, `db upgrade`: the processes of the bridge."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from bridge.cli.context import Context, pass_context, set_up_logging
from bridge.config.values import Configuration
from bridge.engine.supervisor import Program, Supervisor

_WEB_THREADS = 8


@click.command()
@pass_context
def up(context: Context) -> None:
    """Run all processes of this machine, and watch over them."""
    configuration = context.configuration
    set_up_logging(configuration.log, "up")
    configuration.data.mkdir(parents=True, exist_ok=True)
    _ = context.ledger  # its tables are brought up to date before anybody needs them
    environ = dict(os.environ) | _figures(configuration, fresh=True)
    click.echo(f"Campus Bridge listens at http://{configuration.web.host}:{configuration.web.port}", err=True)
    Supervisor(programs(configuration), environ, configuration.data / "processes.json").run()


def programs(configuration: Configuration) -> list[Program]:
    """What `up` runs, in the order in which it is ended."""
    verbs = ["web"]
    if configuration.accept == "journal":
        verbs.append("shipper")
    verbs += ["worker"] * configuration.workers.processes + ["sweeper"]
    base = [sys.executable, "-m", "bridge.main", "--config", str(configuration.file)]
    counted = [f"{verb}-{verbs[:position].count(verb) + 1}" for position, verb in enumerate(verbs)]
    names = [name if verbs.count(verb) > 1 else verb for name, verb in zip(counted, verbs, strict=True)]
    return [Program(name=name, command=[*base, verb]) for name, verb in zip(names, verbs, strict=True)]


@click.command()
@pass_context
def web(context: Context) -> None:
    """Take webhooks (gunicorn)."""
    configuration = context.configuration
    settings = configuration.web
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    environ = dict(os.environ) | _figures(configuration) | {"CAMPUSBRIDGE_CONFIG": str(configuration.file)}
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "bridge.main:web_app()",
        f"--bind={host}:{settings.port}",
        f"--workers={settings.workers}",
        "--worker-class=gthread",
        f"--threads={_WEB_THREADS}",
        "--preload",
        "--keep-alive=15",
        "--timeout=60",
        "--graceful-timeout=15",
        "--log-level=warning",
        "--no-control-socket",
        f"--worker-tmp-dir={'/dev/shm' if Path('/dev/shm').is_dir() else '/tmp'}",  # noqa: S108
    ]
    os.execve(sys.executable, command, environ)  # noqa: S606


@click.command()
@pass_context
def worker(context: Context) -> None:
    """Process deliveries and deliver messages."""
    configuration = context.configuration
    os.environ |= _figures(configuration)
    set_up_logging(configuration.log, "worker")
    from bridge.engine.assembly import line_of, redis_of, stages_of
    from bridge.engine.worker import Lanes, work

    ledger = context.open_ledger(threading.Event().wait)
    line = line_of(configuration, context.registry, ledger, context.hints)
    slots = max(8, 2 * (len(line.sources) + len(line.targets)))
    lanes = Lanes(ledger, context.hints, stages_of(line, configuration.workers.threads), slots=slots)
    work(redis_of(configuration), lanes)


@click.command()
@pass_context
def shipper(context: Context) -> None:
    """Move the accept journal of this machine into the ledger."""
    configuration = context.configuration
    set_up_logging(configuration.log, "shipper")
    from bridge.engine.assembly import journal_folder, receiving
    from bridge.engine.shipper import Lanes, Shipper

    lanes = Lanes(sources=receiving(configuration, context.registry))
    stopping = _until_signal()
    Shipper(journal_folder(configuration), context.open_ledger(stopping.wait), lanes, context.hints).run(
        stopping.is_set
    )


@click.command()
@pass_context
def sweeper(context: Context) -> None:
    """Wake due retries and what was lost, and keep an embedded Redis server alive."""
    set_up_logging(context.configuration.log, "sweeper")
    from bridge.engine.sweeper import sweep

    stopping = _until_signal()
    sweep(context.open_ledger(stopping.wait), context.hints, stopping.wait)


@click.group()
def db() -> None:
    """The ledger's database."""


@db.command()
@pass_context
def upgrade(context: Context) -> None:
    """Bring the ledger's tables to this version."""
    context.ledger.upgrade()
    click.echo("The ledger is up to date.")


def _until_signal() -> threading.Event:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping


def _figures(configuration: Configuration, *, fresh: bool = False) -> dict[str, str]:
    """Where all processes of this machine add up their figures. Prometheus' client reads it when it is imported."""
    folder = configuration.data / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for file in folder.glob("*.db"):
            file.unlink(missing_ok=True)
    return {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
