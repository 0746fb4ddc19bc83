"""A tenant of Inspera Assessment that does not exist: its tests, its candidates, its webhooks and its API.

Webhooks: https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482/Webhooks. Where the pages are silent (ids of
events, pauses between retries, error bodies, words of the export's status) this is one guess, not the platform's word.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from bridge.core.contracts import ApiCall, ApiReply, Call, SendingRule, SignedCall
from bridge.core.events import Json
from bridge.core.signing import sign as hmac_of
from connectors.inspera.simulated_world import (
    BODIES,
    DELIVERED,
    MARKETPLACE,
    START,
    UNKNOWN,
    Sitting,
    make_tests,
    make_users,
    result_document,
    sitting_document,
    timestamp,
)

# Exactly 200 within 10 seconds, and three retries: documented. The pauses are not; these are a proposal.
RULE: Final = SendingRule(success=range(200, 201), timeout=10, retries=(60, 300, 900))

CLIENT_ID: Final = "campus"
API_KEY: Final = "simulated-inspera-key"


@dataclass(slots=True, kw_only=True)
class _Job:
    """An export that was ordered; it is made while it is asked for."""

    id: str
    run: int
    user: int | None
    asked: int = 0
    failed: bool = False


@dataclass(slots=True)
class InsperaPlatform:
    """The simulated tenant. `pending` is how often an export is "not yet"; `conflicts` and `failing` are how many of
    the next token calls answer 409 and of the next exports fail; `token_life` is what `expires_in` says."""

    seed: int
    people: int
    pending: int = 1
    conflicts: int = 0
    failing: int = 0
    token_life: int = 3600
    calls: Counter[str] = field(default_factory=Counter)
    users: dict[int, Json] = field(default_factory=dict)
    tests: dict[int, Sitting] = field(default_factory=dict)
    _tokens: set[str] = field(default_factory=set)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _subscriptions: dict[int, Json] = field(default_factory=dict)
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.users = make_users(self.seed, self.people)
        self.tests = make_tests(self.seed, self.users)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def day(self) -> Iterator[Call]:
        """Sitting after sitting: papers come in between other work, are exported, and at last their grades stand.

        Every call has a time of its own, in whole seconds of the simulated day, so no two are alike.
        """
        chance = random.Random(f"inspera {self.seed} day")
        moment = START
        often = ("revision_status_updated", "resource_export_completed", "content.changed", "user.updated")
        rare = ("qti_export_ready", "user.created", "user.deleted", "test.date_changed", "verification")
        rarest = ("test.score_display_mode_changed", "configuration.changed")
        while True:
            for test in self.tests.values():
                papers = [user for user in test.candidates if user in test.grades]
                chance.shuffle(papers)
                for user in papers:
                    kinds = [DELIVERED]
                    for share, more in ((0.15, often), (0.04, rare), (0.01, rarest)):
                        if chance.random() < share:
                            kinds.append(chance.choice(more))
                    for kind in kinds:
                        moment += timedelta(seconds=chance.randint(1, 40))
                        yield self._call(kind, chance, moment, test, user)
                for kind in ("submissions_export_finished", "event_by_candidates_export_finished"):
                    moment += timedelta(seconds=chance.randint(60, 600))
                    yield self._call(kind, chance, moment, test, papers[0])
                moment += timedelta(seconds=chance.randint(600, 3600))
                yield self._call("confirm_final_grades", chance, moment, test, papers[0])

    def sample(self, kind: str) -> Call:
        """One call of a kind, each with a time of its own; one is UNKNOWN, which no rule knows."""
        with self._lock:
            self._made += 1
            made = self._made
        chance = random.Random(f"inspera {self.seed} sample {made}")
        test = chance.choice(list(self.tests.values()))
        user = chance.choice(sorted(test.grades))
        return self._call(kind, chance, START - timedelta(seconds=made), test, user)

    def _call(self, kind: str, chance: random.Random, moment: datetime, test: Sitting, user: int) -> Call:
        event, made = BODIES[kind]
        tenant = {} if kind == "verification" else {"marketplaceId": MARKETPLACE}
        body = {"event": event} | tenant | made(chance, test, user) | {"timestamp": timestamp(moment)}
        return Call(kind=kind, body=body)

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """Every attempt is alike: the body's time is that of the event, and no header counts the calls."""
        body = json.dumps(call.body, separators=(",", ":"), ensure_ascii=False).encode()
        signature = hmac_of(secret, body, "sha1", "hex")
        return SignedCall(headers={"Content-Type": "application/json", "X-Inspera-Signature": signature}, body=body)

    # --- the API ------------------------------------------------------------------------------------------------------

    def forget_tokens(self) -> None:
        """As if an hour had passed: every token is refused from now on."""
        with self._lock:
            self._tokens.clear()

    def answer(self, call: ApiCall) -> ApiReply:
        """The API, its paths with or without `/api` in front, and the storage where exports are fetched."""
        address = urlsplit(call.path)
        path, query = address.path.removeprefix("/api"), dict(parse_qsl(address.query)) | dict(call.query)
        steps = tuple(step for step in path.split("/") if step)
        with self._lock:
            if steps[:1] == ("storage",):
                self.calls["GET {signedResponseUrl}"] += 1
                return self._download(steps, query, call)
            if steps[:2] == ("authenticate", "token"):
                self.calls["POST /authenticate/token/"] += 1
                return self._token(call, query)
            if call.headers.get("authorization", "").removeprefix("Bearer ") not in self._tokens:
                return ApiReply(status=401, json={"error": "invalid_token"})
            return self._data(call, steps)

    def _data(self, call: ApiCall, steps: tuple[str, ...]) -> ApiReply:
        match (call.method, *steps):
            case ("GET", "v1", "test", number):
                self.calls["GET /v1/test/{testId}"] += 1
                test = self.tests.get(_number(number))
                return _found(sitting_document(test) if test else None)
            case ("GET", "v1", "users", number):
                self.calls["GET /v1/users/{userId}"] += 1
                return _found(self.users.get(_number(number)))
            case ("GET", "v1", "candidates", "allResults", run, user):
                self.calls["GET /v1/candidates/allResults/{testId}/{userId}"] += 1
                return _found(self._result(_number(run), _number(user)))
            case ("POST" | "GET", "v1", "fileExport", *_):
                return self._export(call, steps[2:])
            case (method, "v1", "subscription", *rest):
                return self._subscription(method, rest, call)
        return _found(None)

    def _result(self, run: int, user: int) -> Json | None:
        sitting = self.tests.get(run)
        known = sitting is not None and user in sitting.candidates
        return result_document(sitting, user, self.users[user]) if sitting is not None and known else None

    def _token(self, call: ApiCall, query: dict[str, str]) -> ApiReply:
        """The key as header `code` (current) or in the query (older); the form may be in the query as well."""
        form = query | dict(call.form)
        if call.method != "POST" or form.get("grant_type") != "authorization_code" or not form.get("client_id"):
            return ApiReply(status=400, json={"error": "invalid_request"})
        if form["client_id"] != CLIENT_ID or call.headers.get("code", query.get("code")) != API_KEY:
            return ApiReply(status=401, json={"error": "invalid_grant"})
        if self.conflicts > 0:
            self.conflicts -= 1
            description = "More than one token was asked for at the same time"
            return ApiReply(status=409, json={"error": "Multiple tokens for user", "description": description})
        token = _hash(self.seed, "token", self.calls["POST /authenticate/token/"])
        self._tokens.add(token)
        return ApiReply(json={"access_token": token, "expires_in": self.token_life})

    def _export(self, call: ApiCall, steps: tuple[str, ...]) -> ApiReply:
        if call.method == "POST" and steps == ("order",):
            self.calls["POST /v1/fileExport/order"] += 1
            return self._order(call)
        if call.method == "GET" and len(steps) == 2 and steps[0] == "status":
            self.calls["GET /v1/fileExport/status/{jobId}"] += 1
            return self._status(self._jobs.get(steps[1]), call)
        return _found(None)

    def _order(self, call: ApiCall) -> ApiReply:
        asked: Json = call.json if isinstance(call.json, dict) else {}
        parameters = asked.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        run = _number(str(parameters.get("assessmentRunId", "")))
        if run not in self.tests:
            return _found(None)
        user = parameters.get("userId")
        job = _Job(id=_hash(self.seed, "job", len(self._jobs)), run=run, user=user)
        self._jobs[job.id] = job
        status = f"{_root(call)}/api/v1/fileExport/status/{job.id}"
        return ApiReply(json={"jobId": job.id, "callbackUrl": status})

    def _status(self, job: _Job | None, call: ApiCall) -> ApiReply:
        if job is None:
            return _found(None)
        job.asked += 1
        if job.asked <= self.pending:
            return ApiReply(json={"status": "pending", "progress": 100 * job.asked // (self.pending + 1)})
        if self.failing > 0 and job.asked == self.pending + 1:
            self.failing -= 1
            job.failed = True
        if job.failed:
            return ApiReply(json={"status": "failed", "progress": 100})
        url = f"{_root(call)}/storage/{job.id}?X-Amz-Expires=3600&X-Amz-Signature={_hash(self.seed, job.id)}"
        return ApiReply(json={"status": "success", "progress": 100, "exportInfo": {"signedResponseUrl": url}})

    def _download(self, steps: tuple[str, ...], query: dict[str, str], call: ApiCall) -> ApiReply:
        """A storage service: the address is the credential, and two credentials are one too many."""
        if "authorization" in call.headers:
            text = "<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message></Error>"
            return ApiReply(status=400, text=text, headers={"Content-Type": "application/xml"})
        job = self._jobs.get(steps[-1])
        if job is None or query.get("X-Amz-Signature") != _hash(self.seed, job.id) or "X-Amz-Expires" not in query:
            text = "<Error><Code>SignatureDoesNotMatch</Code></Error>"
            return ApiReply(status=403, text=text, headers={"Content-Type": "application/xml"})
        test = self.tests[job.run]
        who = [user for user in test.candidates if job.user in (None, user)]
        return ApiReply(json={"candidates": [result_document(test, user, self.users[user]) for user in who]})

    def _subscription(self, method: str, rest: list[str], call: ApiCall) -> ApiReply:
        self.calls[f"{method} /v1/subscription"] += 1
        events = [event for event, _ in BODIES.values() if event != "verification"]
        if method == "GET":
            return ApiReply(
                json=events if rest == ["events"] else {"subscriptions": list(self._subscriptions.values())}
            )
        if method == "DELETE" and rest:
            return _found({} if self._subscriptions.pop(_number(rest[0]), None) else None)
        asked: Json = call.json if isinstance(call.json, dict) else {}
        if method != "POST" or asked.get("event") not in events or not asked.get("endpoint"):
            return ApiReply(status=400, json={"error": "Bad request", "description": "event and endpoint are needed"})
        number = self.calls["POST /v1/subscription"]
        self._subscriptions[number] = {
            "subscriptionId": number,
            "event": asked["event"],
            "endpoint": asked["endpoint"],
            "lastModified": "2026-06-05T07:00:00.000Z",
        }
        return ApiReply(json={"subscriptionId": number})


def platform(seed: int = 1, people: int = 200) -> InsperaPlatform:
    """A tenant of its own, the same for the same seed."""
    return InsperaPlatform(seed, people)


def settings(secret: str, api_url: str) -> Json:
    """The entry of bridge.yaml's `sources` for a simulated tenant at this address.

    This tenant signs its checks of the endpoint, so they have to be; and its list of events is known.
    """
    return {
        "connector": "inspera",
        "secrets": [secret],
        "verification_policy": "strict",
        "aliases": {event: kind for kind, (event, _) in BODIES.items() if kind not in (event, UNKNOWN)},
        "api": {"base_url": f"{api_url.rstrip('/')}/api", "client_id": CLIENT_ID, "api_key": API_KEY},
    }


def _found(document: Json | None) -> ApiReply:
    if document is None:
        return ApiReply(status=404, json={"error": "Not found", "description": "No such object"})
    return ApiReply(json=document)


def _root(call: ApiCall) -> str:
    """Our own address as the caller wrote it."""
    host = call.headers.get("host", "inspera.example.test")
    return f"http://{host}{call.headers.get('x-forwarded-prefix', '').rstrip('/')}"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def _hash(*parts: object) -> str:
    return hashlib.sha256("|".join(map(str, ("inspera", *parts))).encode()).hexdigest()[:32]
