"""`up`, `web`, `worker`, `shipper`, `sweeper`, `db upgrade`: the processes of the bridge."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import stat
import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click
import structlog
from sqlalchemy.exc import DBAPIError

from bridge.cli.context import Context, pass_context, set_up_logging
from bridge.config.values import Configuration
from bridge.engine import supervisor
from bridge.engine.supervisor import Program, Supervisor

if TYPE_CHECKING:
    from bridge.ledger.database import Ledger

_DUTIES_END_SECONDS: Final = 6.0


@click.command()
@click.option("--end-with", type=int, hidden=True, help="End when this process does; it has to be the parent.")
@pass_context
def up(context: Context, *, end_with: int | None) -> None:
    """Run all processes of this machine, and watch over them."""
    if end_with is not None:
        supervisor.end_with(end_with)
    configuration = context.configuration
    set_up_logging(configuration.log, "up")
    configuration.data.mkdir(parents=True, exist_ok=True)
    os.environ |= _figures(configuration, fresh=True)
    try:
        context.ledger.close()
    except DBAPIError as error:  # webhooks are taken in all the same; the others wait for the database
        structlog.get_logger(__name__).warning("ledger_unreachable", error=type(error).__name__)
    context.forget_ledger()
    with contextlib.suppress(OSError):
        click.echo(f"Campus Bridge listens at http://{_address(configuration)}", err=True)
    for module in ("bridge.engine.assembly", "bridge.engine.worker", "bridge.web.app", "bridge.web.server"):
        import_module(module)  # once, before the processes are forked: they share it
    Supervisor(programs(context), configuration.data / "processes.json").run()


def programs(context: Context) -> list[Program]:
    """What `up` runs. What was acknowledged is shipped, also when webhooks are not kept in the journal any more."""
    from bridge.engine.assembly import journal_folder
    from bridge.journal.reader import segments

    configuration = context.configuration
    found = [Program(name="web", run=partial(run_web, context))]
    if configuration.accept == "journal" or segments(journal_folder(configuration)):
        found.append(Program(name="shipper", run=partial(run_shipper, context)))
    found += [
        Program(name=f"worker-{number}", run=partial(run_worker, context))
        for number in range(1, configuration.workers.processes + 1)
    ]
    found.append(Program(name="sweeper", run=partial(run_sweeper, context)))
    return found


@click.command()
@pass_context
def web(context: Context) -> None:
    """Take webhooks (gunicorn)."""
    run_web(context)


@click.command()
@pass_context
def worker(context: Context) -> None:
    """Process deliveries and deliver messages."""
    run_worker(context)


@click.command()
@pass_context
def shipper(context: Context) -> None:
    """Move the accept journal of this machine into the ledger."""
    run_shipper(context)


@click.command()
@pass_context
def sweeper(context: Context) -> None:
    """Wake due retries and what was lost, and keep an embedded Redis server alive."""
    run_sweeper(context)


def run_web(context: Context) -> None:
    """gunicorn with the application, preloaded: its workers are forked from what is in memory."""
    configuration = context.configuration
    os.environ |= _figures(configuration)
    set_up_logging(configuration.log, "web")
    from bridge.web.server import serve

    serve(lambda: context.web_app(context), _address(configuration), configuration.web.workers)


def run_worker(context: Context) -> None:
    """RQ's loop over the lanes of both stages."""
    configuration = context.configuration
    os.environ |= _figures(configuration)
    set_up_logging(configuration.log, "worker")
    from bridge.engine.assembly import line_of, redis_of, slots_for, stages_of
    from bridge.engine.worker import Lanes, work

    ledger = context.open_ledger(threading.Event().wait)
    line = line_of(configuration, context.registry, ledger, context.hints)
    stages = stages_of(line, configuration.workers.threads)
    lanes = Lanes(ledger, context.hints, stages, slots=slots_for(line))
    work(redis_of(configuration), lanes)


def run_shipper(context: Context) -> None:
    """The journal's way into the ledger, until a signal."""
    configuration = context.configuration
    set_up_logging(configuration.log, "shipper")
    from bridge.engine.assembly import journal_folder
    from bridge.engine.shipper import Lanes, Shipper

    lanes = Lanes(  # of all sources: one that was disabled since may have left something in the journal
        sources={
            name: (context.registry.sources[source.connector], source.settings)
            for name, source in configuration.sources.items()
        }
    )
    stopping = _until_signal()
    Shipper(journal_folder(configuration), context.open_ledger(stopping.wait), lanes, context.hints).run(
        stopping.is_set
    )


def run_sweeper(context: Context) -> None:
    """The sweeper's rounds, until a signal."""
    set_up_logging(context.configuration.log, "sweeper")
    from bridge.engine.sweeper import sweep

    stopping = _until_signal()
    ledger = context.open_ledger(stopping.wait)
    duties = threading.Thread(target=_do_duties, args=(context, ledger, stopping), name="duties", daemon=True)
    duties.start()
    sweep(ledger, context.hints, stopping.wait)
    duties.join(_DUTIES_END_SECONDS)


def _do_duties(context: Context, ledger: Ledger, stopping: threading.Event) -> None:
    """What comes round again, until a signal. One machine does each duty, whichever comes first."""
    from redis.exceptions import RedisError

    from bridge.engine.assembly import redis_of, sources_of
    from bridge.engine.duties import Duties
    from bridge.engine.reconcile import reconcilers, reconciling_duties
    from bridge.engine.watch import Watching, watching_duties

    configuration, hints = context.configuration, context.hints
    try:
        redis = redis_of(configuration, timeout=2.0)()
    except (RedisError, OSError):
        redis = None
    sources = sources_of(configuration, context.registry, redis)
    watching = Watching(
        ledger=ledger,
        sources={name: line for name, line in sources.items() if configuration.sources[name].enabled},
        public_url=configuration.web.public_url,
    )
    duties = reconciling_duties(configuration, reconcilers(ledger, sources, hints.wake)) + watching_duties(watching)
    Duties(ledger, duties).run(stopping)


@click.group()
def db() -> None:
    """The ledger's database."""


@db.command()
@pass_context
def upgrade(context: Context) -> None:
    """Bring the ledger's tables to this version."""
    context.ledger.upgrade()
    click.echo("The ledger is up to date.")


def _address(configuration: Configuration) -> str:
    host = configuration.web.host
    return f"[{host}]:{configuration.web.port}" if ":" in host else f"{host}:{configuration.web.port}"


def _until_signal() -> threading.Event:
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return stopping


def _figures(configuration: Configuration, *, fresh: bool = False) -> dict[str, str]:
    """Where all processes of this machine add up their figures. Prometheus' client reads it when it is imported."""
    folder = _figures_folder(configuration.data)
    folder.mkdir(parents=True, exist_ok=True)
    if fresh:
        for file in folder.glob("*.db"):
            file.unlink(missing_ok=True)
    return {"PROMETHEUS_MULTIPROC_DIR": str(folder)}


def _figures_folder(data: Path) -> Path:
    """In memory, where the system offers that: figures are files mapped into memory, and a process that touches a new
    page of one on a full disk is killed by the kernel (SIGBUS), before it can say that the disk is full.
    """
    try:
        mine = Path("/dev/shm") / f"campusbridge-{os.geteuid()}"  # noqa: S108  checked below
        mine.mkdir(mode=0o700, exist_ok=True)
        found = mine.lstat()
    except OSError:
        return data / "figures"
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        return data / "figures"  # somebody else's
    return mine / hashlib.sha256(os.fsencode(data.resolve())).hexdigest()[:16]
