"""The nouns of an event's `data`: one class each; `None` stands for "the platform did not say".

Their names and their fields follow OneRoster and LTI; on the wire the fields are camel case.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """An id of the same thing elsewhere, for instance scheme `sis.studentNumber`."""

    scheme: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody. `key` is `<provider>:<id>`; `role` is learner, instructor, manager … as OneRoster spells them."""

    key: str | None = None
    role: str | None = None
    email: str | None = None
    given_name: str | None = None
    family_name: str | None = None
    identifiers: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    key: str | None = None
    title: str | None = None
    identifiers: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """An exam: a WISEflow flow, an Inspera test."""

    key: str | None = None
    title: str | None = None
    state: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    identifiers: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    key: str | None = None
    status: str | None = None
    submitted_at: datetime | None = None
    attempt: int | None = None
    is_group: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """`value` and `label` keep the platform's own spelling; the scores are there only when it gave numbers.

    `kind` is final, alternative, section or administrative; `status` is published, updated, revoked or provisional.
    """

    value: str | None = None
    label: str | None = None
    scale: str | None = None
    score_given: float | None = None
    score_maximum: float | None = None
    passed: bool | None = None
    kind: str | None = None
    status: str | None = None
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One class meeting: a Wise session, an Edusign course."""

    key: str | None = None
    title: str | None = None
    scheduled_start: datetime | None = None
    scheduled_end: datetime | None = None
    actual_start: datetime | None = None
    actual_end: datetime | None = None
    join_url: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """`status` is present, late, absent, excused or unknown; `minutes` is how long somebody was there."""

    status: str | None = None
    signed_at: datetime | None = None
    method: str | None = None
    minutes: int | None = None
    report_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """`status` is active, suspended or removed."""

    role: str | None = None
    status: str | None = None
    reason: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """`kind` is payment or invoice; `amount_minor` counts the currency's smallest unit; `currency` is ISO 4217."""

    kind: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    status: str | None = None
    charged_at: datetime | None = None
    instalment: int | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A thing to fetch or to read: `kind` is recording, certificate, document, export, report, assignment or survey."""

    key: str | None = None
    kind: str | None = None
    url: str | None = None
    url_expires_at: datetime | None = None
    media_type: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    key: str | None = None
    name: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field that changed, with the platform's own values; `label` puts a code into words where they are known."""

    field: str | None = None
    old: str | None = None
    new: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """Where the untouched bytes are: the delivery's id and the SHA-256 of its body."""

    ref: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """All nouns, always all there; None when the event says nothing about one."""

    person: Person | None = None
    actor: Person | None = None
    course: Course | None = None
    assessment: Assessment | None = None
    submission: Submission | None = None
    grade: Grade | None = None
    session: Session | None = None
    attendance: Attendance | None = None
    enrolment: Enrolment | None = None
    payment: Payment | None = None
    artifact: Artifact | None = None
    group: Group | None = None
    change: Change | None = None
    raw: Raw | None = None
