"""Puts a target's credentials on a request: the kinds that need no conversation first."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from bridge.core.errors import TargetError
from bridge.core.signing import sign
from bridge.core.target import Request


def authorised(request: Request, options: Mapping[str, Any]) -> Request:
    """The request with what `options["auth"]` asks for; as it is when there is none. Raises TargetError.

        {kind: none}
        {kind: basic, username: …, password: …}
        {kind: bearer, token: …, scheme: Bearer}    Zoho, for one, has a scheme word of its own
        {kind: header, name: …, value: …}
        {kind: form, field: wstoken, token: …}      Moodle: a field of a form body
        {kind: hmac, secret: …, header: …, algorithm: sha256, encoding: hex, prefix: ""}    over the body's bytes

    What a mapping put into the same header or field is replaced. Kinds that fetch tokens are in login.py.
    """
    auth: Mapping[str, Any] = options.get("auth") or {}
    try:
        match auth.get("kind", "none"):
            case "none":
                return request
            case "basic":
                return with_header(request, "Authorization", basic(auth["username"], auth["password"]))
            case "bearer":
                return with_header(request, "Authorization", f"{auth.get('scheme') or 'Bearer'} {auth['token']}")
            case "header":
                return with_header(request, auth["name"], auth["value"])
            case "form":
                return _with_field(request, auth["field"], auth["token"])
            case "hmac":
                made = sign(auth["secret"], request.body, auth.get("algorithm", "sha256"), auth.get("encoding", "hex"))
                return with_header(request, auth["header"], f"{auth.get('prefix', '')}{made}")
    except KeyError as missing:
        raise TargetError(f"auth.{missing.args[0]} is missing") from None
    raise TargetError("auth.kind: expected a kind that the connector offers")


def basic(name: str, password: str) -> str:
    """The value of an `Authorization` header, in UTF-8 (RFC 7617)."""
    return f"Basic {b64encode(f'{name}:{password}'.encode()).decode()}"


def with_header(request: Request, name: str, value: str) -> Request:
    """The request with this header instead of any of the same name."""
    kept = {key: entry for key, entry in request.headers.items() if key.lower() != name.lower()}
    return replace(request, headers={**kept, name: value})


def at_origin(request: Request, base_url: str) -> Request:
    """The same request to the host of another address. Raises TargetError where that would give up encryption."""
    was, base = urlsplit(request.url), urlsplit(base_url)
    if was.scheme == "https" and base.scheme != "https":
        raise TargetError("the token's answer names an address without TLS")
    return replace(request, url=urlunsplit((base.scheme, base.netloc, was.path, was.query, was.fragment)))


def _with_field(request: Request, field: str, token: str) -> Request:
    """A form body that ends with the token. In an address it would stand in everybody's logs."""
    kind = next((value for name, value in request.headers.items() if name.lower() == "content-type"), "")
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise TargetError("auth.kind form: expected a request with a form body")
    pairs = [pair for pair in request.body.split(b"&") if pair and _field_of(pair) != field]
    return replace(request, body=b"&".join([*pairs, urlencode({field: token}).encode()]))


def _field_of(pair: bytes) -> str:
    return unquote_plus(pair.partition(b"=")[0].decode("latin-1"))
