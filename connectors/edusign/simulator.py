"""A simulated Edusign: the webhooks of a school's day, signed as its app signs, and the API that knows the same things.

A kind with the prefix `school:` is the other flavour: nested objects, no HMAC, no headers, the secret as `?token=`.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal
from urllib.parse import unquote

from bridge.core.contracts import ApiCall, ApiReply, Call, SendingRule, SignedCall
from bridge.core.events import Json
from bridge.core.signing import sign as hmac_of
from connectors.edusign.world import Noun, School, Sheet

# No retry, a notice in the dashboard instead; 15 s (developers.edusign.com/docs/webhooks-2). What counts as success is
# not documented.
RULE: Final = SendingRule(success=range(200, 300), timeout=15.0, retries=())

API_KEY: Final = "5b0c0f0e-6a43-4a71-9f55-3f1f6a9d2c11"
SCHOOL: Final = "school:"
_NOUNS: Final[Mapping[str, Noun]] = {
    "student": "student", "professor": "professor", "group": "group", "course": "course",
}  # fmt: skip
_PAGE: Final[Mapping[Noun, int]] = {"student": 100, "professor": 100, "group": 100, "course": 40}
_CHANGES: Final = ("created", "edited", "deleted", "unremoved")
_ABOUT: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("cron_midnight", "on_app_parameters_changed"), ()),
    **dict.fromkeys(("on_course_created", "on_course_start", "on_course_edited", "on_course_end"), ("course",)),
    **dict.fromkeys(("on_course_deleted", "on_course_locked", "on_zoom_meeting_created"), ("course",)),
    "on_abscence_report_generated": ("course",),
    **dict.fromkeys(("on_justified_absence", "on_request_justified_absence"), ("absence", "course", "student")),
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


def platform(seed: int = 1, people: int = 200) -> Platform:
    """A school of its own, the same for the same seed."""
    return Platform(seed, people)


def settings(secret: str, api_url: str, *, style: Literal["app", "school"] = "app") -> Json:
    """The entry of bridge.yaml's `sources` for an app's webhooks, or for a school's with the secret as URL token."""
    proof: Json = {"secrets": [secret]} if style == "app" else {"secrets": [], "mode": "url_token", "url_token": secret}
    return {"connector": "edusign", **proof, "api": {"base_url": api_url, "api_key": API_KEY}}


