"""Brightspace's authorisation server: refresh tokens that are good once, service users' assertions, scopes.

docs.valence.desire2learn.com, basic/oauth2.html and the scopes table; community.d2l.com, article 1196. What happens
when an old refresh token comes again is not documented; here the whole family is revoked, as RFC 9700 section 4.14.2
asks.
"""

from __future__ import annotations

import base64
import re
from functools import cache
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

CLIENT: Final = ("client-1", "client-secret")
AUTHORISED: Final = "refresh-0"
SERVICE_USER: Final = "service-user-1"
AUDIENCE: Final = "https://api.brightspace.com/auth/token"
KEY_ID: Final = "bridge-1"
_SCOPES: Final = (
    ("GET", r"lp/users/", "users:userdata:read"),
    ("GET", r"lp/orgstructure/", "organizations:organization:read"),
    ("POST", r"lp/enrollments/", "enrollment:orgunit:create"),
    ("DELETE", r"lp/enrollments/.*", "enrollment:orgunit:delete"),
    ("GET", r"le/\d+/grades/\d*", "grades:gradeobjects:read"),
    ("POST", r"le/\d+/grades/", "grades:gradeobjects:write"),
    ("GET", r"le/\d+/grades/\d+/values/\d+", "grades:gradevalues:read"),
    ("PUT", r"le/\d+/grades/\d+/values/\d+", "grades:gradevalues:write"),
)


@cache
def service_key() -> RSAPrivateKey:
    """The service user's key, whose public half the site has from its key set."""
    return generate_private_key(public_exponent=65537, key_size=2048)


def application(token_url: str) -> Json:
    """`auth` of an application that has been authorised once."""
    return {
        "kind": "oauth2_refresh_token",
        "token_url": token_url,
        "client_id": CLIENT[0],
        "client_secret": CLIENT[1],
        "refresh_token": AUTHORISED,
    }


def service_user(token_url: str) -> Json:
    """`auth` of a service user."""
    return {
        "kind": "oauth2_client_assertion",
        "token_url": token_url,
        "client_id": SERVICE_USER,
        "private_key": service_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "key_id": KEY_ID,
    }


def scope_for(method: str, path: str) -> str | None:
    """The scope that a call needs, as in GET lp/users/."""
    found = [scope for known, pattern, scope in _SCOPES if known == method and re.fullmatch(pattern, path)]
    return found[0] if found else None


class Logins:
    """The tokens that were given."""

    def __init__(self) -> None:
        self._refresh: str | None = AUTHORISED
        self._refreshed = 0
        self._tokens: dict[str, set[str | None]] = {}
        self._assertions: set[str] = set()

    def scopes_of(self, call: ApiCall) -> set[str | None] | None:
        """What a call's token is good for; None where it is none."""
        return self._tokens.get(call.headers.get("authorization", "").removeprefix("Bearer "))

    def token(self, call: ApiCall) -> ApiReply:
        """A token for a refresh token or for an assertion."""
        if call.form.get("grant_type") == "client_credentials":
            if not self._asserted(call):
                return ApiReply(status=400, json={"error": "invalid_client"})
            return ApiReply(json=self._granted(call))
        known = "Basic " + base64.b64encode(":".join(CLIENT).encode()).decode()
        if call.headers.get("authorization") != known:
            return ApiReply(status=400, json={"error": "invalid_client"})
        if self._refresh is None or call.form.get("refresh_token") != self._refresh:
            self._refresh = None
            self._tokens.clear()
            return ApiReply(status=400, json={"error": "invalid_grant"})
        self._refreshed += 1
        self._refresh = f"refresh-{self._refreshed}"
        return ApiReply(json={**self._granted(call), "refresh_token": self._refresh})

    def _granted(self, call: ApiCall) -> Json:
        token = f"token-{len(self._tokens) + 1}-{self._refreshed}"
        self._tokens[token] = set(call.form.get("scope", "").split())
        return {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    def _asserted(self, call: ApiCall) -> bool:
        try:
            assertion = call.form["client_assertion"]
            known = jwt.get_unverified_header(assertion).get("kid") == KEY_ID
            claims = jwt.decode(
                assertion,
                service_key().public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
        except (jwt.PyJWTError, KeyError):
            return False
        fresh = claims["jti"] not in self._assertions
        self._assertions.add(claims["jti"])
        return bool(known and fresh and claims["iss"] == claims["sub"] == SERVICE_USER)
