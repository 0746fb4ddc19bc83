"""A made-up school as Edusign's API shows it: students, teachers, groups, and sheets with what was signed so far.

People follow from their number and the seed; only what changes (sheets, who is archived) is remembered, under a lock.
Columns that must never leave the connector (PASSWORD, PIN, tokens, signature images) are here on purpose.
"""

from __future__ import annotations

import hashlib
import random
import string
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from bridge.core.events import Json, stamp

GIVEN: Final = ("Ada", "Émile", "Noor", "Linus", "Zoë", "Amara", "Björn", "Chloé", "Hugo", "Inès", "Søren", "Maëlys")
FAMILY: Final = ("Lovelace", "Durand", "Okafor", "Lefèvre", "Nguyen", "Sørensen", "Moreau", "Silva", "Petit", "Haddad")
TOPICS: Final = ("Algèbre", "Statistics", "Droit du travail", "Python", "Anglais B2", "Marketing", "Anatomie", "UX Lab")
FIRST_DAY: Final = datetime(2026, 1, 19, 8, tzinfo=UTC)
GROUP_SIZE: Final = 25
_SHEETS_KEPT: Final = 20_000

Noun = Literal["student", "professor", "group", "course"]


@dataclass(slots=True, kw_only=True)
class Sheet:
    """One "course": who belongs on it, and what happened to it."""

    id: str
    number: int
    group: int
    professor: int
    start: datetime
    members: tuple[int, ...]
    signed: set[int] = field(default_factory=set)
    excused: set[int] = field(default_factory=set)
    edits: int = 0
    teacher_signed: bool = False
    locked: bool = False
    deleted: bool = False


