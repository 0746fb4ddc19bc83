"""A toy platform with as many papers as wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import count

from bridge.core.events import Json
from bridge.core.signing import sign as signature
from bridge.core.simulation import ApiCall, ApiReply, Call, SendingRule, SignedCall

RULE = SendingRule(success=range(200, 300), timeout=5.0, retries=(1.0, 2.0, 4.0))
KINDS = ("hand-in", "take-back")


class Toy:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def day(self) -> Iterator[Call]:
        for number in count(1):
            yield self._call(KINDS[number % 5 == 0], number)

    def sample(self, kind: str) -> Call:
        if kind not in KINDS:
            raise KeyError(kind)
        return self._call(kind, 1)

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        body = json.dumps(call.body).encode()
        return SignedCall(
            headers={"Content-Type": "application/json", "X-Toy-Signature": signature(secret, body)}, body=body
        )

    def answer(self, call: ApiCall) -> ApiReply:
        if call.path == "/login":
            return ApiReply(json={"access_token": f"{call.form['grant_type']}-1", "expires_in": 3600})
        if call.method == "POST":
            return ApiReply(json={"form": dict(call.form), "json": call.json, "agent": call.headers.get("user-agent")})
        if call.path.endswith("/author"):
            return ApiReply(json={"givenName": "Ada"})
        if call.path.endswith("/receipt"):
            return ApiReply(json={"at": "2026-06-05T09:29:58Z"})
        if call.path.startswith("/papers/p-"):
            return ApiReply(json={"email": "ada@example.test", "query": dict(call.query)})
        return ApiReply(status=404, text="<h1>Not here</h1>", headers={"X-Toy": "yes"})

    def _call(self, kind: str, number: int) -> Call:
        return Call(kind=kind, body={"kind": kind, "id": self.seed * 1_000_000 + number, "paper": f"p-{number}"})


def platform(seed: int = 1, people: int = 200) -> Toy:
    return Toy(seed)


def settings(secret: str, api_url: str) -> Json:
    return {"connector": "toy", "secrets": [secret], "api": {"base_url": api_url}}
