"""Puts a target's credentials on a request: the kinds that need no conversation first."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge.core.contracts import Request
from bridge.core.errors import TargetError


def authorised(request: Request, options: Mapping[str, Any]) -> Request:
    """The request with what `options["auth"]` asks for; as it is when there is none. Raises TargetError.

        {kind: none}
        {kind: basic, username: …, password: …}
        {kind: bearer, token: …, scheme: Bearer}    Zoho, for one, has a scheme word of its own
        {kind: header, name: …, value: …}

    What a mapping put into the same header is replaced.
    """
    auth: Mapping[str, Any] = options.get("auth") or {}
    try:
        match auth.get("kind", "none"):
            case "none":
                return request
            case "basic":
                pair = f"{auth['username']}:{auth['password']}".encode()
                return _with(request, "Authorization", f"Basic {b64encode(pair).decode()}")
            case "bearer":
                return _with(request, "Authorization", f"{auth.get('scheme') or 'Bearer'} {auth['token']}")
            case "header":
                return _with(request, auth["name"], auth["value"])
    except KeyError as missing:
        raise TargetError(f"auth.{missing.args[0]} is missing") from None
    raise TargetError("auth.kind: expected none, basic, bearer or header")


def _with(request: Request, name: str, value: str) -> Request:
    kept = {key: entry for key, entry in request.headers.items() if key.lower() != name.lower()}
    return replace(request, headers={**kept, name: value})
