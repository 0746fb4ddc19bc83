"""The objects of a simulated school as Edusign's API shows them: upper-case columns, nested objects in camel case.

Columns that must never leave the connector (PASSWORD, PIN, tokens, signature images, links) are here on purpose.
"""

from __future__ import annotations

import string
from datetime import timedelta
from typing import Final, Literal

from bridge.core.events import Json, stamp
from connectors.edusign.world import GROUP_SIZE, Absence, Document, Member, Noun, School, Sheet

TOPICS: Final = ("Algèbre", "Statistics", "Droit du travail", "Python", "Anglais B2", "Marketing", "Anatomie", "UX Lab")
TRAININGS: Final = ("Licence Informatique", "Master Marketing", "BTS Santé")
SURVEYS: Final = 7


def record(school: School, noun: Noun, id: str) -> Json | None:
    """An object by its id, or None."""
    with school.lock:
        if noun == "course":
            sheet = school.sheets.get(id)
            return None if sheet is None or sheet.deleted else course(school, sheet)
        member = school.members[noun].get(id)
        if member is None:
            return None
        return {"student": _student, "professor": _professor, "group": _group}[noun](school, id, member)


def by_email(school: School, noun: Noun, email: str) -> Json | None:
    """A student or teacher by address; the number stands in it."""
    digits = "".join(character for character in email.partition("@")[0] if character in string.digits)
    found = record(school, noun, school.id_of(noun, int(digits))) if digits and len(digits) < 10 else None
    return found if found is not None and found["EMAIL"] == email else None


def training(school: School, id: str) -> Json | None:
    for number, name in enumerate(TRAININGS):
        if school.id_of("training", number) == id:
            return {"ID": id, "NAME": name, "START": "2025-09-01 08:00:00", "END": "2026-07-31 18:00:00", "ARCHIVED": 0}
    return None


def course(school: School, sheet: Sheet) -> Json:
    return {
        "ID": sheet.id,
        "NAME": TOPICS[sheet.number % len(TOPICS)] + (f" (modifié {sheet.edits})" if sheet.edits else ""),
        "DESCRIPTION": "",
        "START": stamp(sheet.start),
        "END": stamp(sheet.end),
        "PROFESSOR": school.id_of("professor", sheet.professor),
        "PROFESSOR_2": "",
        "PROFESSOR_SIGNATURE": "https://img.example.test/p.png" if sheet.teacher_signed else None,
        "PROFESSOR_SIGNATURE_TIMESTAMP": stamp(sheet.teacher_signed) if sheet.teacher_signed else None,
        "CLASSROOM": f"B{sheet.group + 10}",
        "SCHOOL_GROUP": [school.id_of("group", sheet.group)],
        "TRAINING_ID": school.id_of("training", sheet.group % len(TRAININGS)),
        "LOCKED": int(sheet.locked),
        "API_ID": "",
        "NEED_STUDENTS_SIGNATURE": 1,
        "SIMPLE_SIGNATURE_PIN": "pin-0042",
        "DATE_CREATED": stamp(sheet.created),
        "DATE_UPDATED": stamp(sheet.updated),
        "STUDENTS": [_row(school, sheet, student) for student in sheet.members],
    }


def _row(school: School, sheet: Sheet, student: int) -> Json:
    habit, late = school.habit(sheet, student)
    at = sheet.signed.get(student)
    mail = {
        "nbSent": 1, "requestId": "r1", "signUntil": stamp(sheet.end + timedelta(days=2)), "secondSend": False
    }  # fmt: skip
    return {
        "_id": school.id_of(f"row|{sheet.number}", student),
        "studentId": school.id_of("student", student),
        "courseId": sheet.id,
        "schoolId": school.id,
        "start": stamp(sheet.start),
        "end": stamp(sheet.end),
        "state": at is not None,
        "signature": f"https://img.example.test/s/{student}.png" if at else None,
        "timestamp": stamp(at) if at else None,
        "delay": late if at else 0,
        "comment": "",
        "excluded": None,
        "absenceId": school.id_of(f"absence|{sheet.number}", student) if student in sheet.excused else None,
        "earlyDeparture": None,
        "signatureEmail": mail if habit == "email" else None,
    }


def absence(school: School, asked: Absence) -> Json:
    return {
        "ID": asked.id,
        "STUDENT_ID": school.id_of("student", asked.student),
        "COURSE_ID": asked.sheet,
        "START": stamp(asked.start),
        "END": stamp(asked.end),
        "TYPE": school.id_of("reason", 1),
        "COMMENT": "must-never-leave: grippe",
        "FILE_URL": f"https://img.example.test/proof/{asked.id}.pdf",
        "REQUEST_DATE": stamp(asked.asked),
        "DATE_CREATION": stamp(asked.asked),
    }


