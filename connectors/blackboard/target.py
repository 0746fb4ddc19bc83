"""Blackboard Learn: what data cannot say, which is how an account is made or brought up to date.

- An account is asked for by its external id first: POST answers 409 for a known one and does not say which value it
  was that is known.
- A new account wants a password. Nobody is told the one that it gets here, and it cannot be guessed without the
  application's secret; people come in by single sign-on or set their own.
- PATCH changes what it names and nothing else, so what a mapping leaves out is left out.

docs.anthology.com/docs/blackboard/rest-apis; github.com/blackboard/blackboard.github.io, rest-apis/learn/examples.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Ask, Conversation, Message, Outcome, Request, Verdict

_SEEN: Final = ({"status": 404, "as": "ok"},)
_KNOWN: Final = ({"status": 409, "as": "ok"},)
_TAKEN: Final = "the user name is another account's, or the account's external id is not this one"


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """`upsert_user`; the manifest says all the rest. Raises TargetError."""
    [message] = messages
    external_id = message.params["external_id"]
    if external_id in (".", ".."):
        raise TargetError("external_id: expected something that can stand in an address")
    users = f"{settings.options['base_url']}/learn/api/public/v1/users"
    account = f"{users}/externalId:{quote(external_id, safe='')}"
    found = yield Ask(request=Request(method="GET", url=account), answers=_SEEN, harmless=True)
    if found.status == 404:
        new = yield Ask(request=_request(message, "POST", users, _new(message.params, settings)), answers=_KNOWN)
        if new.status != 409:
            return [None]
        found = yield Ask(request=Request(method="GET", url=account), answers=_SEEN, harmless=True)
        if found.status == 404:
            return [Outcome(verdict=Verdict.PERMANENT, reason=_TAKEN)]
    yield Ask(request=_request(message, "PATCH", account, _about(message.params)))
    return [None]


def _about(params: Json) -> Json:
    about: Json = {"name": {"given": params["given_name"], "family": params["family_name"]}}
    if params.get("email"):
        about["contact"] = {"email": params["email"]}
    if params.get("student_id"):
        about["studentId"] = params["student_id"]
    if params.get("available") is not None:
        about["availability"] = {"available": "Yes" if params["available"] else "No"}
    return about


def _new(params: Json, settings: Settings) -> Json:
    account = {"externalId": params["external_id"], "userName": params["user_name"]}
    return {**account, "password": _password(params["external_id"], settings), **_about(params)}


def _password(external_id: str, settings: Settings) -> str:
    """The same on every attempt, so that the request is."""
    auth: Any = settings.options.get("auth") or {}
    secret = auth.get("client_secret")
    if not secret:
        raise TargetError("auth.client_secret: expected one, for a password that nobody can guess")
    made = hmac.digest(secret.encode(), f"password of {external_id}".encode(), "sha256")
    return f"{base64.urlsafe_b64encode(made).decode().rstrip('=')}Aa1!"


def _request(message: Message, method: str, url: str, document: Json) -> Request:
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"{message.key}-{method.lower()}"}
    return Request(method=method, url=url, headers=headers, body=body)
