"""A tenant of Inspera Assessment that does not exist: its tests, its candidates, its webhooks and its API.

Webhooks: https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482/Webhooks. Where the pages are silent (ids of
events, pauses between retries, error bodies, words of the export's status) this is one guess, not the platform's word.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from bridge.core.events import Json
from bridge.core.signing import sign as hmac_of
from bridge.core.simulation import ApiCall, ApiReply, Call, SendingRule, SignedCall
from connectors.inspera.simulated_bodies import BODIES, DELIVERED, UNKNOWN, Happening
from connectors.inspera.simulated_exports import Exports, found, hashed, number
from connectors.inspera.simulated_subscriptions import Subscriptions, Verification
from connectors.inspera.simulated_world import (
    FIRST_TEST,
    MARKETPLACE,
    START,
    Sitting,
    World,
    make_world,
    result_document,
    test_document,
    timestamp,
)

# Exactly 200 within 10 seconds, and three retries: documented. The pauses are not; these are a proposal.
RULE: Final = SendingRule(success=range(200, 201), timeout=10, retries=(60, 300, 900))

CLIENT_ID: Final = "campus"
API_KEY: Final = "simulated-inspera-key"


@dataclass(slots=True)
class InsperaPlatform:
    """The simulated tenant. `conflicts` is how many of the next token calls answer 409; `token_life` is for how many
    seconds a token is good; `limit` is how many calls a second get an answer, the others a 429 (none is documented, so
    there is none unless it is set) with the `Retry-After` of `retry_after`; `keeps_deleted` is whether a deleted user
    can still be read, which is not documented either."""

    world: World
    exports: Exports
    subscriptions: Subscriptions
    conflicts: int = 0
    token_life: float = 3600
    limit: int | None = None
    retry_after: int | None = 1
    keeps_deleted: bool = True
    calls: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    _tokens: dict[str, float] = field(default_factory=dict)
    _answered: deque[float] = field(default_factory=deque)
    _made: int = 0

    @property
    def users(self) -> dict[int, Json]:
        return self.world.users

    @property
    def tests(self) -> dict[int, Sitting]:
        return self.world.tests

    @property
    def pending_verifications(self) -> list[Verification]:
        """Checks of endpoints that nobody has sent yet."""
        return self.subscriptions.pending

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def day(self) -> Iterator[Call]:
        """Sitting after sitting: papers come in between other work, are exported, and at last their grades stand.

        Every call has a time of its own, in whole seconds of the simulated day, so no two are alike. What a call says
        has happened when it is yielded, whether or not anybody hears of it.
        """
        chance = random.Random(f"inspera {self.world.seed} day")
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
                if chance.random() < 0.5:
                    moment += timedelta(seconds=chance.randint(600, 3600))
                    yield self._call("candidate.grade_confirmed", chance, moment, test, chance.choice(papers))

    def sample(self, kind: str) -> Call:
        """One call of a kind, each with a time of its own; one is UNKNOWN, which no rule knows."""
        with self.world.lock:
            self._made += 1
            chance = random.Random(f"inspera {self.world.seed} sample {self._made}")
            test = chance.choice(list(self.tests.values()))
            user = chance.choice(sorted(test.grades))
            return self._call(kind, chance, START - timedelta(seconds=self._made), test, user)

    def _call(self, kind: str, chance: random.Random, moment: datetime, test: Sitting, user: int) -> Call:
        event, made = BODIES[kind]
        tenant = {} if kind == "verification" else {"marketplaceId": MARKETPLACE}
        with self.world.lock:
            about = made(Happening(chance, self.world, test, user, moment))
        return Call(kind=kind, body={"event": event} | tenant | about | {"timestamp": timestamp(moment)})

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """Every attempt is alike: the body's time is that of the event, and no header counts the calls."""
        body = json.dumps(call.body, separators=(",", ":"), ensure_ascii=False).encode()
        signature = hmac_of(secret, body, "sha1", "hex")
        return SignedCall(headers={"Content-Type": "application/json", "X-Inspera-Signature": signature}, body=body)

    # --- the API ------------------------------------------------------------------------------------------------------

    def forget_tokens(self) -> None:
        """As if an hour had passed: every token is refused from now on."""
        with self.world.lock:
            self._tokens.clear()

    def answer(self, call: ApiCall) -> ApiReply:
        """The API, its paths with or without `/api` in front, and the storage where exports are fetched."""
        address = urlsplit(call.path)
        path, query = address.path.removeprefix("/api"), dict(parse_qsl(address.query)) | dict(call.query)
        steps = tuple(step for step in path.split("/") if step)
        with self.world.lock:
            if steps[:1] == ("storage",):
                self.calls["GET {signedResponseUrl}"] += 1
                return self.exports.download(steps[-1], query, call)
            if self._too_many():
                headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
                return ApiReply(status=429, json={"error": "Too many requests"}, headers=headers)
            if steps[:2] == ("authenticate", "token"):
                self.calls["POST /authenticate/token/"] += 1
                return self._token(call, query)
            token = call.headers.get("authorization", "").removeprefix("Bearer ")
            if self._tokens.get(token, 0.0) <= time.monotonic():
                return ApiReply(status=401, json={"error": "invalid_token"})
            return self._data(call, steps, query)

    def _data(self, call: ApiCall, steps: tuple[str, ...], query: dict[str, str]) -> ApiReply:
        match (call.method, *steps):
            case ("GET", "v1", "test", run):
                self.calls["GET /v1/test/{testId}"] += 1
                test = self.tests.get(number(run))
                return found(test_document(test) if test else None)
            case ("GET", "v1", "users", user):
                self.calls["GET /v1/users/{userId}"] += 1
                hidden = number(user) in self.world.gone and not self.keeps_deleted
                return found(None if hidden else self.world.details(number(user)))
            case ("GET", "v1", "candidates", "allResults", run, user):
                self.calls["GET /v1/candidates/allResults/{testId}/{userId}"] += 1
                return found(self._result(number(run), number(user)))
            case (_, "v1", "fileExport", *_) | (_, "v1", "test", _, "events" | "submissions", *_):
                return self._export(call, steps, query)
            case (method, "v1", "subscription", *rest):
                self.calls[f"{method} /v1/subscription"] += 1
                return self.subscriptions.answer(call, rest)
        return found(None)

    def _export(self, call: ApiCall, steps: tuple[str, ...], query: dict[str, str]) -> ApiReply:
        match (call.method, *steps[1:]):
            case (method, "test", _, what, *_):
                self.calls[f"{method} /v1/test/{{testId}}/{what}"] += 1
                return self.exports.test_export(call, steps, query)
            case ("POST", "fileExport", "order"):
                self.calls["POST /v1/fileExport/order"] += 1
                return self.exports.order(call, steps)
            case ("GET", "fileExport", "status", job):
                self.calls["GET /v1/fileExport/status/{jobId}"] += 1
                return self.exports.status(job, call)
        return found(None)

    def _result(self, run: int, user: int) -> Json | None:
        test = self.tests.get(run)
        return result_document(test, user, self.users[user]) if test is not None and user in test.candidates else None

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
        token = hashed(self.world.seed, "token", self.calls["POST /authenticate/token/"])
        self._tokens[token] = time.monotonic() + self.token_life
        return ApiReply(json={"access_token": token, "expires_in": int(self.token_life)})

    def _too_many(self) -> bool:
        if self.limit is None:
            return False
        now = time.monotonic()
        while self._answered and self._answered[0] <= now - 1:
            self._answered.popleft()
        if len(self._answered) >= self.limit:
            self.refused += 1
            return True
        self._answered.append(now)
        return False


def platform(seed: int = 1, people: int = 200) -> InsperaPlatform:
    """A tenant of its own, the same for the same seed."""
    world = make_world(seed, people)
    return InsperaPlatform(world, Exports(world), Subscriptions(world))


def settings(secret: str, api_url: str) -> Json:
    """The entry of bridge.yaml's `sources` for a simulated tenant at this address.

    This tenant signs its checks of the endpoint, so they have to be; and its list of events and its tests are known.
    """
    return {
        "connector": "inspera",
        "secrets": [secret],
        "verification_policy": "strict",
        "marketplace_id": str(MARKETPLACE),
        "aliases": {event: kind for kind, (event, _) in BODIES.items() if kind not in (event, UNKNOWN)},
        "api": {
            "base_url": f"{api_url.rstrip('/')}/api",
            "client_id": CLIENT_ID,
            "api_key": API_KEY,
            "reconcile_tests": [FIRST_TEST + position for position in range(8)],
        },
    }
