"""The simulated institute's people, classes and sessions, as its API knows them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from bridge.core.events import Json
from bridge.core.simulation import Call

_GIVEN: Final = ("Ada", "Bo", "Chidi", "Dana", "Elif", "Farid", "Greta", "Hugo", "Ines", "Jun", "Kavya", "Lea", "Zoë")
_FAMILY: Final = ("Lovelace", "Okoro", "Berg", "Iyer", "Moreau", "Novák", "Silva", "Tan", "Weiss", "Yılmaz", "de Vries")
_SUBJECTS: Final = ("Algebra", "Biology", "Chemistry", "Drawing", "Economics", "French", "Geometry", "History")


class World:
    """What the API knows. Every access takes the lock and hands out copies."""

    def __init__(self, rng: random.Random, people: int) -> None:
        self.lock = threading.Lock()
        self.people: dict[str, Json] = {}
        self.sessions: dict[str, Json] = {}
        self.classes: dict[str, Json] = {}
        self.feed: list[Json] = []
        self.transactions: list[Json] = []
        self.touched: dict[str, datetime] = {}
        self._by_identifier: dict[tuple[str, str], str] = {}
        for number in range(max(1, people // 20)):
            subject = _SUBJECTS[number % len(_SUBJECTS)]
            class_id = new_id(rng)
            self.classes[class_id] = {
                "_id": class_id,
                "name": f"{subject} {number // len(_SUBJECTS) + 1}",
                "subject": subject,
                "classNumber": rng.randrange(100_000_000, 1_000_000_000),
                "teacher": self.register(rng)["_id"],
                "students": [self.register(rng)["_id"] for _ in range(number, max(1, people), max(1, people // 20))],
                "coTeachers": [],
                "suspendedStudents": [],
            }

    def register(self, rng: random.Random) -> Json:
        """Somebody new; one in ten has a phone number and no e-mail address."""
        given, family, user_id = rng.choice(_GIVEN), rng.choice(_FAMILY), new_id(rng)
        person = {"_id": user_id, "name": f"{given} {family}", "phoneNumber": f"+4420{rng.randrange(10**8):08d}"}
        if rng.random() > 0.1:
            person["email"] = f"{given.lower().replace('ë', 'e')}.{user_id[-8:]}@example.test"
        with self.lock:
            self.people[user_id] = person
            self._by_identifier["PHONE_NUMBER", person["phoneNumber"]] = user_id
            self._by_identifier["EMAIL", person.get("email", "")] = user_id
            self._by_identifier["VENDOR_USER_ID", f"sis-{user_id[-8:]}"] = user_id
        return person

    def shown(self, user_id: str) -> Json:
        """Somebody as webhooks show them: of some without the address that the API knows."""
        person = dict(self.people[user_id])
        if int(user_id[-1], 16) % 3 == 0:
            person.pop("email", None)
        return person

    def person(self, user_id: str) -> Json | None:
        with self.lock:
            return dict(self.people[user_id]) if user_id in self.people else None

    def by_identifier(self, provider: str, identifier: str) -> Json | None:
        with self.lock:
            user_id = self._by_identifier.get((provider, identifier)) if identifier else None
            if user_id is None:
                return None
            person = self.people[user_id]
            identity = {"provider": "PHONE_NUMBER", "identifier": person["phoneNumber"]}
            return person | {"identities": [identity]}

    def session(self, session_id: str) -> Json | None:
        with self.lock:
            return dict(self.sessions[session_id]) if session_id in self.sessions else None

    def classroom(self, class_id: str, institute: str, namespace: str) -> Json | None:
        with self.lock:
            found = self.classes.get(class_id)
            if found is None:
                return None
            shown = {key: found[key] for key in ("_id", "name", "subject", "classNumber")}
            return shown | {
                "classType": "LIVE",
                "namespace": namespace,
                "instituteId": institute,
                "userId": self.people[found["teacher"]],
                "joinedRequest": list(found["students"]),
                "coTeachers": list(found["coTeachers"]),
                "suspendedStudents": _suspensions(found),
            }

    def roster(self, class_id: str, institute: str, *, teachers: bool) -> Json | None:
        with self.lock:
            found = self.classes.get(class_id)
            if found is None:
                return None
            return {
                "_id": class_id,
                "userId": found["teacher"],
                "instituteId": institute,
                "joinedRequest": [dict(self.people[user_id]) for user_id in found["students"]],
                "pendingRequest": [],
                "coTeachers": [dict(self.people[user_id]) for user_id in found["coTeachers"]] if teachers else [],
                "suspendedStudents": _suspensions(found),
            }

    def staff(self, institute: str) -> Json:
        """All teachers as memberships, whose `_id` is not the user's."""
        with self.lock:
            ids = {found["teacher"]: None for found in self.classes.values()}
            ids |= {user_id: None for found in self.classes.values() for user_id in found["coTeachers"]}
            return {
                "teachers": [
                    {
                        "_id": f"{int(user_id, 16) ^ 1:024x}",
                        "instituteId": institute,
                        "relation": "TEACHER",
                        "status": "ACCEPTED",
                        "userId": dict(self.people[user_id]),
                        "classes": [],
                    }
                    for user_id in ids
                ]
            }


def _suspensions(classroom: Json) -> list[Json]:
    """Who is suspended, as objects that have no `_id` (seen in clients, undocumented)."""
    return [{"userId": user_id, "reason": "SUSPEND"} for user_id in classroom["suspendedStudents"]]


def new_id(rng: random.Random) -> str:
    """24 hex digits, as of a Mongo ObjectId."""
    return f"{rng.getrandbits(96):024x}"


def nothing() -> None:
    """For webhooks that change nothing in the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One webhook of an hour, and what becomes true in the API just before it."""

    at: datetime
    call: Call
    effect: Callable[[], object] = nothing


@dataclass(slots=True, kw_only=True)
class Story:
    """What one telling remembers from hour to hour."""

    world: World
    rng: random.Random
    planned: dict[str, list[Json]] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    instalments: dict[str, list[Json]] = field(default_factory=dict)


def step(at: datetime, kind: str, payload: Json, effect: Callable[[], object] = nothing) -> Step:
    return Step(at=at, call=Call(kind=kind, body={"event": kind, "payload": payload}), effect=effect)
