"""A simulated WISEflow: an exam day's webhooks, and an API that tells the same story."""

from __future__ import annotations

import base64
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge.core.contracts import ApiCall, ApiReply, Call, SendingRule, SignedCall
from bridge.core.events import Json
from bridge.core.signing import canonical_json, sign
from connectors.wiseflow.simulated_api import Api, Credentials
from connectors.wiseflow.simulated_world import LICENSE_ID, Flow, Paper, World

CREDENTIALS: Final = Credentials(
    client_id="simulated-client", client_secret="simulated-client-secret", api_key="simulated-api-key"
)

# "The webhook will call the external endpoint eight times with 15 minutes intervals" (help page); taken as the first
# call and seven more.
RULE: Final = SendingRule(success=range(200, 300), timeout=10.0, retries=(900.0,) * 7)

_ASSESSOR: Final = 990001
_MANAGER: Final = 990002

# How a day is made up, in parts of a hundred. Hand-ins are what remains.
_WEIGHTS: Final = (
    ("final.mark", 14.0),
    ("withdrawal", 4.0),
    ("correction", 2.0),
    ("flow.state", 1.5),
    ("alternative.grade", 1.5),
    ("grade.justification", 2.0),
    ("assignment.added", 1.0),
    ("revocation", 0.8),
    ("assessment", 0.8),
    ("flow.external.source", 0.6),
    ("flow.period", 0.4),
    ("webhook.test", 0.1),
)


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
    """One simulated licence. Safe to call from several threads."""

    def __init__(self, seed: int, people: int, dialect: Dialect) -> None:
        self.world = World(seed, people)
        self.api = Api(self.world, CREDENTIALS)
        self.dialect = dialect
        self._seed = seed
        self._sequence = 0

    @property
    def calls(self) -> Counter[str]:
        """How often the API was asked what, by method and path template."""
        return self.api.calls

    def answer(self, call: ApiCall) -> ApiReply:
        return self.api.answer(call)

    def day(self) -> Iterator[Call]:
        names = [name for name, _ in _WEIGHTS] + ["hand-in"]
        weights = [weight for _, weight in _WEIGHTS]
        weights.append(100 - sum(weights))
        while True:
            with self.world.lock:
                [happening] = self.world.random.choices(names, weights)
                call = self._happening(happening)
            yield call

    def sample(self, kind: str) -> Call:
        if kind not in _KINDS:
            raise KeyError(kind)
        with self.world.lock:
            return self._happening("hand-in" if kind == "paper.submission" else kind)

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

    def _happening(self, name: str) -> Call:
        """Let something happen in the world and tell of it; what cannot happen yet makes room for a hand-in."""
        return _HAPPENINGS[name](self) or self._hand_in()

    def _call(self, kind: str, action: str, payload: Json) -> Call:
        self._sequence += 1
        body = {
            "action": action,
            "event": kind,
            "licenseId": LICENSE_ID,
            "eventVersion": "1.0",
            "eventPayload": payload,
            "sequenceNumber": self._sequence,
        }
        return Call(kind=kind, body=body)

    def _paper_call(self, kind: str, action: str, flow: Flow, paper: Paper, more: Json) -> Call:
        participant, user = paper.participants[0]
        payload = {"submissionId": paper.id, "flowId": flow.id, "userId": user.id, "participantId": participant}
        return self._call(kind, action, payload | more)

    def _hand_in(self) -> Call:
        flow, paper = self._fresh()
        paper.handed_in_at = self.world.now()
        return self._paper_call("paper.submission", "created", flow, paper, {"isHandedIn": True})

    def _withdrawal(self) -> Call | None:
        found = self._pick(lambda paper: paper.handed_in_at is not None and not paper.marked)
        if found is None:
            return None
        found[1].handed_in_at = None
        return self._paper_call("paper.submission", "updated", *found, {"isHandedIn": False})

    def _mark(self) -> Call:
        flow, paper = self._pick(lambda paper: paper.handed_in_at is not None and not paper.marked) or self._fresh()
        paper.handed_in_at = paper.handed_in_at or self.world.now()
        self.world.mark(flow, paper)
        return self._paper_call("final.mark", "created", flow, paper, {})

    def _correction(self) -> Call | None:
        found = self._pick(lambda paper: paper.marked)
        if found is None:
            return None
        self.world.mark(*found, administrative=True)
        return self._paper_call("final.mark", "updated", *found, {})

    def _revocation(self) -> Call | None:
        found = self._pick(lambda paper: paper.marked)
        if found is None:
            return None
        self.world.revoke(found[1])
        return self._paper_call("final.mark", "deleted", *found, {})

    def _alternative(self) -> Call:
        flow, paper = self._pick(lambda paper: paper.alternative is not None) or self._fresh()
        if self.world.random.random() < 0.8:
            flow, paper = self._fresh()
        action = "updated" if paper.alternative else "created"
        paper.alternative = self.world.random.choice(("Sick", "Absent"))
        payload = {"flowId": flow.id, "participantId": paper.participants[0][0], "action": action}
        return self._call("alternative.grade", action, payload | {"updatedBy": _MANAGER, "asRole": "manager"})

    def _justification(self) -> Call:
        flow = self._flow()
        waiting = [number for number, (_, answered) in flow.explanations.items() if not answered]
        if waiting:
            number, action = waiting[0], "updated"
            participant = flow.explanations[number][0]
        else:
            number, action = flow.id % 100000 * 100 + len(flow.explanations), "created"
            participant = self.world.random.choice(flow.papers).participants[0][0]
        flow.explanations[number] = (participant, bool(waiting))
        ids = {"flowId": flow.id, "explanationRequestId": number, "participantId": participant, "assessorId": _ASSESSOR}
        return self._call("grade.justification", action, ids)

    def _assignment(self) -> Call:
        flow = self._flow()
        number = flow.id % 100000 * 100 + len(flow.assignments)
        flow.assignments.append(number)
        payload = {"assignmentId": number, "assignmentReference": f"A{number}", "flowId": flow.id}
        return self._call("assignment.added", "created", payload)

    def _state(self) -> Call:
        flow = self._flow()
        flow.state = min(flow.state + 1, 4)
        return self._call("flow.state", "updated", {"state": flow.state, "flowId": flow.id})

    def _external_source(self) -> Call:
        flow = self._flow()
        return self._call(
            "flow.external.source",
            "updated",
            {"flowId": flow.id, "externalSources": [{"id": 3, "reference": flow.code}]},
        )

    def _period(self) -> Call:
        return self._call("flow.period", "updated", {"flowId": self._flow().id, "periodId": 11})

    def _assessment(self) -> Call:
        flow = self._flow()
        paper = self.world.random.choice(flow.papers)
        return self._call("assessment", "created", {"flowId": flow.id, "participantId": paper.participants[0][0]})

    def _test(self) -> Call:
        return self._call("webhook.test", "created", {})

    def _fresh(self) -> tuple[Flow, Paper]:
        """A paper of the newest flow that is still to come in; the next flow opens when there is none."""
        flow = list(self.world.flows.values())[-1]
        waiting = [paper for paper in flow.papers if paper.handed_in_at is None and not paper.alternative]
        if not waiting:
            flow = self.world.open_flow()
            waiting = flow.papers
        return flow, self.world.random.choice(waiting)

    def _flow(self) -> Flow:
        return self.world.random.choice(list(self.world.flows.values())[-8:])

    def _pick(self, fits: Callable[[Paper], bool]) -> tuple[Flow, Paper] | None:
        """A paper that fits, of the newest flows only: a day is endless, a search is not."""
        flows = list(self.world.flows.values())[-8:]
        papers = [(flow, paper) for flow in flows for paper in flow.papers if fits(paper)]
        return self.world.random.choice(papers) if papers else None


_HAPPENINGS: Final[dict[str, Callable[[Platform], Call | None]]] = {
    "hand-in": Platform._hand_in,
    "withdrawal": Platform._withdrawal,
    "final.mark": Platform._mark,
    "correction": Platform._correction,
    "revocation": Platform._revocation,
    "alternative.grade": Platform._alternative,
    "grade.justification": Platform._justification,
    "assignment.added": Platform._assignment,
    "flow.state": Platform._state,
    "flow.external.source": Platform._external_source,
    "flow.period": Platform._period,
    "assessment": Platform._assessment,
    "webhook.test": Platform._test,
}
_KINDS: Final = {"paper.submission"} | (set(_HAPPENINGS) - {"hand-in", "withdrawal", "correction", "revocation"})


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
        "api": {"base_url": api_url, "client_id": CREDENTIALS.client_id, "client_secret": CREDENTIALS.client_secret},
    }


def _signature(mode: str, secret: str, body: bytes) -> str:
    _, signed, encoding = mode.split(":")
    if signed == "base64-body":
        body = base64.b64encode(body)
    elif signed == "canonical-json":
        body = canonical_json(json.loads(body))
    return sign(secret, body, "sha256", "hex" if encoding == "hex" else "base64")
