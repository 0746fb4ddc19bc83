"""A simulated Edusign: the webhooks of a school's day, signed as its app signs, and the API that knows the same things.

A kind with the prefix `school:` is the other flavour: nested objects, no HMAC, no headers, the secret as `?token=`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Final, Literal

from bridge.core.events import Json
from bridge.core.signing import sign as hmac_of
from bridge.core.simulation import ApiCall, ApiReply, Call, SendingRule, SignedCall
from connectors.edusign.simulated_api import API_KEY, SimulatedApi
from connectors.edusign.simulated_records import SURVEYS, record
from connectors.edusign.world import Noun, School, Sheet

# No retry, a notice in the dashboard instead; 15 s (developers.edusign.com/docs/webhooks-2). What counts as success is
# not documented.
RULE: Final = SendingRule(success=range(200, 300), timeout=15.0, retries=())

SCHOOL: Final = "school:"
_NOUNS: Final[Mapping[str, Noun]] = {
    "student": "student", "professor": "professor", "teacher": "professor", "group": "group", "course": "course",
}  # fmt: skip
_CHANGES: Final = ("created", "edited", "deleted", "unremoved")
_ABOUT: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("cron_midnight", "on_app_parameters_changed"), ()),
    **dict.fromkeys(("on_course_created", "on_course_start", "on_course_edited", "on_course_end"), ("course",)),
    **dict.fromkeys(("on_course_deleted", "on_course_locked", "on_zoom_meeting_created"), ("course",)),
    "on_abscence_report_generated": ("course",),
    "on_justified_absence": ("absence", "course", "student"),
    "on_request_justified_absence": ("absence",),
    "on_student_sign": ("course", "student"),
    "on_teacher_sign": ("course", "teacher"),
    **{f"on_{noun}_{what}": (noun,) for noun in ("student", "teacher", "group") for what in _CHANGES},
    "on_document_completed": ("document",),
    "on_survey_answer": ("survey", "student"),
    "on_email_invalid": ("email", "student"),
}
"""What each webhook names. Only the body of `on_course_created` is published; the others follow its pattern."""

_RARE: Final = (
    "on_student_created", "on_student_edited", "on_student_edited", "on_student_deleted", "on_student_unremoved",
    "on_teacher_created", "on_teacher_edited", "on_teacher_deleted", "on_teacher_unremoved",
    "on_group_created", "on_group_edited", "on_group_deleted", "on_group_unremoved",
    "on_document_completed", "on_document_completed", "on_survey_answer", "on_survey_answer", "on_email_invalid",
    "on_app_parameters_changed",
)  # fmt: skip

_HAPPENS: Final[Mapping[str, Callable[[School, Sheet, int], object]]] = {
    "on_student_sign": School.sign,
    "on_justified_absence": School.excuse,
    "on_request_justified_absence": School.ask_to_excuse,
    "on_teacher_sign": lambda school, sheet, _: school.teacher_signs(sheet),
    "on_course_deleted": lambda school, sheet, _: school.delete(sheet),
    "on_course_edited": lambda school, sheet, _: school.edit(sheet),
    "on_course_end": lambda school, sheet, _: school.end(sheet),
    "on_course_locked": lambda school, sheet, _: school.close(sheet),
}
"""What a single call of a kind changes at the school."""


def platform(seed: int = 1, people: int = 200) -> Platform:
    """A school of its own, the same for the same seed."""
    return Platform(seed, people)


def settings(secret: str, api_url: str, *, style: Literal["app", "school"] = "app") -> Json:
    """The entry of bridge.yaml's `sources` for an app's webhooks, or for a school's with the secret as URL token."""
    proof: Json = {"secrets": [secret]} if style == "app" else {"secrets": [], "mode": "url_token", "url_token": secret}
    return {"connector": "edusign", **proof, "api": {"base_url": api_url, "api_key": API_KEY}}


