"""A simulated Wise institute: its webhooks, signed as Wise signs, and its API, which tells the same story."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply, Call, SendingRule, SignedCall
from connectors.wise.simulated_lists import events, sessions, transactions
from connectors.wise.simulated_term import KINDS, hours
from connectors.wise.simulated_world import World

# docs.wise.live/wise-api-integration/webhooks-integration/webhook-retry-mechanism: 60·(2ⁿ-1) s after the event.
RULE: Final = SendingRule(
    success=range(200, 201), timeout=5.0, retries=(60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3840.0, 7680.0)
)

# docs.wise.live/wise-api-integration/rate-limits-and-usage-quotas: requests a minute and key.
LIMIT: Final = 500

TERM: Final = datetime(2026, 2, 2, 7, 0, tzinfo=UTC)
INSTITUTE: Final = "65f0c0ffee0000000000a001"
NAMESPACE: Final = "northbridge"
OWNER: Final = "65f0c0ffee0000000000b001"
API_KEY: Final = "k3yk3yk3yk3yk3yk3yk3yk3yk3yk3y01"

_NOT_FOUND: Final = 404
_MINUTE: Final = 60.0
# Whose parts a session's answer leaves out unless asked for them: our reading of the flags' names.
_FLAGS: Final = {"participants": "showLiveClassInsight", "attendees": "showSessionAttendees"}


def platform(seed: int = 1, people: int = 200) -> WiseInstitute:
    """An institute with this many students, the same for the same seed."""
    return WiseInstitute(seed=seed, people=people)


def settings(secret: str, api_url: str) -> Json:
    """The entry of bridge.yaml's `sources` for a simulated institute."""
    return {
        "connector": "wise",
        "secrets": [secret],
        "institute_id": INSTITUTE,
        "api": {"base_url": api_url, "user_id": OWNER, "api_key": API_KEY, "namespace": NAMESPACE},
    }


