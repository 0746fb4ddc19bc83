"""The token endpoint of a simulated org: client credentials and JWT bearer, as an external client app has them.

help.salesforce.com, "OAuth 2.0 Client Credentials Flow" and "OAuth 2.0 JWT Bearer Flow" (remoteaccess_oauth_jwt_flow).
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Final

import jwt

from bridge.core.simulation import ApiCall, ApiReply

PATH: Final = "/services/oauth2/token"

_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCES: Final = ("https://login.salesforce.com", "https://test.salesforce.com")
_FURTHEST: Final = 300
"""Seconds that an assertion's end may be ahead."""


class Sessions:
    """Tokens and how long they live. `certificate` is the app's public key (PEM), `user` whom it may act for."""

    def __init__(self, client: str, secret: str, user: str) -> None:
        self.user = user
        self.seconds = 7200.0
        self.certificate: str | None = None
        self.count = 0
        self._app = (client, secret)
        self._ends: dict[str, float] = {}

    def alive(self, authorization: str) -> bool:
        return self._ends.get(authorization, 0.0) > time.monotonic()

    def end(self) -> None:
        """Every token is as good as none."""
        self._ends.clear()

    def answer(self, call: ApiCall) -> ApiReply:
        error = self._error(call)
        if error is not None:
            return ApiReply(status=400, json={"error": error[0], "error_description": error[1]})
        self.count += 1
        token = f"00D!simulated{self.count}"
        self._ends[f"Bearer {token}"] = time.monotonic() + self.seconds
        host = f"http://{call.headers.get('host', 'localhost')}"
        # No expires_in: a session lives as long as the org's settings say.
        return ApiReply(
            json={
                "access_token": token,
                "signature": "c2lnbmF0dXJl",
                "token_format": "opaque",
                "instance_url": host,
                "id": f"{host}/id/00D000000000001AAA/005000000000001AAA",
                "token_type": "Bearer",
                "issued_at": str(int(time.time() * 1000)),
            }
        )

    def _error(self, call: ApiCall) -> tuple[str, str] | None:
        grant = call.form.get("grant_type")
        if grant == _JWT_BEARER:
            return self._assertion_error(call.form.get("assertion", ""))
        if grant != "client_credentials":
            return "unsupported_grant_type", "grant type not supported"
        return None if _client(call) == self._app else ("invalid_client", "invalid client credentials")

    def _assertion_error(self, assertion: str) -> tuple[str, str] | None:
        if self.certificate is None:
            return "invalid_client", "client identifier invalid"
        try:
            claims = jwt.decode(
                assertion,
                self.certificate,
                algorithms=["RS256"],
                audience=_AUDIENCES,
                issuer=self._app[0],
                options={"require": ["exp", "sub", "aud", "iss"]},
            )
        except jwt.PyJWTError:
            return "invalid_grant", "invalid assertion"
        if claims["exp"] > time.time() + _FURTHEST:
            return "invalid_grant", "expiration time is too far in the future"
        if claims["sub"] != self.user:
            return "invalid_grant", "user hasn't approved this consumer"
        return None


def _client(call: ApiCall) -> tuple[str, str]:
    """Who asks for a token, from the form or from HTTP Basic."""
    kind, _, encoded = call.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return call.form.get("client_id", ""), call.form.get("client_secret", "")
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return name, secret
