"""What a simulated system's API sees of an HTTP request, and its answer as HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from bridge.core.simulation import ApiCall, ApiReply
from bridge.testing.answering import Asked, Reply

JSON: Final = {"Content-Type": "application/json"}
_TEXT: Final = {"Content-Type": "text/html; charset=utf-8"}
_FORM: Final = "application/x-www-form-urlencoded"


def api_call(asked: Asked) -> ApiCall:
    """The request with its form or its JSON decoded; both are empty where the body is neither."""
    target = urlsplit(asked.target)
    kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = dict(parse_qsl(asked.body.decode("utf-8", "replace"), keep_blank_values=True)) if kind == _FORM else {}
    return ApiCall(
        method=asked.method,
        path=unquote(target.path),
        query=dict(parse_qsl(target.query, keep_blank_values=True)),
        headers=asked.headers,
        form=form,
        json=None if kind == _FORM else _document(asked.body),
        body=asked.body,
    )


def http_reply(reply: ApiReply) -> Reply:
    """`text` as HTML unless its headers say otherwise, else `json`; a 204 has no body."""
    if reply.status == 204:
        return Reply(reply.status, headers=reply.headers)
    if reply.text is not None:
        return Reply(reply.status, reply.text.encode(), _headers(_TEXT, reply))
    return Reply(reply.status, json.dumps(reply.json).encode(), _headers(JSON, reply))


def _headers(usual: Mapping[str, str], reply: ApiReply) -> Mapping[str, str]:
    typed = any(name.lower() == "content-type" for name in reply.headers)
    return reply.headers if typed else {**usual, **reply.headers}


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
