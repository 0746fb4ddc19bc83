"""A simulated WISEflow: an exam day's webhooks, and an API that tells the same story."""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge.core.events import Json
from bridge.core.signing import canonical_json, sign
from bridge.core.simulation import ApiCall, ApiReply, Call, SendingRule, SignedCall
from connectors.wiseflow.simulated_api import Api, Credentials
from connectors.wiseflow.simulated_day import HAPPENINGS, WEIGHTS, Told, announcements, handed_in
from connectors.wiseflow.simulated_limits import Limits
from connectors.wiseflow.simulated_webhooks import Webhooks
from connectors.wiseflow.simulated_world import LICENSE_ID, World

CREDENTIALS: Final = Credentials(
    client_id="simulated-client", client_secret="simulated-client-secret", api_key="simulated-api-key"
)

# "The webhook will call the external endpoint eight times with 15 minutes intervals" (help page); taken as the first
# call and seven more.
RULE: Final = SendingRule(success=range(200, 300), timeout=10.0, retries=(900.0,) * 7)

# What samples of a kind tell of, one after the other and then again.
_SAMPLES: Final = {
    "paper.submission": ("hand-in",),
    "final.mark": ("mark", "revocation", "mark", "correction"),
    "grade.justification": ("justification",),
    "alternative.grade": ("alternative", "alternative taken back"),
    "assignment.added": ("assignment", "assignment changed", "assignment removed"),
    "flow.state": ("state",),
    "flow.external.source": ("external source",),
    "flow.period": ("period",),
    "assessment": ("assessment at once",),
    "webhook.test": ("test",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What is not documented about the wire, to send it either way."""

    header_prefix: str = ""
    signature_mode: str = "hmac-sha256:raw-body:base64"
    id_key: str = "id"
    milliseconds: bool = False
    nested_envelope: bool = False
    quoted_numbers: bool = False


class Platform:
    """One simulated licence. Safe to call from several threads.

    Whoever draws from `day` and sends nothing has let it all happen while nobody listened.
    """

    def __init__(self, seed: int, people: int, dialect: Dialect) -> None:
        self.world = World(seed, people)
        self.api = Api(self.world, CREDENTIALS)
        self.dialect = dialect
        self._seed = seed
        self._sequence = 0
        self._samples: Counter[str] = Counter()

    @property
    def calls(self) -> Counter[str]:
        """How often the API was asked what, by method and path template."""
        return self.api.calls

    @property
    def limits(self) -> Limits:
        """The API's limits: `on` refuses calls beyond them, `exceeded` counts those in any case."""
        return self.api.limits

    @property
    def webhooks(self) -> Webhooks:
        """What is subscribed to over the API."""
        return self.api.webhooks

    def answer(self, call: ApiCall) -> ApiReply:
        return self.api.answer(call)

    def day(self) -> Iterator[Call]:
        names = [name for name, _ in WEIGHTS] + ["hand-in"]
        weights = [weight for _, weight in WEIGHTS]
        weights.append(100 - sum(weights))
        while True:
            with self.world.lock:
                [happening] = self.world.random.choices(names, weights)
                calls = self._calls(self._happening(happening) + announcements(self.world))
            yield from calls

    def exam(self, hand_ins: int) -> Iterator[Call]:
        """One large exam: a flow of so many participants, all of whom hand in."""
        with self.world.lock:
            self.world.populate(hand_ins)
            flow = self.world.open_flow(hand_ins, groups=False)
        for paper in flow.papers:
            with self.world.lock:
                paper.handed_in_at = self.world.now()
                [call] = self._calls(handed_in(flow, paper))
            yield call

    def sample(self, kind: str) -> Call:
        """One call of a kind; the further ones of a kind that has them tell of changes and of things taken back."""
        variants = _SAMPLES[kind]
        with self.world.lock:
            happening = variants[self._samples[kind] % len(variants)]
            self._samples[kind] += 1
            return self._call(self._happening(happening)[0])

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """A new id for each attempt and the time of this one; sequence number and Trace-Id stay."""
        dialect = self.dialect
        name = f"{self._seed}|{call.body['sequenceNumber']}"
        called = int(now.timestamp() * (1000 if dialect.milliseconds else 1))
        call_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}|{attempt}|{now.isoformat()}"))
        fixed = {key: value for key, value in call.body.items() if key != "sequenceNumber"}
        dated = {"callTime": called, "sequenceNumber": call.body["sequenceNumber"]}
        document: Json = {dialect.id_key: call_id} | fixed | dated
        if dialect.quoted_numbers:
            numbers = ("licenseId", "callTime", "sequenceNumber")
            document |= {key: str(document[key]) for key in numbers}
        if dialect.nested_envelope:
            inner = {key: document.pop(key) for key in ("callTime", "sequenceNumber")}
            document["eventPayload"] = document["eventPayload"] | inner
        body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        named = {
            "Signature": _signature(dialect.signature_mode, secret, body),
            "Event-Type": str(call.body["event"]),
            "Event-Version": str(call.body["eventVersion"]),
            "Trace-Id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
            "Call-Time": str(called),
            "Delivery": str(called),
            "Hook-Id": "1",
        }
        headers = {"User-Agent": "WISEflow", "Content-Type": "application/json"}
        return SignedCall(
            headers=headers | {f"{dialect.header_prefix}{key}": value for key, value in named.items()}, body=body
        )

    def _happening(self, name: str) -> list[Told]:
        """Let something happen in the world and tell of it; what cannot happen yet makes room for a hand-in."""
        return HAPPENINGS[name](self.world) or HAPPENINGS["hand-in"](self.world)

    def _calls(self, told: list[Told]) -> list[Call]:
        return [self._call(entry) for entry in told]

    def _call(self, told: Told) -> Call:
        self._sequence += 1
        body = {
            "action": told.action,
            "event": told.kind,
            "licenseId": LICENSE_ID,
            "eventVersion": "1.0",
            "eventPayload": told.payload,
            "sequenceNumber": self._sequence,
        }
        return Call(kind=told.kind, body=body)


def platform(seed: int = 1, people: int = 200, dialect: Dialect | None = None) -> Platform:
    """A platform of its own, the same for the same seed."""
    return Platform(seed, people, dialect or Dialect())


def settings(secret: str, api_url: str) -> Json:
    """The source entry of bridge.yaml. The simulated API never lags behind its webhooks, so nothing has to settle."""
    return {
        "connector": "wiseflow",
        "secrets": [secret],
        "settle_seconds": 0,
        "passing_grades": {"7-trinsskala": ["02", "4", "7", "10", "12"]},
        "api": {
            "base_url": api_url,
            "client_id": CREDENTIALS.client_id,
            "client_secret": CREDENTIALS.client_secret,
            "license_id": str(LICENSE_ID),
        },
    }


def _signature(mode: str, secret: str, body: bytes) -> str:
    _, signed, encoding = mode.split(":")
    if signed == "base64-body":
        body = base64.b64encode(body)
    elif signed == "canonical-json":
        body = canonical_json(json.loads(body))
    return sign(secret, body, "sha256", "hex" if encoding == "hex" else "base64")
