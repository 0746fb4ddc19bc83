"""The canonical event types: what each is called, whether it is a state or an occurrence, and what orders it.

A *state* says how something is now; of two states with the same key only the newer is worth sending. An *occurrence*
says that something happened and is never superseded. States and occurrences of one `family` and subject are delivered
in order, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

Nature = Literal["state", "occurrence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventType:
    """One canonical type. `name` is the short form used in filters and metrics; `full` is what goes on the wire."""

    name: str
    nature: Nature
    family: str
    per_person: bool
    internal: bool
    about: str

    @property
    def full(self) -> str:
        return f"edu.{self.name}.v1"

    @property
    def noun(self) -> str:
        return self.name.partition(".")[0]


def _state(family: str, *names: tuple[str, str], per_person: bool = False) -> Iterable[EventType]:
    for name, about in names:
        yield EventType(name=name, nature="state", family=family, per_person=per_person, internal=False, about=about)


def _occurrence(
    family: str, *names: tuple[str, str], per_person: bool = False, internal: bool = False
) -> Iterable[EventType]:
    for name, about in names:
        yield EventType(
            name=name, nature="occurrence", family=family, per_person=per_person, internal=internal, about=about
        )


_ALL: Final = (
    *_state(
        "submission",
        ("submission.submitted", "A paper or answer set was handed in"),
        ("submission.withdrawn", "A hand-in was taken back"),
    ),
    *_state(
        "grade",
        ("grade.published", "A final grade is out"),
        ("grade.updated", "A final grade changed"),
        ("grade.revoked", "A final grade was taken back"),
        per_person=True,
    ),
    *_occurrence("grade.confirmation", ("grade.confirmed", "The grades of a whole test were confirmed")),
    *_state(
        "grade.alternative",
        ("grade.alternative_added", "An alternative grade (absence, illness …) was given"),
        ("grade.alternative_changed", "An alternative grade changed"),
        ("grade.alternative_removed", "An alternative grade was taken away"),
        per_person=True,
    ),
    *_state(
        "grade.justification",
        ("grade.justification_requested", "A participant asked for the reasons of a grade"),
        ("grade.justification_answered", "The reasons of a grade were given"),
    ),
    *_occurrence("grade.assessment", ("grade.assessment_recorded", "An assessor's assessment was recorded")),
    *_state("assessment.state", ("assessment.state_changed", "An exam moved to another state")),
    *_state("assessment.period", ("assessment.period_changed", "The dates of an exam changed")),
    *_state(
        "assignment",
        ("assignment.created", "A task was added to an exam"),
        ("assignment.updated", "A task of an exam changed"),
        ("assignment.removed", "A task was taken off an exam"),
    ),
    *_state(
        "session.schedule",
        ("session.scheduled", "A class session was planned"),
        ("session.rescheduled", "A planned session changed"),
        ("session.cancelled", "A planned session was called off"),
    ),
    *_occurrence(
        "session.run",
        ("session.started", "A session began"),
        ("session.ended", "A session ended"),
        ("session.locked", "The attendance sheet of a session was closed"),
        ("session.meeting_created", "An online meeting was made for a session"),
        ("session.recording_completed", "A recording of a session is ready"),
    ),
    *_occurrence(
        "session.participant",
        ("session.participant_joined", "Somebody came into a meeting"),
        ("session.participant_left", "Somebody left a meeting"),
        ("session.sharing_started", "Somebody began to share a screen"),
        ("session.sharing_ended", "Somebody stopped sharing a screen"),
        per_person=True,
    ),
    *_occurrence("attendance", ("attendance.signed", "Somebody signed an attendance sheet"), per_person=True),
    *_state(
        "attendance.computed", ("attendance.computed", "The attendance of a session was worked out"), per_person=True
    ),
    *_occurrence("attendance.report", ("attendance.absence_report_generated", "A report of absences was made")),
    *_occurrence(
        "attendance.absence",
        ("attendance.absence_justified", "An absence was excused"),
        ("attendance.absence_justification_requested", "Somebody asked for an absence to be excused"),
        per_person=True,
    ),
    *_state(
        "enrolment",
        ("enrolment.added", "Somebody joined a course"),
        ("enrolment.removed", "Somebody was taken off a course"),
        ("enrolment.suspended", "Somebody's place on a course was suspended"),
        ("enrolment.reinstated", "A suspension was lifted"),
        per_person=True,
    ),
    *_occurrence("payment", ("payment.completed", "A payment was made"), per_person=True),
    *_occurrence("invoice", ("invoice.charged", "An invoice or instalment was charged"), per_person=True),
    *_occurrence("certificate", ("certificate.issued", "A certificate was issued"), per_person=True),
    *_state(
        "person",
        ("person.created", "A person was registered"),
        ("person.updated", "A person's details changed"),
        ("person.deleted", "A person was removed or archived"),
        ("person.restored", "A removed person came back"),
    ),
    *_occurrence("person.email", ("person.email_invalid", "Mail to a person's address came back"), per_person=True),
    *_state(
        "group",
        ("group.created", "A group was made"),
        ("group.updated", "A group changed"),
        ("group.deleted", "A group was removed or archived"),
        ("group.restored", "A removed group came back"),
    ),
    *_occurrence("document", ("document.completed", "All signatures of a document are there")),
    *_occurrence("survey", ("survey.answered", "Somebody answered a survey"), per_person=True),
    *_occurrence("export", ("export.ready", "An export that was ordered can be fetched")),
    *_state(
        "content",
        ("content.revision_status_changed", "A question's or question set's revision status changed"),
        ("content.changed", "A question, question set or document changed"),
    ),
    *_occurrence("sync", ("sync.requested", "A platform asks for a roster synchronisation")),
    *_occurrence(
        "source",
        ("source.verification", "The platform checked that we are here"),
        ("source.tick", "The platform's own clock"),
        ("source.configuration_changed", "Somebody changed the integration's settings on the platform"),
        ("source.unmapped", "A genuine delivery that no rule understands yet; kept, and replayable"),
        internal=True,
    ),
)

TYPES: Final[dict[str, EventType]] = {entry.name: entry for entry in _ALL}
"""Every canonical type by its short name."""


def short(name: str) -> str:
    """`edu.grade.published.v1` and `grade.published` both become `grade.published`."""
    inner = name.removeprefix("edu.")
    stem, _, version = inner.rpartition(".")
    return stem if version.startswith("v") and version[1:].isdigit() else inner


def matches(pattern: str, name: str) -> bool:
    """Whether a short type matches a filter such as `grade.*`; a bare `*` leaves the internal types out."""
    if pattern == "*":
        return not TYPES[name].internal
    return fnmatchcase(name, pattern)
