"""The kinds of authentication that a target may offer, as JSON Schema: the one place that says what each takes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

_URL: Final[Schema] = {
    "description": "The address of the token endpoint",
    "type": "string",
    "pattern": "^https?://[^@\\s#]+$",
}
_ID: Final[Schema] = {"description": "The client's id", "type": "string", "minLength": 1}
_PASSWORD: Final[Schema] = {"type": "string", "minLength": 1, "secret": True}
_SECRET: Final[Schema] = {"description": "The client's secret", **_PASSWORD}
_KEY: Final[Schema] = {"description": "The private key as PEM, without a passphrase", **_PASSWORD}
_SCOPE: Final[Schema] = {"description": "What is asked for, separated by blanks", "type": "string", "minLength": 1}
_SCHEME: Final[Schema] = {
    "description": "The word in front of the token",
    "type": "string",
    "pattern": "^[A-Za-z0-9-]+$",
    "default": "Bearer",
}
_NAME: Final[Schema] = {"description": "The header's name", "type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
_SEND: Final[Schema] = {
    "description": "How the client says who it is: in the body, or as HTTP Basic",
    "enum": ["body", "basic"],
    "default": "body",
}

_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
_ALGORITHM: Final[Schema] = {"description": "How it is signed", "enum": _ALGORITHMS, "default": "RS256"}
_TOKENS: Final[Schema] = {
    "scheme": _SCHEME,
    "form": {
        "description": "Further form fields for the token endpoint, such as audience or resource",
        "type": "object",
        "additionalProperties": {"type": "string"},
    },
    "token_seconds": {
        "description": "How long a token lives when its answer does not say",
        "type": "number",
        "minimum": 60,
        "default": 900,
    },
    "use_instance_url": {
        "description": "Send to the host that the token's answer names as instance_url or api_domain",
        "type": "boolean",
        "default": False,
    },
}
"""What everything that fetches tokens takes besides."""

KINDS: Final[Mapping[str, tuple[tuple[str, ...], Schema]]] = {
    "none": ((), {}),
    "basic": (
        ("username", "password"),
        {
            "username": {"description": "The account's name", "type": "string"},
            "password": {"description": "Its password", "type": "string", "secret": True},
        },
    ),
    "bearer": (("token",), {"token": {"description": "The token", **_PASSWORD}, "scheme": _SCHEME}),
    "header": (("name", "value"), {"name": _NAME, "value": {"description": "The header's value", **_PASSWORD}}),
    "form": (
        ("field", "token"),
        {
            "field": {"description": "The form field that takes the token", "type": "string", "minLength": 1},
            "token": {"description": "The token", **_PASSWORD},
        },
    ),
    "hmac": (
        ("secret", "header"),
        {
            "secret": {"description": "The secret shared with the receiver", **_PASSWORD},
            "header": {**_NAME, "description": "The header that takes the signature of the body"},
            "algorithm": {"description": "The hash", "enum": ["sha1", "sha256", "sha512"], "default": "sha256"},
            "encoding": {"description": "How it is written", "enum": ["hex", "base64"], "default": "hex"},
            "prefix": {"description": "What stands in front of it, as in sha256=", "type": "string", "default": ""},
        },
    ),
    "oauth2_client_credentials": (
        ("token_url", "client_id", "client_secret"),
        {
            "token_url": _URL,
            "client_id": _ID,
            "client_secret": _SECRET,
            "scope": _SCOPE,
            "send": _SEND,
            **_TOKENS,
        },
    ),
    "oauth2_client_assertion": (
        ("token_url", "client_id", "private_key"),
        {
            "token_url": _URL,
            "client_id": _ID,
            "private_key": _KEY,
            "key_id": {"description": "The key's id in the key set that was registered", "type": "string"},
            "algorithm": _ALGORITHM,
            "audience": {"description": "The assertion's aud; by default token_url", "type": "string", "minLength": 1},
            "assertion_seconds": {
                "description": "How long an assertion is good",
                "type": "integer",
                "minimum": 10,
                "maximum": 300,
                "default": 240,
            },
            "scope": _SCOPE,
            **_TOKENS,
        },
    ),
    "oauth2_jwt_bearer": (
        ("token_url", "issuer", "subject", "audience", "private_key"),
        {
            "token_url": _URL,
            "issuer": {"description": "The assertion's iss: the client's id", "type": "string", "minLength": 1},
            "subject": {"description": "The assertion's sub: the user to act as", "type": "string", "minLength": 1},
            "audience": {"description": "The assertion's aud", "type": "string", "minLength": 1},
            "private_key": _KEY,
            "key_id": {"description": "The key's id, where the platform wants one", "type": "string"},
            "algorithm": _ALGORITHM,
            "assertion_seconds": {
                "description": "How long an assertion is good",
                "type": "integer",
                "minimum": 10,
                "maximum": 180,
                "default": 120,
            },
            "scope": _SCOPE,
            **_TOKENS,
        },
    ),
    "oauth2_refresh_token": (
        ("token_url", "client_id", "refresh_token"),
        {
            "token_url": _URL,
            "client_id": _ID,
            "client_secret": _SECRET,
            "refresh_token": {"description": "The refresh token that the authorisation gave", **_PASSWORD},
            "rotating": {
                "description": "Whether each answer carries the next refresh token; the bridge then keeps it",
                "type": "boolean",
                "default": False,
            },
            "scope": _SCOPE,
            "send": _SEND,
            **_TOKENS,
        },
    ),
}
"""Each kind's required keys, and all its keys besides `kind`."""


def presets(offered: Iterable[str | Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A manifest's `auth` in its long form: each a `kind`, and what is set of it."""
    return [{"kind": entry} if isinstance(entry, str) else entry for entry in offered]


def auth_schema(offered: Iterable[str | Mapping[str, Any]]) -> Schema:
    """The schema of a target's option `auth` from a manifest's `auth`: names of kinds, or a kind with its settings.

    What a manifest sets, `{kind: form, field: wstoken}`, is the default of that key and need not be given any more.
    """
    branches = [_branch(preset) for preset in presets(offered)]
    return {
        "description": f"How to log in: {', '.join(_words(branch) for branch in branches)}",
        "secret": True,
        "oneOf": branches,
    }


def preset_schema(kind: str) -> Schema:
    """What a manifest may set of a kind: any of its keys."""
    _, known = KINDS[kind]
    properties = {"kind": {"const": kind}, **copy.deepcopy(known)}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _branch(preset: Mapping[str, Any]) -> Schema:
    required, _ = KINDS[preset["kind"]]
    schema = preset_schema(preset["kind"])
    for key, value in preset.items():
        if key != "kind":
            schema["properties"][key]["default"] = value
    return {**schema, "required": ["kind", *(key for key in required if key not in preset)]}


def _words(branch: Schema) -> str:
    """`basic (username, password)`."""
    keys = ", ".join(branch["required"][1:])
    kind = branch["properties"]["kind"]["const"]
    return f"{kind} ({keys})" if keys else str(kind)
