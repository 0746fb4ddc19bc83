"""The people and sittings of the simulated tenant, and how its API shows them. What has happened is in them."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from bridge.core.events import Json

MARKETPLACE: Final = 1357554
START: Final = datetime(2026, 6, 5, 7, 0, tzinfo=UTC)
FIRST_TEST: Final = 350_000_000
PLANNER, AUTHOR, ADMINISTRATOR = 7_001, 7_002, 7_003
_GIVEN = ("Ada", "Bo", "Carla", "Dag", "Esra", "Finn", "Grete", "Håkon", "Inés", "Jonas", "Kari", "Liv", "Mats", "Nora")
_FAMILY = ("Aas", "Berg", "Čapek", "Dahl", "Eide", "Foss", "Grieg", "Haugen", "Ibsen", "Jensen", "Krog", "Lie", "Moe")
_COURSES = ("Anatomy", "Contract Law", "Linear Algebra", "Microeconomics", "Nursing Ethics", "Organic Chemistry")


@dataclass(slots=True, kw_only=True)
class Sitting:
    """One sitting: its candidates' user ids, the marks of those who have one, and what has come of it so far.

    `confirmed` are a candidate's final grades with their times, round after round; `papers` are deliveries.
    """

    id: int
    title: str
    starts_at: datetime
    ends_at: datetime
    candidates: tuple[int, ...]
    grades: dict[int, float]
    confirmed: dict[int, list[tuple[float, datetime]]] = field(default_factory=dict)
    papers: list[tuple[int, datetime]] = field(default_factory=list)

    def confirm(self, user: int, moment: datetime) -> None:
        """The candidate's mark becomes the final grade, in a round of its own if it is another one than before."""
        rounds = self.confirmed.setdefault(user, [])
        if not rounds or rounds[-1][0] != self.grades[user]:
            rounds.append((self.grades[user], moment))


@dataclass(slots=True)
class World:
    """The tenant's state. `gone` are deleted users; whoever changes something holds the lock."""

    seed: int
    users: dict[int, Json]
    tests: dict[int, Sitting]
    staff: dict[int, Json]
    gone: set[int] = field(default_factory=set)
    newcomers: list[int] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def details(self, user: int) -> Json | None:
        return self.users.get(user) or self.staff.get(user)

    def newcomer(self, chance: random.Random) -> int:
        """Somebody new, in no sitting."""
        number = max(self.users) + 1
        self.users[number] = _user(number, chance)
        self.newcomers.append(number)
        return number

    def leaver(self, chance: random.Random) -> int:
        """Somebody in no sitting, who is gone now."""
        number = self.newcomers.pop() if self.newcomers else self.newcomer(chance)
        if number in self.newcomers:
            self.newcomers.remove(number)
        self.gone.add(number)
        return number

    def rename(self, user: int, chance: random.Random) -> None:
        """A new family name: a document that was handed out before stays as it was."""
        details = self.users[user]
        others = [name for name in _FAMILY if name != details["lastName"]]
        self.users[user] = details | {"lastName": chance.choice(others)}


def make_world(seed: int, people: int) -> World:
    """A tenant, the same for the same seed. The ids of its tests do not hang on the seed, so that settings can."""
    chance = random.Random(f"inspera {seed} users")
    first = 40_000_000 + seed % 1000 * 10_000
    users = {number: _user(number, chance) for number in range(first, first + max(people, 1))}
    staff = {number: _user(number, chance) for number in (PLANNER, AUTHOR, ADMINISTRATOR)}
    return World(seed, users, _make_tests(seed, users), staff)


def _user(number: int, chance: random.Random) -> Json:
    """A user as `GET /v1/users/{userId}` shows one (its fields were seen in clients)."""
    return {
        "username": f"s{number}",
        "firstName": chance.choice(_GIVEN),
        "lastName": chance.choice(_FAMILY),
        "email": f"s{number}@example.test",
        "externalIds": [{"authType": "FEIDE", "externalId": f"s{number}@feide.example.test"}],
    }


