"""The way out to one target: its credentials, its limits, its own connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Request
from bridge.ledger.database import Ledger
from bridge.outbound.auth import authorised
from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve
from bridge.outbound.login import Login
from bridge.outbound.mail import Credentials, Mailer, is_mail
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

    Options that it heeds: `auth` (see auth.py and login.py) and `timeout`, in seconds, for the whole answer; for mail
    (see mail.py) `require_tls` and, to log in with an access token, `mailbox`. `tokens` are shared with all other
    workers; a `ledger` is needed for refresh tokens that rotate.

    What it makes raises NotSent (TokenEndpointAway), AnswerLost, CredentialsRefused, DestinationForbidden or
    TargetError.
    """
    limits = TARGET_LIMITS
    if (timeout := settings.options.get("timeout")) is not None:
        limits = replace(limits, read=float(timeout), total=float(timeout))
    session = GuardedSession(policy, limits, connections=connections, resolve=resolve)
    require_tls = settings.options.get("require_tls", True)
    mailer = Mailer(policy=policy, limits=limits, resolve=resolve, require_tls=require_tls)
    auth = settings.options.get("auth") or {}
    if not fetches_tokens(auth):
        return lambda request: (
            mailer.send(request, with_password(auth))
            if is_mail(request)
            else session.send(authorised(request, settings.options))
        )
    rotation = None
    if auth.get("rotating"):
        if ledger is None:
            raise TargetError("auth.rotating needs a ledger to keep the refresh token in")
        rotation = Rotation(ledger, auth)
    endpoint = GuardedSession(policy, TOKEN_LIMITS, connections=1, resolve=resolve)
    login = Login(auth, endpoint, tokens or TokenCache(None), rotation)
    mailbox = settings.options.get("mailbox")
    return lambda request: (
        mail_logged_in(mailer, login, mailbox, request) if is_mail(request) else send_logged_in(session, login, request)
    )


def send_logged_in(session: GuardedSession, login: Login, request: Request) -> Answer:
    """One request with an access token, and once more with another one if the first is refused."""
    bearer = login.bearer()
    answer = session.send(login.put_on(request, bearer))
    if answer.status != 401:
        return answer
    other = login.renewed(bearer)
    return answer if other is None else session.send(login.put_on(request, other))


def with_password(auth: Mapping[str, Any]) -> Credentials | None:
    """What a mail server is told of an `auth` that fetches nothing. Raises TargetError for a kind that is HTTP's."""
    match auth.get("kind", "none"):
        case "none":
            return None
        case "basic":
            return Credentials(username=auth["username"], secret=auth["password"])
    raise TargetError("auth.kind: expected a kind that the connector offers")


def mail_logged_in(mailer: Mailer, login: Login, mailbox: str | None, request: Request) -> Answer:
    """One mail with an access token of a mailbox, the sender's unless named, and once more with another token if the
    first is refused (535).
    """
    name = mailbox or request.headers.get("Mail-From", "")
    bearer = login.bearer()
    answer = mailer.send(request, Credentials(username=name, secret=bearer.value, is_token=True))
    if answer.status != 535:
        return answer
    other = login.renewed(bearer)
    if other is None:
        return answer
    return mailer.send(request, Credentials(username=name, secret=other.value, is_token=True))
