"""The exams, people and marks behind a simulated WISEflow, all from one seed; webhooks and API both read it.

A flow opens when the papers of the last one are mostly in, so that an endless day has an endless supply of hand-ins.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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

    @property
    def marked(self) -> bool:
        return self.label is not None


@dataclass(slots=True, kw_only=True)
class Flow:
    id: int
    name: str
    code: str
    state: int
    scale: int
    starts_at: datetime
    papers: list[Paper]
    assignments: list[int] = field(default_factory=list)
    explanations: dict[int, tuple[int, bool]] = field(default_factory=dict)

    def participants(self) -> Iterator[tuple[int, User, Paper]]:
        for paper in self.papers:
            for number, user in paper.participants:
                yield number, user, paper


class World:
    """All that is simulated. Hold `lock` to read or to change it."""

    def __init__(self, seed: int, people: int) -> None:
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.users = [self._user(number) for number in range(max(people, 4))]
        self.flows: dict[int, Flow] = {}
        self.minutes = 0
        self.open_flow()

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

    def open_flow(self) -> Flow:
        """The next flow, its papers not yet handed in. Every eighth paper is a group's."""
        position = len(self.flows)
        sitting = self.random.sample(self.users, min(len(self.users), 40))
        papers: list[Paper] = []
        while sitting:
            size = 3 if len(papers) % 8 == 5 and len(sitting) >= 3 else 1
            members = tuple((16842 + 1000 * position + len(sitting), sitting.pop()) for _ in range(size))
            papers.append(Paper(id=65253469 + 100 * position + len(papers), participants=members))
        flow = Flow(
            id=7464798 + position,
            name=_COURSES[position % len(_COURSES)],
            code=f"COURSE-{1000 + position}",
            state=2,
            scale=NUMBER_SCALE if position % 3 == 2 else LIST_SCALE,
            starts_at=MORNING + timedelta(hours=2 * position),
            papers=papers,
        )
        self.flows[flow.id] = flow
        return flow

    def now(self) -> datetime:
        """The world's own clock: it goes on by a minute whenever something happens."""
        self.minutes += 1
        return MORNING + timedelta(minutes=self.minutes)

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
