"""The way out to one target: its credentials, its limits, its own connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bridge.core.contracts import Answer, Request, Settings
from bridge.outbound.auth import authorised
from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve
from bridge.outbound.session import TARGET_LIMITS, GuardedSession


def target_sender(
    settings: Settings,
    policy: NetworkPolicy,
    *,
    connections: int = 16,
    resolve: Resolve = system_resolve,
) -> Callable[[Request], Answer]:
    """What sends a target's requests, from any number of threads; `connections` is how many are kept alive.

    Options that it heeds: `auth` (see auth.py) and `timeout`, in seconds, for the whole answer. What it makes raises
    NotSent, AnswerLost, DestinationForbidden or TargetError.
    """
    limits = TARGET_LIMITS
    if (timeout := settings.options.get("timeout")) is not None:
        limits = replace(limits, read=float(timeout), total=float(timeout))
    session = GuardedSession(policy, limits, connections=connections, resolve=resolve)

    def send(request: Request) -> Answer:
        return session.send(authorised(request, settings.options))

    return send