class Platform:
    """A simulated Edusign. `calls` counts API calls by method and path template; `maintenance` makes the API fail."""

    def __init__(self, seed: int, people: int) -> None:
        self.school = School(seed, max(1, people))
        self.calls: Counter[str] = Counter()
        self.maintenance = False
        self._draw = random.Random(seed)
        self._counting = threading.Lock()

    # --- webhooks -----------------------------------------------------------------------------------------------------

    def day(self) -> Iterator[Call]:
        """Lesson after lesson, all groups at once: nine in ten calls are signatures; midnight after every fourth."""
        lesson = 0
        while True:
            lesson += 1
            yield from self._lesson()
            if lesson % 4 == 0:
                yield self._call("cron_midnight")

    def _lesson(self) -> Iterator[Call]:
        school, draw = self.school, self._draw
        sheets = [school.new_sheet(group) for group in range(school.groups)]
        for sheet in sheets:
            yield self._call("on_course_created", sheet)
            if draw.random() < 0.1:
                school.change(sheet, edited=True)
                yield self._call("on_course_edited", sheet)
            if draw.random() < 0.1:
                yield self._call("on_zoom_meeting_created", sheet)
        cancelled = [sheet for sheet in sheets if len(sheets) > 1 and draw.random() < 0.03]
        for sheet in cancelled:
            school.change(sheet, deleted=True)
            yield self._call("on_course_deleted", sheet)
        sheets = [sheet for sheet in sheets if not sheet.deleted]
        for sheet in sheets:
            yield self._call("on_course_start", sheet)
        queue = [(sheet, student) for sheet in sheets for student in sheet.members]
        draw.shuffle(queue)
        for sheet, student in queue:
            if school.habit(sheet, student)[0] != "never":
                school.sign(sheet, student)
                yield self._call("on_student_sign", sheet, student)
            if draw.random() < 0.01:
                yield self.sample(draw.choice(_RARE))
        for sheet in sheets:
            school.change(sheet, teacher_signed=True)
            yield self._call("on_teacher_sign", sheet)
            yield self._call("on_course_end", sheet)
            school.change(sheet, locked=True)
            yield self._call("on_course_locked", sheet)
            yield self._call("on_abscence_report_generated", sheet)
            absent = [student for student in sheet.members if student not in sheet.signed]
            for student in (one for one in absent if draw.random() < 0.3):
                yield self._call("on_request_justified_absence", sheet, student)
                school.excuse(sheet, student)
                yield self._call("on_justified_absence", sheet, student)

    def sample(self, kind: str) -> Call:
        """One call of a kind, and the school is changed accordingly. Also `school:<kind>` and the calls about the app.

        Raises KeyError for a kind that Edusign does not have.
        """
        if kind in ("test-install-app", "test-uninstall-app", "app-form-completion"):
            return Call(kind=kind, body=self._about_the_app(kind))
        native = kind.removeprefix(SCHOOL)
        nouns = _ABOUT[native]
        school = self.school
        sheet = school.new_sheet(self._draw.randrange(school.groups)) if "course" in nouns else None
        student = self._draw.choice(sheet.members) if sheet else self._draw.randrange(school.people)
        id = school.id_of("student", student)
        if native == "on_student_sign" and sheet:
            school.sign(sheet, student)
        elif native == "on_justified_absence" and sheet:
            school.excuse(sheet, student)
        elif native == "on_student_created":
            student = len(school.ids("student"))
            id = school.add_student()
        call = self._call(kind, sheet, student)
        if native in ("on_student_deleted", "on_student_unremoved"):
            school.archive(id, archived=native == "on_student_deleted")
        elif native in ("on_group_deleted", "on_group_unremoved"):
            school.archive(call.body.get("groupId", ""), archived=native == "on_group_deleted")
        elif sheet and native in ("on_course_deleted", "on_course_locked", "on_teacher_sign", "on_course_edited"):
            school.change(
                sheet,
                deleted=native == "on_course_deleted",
                locked=native == "on_course_locked",
                teacher_signed=native == "on_teacher_sign",
                edited=native == "on_course_edited",
            )
        return call

    def _call(self, kind: str, sheet: Sheet | None = None, student: int = 0) -> Call:
        school, native = self.school, kind.removeprefix(SCHOOL)
        teacher = school.id_of("professor", sheet.professor if sheet else student % school.teachers)
        values = {
            "course": sheet.id if sheet else "",
            "student": school.id_of("student", student),
            "teacher": teacher,
            "group": school.id_of("group", sheet.group if sheet else student % school.groups),
            "absence": school.id_of(f"absence|{sheet.number if sheet else 0}", student),
            "document": school.id_of("document", student),
            "email": school.email("student", student),
            "survey": school.id_of("survey", student % 7),
        }
        if kind.startswith(SCHOOL):
            return Call(kind=kind, body={"type": native} | self._nested(values, _ABOUT[native]))
        body: Json = {"type": native, "appId": school.app_id}
        for noun in _ABOUT[native]:
            body |= {"email": values["email"]} if noun == "email" else {f"{noun}Id": values[noun]}
        return Call(kind=kind, body=body)

    def _nested(self, values: Mapping[str, str], nouns: tuple[str, ...]) -> Json:
        """A school's body: objects with upper-case columns; the API says professor where webhooks say teacher."""
        body: Json = {}
        for noun in nouns:
            name = "professor" if noun == "teacher" else noun
            record = (self.school.record(_NOUNS[name], values[noun]) if name in _NOUNS else None) or {}
            shown = {key: record[key] for key in ("NAME", "START", "END", "EMAIL") if key in record}
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

    # --- API ----------------------------------------------------------------------------------------------------------

    def answer(self, call: ApiCall) -> ApiReply:
        """HTTP 200 with an envelope whose `status` tells; technical errors in plain text.

        developers.edusign.com/docs/requests-and-responses; the texts are seen in clients.
        """
        if self.maintenance:
            return ApiReply(status=500, text="Internal Server Error")
        if call.headers.get("authorization") != f"Bearer {API_KEY}":
            return ApiReply(status=401, text="Unauthorized")
        parts = [unquote(part) for part in call.path.strip("/").split("/")]
        if call.method != "GET" or len(parts) < 2 or parts[0] != "v1":
            return ApiReply(status=404, text="Not Found")
        return self._answer(parts[1:], call.query)

    def _answer(self, parts: list[str], query: Mapping[str, str]) -> ApiReply:
        school = self.school
        match parts:
            case ["school"]:
                self._count("GET /v1/school")
                return _success(
                    {"ID": school.id, "NAME": "École Exemple", "LANGUAGE": "fr", "TIMEZONE": "Europe/Paris"}
                )
            case [noun] if noun in _NOUNS:
                self._count(f"GET /v1/{noun}")
                return self._list(_NOUNS[noun], query.get("page", "0"))
            case [noun, id] if noun in _NOUNS:
                self._count(f"GET /v1/{noun}/{{{noun}Id}}")
                record = school.record(_NOUNS[noun], id)
                return _success(record) if record else _failure(f"{noun.capitalize()} not found")
            case ["student" | "professor" as noun, "by-email", email]:
                self._count(f"GET /v1/{noun}/by-email/{{email}}")
                record = school.by_email(_NOUNS[noun], email)
                return _success(record) if record else _failure(f"{noun.capitalize()} not found")
            case ["course", "lock", id]:
                self._count("GET /v1/course/lock/{courseId}")
                return _success({"ID": id}) if school.lock_sheet(id) else _failure("Course not found")
            case _:
                return ApiReply(status=404, text="Not Found")

    def _count(self, call: str) -> None:
        with self._counting:
            self.calls[call] += 1

    def _list(self, noun: Noun, page: str) -> ApiReply:
        """Pages count from 0."""
        if not (page.isascii() and page.isdigit() and len(page) < 8):
            return _failure(["page must be a number"])
        size, ids = _PAGE[noun], self.school.ids(noun)
        records = [self.school.record(noun, id) for id in ids[int(page) * size : (int(page) + 1) * size]]
        return _success(
            [{key: value for key, value in record.items() if key != "GROUPS"} for record in records if record]
        )


def _success(result: object) -> ApiReply:
    return ApiReply(json={"status": "success", "result": result})


def _failure(message: object) -> ApiReply:
    return ApiReply(json={"status": "error", "message": message})
