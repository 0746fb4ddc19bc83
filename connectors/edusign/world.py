"""A made-up school: students, teachers, groups, and sheets with what was signed so far.

People follow from their number and the seed; only what changes is remembered, under a lock, with the moment at which it
happened: webhooks, lists and details tell the same story. What the API shows of it is in `simulated_records`.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

GIVEN: Final = ("Ada", "Émile", "Noor", "Linus", "Zoë", "Amara", "Björn", "Chloé", "Hugo", "Inès", "Søren", "Maëlys")
FAMILY: Final = ("Lovelace", "Durand", "Okafor", "Lefèvre", "Nguyen", "Sørensen", "Moreau", "Silva", "Petit", "Haddad")
ENROLLED: Final = datetime(2025, 9, 1, 6, tzinfo=UTC)
MORNING: Final = datetime(2026, 1, 19, 8, tzinfo=UTC)
GROUP_SIZE: Final = 25
LESSON: Final = timedelta(minutes=90)
_STEP: Final = timedelta(milliseconds=200)
_KEPT: Final = 20_000

Noun = Literal["student", "professor", "group", "course"]
PERSONAL: Final[tuple[Noun, ...]] = ("student", "professor", "group")


@dataclass(slots=True, kw_only=True)
class Sheet:
    """One "course": who belongs on it, and what happened to it and when."""

    id: str
    number: int
    group: int
    professor: int
    start: datetime
    end: datetime
    members: tuple[int, ...]
    created: datetime
    updated: datetime
    signed: dict[int, datetime] = field(default_factory=dict)
    excused: set[int] = field(default_factory=set)
    edits: int = 0
    teacher_signed: datetime | None = None
    locked: bool = False
    deleted: bool = False


@dataclass(slots=True, kw_only=True)
class Member:
    """A student, a teacher or a group: what changed about them."""

    number: int
    created: datetime = ENROLLED
    updated: datetime = ENROLLED
    archived: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """Somebody asks for an absence from a sheet to be excused."""

    id: str
    sheet: str
    student: int
    start: datetime
    end: datetime
    asked: datetime


@dataclass(slots=True, kw_only=True)
class Document:
    id: str
    number: int
    created: datetime
    completed: datetime | None = None


class School:
    """The school and its state; every method may be called from several threads.

    Its clock goes on by a fifth of a second whenever something happens, unless it is given another one; two happenings
    never have the same time. With `edits_by_anything` the date of update of a
    sheet moves when it is locked or signed by a teacher, too: what Edusign does is not documented.
    """

    def __init__(self, seed: int, people: int) -> None:
        self.seed = seed
        self.people = people
        self.clock: Callable[[], datetime] | None = None
        self.edits_by_anything = False
        self.id = self.id_of("school", 0)
        self.app_id = self.id_of("app", 0)
        self.client_id = hashlib.sha256(f"{seed}|client".encode()).hexdigest()[:32]
        self.teachers = max(3, people // 20)
        self.groups = max(1, people // GROUP_SIZE)
        self.lock = threading.RLock()
        self.sheets: OrderedDict[str, Sheet] = OrderedDict()
        self.absences: OrderedDict[str, Absence] = OrderedDict()
        self.documents: OrderedDict[str, Document] = OrderedDict()
        self.answers: OrderedDict[str, dict[int, datetime]] = OrderedDict()
        self._made = 0
        self._last = MORNING
        counts: dict[Noun, int] = {"student": people, "professor": self.teachers, "group": self.groups}
        self.members: dict[Noun, dict[str, Member]] = {
            noun: {self.id_of(noun, number): Member(number=number) for number in range(count)}
            for noun, count in counts.items()
        }

    def id_of(self, noun: str, number: int) -> str:
        """16 characters of a-z and 0-9, as Edusign's ids look."""
        value = int.from_bytes(hashlib.sha256(f"{self.seed}|{noun}|{number}".encode()).digest()[:12], "big")
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"
        return "".join(letters[value // 36**place % 36] for place in range(16))

    def now(self) -> datetime:
        """The school's time in milliseconds, later than that of all that happened before."""
        with self.lock:
            if self.clock is None:
                self._last += _STEP
            else:
                now = self.clock()
                now = now.replace(microsecond=now.microsecond // 1000 * 1000)
                self._last = max(now, self._last + timedelta(milliseconds=1))
            return self._last

    # --- what happens -------------------------------------------------------------------------------------------------

    def new_sheet(self, group: int, *, starts_in: timedelta = timedelta(0)) -> Sheet:
        """A sheet for a group and a lesson of 90 minutes."""
        with self.lock:
            number = self._made
            self._made += 1
            now = self.now()
            members = tuple(range(group * GROUP_SIZE, min((group + 1) * GROUP_SIZE, self.people)))
            sheet = Sheet(
                id=self.id_of("course", number),
                number=number,
                group=group,
                professor=number % self.teachers,
                start=now + starts_in,
                end=now + starts_in + LESSON,
                members=members or (0,),
                created=now,
                updated=now,
            )
            self.sheets[sheet.id] = sheet
            if len(self.sheets) > _KEPT:
                self.sheets.popitem(last=False)
            return sheet

    def sign(self, sheet: Sheet, student: int) -> None:
        with self.lock:
            sheet.signed[student] = self.now()

    def teacher_signs(self, sheet: Sheet) -> None:
        with self.lock:
            sheet.teacher_signed = self.now()
            self._moved(sheet)

    def edit(self, sheet: Sheet) -> None:
        with self.lock:
            sheet.edits += 1
            sheet.updated = self.now()

    def end(self, sheet: Sheet) -> None:
        """A lesson ends now, whenever it was to end: simulated days are short."""
        with self.lock:
            sheet.end = self.now()

    def close(self, sheet: Sheet) -> None:
        with self.lock:
            sheet.locked = True
            self._moved(sheet)

    def delete(self, sheet: Sheet) -> None:
        with self.lock:
            sheet.deleted = True

    def ask_to_excuse(self, sheet: Sheet, student: int) -> str:
        """The id of the absence that is asked to be excused."""
        with self.lock:
            id = self.id_of(f"absence|{sheet.number}", student)
            if id not in self.absences:
                self.absences[id] = Absence(
                    id=id, sheet=sheet.id, student=student, start=sheet.start, end=sheet.end, asked=self.now()
                )
                self._bound(self.absences)
            return id

    def excuse(self, sheet: Sheet, student: int) -> str:
        with self.lock:
            sheet.excused.add(student)
            return self.ask_to_excuse(sheet, student)

    def join(self, noun: Noun) -> int:
        """A new student, teacher or group; its number."""
        with self.lock:
            number, now = len(self.members[noun]), self.now()
            self.members[noun][self.id_of(noun, number)] = Member(number=number, created=now, updated=now)
            return number

    def change(self, noun: Noun, number: int, *, archived: bool | None = None) -> None:
        """Somebody's record is edited, or archived, or restored: Edusign hides, it does not delete."""
        with self.lock:
            member = self.members[noun][self.id_of(noun, number)]
            member.updated = self.now()
            member.archived = member.archived if archived is None else archived

    def complete_document(self) -> str:
        with self.lock:
            number, now = len(self.documents), self.now()
            id = self.id_of("document", number)
            self.documents[id] = Document(id=id, number=number, created=now, completed=self.now())
            self._bound(self.documents)
            return id

    def answer_survey(self, number: int, student: int) -> str:
        with self.lock:
            id = self.id_of("survey", number)
            self.answers.setdefault(id, {})[student] = self.now()
            return id

    def lock_sheet(self, id: str) -> bool:
        """What `GET /v1/course/lock/{id}` does, although it is a GET. False for an unknown sheet."""
        with self.lock:
            sheet = self.sheets.get(id)
            if sheet is not None:
                self.close(sheet)
            return sheet is not None

    def _moved(self, sheet: Sheet) -> None:
        if self.edits_by_anything:
            sheet.updated = self.now()

    def _bound(self, things: OrderedDict[str, Absence] | OrderedDict[str, Document]) -> None:
        if len(things) > _KEPT:
            things.popitem(last=False)

    # --- what follows from a number -----------------------------------------------------------------------------------

    def name(self, noun: str, number: int) -> tuple[str, str]:
        draw = random.Random(f"{self.seed}|{noun}|{number}")
        return draw.choice(GIVEN), draw.choice(FAMILY)

    def email(self, noun: str, number: int) -> str:
        return f"{noun}.{number}@example.test"

    def habit(self, sheet: Sheet, student: int) -> tuple[Literal["sheet", "email", "never"], int]:
        """How somebody signs a sheet, and how many minutes late; the same whenever it is asked."""
        draw = random.Random(f"{self.seed}|{sheet.number}|{student}")
        late = draw.choice((5, 12, 25)) if draw.random() < 0.08 else 0
        chance = draw.random()
        return "never" if chance < 0.09 else "email" if chance < 0.17 else "sheet", late