class Platform:
    """A simulated Edusign: its school, its webhooks, and `api` with the knobs of its API. `calls` are counted there."""

    def __init__(self, seed: int, people: int) -> None:
        self.school = School(seed, max(1, people))
        self.api = SimulatedApi(self.school)
        self.calls = self.api.calls
        self._draw = random.Random(seed)

    def answer(self, call: ApiCall) -> ApiReply:
        """The platform's API."""
        return self.api.answer(call)

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def day(self) -> Iterator[Call]:
        """Lesson after lesson, all groups at once: nine in ten calls are signatures; midnight after every fourth."""
        lesson = 0
        while True:
            lesson += 1
            yield from self._lesson()
            if lesson % 4 == 0:
                yield self._call("cron_midnight", {})

    def _lesson(self) -> Iterator[Call]:
        school, draw = self.school, self._draw
        sheets = [school.new_sheet(group) for group in range(school.groups)]
        for sheet in sheets:
            yield self._about(sheet, "on_course_created")
            if draw.random() < 0.1:
                school.edit(sheet)
                yield self._about(sheet, "on_course_edited")
            if draw.random() < 0.1:
                yield self._about(sheet, "on_zoom_meeting_created")
        cancelled = [sheet for sheet in sheets if len(sheets) > 1 and draw.random() < 0.03]
        for sheet in cancelled:
            school.delete(sheet)
            yield self._about(sheet, "on_course_deleted")
        sheets = [sheet for sheet in sheets if not sheet.deleted]
        for sheet in sheets:
            yield self._about(sheet, "on_course_start")
        queue = [(sheet, student) for sheet in sheets for student in sheet.members]
        draw.shuffle(queue)
        for sheet, student in queue:
            if school.habit(sheet, student)[0] != "never":
                school.sign(sheet, student)
                yield self._about(sheet, "on_student_sign", student)
            if draw.random() < 0.01:
                yield self.sample(draw.choice(_RARE))
        for sheet in sheets:
            school.teacher_signs(sheet)
            yield self._about(sheet, "on_teacher_sign")
            school.end(sheet)
            yield self._about(sheet, "on_course_end")
            school.close(sheet)
            yield self._about(sheet, "on_course_locked")
            yield self._about(sheet, "on_abscence_report_generated")
            absent = [student for student in sheet.members if student not in sheet.signed]
            for student in (one for one in absent if draw.random() < 0.3):
                school.ask_to_excuse(sheet, student)
                yield self._about(sheet, "on_request_justified_absence", student)
                school.excuse(sheet, student)
                yield self._about(sheet, "on_justified_absence", student)

    def sample(self, kind: str) -> Call:
        """One call of a kind, and the school is changed accordingly. Also `school:<kind>` and the calls about the app.

        Raises KeyError for a kind that Edusign does not have.
        """
        if kind in ("test-install-app", "test-uninstall-app", "app-form-completion"):
            return Call(kind=kind, body=self._about_the_app(kind))
        native, school, draw = kind.removeprefix(SCHOOL), self.school, self._draw
        nouns = _ABOUT[native]
        _, noun, *what = native.split("_")
        if noun in ("student", "teacher", "group") and what[-1] in _CHANGES:
            return self._changed(kind, noun, what[-1])
        if "course" in nouns or "absence" in nouns:
            sheet = school.new_sheet(draw.randrange(school.groups))
            student = draw.choice(sheet.members)
            if native in _HAPPENS:
                _HAPPENS[native](school, sheet, student)
            return self._about(sheet, kind, student)
        student = draw.randrange(school.people)
        values = {"student": school.id_of("student", student), "email": school.email("student", student)}
        if "document" in nouns:
            values["document"] = school.complete_document()
        if "survey" in nouns:
            values["survey"] = school.answer_survey(student % SURVEYS, student)
        return self._call(kind, values)

    def _changed(self, kind: str, noun: str, what: str) -> Call:
        """Somebody, or a group, is created, edited, archived or restored."""
        school, of = self.school, _NOUNS[noun]
        number = school.join(of) if what == "created" else self._draw.randrange(len(school.members[of]))
        if what != "created":
            archived = {"deleted": True, "unremoved": False}.get(what)
            school.change(of, number, archived=archived)
        return self._call(kind, {noun: school.id_of(of, number)})

    def _about(self, sheet: Sheet, kind: str, student: int = 0) -> Call:
        school = self.school
        values = {
            "course": sheet.id,
            "student": school.id_of("student", student),
            "teacher": school.id_of("professor", sheet.professor),
            "absence": school.id_of(f"absence|{sheet.number}", student),
        }
        return self._call(kind, values)

    def _call(self, kind: str, values: Mapping[str, str]) -> Call:
        native = kind.removeprefix(SCHOOL)
        if kind.startswith(SCHOOL):
            return Call(kind=kind, body={"type": native} | self._nested(values, _ABOUT[native]))
        body: Json = {"type": native, "appId": self.school.app_id}
        for noun in _ABOUT[native]:
            body |= {"email": values["email"]} if noun == "email" else {f"{noun}Id": values[noun]}
        return Call(kind=kind, body=body)

    def _nested(self, values: Mapping[str, str], nouns: tuple[str, ...]) -> Json:
        """A school's body: objects with upper-case columns; the API says professor where webhooks say teacher."""
        body: Json = {}
        for noun in nouns:
            name = "professor" if noun == "teacher" else noun
            known = (record(self.school, _NOUNS[name], values[noun]) if name in _NOUNS else None) or {}
            shown = {key: known[key] for key in ("NAME", "START", "END", "EMAIL") if key in known}
            body |= {"email": values["email"]} if noun == "email" else {name: {"ID": values[noun]} | shown}
        return body

    def _about_the_app(self, kind: str) -> Json:
        school = self.school
        if kind == "test-uninstall-app":
            return {"schoolId": school.id}
        if kind == "test-install-app":
            return {
                "parametersValues": {},
                "parameters": [],
                "schoolId": school.id,
                "client_id": school.client_id,
                "client_secret": "1f3ff0c6-2a55-4a0e-8d0b-7f2c4a1de001",
                "token": API_KEY,
            }
        return {
            "type": kind,
            "ACTION": "apicall",
            "LOCATION": "view_course",
            "caller": {"userId": "adm1", "userType": "admin", "appId": school.app_id, "schoolId": school.id},
            "context": {"schoolId": school.id, "courseId": school.id_of("course", 0)},
        }

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """Compact UTF-8 JSON; nothing differs from one attempt to the next, and no time is sent."""
        body = json.dumps(call.body, separators=(",", ":"), ensure_ascii=False).encode()
        plain = {"content-type": "application/json", "accept": "application/json"}
        if call.kind.startswith(SCHOOL):
            return SignedCall(headers=plain, body=body, query={"token": secret})
        headers = plain | {
            "x-edusign-version": "1.0",
            "x-edusign-webhook-type": call.kind,
            "x-edusign-school-id": self.school.id,
            "x-edusign-app-id": self.school.app_id,
            "x-edusign-client-id": self.school.client_id,
            "x-edusign-lang": "fr",
            "x-edusign-hmac": hmac_of(secret, body),
        }
        return SignedCall(headers=headers, body=body)