class WiseInstitute:
    """The simulated platform.

    `calls` counts API calls by path template, `most_in_a_minute` is their rate, and `refused` are those beyond `limit`
    a minute, which is lifted unless it is set: Wise documents LIMIT, and no header says how many are left.
    `attendance_lag` is how many answers per session still say that attendance is not recorded. `header` and `scheme`
    are how the key is sent; `strict_agent` says whether the API insists on the user-agent that Wise asks for.
    """

    def __init__(self, *, seed: int, people: int) -> None:
        self.calls: Counter[str] = Counter()
        self.limit: int | None = None
        self.most_in_a_minute = 0
        self.refused = 0
        self.attendance_lag = 0
        self.header = "authorization"
        self.scheme = ""
        self.strict_agent = True
        self.world = World(random.Random(f"{seed}/world"), people)
        self._seed = seed
        self._lock = threading.Lock()
        self._days = 0
        self._samples = hours(self.world, random.Random(f"{seed}/samples"), TERM)
        self._early: Counter[str] = Counter()
        self._minute: deque[float] = deque()

    def day(self) -> Iterator[Call]:
        """Teaching hours without end; a second day of one platform has happenings of its own."""
        with self._lock:
            self._days += 1
            number = self._days
        yield from hours(self.world, random.Random(f"{self._seed}/day/{number}"), TERM)

    def sample(self, kind: str) -> Call:
        """The next call of a kind in a story of its own."""
        if kind not in KINDS:
            raise KeyError(kind)
        with self._lock:
            return next(call for call in self._samples if call.kind == kind)

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """The same bytes on every attempt; the key as it is, in one header."""
        body = json.dumps(call.body, separators=(",", ":"), ensure_ascii=False).encode()
        key = f"{self.scheme} {secret}".strip()
        return SignedCall(headers={"content-type": "application/json", self.header: key}, body=body)

    def answer(self, call: ApiCall) -> ApiReply:
        """The part of the API that answers what webhooks leave open, in Wise's envelope."""
        refused = self._refusal(call.headers)
        if refused:
            return refused
        if self._too_many():
            return _error(429, "Too many requests")
        template, data = self._find(call)
        with self._lock:
            self.calls[f"{call.method} {template}"] += 1
        return _error(_NOT_FOUND, "Not found") if data is None else _envelope(data)

    def _too_many(self) -> bool:
        with self._lock:
            now = time.monotonic()
            while self._minute and now - self._minute[0] >= _MINUTE:
                self._minute.popleft()
            if self.limit is not None and len(self._minute) >= self.limit:
                self.refused += 1
                return True
            self._minute.append(now)
            self.most_in_a_minute = max(self.most_in_a_minute, len(self._minute))
            return False

    def _refusal(self, headers: Any) -> ApiReply | None:
        basic = base64.b64encode(f"{OWNER}:{API_KEY}".encode()).decode()
        if headers.get("authorization") != f"Basic {basic}" or headers.get("x-api-key") != API_KEY:
            return _error(401, "Unauthorized")
        if headers.get("x-wise-namespace") != NAMESPACE:
            return _error(403, "Forbidden")
        if self.strict_agent and headers.get("user-agent") != f"VendorIntegrations/{NAMESPACE}":
            return _error(403, "Forbidden")
        if not headers.get("content-type", "").startswith("application/json"):
            return _error(400, "Bad request")
        return None

    def _find(self, call: ApiCall) -> tuple[str, Json | None]:
        world, found = self.world, None
        template = "unknown"
        match [call.method, *call.path.strip("/").split("/")]:
            case ["GET", "user", "session", session_id]:
                template = "/user/session/{sessionId}"
                found = self._session(None, session_id, call)
            case ["GET", "user", "classes", class_id, "sessions", session_id]:
                template = "/user/classes/{classId}/sessions/{sessionId}"
                found = self._session(class_id, session_id, call)
            case ["GET", "user", "v2", "classes", class_id]:
                template = "/user/v2/classes/{classId}"
                found = world.classroom(class_id, INSTITUTE, NAMESPACE)
            case ["GET", "user", "classes", class_id, "participants"]:
                template = "/user/classes/{classId}/participants"
                found = world.roster(class_id, INSTITUTE, teachers=call.query.get("showCoTeachers") == "true")
            case ["GET", "vendors", "userByIdentifier"]:
                template = "/vendors/userByIdentifier"
                user = world.by_identifier(call.query.get("provider", ""), call.query.get("identifier", ""))
                found = {"user": user} if user else None
            case ["GET", "institutes", institute, "participants", user_id] if institute == INSTITUTE:
                template = "/institutes/{instituteId}/participants/{userId}"
                user = world.person(user_id)
                found = {"user": user, "registrationData": {"fields": []}} if user else None
            case ["GET", "institutes", institute, "teachers"] if institute == INSTITUTE:
                template, found = "/institutes/{instituteId}/teachers", world.staff(INSTITUTE)
            case ["GET", "institutes", institute, "sessions"] if institute == INSTITUTE:
                template, found = "/institutes/{instituteId}/sessions", sessions(world, call.query)
            case ["GET", "institutes", institute, "fees", "transactions"] if institute == INSTITUTE:
                template, found = "/institutes/{instituteId}/fees/transactions", transactions(world, call.query)
            case ["GET", "institutes", institute, "events"] if institute == INSTITUTE:
                template, found = "/institutes/{instituteId}/events", events(world, call.query)
            case ["GET", "user", "getUser"]:
                template = "/user/getUser"
                found = {"_id": OWNER, "name": "Owner", "namespace": NAMESPACE, "profile": "teacher"}
        return template, found

    def _session(self, class_id: str | None, session_id: str, call: ApiCall) -> Json | None:
        found = self.world.session(session_id)
        if found is None or class_id not in (None, found["classId"]):
            return None
        with self._lock:
            self._early[session_id] += 1
            early = self._early[session_id] <= self.attendance_lag
        if early:
            found |= {"attendanceRecorded": False, "participants": []}
        return {key: value for key, value in found.items() if call.query.get(_FLAGS.get(key, ""), "true") == "true"}


def _envelope(data: Json) -> ApiReply:
    return ApiReply(json={"status": 200, "message": "Success", "data": data})


def _error(status: int, message: str) -> ApiReply:
    """Wise lists its error codes without a body; this one is the envelope's own form."""
    return ApiReply(status=status, json={"status": status, "message": message, "data": None})
