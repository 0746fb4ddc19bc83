"""The way out to one target: its credentials, its limits, its own connections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from bridge.core.contracts import Answer, Request, Settings
from bridge.core.errors import TargetError
from bridge.ledger.database import Ledger
from bridge.outbound.auth import authorised
from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve
from bridge.outbound.login import Login
from bridge.outbound.oauth import fetches_tokens
from bridge.outbound.rotation import Rotation
from bridge.outbound.session import TARGET_LIMITS, GuardedSession, Limits
from bridge.outbound.tokens import TokenCache

TOKEN_LIMITS: Final = Limits(read=15.0, total=20.0, cut=False)
"""Shorter than others wait for a worker that fetches."""


def target_sender(
    settings: Settings,
    policy: NetworkPolicy,
    *,
    connections: int = 16,
    resolve: Resolve = system_resolve,
    tokens: TokenCache | None = None,
    ledger: Ledger | None = None,
) -> Callable[[Request], Answer]:
    """What sends a target's requests, from any number of threads; `connections` is how many are kept alive.

    Options that it heeds: `auth` (see auth.py and login.py) and `timeout`, in seconds, for the whole answer. `tokens`
    are shared with all other workers; a `ledger` is needed for refresh tokens that rotate.

    What it makes raises NotSent (TokenEndpointAway), AnswerLost, CredentialsRefused, DestinationForbidden or
    TargetError.
    """
    limits = TARGET_LIMITS
    if (timeout := settings.options.get("timeout")) is not None:
        limits = replace(limits, read=float(timeout), total=float(timeout))
    session = GuardedSession(policy, limits, connections=connections, resolve=resolve)
    auth = settings.options.get("auth") or {}
    if not fetches_tokens(auth):
        return lambda request: session.send(authorised(request, settings.options))
    rotation = None
    if auth.get("rotating"):
        if ledger is None:
            raise TargetError("auth.rotating needs a ledger to keep the refresh token in")
        rotation = Rotation(ledger, auth)
    endpoint = GuardedSession(policy, TOKEN_LIMITS, connections=1, resolve=resolve)
    login = Login(auth, endpoint, tokens or TokenCache(None), rotation)
    return lambda request: send_logged_in(session, login, request)


def send_logged_in(session: GuardedSession, login: Login, request: Request) -> Answer:
    """One request with an access token, and once more with another one if the first is refused."""
    bearer = login.bearer()
    answer = session.send(login.put_on(request, bearer))
    if answer.status != 401:
        return answer
    other = login.renewed(bearer)
    return answer if other is None else session.send(login.put_on(request, other))
