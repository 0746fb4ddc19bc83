"""A tool's registration at a simulated platform, and its token endpoint (imsglobal.org/spec/security/v1p0)."""

from __future__ import annotations

from functools import cache
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

CLIENT: Final = "10000000000001"
KEY_ID: Final = "bridge-1"
_AGS: Final = "https://purl.imsglobal.org/spec/lti-ags/scope/"
SCOPES: Final = {
    "items": f"{_AGS}lineitem",
    "scores": f"{_AGS}score",
    "results": f"{_AGS}result.readonly",
    "members": "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly",
}


@cache
def tool_key() -> RSAPrivateKey:
    """The tool's key, whose public half the platform has from its key set."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def login(token_url: str) -> Json:
    """`auth` as the tool's settings have it."""
    return {
        "kind": "oauth2_client_assertion",
        "token_url": token_url,
        "client_id": CLIENT,
        "private_key": tool_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "key_id": KEY_ID,
    }


class Registration:
    """`audience` is what an assertion's `aud` must be if not the token URL, `granted` the scopes that the tool has."""

    def __init__(self) -> None:
        self.audience: str | None = None
        self.granted = set(SCOPES.values())
        self._tokens: dict[str, set[str]] = {}
        self._assertions: set[str] = set()

    def token(self, call: ApiCall) -> ApiReply:
        """A token for an assertion: signed with the tool's key, for this endpoint, short-lived, never seen before."""
        if call.form.get("grant_type") != "client_credentials" or not self._proven(call):
            return ApiReply(status=400, json={"error": "invalid_client"})
        scopes = set(call.form.get("scope", "").split()) & self.granted
        if not scopes:
            return ApiReply(status=400, json={"error": "invalid_scope"})
        token = f"token-{len(self._tokens) + 1}"
        self._tokens[token] = scopes
        granted = " ".join(sorted(scopes))
        return ApiReply(json={"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": granted})

    def allows(self, call: ApiCall, what: str) -> bool:
        """Whether a call's token is good for this."""
        return SCOPES[what] in self._tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "), ())

    def _proven(self, call: ApiCall) -> bool:
        try:
            assertion = call.form["client_assertion"]
            known = jwt.get_unverified_header(assertion).get("kid") == KEY_ID
            claims = jwt.decode(
                assertion,
                tool_key().public_key(),
                algorithms=["RS256"],
                audience=self.audience or f"http://{call.headers['host']}{call.path}",
                options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
            )
        except (jwt.PyJWTError, KeyError):
            return False
        fresh = claims["jti"] not in self._assertions
        self._assertions.add(claims["jti"])
        return bool(
            known and fresh and claims["iss"] == claims["sub"] == CLIENT and claims["exp"] - claims["iat"] <= 300
        )
