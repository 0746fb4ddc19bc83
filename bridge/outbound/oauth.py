"""Token endpoints as RFC 6749, 7521 and 7523 have them: what is asked, and what an answer means. No network in here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bridge.core.errors import CredentialsRefused, PayloadError
from bridge.core.payload import Payload
from bridge.core.target import Answer, Request
from bridge.flow.judge import NotSent, wait_asked_for
from bridge.outbound.auth import basic

DEFAULT_TOKEN_SECONDS: Final = 900.0
"""For answers without expires_in: Salesforce's has none, and its sessions live from 15 minutes up."""

_ZOHO_THROTTLE: Final = "Access Denied"
"""Zoho's word, with 400, for too many requests: "You have made too many requests continuously. Please try again after
some time." Seen in several clients, which wait 1 to 15 minutes; undocumented."""

_ZOHO_PAUSE: Final = 300.0
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_GRANTS: Final = {
    "oauth2_client_credentials": "client_credentials",
    "oauth2_client_assertion": "client_credentials",
    "oauth2_jwt_bearer": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "oauth2_refresh_token": "refresh_token",
}

# RFC 6749 section 5.2, and what Zoho and Salesforce say instead. Any other word may be anything, a secret even.
_TO_CHECK: Final = {
    "invalid_request": "check scope, audience and form",
    "invalid_client": "check client_id and client_secret, or private_key and key_id",
    "invalid_client_id": "check client_id",
    "invalid_grant": "",  # what it means hangs on the grant
    "invalid_code": "check that the refresh token is still good",
    "unauthorized_client": "check that the platform lets this client use this kind of login",
    "unsupported_grant_type": "check that the platform lets this client use this kind of login",
    "invalid_scope": "check scope",
    "invalid_target": "check form.resource",
}
_BY_KIND: Final = {
    "oauth2_client_credentials": "check client_id and client_secret, and that the client is approved",
    "oauth2_client_assertion": "check client_id, private_key, key_id and audience",
    "oauth2_jwt_bearer": "check issuer, subject, audience and private_key, and that the user approved the client",
    "oauth2_refresh_token": "check refresh_token, client_id and client_secret, and rotating where each is good once",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a token endpoint gave: `expires_in` in seconds, the next refresh token, and where the API is."""

    access_token: str = field(repr=False)
    expires_in: float
    refresh_token: str | None = field(default=None, repr=False)
    base_url: str | None = None


class TokenEndpointAway(NotSent):
    """No token just now; the target has not been asked."""


def fetches_tokens(auth: Mapping[str, Any]) -> bool:
    """Whether this kind of `auth` needs a token endpoint."""
    return auth.get("kind") in _GRANTS


def token_request(auth: Mapping[str, Any], refresh_token: str | None = None) -> Request:
    """The form POST for a token. Raises CredentialsRefused for a key that cannot sign, and KeyError."""
    kind = auth["kind"]
    form = {"grant_type": _GRANTS[kind]}
    headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
    if kind == "oauth2_client_assertion":
        form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": _client_assertion(auth)}
    elif kind == "oauth2_jwt_bearer":
        form["assertion"] = _user_assertion(auth)
    else:
        if kind == "oauth2_refresh_token":
            form["refresh_token"] = refresh_token or auth["refresh_token"]
        secret = auth.get("client_secret")
        if auth.get("send") == "basic":
            # As it is: RFC 6749 wants both percent-encoded first, which hardly any platform undoes.
            headers["Authorization"] = basic(auth["client_id"], secret or "")
        else:
            form["client_id"] = auth["client_id"]
            form |= {"client_secret": secret} if secret else {}
    if auth.get("scope"):
        form["scope"] = auth["scope"]
    further = {name: value for name, value in (auth.get("form") or {}).items() if name not in form}
    return Request(method="POST", url=auth["token_url"], headers=headers, body=urlencode({**form, **further}).encode())


def granted(answer: Answer, auth: Mapping[str, Any]) -> Granted:
    """The token of an answer. Raises CredentialsRefused and TokenEndpointAway, neither of them with a value in it."""
    if answer.status in (408, 425, 429) or answer.status >= 500:
        wait = wait_asked_for(answer, datetime.now(UTC))
        raise TokenEndpointAway(f"the token endpoint answered {answer.status}", wait)
    try:
        document: Payload | None = Payload.parse(answer.body)
    except PayloadError:
        document = None
    word = "" if document is None else _text(document, "error")
    if word == _ZOHO_THROTTLE and answer.status == 400:
        raise TokenEndpointAway("the token endpoint has had too many requests", _ZOHO_PAUSE)
    # Zoho refuses with 200 and {"error": "invalid_code"}: seen in clients, undocumented.
    if not 200 <= answer.status < 300 or word:
        raise CredentialsRefused(_refusal(answer.status, word, auth))
    token = "" if document is None else _text(document, "access_token")
    if document is None or not token or not (token.isascii() and token.isprintable()):
        raise TokenEndpointAway("the token endpoint's answer holds no token")
    return Granted(
        access_token=token,
        expires_in=_life(document, auth),
        refresh_token=_text(document, "refresh_token") or None,
        base_url=_base(_text(document, "instance_url") or _text(document, "api_domain")),
    )


def _refusal(status: int, word: str, auth: Mapping[str, Any]) -> str:
    if status in (404, 405, 410) or 300 <= status < 400:
        return f"the token endpoint answered {status}: check token_url (redirects are not followed)"
    named = f" {word}" if word in _TO_CHECK else ""
    return f"the token endpoint answered {status}{named}: {_TO_CHECK.get(word) or _BY_KIND[auth['kind']]}"


def _client_assertion(auth: Mapping[str, Any]) -> str:
    """RFC 7523 section 3: the client speaks for itself; LTI platforms want at most five minutes and a new jti."""
    now = int(time.time())
    claims = {
        "iss": auth["client_id"],
        "sub": auth["client_id"],
        "aud": auth.get("audience") or auth["token_url"],
        "iat": now,
        "exp": now + int(auth.get("assertion_seconds", 240)),
        "jti": str(uuid.uuid4()),
    }
    return _signed(claims, auth)


def _user_assertion(auth: Mapping[str, Any]) -> str:
    """Salesforce: exp in seconds, at most three minutes ahead (help.salesforce.com, remoteaccess_oauth_jwt_flow)."""
    claims = {
        "iss": auth["issuer"],
        "sub": auth["subject"],
        "aud": auth["audience"],
        "exp": int(time.time()) + int(auth.get("assertion_seconds", 120)),
    }
    return _signed(claims, auth)


def _signed(claims: Mapping[str, Any], auth: Mapping[str, Any]) -> str:
    algorithm = auth.get("algorithm", "RS256")
    headers = {"kid": auth["key_id"]} if auth.get("key_id") else None
    pem = auth["private_key"].replace("\\n", "\n")  # as one line is how environment files hold a PEM
    try:
        key = load_pem_private_key(pem.encode(), password=None)
        if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
            raise TypeError
        return jwt.encode(dict(claims), key, algorithm=algorithm, headers=headers)
    except (jwt.PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        # Their own messages may quote the key.
        expected = f"a PEM private key for {algorithm}, without a passphrase"
        raise CredentialsRefused(f"auth.private_key: expected {expected}") from None


def _text(document: Payload, name: str) -> str:
    try:
        return document.at(name).maybe_text() or ""
    except PayloadError:
        return ""


def _life(document: Payload, auth: Mapping[str, Any]) -> float:
    """Seconds; some platforms write the number as text, and 0 for one that does not end."""
    try:
        life = document.at("expires_in").maybe_integer()
    except PayloadError:
        life = None
    return float(life if life is not None and life > 0 else auth.get("token_seconds", DEFAULT_TOKEN_SECONDS))


def _base(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None
