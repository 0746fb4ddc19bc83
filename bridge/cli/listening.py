"""Whether the platforms can reach this bridge, and whether one has."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import click

from bridge.cli.context import Context
from bridge.cli.terminal import printable
from bridge.core.errors import DestinationForbidden, TargetError
from bridge.core.events import Json
from bridge.core.target import Request
from bridge.engine.line import SourceLine
from bridge.flow.judge import NoAnswer
from bridge.flow.subscribing import hook_url
from bridge.ledger.database import moment
from bridge.ledger.silence import first_after
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.session import GuardedSession, Limits

NO_PUBLIC_URL: Final = (
    "web.public_url is missing in bridge.yaml: it is where the platforms reach this bridge, such as "
    "https://bridge.example.edu"
)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
_LOOK_SECONDS: Final = 0.5
_HEADER: Final = re.compile(r"in header ([^\s,]+)")


def public_url(context: Context) -> str:
    """`web.public_url`, or an error in words; plain HTTP is good only for a platform simulated on this machine."""
    url = context.configuration.web.public_url
    if not url:
        raise click.ClickException(NO_PUBLIC_URL)
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise click.ClickException("web.public_url has to begin with https://: platforms send nowhere else")
    return url


def look_at_own_address(context: Context, source: str) -> None:
    """Whether somebody answers there. From inside a network its own public address is often out of reach, so the last
    word is the platform's; but if the web process of this machine is silent too, nobody will hear the platform's check.
    """
    web = context.configuration.web
    public, own = hook_url(public_url(context), source), hook_url(f"http://{_reachable(web.host)}:{web.port}", source)
    status = _status(public)
    if status == 405:  # the hook takes nothing but POST
        return
    if status is None and _status(own) is None:
        raise click.ClickException(f"nobody answers at {public}: start the bridge first (campusbridge up)")
    what = "does not answer from here" if status is None else f"answers {status} where this bridge says 405"
    click.secho(f"warning: {public} {what}; is the proxy right? Trying all the same.", fg="yellow", err=True)


def wait_for_call(context: Context, line: SourceLine, since: int, patience: timedelta, *, quiet: bool) -> Json | None:
    """The first genuine delivery behind a `seq` of the ledger, said aloud unless `quiet`; None when none came."""
    if not quiet:
        click.echo(f"{line.name}: listening for the first genuine call. Press the test at the platform, if it has one.")
    end = time.monotonic() + patience.total_seconds()
    while (row := first_after(context.ledger, line.name, since)) is None:
        if time.monotonic() >= end:
            if not quiet:
                why = "If one came that is not genuine, the log of the web process says so in a line `refused`."
                click.secho(f"{line.name}: no genuine call came. {why}", fg="red", err=True)
            return None
        time.sleep(_LOOK_SECONDS)
    pin = _to_pin(line, row.proof)
    if not quiet:
        what = "a verification call" if row.ignored else "the first genuine call"
        when = moment(row.received_ms).isoformat(timespec="seconds")
        click.secho(printable(f"{line.name}: {what} came at {when}, delivery {row.id}: {row.proof}"), fg="green")
        if pin:
            click.echo(
                printable(f"Set {pin} for {line.name} in bridge.yaml, so that no other header counts, and restart.")
            )
    return {"delivery": row.id, "proof": row.proof, "pin": pin}


def _to_pin(line: SourceLine, proof: str) -> str | None:
    """A header that was learnt: its source has a setting for its name, which is null while nobody knows it."""
    unknown = [key for key, value in line.settings.options.items() if key.endswith("_header") and value is None]
    header = _HEADER.search(proof)
    return f"{unknown[0]}: {header[1]}" if unknown and header else None


def _reachable(host: str) -> str:
    """What to connect to for an address that is listened on, as it stands in a URL."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return "127.0.0.1" if address.is_unspecified else host
    return "[::1]" if address.is_unspecified else f"[{host}]"


def _status(url: str) -> int | None:
    policy = NetworkPolicy(allow_hosts=frozenset({urlsplit(url).hostname or ""}), allow_private=True)
    session = GuardedSession(policy, Limits(connect=3.0, read=5.0, total=5.0))
    try:
        return session.send(Request(method="GET", url=url)).status
    except (NoAnswer, DestinationForbidden, TargetError):
        return None
    finally:
        session.close()