def _make_tests(seed: int, users: Mapping[int, Json]) -> dict[int, Sitting]:
    """Sittings of up to 25 candidates each; one candidate in twenty is absent and gets no grade."""
    chance = random.Random(f"inspera {seed} tests")
    known, tests = list(users), {}
    for position in range(max(3, len(known) // 25)):
        sitting = chance.sample(known, min(25, len(known)))
        run = FIRST_TEST + position
        absent = [user for user in sitting[1:] if chance.random() < 0.05]
        starts_at = START + timedelta(hours=position)
        tests[run] = Sitting(
            id=run,
            title=f"{chance.choice(_COURSES)} {position + 1:03d}",
            starts_at=starts_at,
            ends_at=starts_at + timedelta(hours=4),
            candidates=tuple(sitting),
            grades={user: chance.randint(0, 40) / 4 for user in sitting if user not in absent},
        )
    return tests


def test_document(test: Sitting) -> Json:
    """What `GET /v1/test/{testId}` answers; its full list of fields is not public."""
    return {
        "testId": test.id,
        "name": test.title,
        "externalTestId": f"SIS-{test.id % 10_000:04d}",
        "startTime": timestamp(test.starts_at),
        "endTime": timestamp(test.ends_at),
        "contributors": [],
        "committees": [{"name": "Committee 1"}],
    }


def result_document(test: Sitting, user: int, details: Json) -> Json:
    """One candidate's result: https://inspera.atlassian.net/wiki/spaces/KB/pages/1562214548"""
    automatic: Json = {"roundId": 1, "automaticQuestionScore": None, "finalGrade": None, "roundGrades": []}
    marks = [grade for grade, _ in test.confirmed.get(user, ())]
    graded: list[Json] = [
        {"roundId": position, "finalGrade": mark, "roundGrades": [{"evaluatorUserId": PLANNER, "totalScore": mark}]}
        for position, mark in enumerate(marks, start=2)
    ]
    return {
        "userId": str(user),
        "candidateId": seat(test, user),
        "externalUserIds": [
            {"authType": entry["authType"], "externalUserId": entry["externalId"]} for entry in details["externalIds"]
        ],
        "assessmentRunId": test.id,
        "assessmentRunTitle": test.title,
        "assessmentRunStartTime": timestamp(test.starts_at),
        "assessmentRunEndTime": timestamp(test.ends_at),
        "evaluationRounds": [automatic, *graded],
    }


def submissions_document(test: Sitting, users: Mapping[int, Json]) -> Json:
    """A test's submissions: https://inspera.atlassian.net/wiki/spaces/KB/pages/222790166"""
    return {
        "lineItemSourcedId": str(test.id),
        "ext_inspera_assessmentRunTitle": test.title,
        "ext_inspera_assessmentRunExternalId": f"SIS-{test.id % 10_000:04d}",
        "ext_inspera_candidates": [{"result": _submission(test, user, users[user])} for user in test.candidates],
    }


def _submission(test: Sitting, user: int, details: Json) -> Json:
    grade, date = test.confirmed.get(user, [(None, None)])[-1]
    delivered = [moment for who, moment in test.papers if who == user]
    return {
        "student": {"sourcedId": str(user), "type": "user"},
        "ext_inspera_candidateId": seat(test, user),
        "ext_inspera_attendance": bool(delivered),
        "ext_inspera_endTime": timestamp(delivered[-1]) if delivered else None,
        "ext_inspera_candidateExternalIds": [
            {"ext_inspera_authType": entry["authType"], "ext_inspera_externalId": entry["externalId"]}
            for entry in details["externalIds"]
        ],
        "ext_inspera_finalGrade": None if grade is None else f"{grade:.2f}",
        "ext_inspera_finalGradeDate": None if date is None else timestamp(date),
        "ext_inspera_questions": [],
    }


def log_document(test: Sitting, delivered: str) -> Json:
    """A test's event log: https://inspera.atlassian.net/wiki/spaces/KB/pages/2520547581 (its event ids are made up)."""
    logs: dict[int, list[Json]] = {user: [_logged("candidate_logged_in", test.starts_at)] for user in test.candidates}
    for user, moment in test.papers:
        logs[user].append(_logged(delivered, moment))
    return {
        "created": timestamp(test.ends_at),
        "candidates": [
            {"userId": user, "candidateId": seat(test, user), "events": events} for user, events in logs.items()
        ],
    }


def _logged(event: str, moment: datetime) -> Json:
    return {"eventId": int(moment.timestamp()), "event": event, "timeStamp": timestamp(moment), "extraInfo": None}


def seat(test: Sitting, user: int) -> str:
    """A candidate's number in a test, which is not the user's id."""
    return str(10_000 + test.candidates.index(user))


def timestamp(moment: datetime) -> str:
    """UTC in whole seconds, as the platform writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