class School:
    """The school and its state; every method may be called from several threads."""

    def __init__(self, seed: int, people: int) -> None:
        self.seed = seed
        self.people = people
        self.id = self.id_of("school", 0)
        self.app_id = self.id_of("app", 0)
        self.client_id = hashlib.sha256(f"{seed}|client".encode()).hexdigest()[:32]
        self.teachers = max(3, people // 20)
        self.groups = max(1, people // GROUP_SIZE)
        self._lock = threading.Lock()
        self._sheets: OrderedDict[str, Sheet] = OrderedDict()
        self._made = 0
        self._students = {self.id_of("student", number): number for number in range(people)}
        self._teachers = {self.id_of("professor", number): number for number in range(self.teachers)}
        self._groups = {self.id_of("group", number): number for number in range(self.groups)}
        self._archived: set[str] = set()

    def id_of(self, noun: str, number: int) -> str:
        """16 characters of a-z and 0-9, as Edusign's ids look."""
        value = int.from_bytes(hashlib.sha256(f"{self.seed}|{noun}|{number}".encode()).digest()[:12], "big")
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"
        return "".join(letters[value // 36**place % 36] for place in range(16))

    # --- what happens -------------------------------------------------------------------------------------------------

    def new_sheet(self, group: int) -> Sheet:
        """A sheet for a group; two groups of lessons a day, 90 minutes each."""
        with self._lock:
            number = self._made
            self._made += 1
            slot = number // self.groups
            members = tuple(range(group * GROUP_SIZE, min((group + 1) * GROUP_SIZE, self.people)))
            sheet = Sheet(
                id=self.id_of("course", number),
                number=number,
                group=group,
                professor=number % self.teachers,
                start=FIRST_DAY + timedelta(days=slot // 4, hours=2 * (slot % 4)),
                members=members or (0,),
            )
            self._sheets[sheet.id] = sheet
            if len(self._sheets) > _SHEETS_KEPT:
                self._sheets.popitem(last=False)
            return sheet

    def sign(self, sheet: Sheet, student: int) -> None:
        with self._lock:
            sheet.signed.add(student)

    def excuse(self, sheet: Sheet, student: int) -> None:
        with self._lock:
            sheet.excused.add(student)

    def change(
        self,
        sheet: Sheet,
        *,
        teacher_signed: bool = False,
        locked: bool = False,
        deleted: bool = False,
        edited: bool = False,
    ) -> None:
        with self._lock:
            sheet.teacher_signed |= teacher_signed
            sheet.locked |= locked
            sheet.deleted |= deleted
            sheet.edits += edited

    def add_student(self) -> str:
        with self._lock:
            number = len(self._students)
            id = self.id_of("student", number)
            self._students[id] = number
            return id

    def archive(self, id: str, *, archived: bool) -> None:
        """Archive or restore a student, teacher or group: Edusign hides, it does not delete."""
        with self._lock:
            (self._archived.add if archived else self._archived.discard)(id)

    def lock_sheet(self, id: str) -> bool:
        """What `GET /v1/course/lock/{id}` does, although it is a GET. False for an unknown sheet."""
        with self._lock:
            sheet = self._sheets.get(id)
            if sheet is not None:
                sheet.locked = True
            return sheet is not None

    # --- what the API shows -------------------------------------------------------------------------------------------

    def record(self, noun: Noun, id: str) -> Json | None:
        """An object by its id as the API shows it, or None."""
        with self._lock:
            if noun == "course":
                sheet = self._sheets.get(id)
                return None if sheet is None or sheet.deleted else self._course(sheet)
            number = {"student": self._students, "professor": self._teachers, "group": self._groups}[noun].get(id)
            if number is None:
                return None
            hidden = int(id in self._archived)
            return {"student": self._student, "professor": self._professor, "group": self._group}[noun](
                id, number, hidden
            )

    def ids(self, noun: Noun) -> list[str]:
        with self._lock:
            if noun == "course":
                return [id for id, sheet in self._sheets.items() if not sheet.deleted]
            return list({"student": self._students, "professor": self._teachers, "group": self._groups}[noun])

    def by_email(self, noun: Noun, email: str) -> Json | None:
        """A student or teacher by address; the number stands in it."""
        digits = "".join(character for character in email.partition("@")[0] if character in string.digits)
        found = self.record(noun, self.id_of(noun, int(digits))) if digits and len(digits) < 10 else None
        return found if found is not None and found["EMAIL"] == email else None

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

    def _person(self, noun: Literal["student", "professor"], id: str, number: int) -> Json:
        given, family = self.name(noun, number)
        return {
            "ID": id,
            "EMAIL": self.email(noun, number),
            "FIRSTNAME": given,
            "LASTNAME": family,
            "PHONE": "",
            "API_ID": f"sis-{noun[0]}{number}" if number % 3 else "",
            "API_TYPE": "sis" if number % 3 else "",
            "TAGS": [],
            "VARIABLES": [],
            "DATE_CREATED": "2025-09-01T06:00:00.000Z",
            "DATE_UPDATED": "2025-12-11T18:18:38.000Z",
            "PASSWORD": "$2b$10$must-never-leave-the-connector",
            "NEW_PASSWORD_TOKEN": f"reset-{id}",
        }

    def _student(self, id: str, number: int, hidden: int) -> Json:
        group = number // GROUP_SIZE
        return self._person("student", id, number) | {
            "USERNAME": f"st{number}",
            "FILE_NUMBER": f"S-{100_000 + number}",
            "BADGE_ID": "",
            "PUSH_TOKEN": f"push-{id}",
            "LANGUAGE": "fr",
            "HIDDEN": hidden,
            "SCHOOL_ID": self.id,
            "GROUPS": [self.id_of("group", group)] if group < self.groups else [],
            "TRAINING_IDS": [self.id_of("training", group % 3)],
        }

    def _professor(self, id: str, number: int, hidden: int) -> Json:
        return self._person("professor", id, number) | {
            "SPECIALITY": TOPICS[number % len(TOPICS)],
            "PIN": "pin-4711",
            "MAGIC_LINK_TOKEN": f"magic-{id}",
            "LOGIN_CODE": ["123456"],
            "SCHOOL_ID": [self.id],
            "HIDDEN": [self.id] if hidden else [],
        }

    def _group(self, id: str, number: int, hidden: int) -> Json:
        first = number * GROUP_SIZE
        last = min(first + GROUP_SIZE, self.people)
        return {
            "ID": id,
            "NAME": f"Promo {number + 1}",
            "DESCRIPTION": "",
            "SCHOOL_ID": self.id,
            "STUDENTS": [self.id_of("student", student) for student in range(first, last)],
            "HIDDEN": hidden,
            "API_ID": "",
            "VARIABLES": [],
        }

    def _course(self, sheet: Sheet) -> Json:
        end = sheet.start + timedelta(minutes=90)
        return {
            "ID": sheet.id,
            "NAME": TOPICS[sheet.number % len(TOPICS)] + (" (modifié)" if sheet.edits else ""),
            "DESCRIPTION": "",
            "START": stamp(sheet.start),
            "END": stamp(end),
            "PROFESSOR": self.id_of("professor", sheet.professor),
            "PROFESSOR_2": "",
            "PROFESSOR_SIGNATURE": "https://img.example.test/p.png" if sheet.teacher_signed else None,
            "CLASSROOM": f"B{sheet.group + 10}",
            "SCHOOL_GROUP": [self.id_of("group", sheet.group)],
            "TRAINING_ID": self.id_of("training", sheet.group % 3),
            "LOCKED": int(sheet.locked),
            "API_ID": "",
            "NEED_STUDENTS_SIGNATURE": 1,
            "SIMPLE_SIGNATURE_PIN": "pin-0042",
            "STUDENTS": [self._row(sheet, student, end) for student in sheet.members],
        }

    def _row(self, sheet: Sheet, student: int, end: datetime) -> Json:
        habit, late = self.habit(sheet, student)
        signed = student in sheet.signed
        at = sheet.start + timedelta(minutes=late or student % 5, seconds=student % 60)
        mail = {"nbSent": 1, "requestId": "r1", "signUntil": stamp(end + timedelta(days=2)), "secondSend": False}
        return {
            "_id": self.id_of(f"row|{sheet.number}", student),
            "studentId": self.id_of("student", student),
            "courseId": sheet.id,
            "schoolId": self.id,
            "start": stamp(sheet.start),
            "end": stamp(end),
            "state": signed,
            "signature": f"https://img.example.test/s/{student}.png" if signed else None,
            "timestamp": stamp(at) if signed else None,
            "delay": late if signed else 0,
            "comment": "",
            "excluded": None,
            "absenceId": self.id_of(f"absence|{sheet.number}", student) if student in sheet.excused else None,
            "earlyDeparture": None,
            "signatureEmail": mail if habit == "email" else None,
        }
