"""The exams, people and marks behind a simulated WISEflow, all from one seed; webhooks and API both read it.

A flow opens when the papers of the last one are mostly in, so that an endless day has an endless supply of hand-ins.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

LICENSE_ID: Final = 123
MORNING: Final = datetime(2026, 6, 5, 7, 0, tzinfo=UTC)
LIST_SCALE: Final = 7
NUMBER_SCALE: Final = 21
SCALES: Final = (
    {
        "id": LIST_SCALE,
        "name": "7-trinsskala",
        "description": "Danish seven-point scale",
        "input": None,
        "list": {
            "options": [
                {"grade": grade, "value": str(value)}
                for grade, value in (("12", 7), ("10", 6), ("7", 5), ("4", 4), ("02", 3), ("00", 2), ("-3", 1))
            ]
        },
    },
    {
        "id": NUMBER_SCALE,
        "name": "Percent",
        "description": "Percent with two decimals",
        "input": {
            "min": 0,
            "max": 100,
            "unit": "%",
            "modifier": 100,
            "stepsize": 0.01,
            "pattern": None,
            "decimals": 2,
        },
        "list": None,
    },
)
_GIVEN: Final = ("Ada", "Søren", "Maryam", "Åse", "Linus", "Zoë", "Tomás", "Ngozi", "Eva", "Jürgen", "Mei", "Olu")
_FAMILY: Final = ("Lovelace", "Kierkegaard", "Holm", "Nygård", "Okafor", "Brontë", "Novák", "Li", "Diaz", "Ström")
_COURSES: Final = ("Algorithms", "Roman Law", "Thermodynamics", "Nordic Literature", "Statistics II", "Pharmacology")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    id: int
    given_name: str
    family_name: str
    emails: tuple[str, ...]
    student_number: str


ASSESSOR: Final = 990001
MANAGER: Final = 990002
_STAFF: Final = (
    User(id=ASSESSOR, given_name="Grace", family_name="Hopper", emails=("grace@example.test",), student_number=""),
    User(id=MANAGER, given_name="Emil", family_name="Post", emails=("emil@example.test",), student_number=""),
)


@dataclass(slots=True, kw_only=True)
class Paper:
    """A participant's paper, or, with several participants, a group's; what may change is changed under the lock."""

    id: int
    participants: tuple[tuple[int, User], ...]
    handed_in_at: datetime | None = None
    label: str | None = None
    stored: int | None = None
    administrative: bool = False
    marked_at: datetime | None = None
    alternative: str | None = None
    alternative_at: datetime | None = None

    @property
    def marked(self) -> bool:
        return self.label is not None


@dataclass(slots=True, kw_only=True)
class Explanation:
    """A request for the reasons of a mark."""

    participant: int
    asked_at: datetime
    answered: bool = False


@dataclass(slots=True, kw_only=True)
class Flow:
    """An exam. Its dates move with its state, as WISEflow moves a flow by its dates."""

    id: int
    name: str
    code: str
    state: int
    scale: int
    starts_at: datetime
    ends_at: datetime
    marking_ends_at: datetime
    papers: list[Paper]
    entries: list[tuple[int, User, Paper]]
    by_participant: dict[int, tuple[int, User, Paper]]
    by_submission: dict[int, Paper]
    assignments: dict[int, int] = field(default_factory=dict)
    explanations: dict[int, Explanation] = field(default_factory=dict)
    source_state: str = "NONE"
    announced: bool = False
    """Whether the webhook about its opening was sent."""


class World:
    """All that is simulated. Hold `lock` to read or to change it.

    Its clock goes on by a minute whenever something happens, unless it is given another one.
    """

    def __init__(self, seed: int, people: int) -> None:
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.clock: Callable[[], datetime] | None = None
        self.users: list[User] = []
        self.users_by_id: dict[int, User] = {user.id: user for user in _STAFF}
        self.flows: dict[int, Flow] = {}
        self.minutes = 0
        self.assignment_ids = count(501)
        self._papers = count(65253469)
        self._participants = count(16842)
        self.populate(max(people, 4))
        self.open_flow()

    def populate(self, people: int) -> None:
        """Register students until there are so many."""
        for number in range(len(self.users), people):
            user = self._user(number)
            self.users.append(user)
            self.users_by_id[user.id] = user

    def open_flow(self, sitting: int = 40, *, groups: bool = True) -> Flow:
        """The next flow, its papers not yet handed in. Every eighth paper is a group's."""
        position = len(self.flows)
        members = self.random.sample(self.users, min(len(self.users), sitting))
        papers: list[Paper] = []
        while members:
            size = 3 if groups and len(papers) % 8 == 5 and len(members) >= 3 else 1
            group = tuple((next(self._participants), members.pop()) for _ in range(size))
            papers.append(Paper(id=next(self._papers), participants=group))
        entries = [(number, user, paper) for paper in papers for number, user in paper.participants]
        starts_at = self.now()
        flow = Flow(
            id=7464798 + position,
            name=_COURSES[position % len(_COURSES)],
            code=f"COURSE-{1000 + position}",
            state=2,
            scale=NUMBER_SCALE if position % 3 == 2 else LIST_SCALE,
            starts_at=starts_at,
            ends_at=starts_at + timedelta(hours=4),
            marking_ends_at=starts_at + timedelta(days=21),
            papers=papers,
            entries=entries,
            by_participant={entry[0]: entry for entry in entries},
            by_submission={paper.id: paper for paper in papers},
        )
        self.flows[flow.id] = flow
        return flow

    def now(self) -> datetime:
        """The time of something that happens now, in whole milliseconds as the API has them."""
        if self.clock is not None:
            moment = self.clock()
            return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        self.minutes += 1
        return MORNING + timedelta(minutes=self.minutes)

    def move(self, flow: Flow, state: int) -> None:
        """Bring a flow into a state, and its dates with it."""
        now = self.now()
        flow.state = state
        if state == 3:
            flow.ends_at = now
        elif state == 4:
            flow.marking_ends_at = now

    def mark(self, flow: Flow, paper: Paper, *, administrative: bool = False) -> None:
        """Give a paper a mark other than the one it has."""
        while True:
            if flow.scale == NUMBER_SCALE:
                stored = self.random.randrange(2000, 10000)
                label = f"{stored / 100:.2f}"
            else:
                label, stored = self.random.choice((("12", 7), ("10", 6), ("7", 5), ("4", 4), ("02", 3), ("00", 2)))
            if label != paper.label:
                break
        paper.label, paper.stored = label, stored
        paper.administrative, paper.marked_at = administrative, self.now()

    def revoke(self, paper: Paper) -> None:
        paper.label = paper.stored = paper.marked_at = None
        paper.administrative = False

    def _user(self, number: int) -> User:
        given, family = _GIVEN[number % len(_GIVEN)], _FAMILY[number % len(_FAMILY)]
        address = "ada@example.test" if number == 0 else f"student{number}@example.test"
        more = (f"private{number}@example.test",) if number % 9 == 4 else ()
        return User(
            id=813879 + 3 * number,
            given_name=given,
            family_name=family,
            emails=(*more, address),
            student_number=f"S-{100 + number}",
        )