def document(school: School, made: Document) -> Json:
    """Every third one is a teacher's."""
    teachers = made.number % 3 == 2
    owner: Literal["student", "professor"] = "professor" if teachers else "student"
    number = made.number % (school.teachers if teachers else school.people)
    given, family = school.name(owner, number)
    completed = stamp(made.completed) if made.completed else None
    return {
        "ID": made.id,
        "NAME": f"Convention {made.number + 1}",
        "STATE": "completed" if made.completed else "pending",
        "TYPE": "template",
        "SCHOOL_ID": school.id,
        "STUDENT_ID": "" if teachers else school.id_of("student", number),
        "PROFESSOR_ID": school.id_of("professor", number) if teachers else "",
        "TRAINING_ID": school.id_of("training", made.number % len(TRAININGS)),
        "DOCUMENT_URL": f"https://img.example.test/d/{made.id}",
        "PDF_URL": f"https://img.example.test/d/{made.id}.pdf",
        "DATE_CREATED": stamp(made.created),
        "DATE_UPDATED": completed or stamp(made.created),
        "VARIABLES": {
            "validationMethod": "sms",
            "recipients": [
                {
                    "id": school.id_of(owner, number),
                    "firstname": given,
                    "lastname": family,
                    "email": school.email(owner, number),
                    "category": owner,
                    "token": f"reset-{made.id}",
                    "signatureState": "signed",
                    "signatureDate": completed,
                }
            ],
        },
        "METADATAS": [{"SIGNATORY_EMAIL": school.email(owner, number), "SIGNATORY_TOKEN": f"reset-{made.id}"}],
    }


def survey(school: School, number: int) -> Json:
    """Every second one is anonymous; the platform shows who answered all the same."""
    id = school.id_of("survey", number)
    with school.lock:
        answers = list(school.answers.get(id, {}).items())
    return {
        "ID": id,
        "NAME": f"Satisfaction {number + 1}",
        "TYPE": "hot",
        "TEMPLATE": "tpl1",
        "COURSE_ID": school.id_of("course", number),
        "TRAINING_ID": school.id_of("training", number % len(TRAININGS)),
        "SCHOOL_ID": school.id,
        "ANONYMOUS": number % 2,
        "RECIPIENT_TYPE": "student",
        "DATE_CREATED": "2025-10-01T06:00:00.000Z",
        "DATE_UPDATED": "2025-10-01T06:00:00.000Z",
        "studentAnswers": [
            {
                "studentId": school.id_of("student", student),
                "recipientType": "student",
                "completionDate": stamp(at),
                "answers": {"q1": "must-never-leave: 5"},
            }
            for student, at in answers
        ],
    }


def _person(school: School, noun: Literal["student", "professor"], id: str, member: Member) -> Json:
    number = member.number
    given, family = school.name(noun, number)
    return {
        "ID": id,
        "EMAIL": school.email(noun, number),
        "FIRSTNAME": given,
        "LASTNAME": family,
        "PHONE": "",
        "API_ID": f"sis-{noun[0]}{number}" if number % 3 else "",
        "API_TYPE": "sis" if number % 3 else "",
        "TAGS": [],
        "VARIABLES": [],
        "DATE_CREATED": stamp(member.created),
        "DATE_UPDATED": stamp(member.updated),
        "PASSWORD": "$2b$10$must-never-leave-the-connector",
        "NEW_PASSWORD_TOKEN": f"reset-{id}",
    }


def _student(school: School, id: str, member: Member) -> Json:
    group = member.number // GROUP_SIZE
    return _person(school, "student", id, member) | {
        "USERNAME": f"st{member.number}",
        "FILE_NUMBER": f"S-{100_000 + member.number}",
        "BADGE_ID": "",
        "PUSH_TOKEN": f"push-{id}",
        "LANGUAGE": "fr",
        "HIDDEN": int(member.archived),
        "SCHOOL_ID": school.id,
        "GROUPS": [school.id_of("group", group)] if group < school.groups else [],
        "TRAINING_IDS": [school.id_of("training", group % len(TRAININGS))],
    }


def _professor(school: School, id: str, member: Member) -> Json:
    return _person(school, "professor", id, member) | {
        "SPECIALITY": TOPICS[member.number % len(TOPICS)],
        "PIN": "pin-4711",
        "MAGIC_LINK_TOKEN": f"magic-{id}",
        "LOGIN_CODE": ["123456"],
        "SCHOOL_ID": [school.id],
        "HIDDEN": [school.id] if member.archived else [],
    }


def _group(school: School, id: str, member: Member) -> Json:
    first = member.number * GROUP_SIZE
    last = min(first + GROUP_SIZE, school.people)
    return {
        "ID": id,
        "NAME": f"Promo {member.number + 1}",
        "DESCRIPTION": "",
        "SCHOOL_ID": school.id,
        "STUDENTS": [school.id_of("student", student) for student in range(first, last)],
        "HIDDEN": int(member.archived),
        "API_ID": "",
        "DATE_CREATED": stamp(member.created),
        "DATE_UPDATED": stamp(member.updated),
        "VARIABLES": [],
    }
