"""Access tokens of targets: fetched by one worker for all, used until shortly before their end, renewed on a 401."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.core.errors import CredentialsRefused, TargetError
from bridge.core.signing import canonical_json
from bridge.core.source import TokenRequest
from bridge.core.target import Request
from bridge.flow.judge import NoAnswer
from bridge.outbound.auth import at_origin, with_header
from bridge.outbound.oauth import Granted, TokenEndpointAway, granted, token_request
from bridge.outbound.rotation import Rotation
from bridge.outbound.session import Sender
from bridge.outbound.tokens import Token, TokenCache

RENEWED_AFTER: Final = 60.0
"""Seconds that a token has lived before a 401 may be its fault: Zoho gives ten tokens in ten minutes, and Canvas
answers 401 also where a right is missing."""

REFUSED_PAUSE: Final = 30.0
AWAY_PAUSE: Final = 3.0
"""Seconds for which nobody in this process asks again: an endpoint that is down is not helped by a request for each
message, and platforms lock clients that keep trying."""

LONGEST_PAUSE: Final = 900.0
"""However much longer the endpoint asks for."""

_OURS: Final = "@targets"  # no source is called so; targets with the same login share their token


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """An access token, where the API is if the platform said so, and when (Unix seconds) it was fetched and ends."""

    value: str = field(repr=False)
    base_url: str | None
    fetched: float
    ends: float


class Login:
    """How one target's requests get their access token. Safe for threads."""

    def __init__(
        self,
        auth: Mapping[str, Any],
        sender: Sender,
        tokens: TokenCache,
        rotation: Rotation | None = None,
        *,
        renewed_after: float = RENEWED_AFTER,
        refused_pause: float = REFUSED_PAUSE,
        away_pause: float = AWAY_PAUSE,
    ) -> None:
        self._auth = auth
        self._sender = sender
        self._tokens = tokens
        self._rotation = rotation
        self._renewed_after = renewed_after
        self._pauses = {CredentialsRefused: refused_pause, TokenEndpointAway: away_pause}
        self._failed: tuple[float, CredentialsRefused | TokenEndpointAway] | None = None
        # Only to tell logins apart: the cache keeps nothing of it but a fingerprint.
        whole = canonical_json({key: value for key, value in auth.items() if key != "use_instance_url"}).decode()
        self._identity = TokenRequest(url=str(auth["token_url"]), form={"auth": whole})

    def bearer(self) -> Bearer:
        """A token that still lives. Raises CredentialsRefused, TokenEndpointAway and DestinationForbidden."""
        packed = json.loads(self._tokens.get(_OURS, self._identity, self._fetched))
        return Bearer(value=packed["token"], base_url=packed["base"], fetched=packed["at"], ends=packed["ends"])

    def renewed(self, refused: Bearer) -> Bearer | None:
        """Another token in place of one that the target has refused; None when that one is too young to be at fault.

        One that was nearly over when it was given is not: Blackboard hands out the same token until its end.
        """
        if time.time() >= min(refused.fetched + self._renewed_after, refused.ends):
            self._tokens.drop(_OURS, self._identity, _packed(refused))
        other = self.bearer()
        return other if other.value != refused.value else None

    def put_on(self, request: Request, bearer: Bearer) -> Request:
        """The request with the token, and at the host that the platform named where the settings want that."""
        if self._auth.get("use_instance_url"):
            if bearer.base_url is None:
                raise CredentialsRefused("the token's answer names neither instance_url nor api_domain")
            request = at_origin(request, bearer.base_url)
        return with_header(request, "Authorization", f"{self._auth.get('scheme') or 'Bearer'} {bearer.value}")

    def _fetched(self) -> Token:
        """One fetch; after one that failed, the same failure for a while."""
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._again(self._failed[1])
        try:
            got = self._rotation.exchanged(self._exchanged) if self._rotation else self._exchanged()
        except (CredentialsRefused, TokenEndpointAway) as error:
            wait = error.retry_after if isinstance(error, TokenEndpointAway) else None
            pause = min(wait or self._pauses[type(error)], LONGEST_PAUSE)
            self._failed = (time.monotonic() + pause, error)
            raise
        self._failed = None
        now = round(time.time(), 3)
        bearer = Bearer(value=got.access_token, base_url=got.base_url, fetched=now, ends=now + got.expires_in)
        return Token(value=_packed(bearer), expires_in=got.expires_in)

    def _exchanged(self, refresh_token: str | None = None) -> Granted:
        request = token_request(self._auth, refresh_token)
        try:
            answer = self._sender.send(request)
        except NoAnswer as silence:  # also a lost answer: the target itself has not been asked
            raise TokenEndpointAway(f"the token endpoint: {silence.reason}") from None
        except TargetError as error:
            raise CredentialsRefused(f"auth.token_url: {error}") from None
        return granted(answer, self._auth)

    @staticmethod
    def _again(error: CredentialsRefused | TokenEndpointAway) -> CredentialsRefused | TokenEndpointAway:
        return type(error)(error.reason)


def _packed(bearer: Bearer) -> str:
    packed = {"token": bearer.value, "base": bearer.base_url, "at": bearer.fetched, "ends": bearer.ends}
    return canonical_json(packed).decode()
