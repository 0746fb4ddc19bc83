"""The people, sittings and webhook bodies of the simulated tenant. Ids of events that are not public are made up."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bridge.core.events import Json

MARKETPLACE: Final = 1357554
DELIVERED: Final = "candidate_submission_delivered"
UNKNOWN: Final = "contributor_added"
"""An event that no rule of the connector knows."""
_GIVEN = ("Ada", "Bo", "Carla", "Dag", "Esra", "Finn", "Grete", "Håkon", "Inés", "Jonas", "Kari", "Liv", "Mats", "Nora")
_FAMILY = ("Aas", "Berg", "Čapek", "Dahl", "Eide", "Foss", "Grieg", "Haugen", "Ibsen", "Jensen", "Krog", "Lie", "Moe")
_COURSES = ("Anatomy", "Contract Law", "Linear Algebra", "Microeconomics", "Nursing Ethics", "Organic Chemistry")
START = datetime(2026, 6, 5, 7, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """One sitting with its candidates' user ids, and the final grades of those who have one."""

    id: int
    title: str
    starts_at: datetime
    candidates: tuple[int, ...]
    grades: dict[int, float]


def make_users(seed: int, people: int) -> dict[int, Json]:
    """Users by id, as `GET /v1/users/{userId}` shows them."""
    chance = random.Random(f"inspera {seed} users")
    users = {}
    first = 40_000_000 + seed % 1000 * 10_000
    for number in range(first, first + max(people, 1)):
        users[number] = {
            "username": f"s{number}",
            "firstName": chance.choice(_GIVEN),
            "lastName": chance.choice(_FAMILY),
            "email": f"s{number}@example.test",
            "externalIds": [{"authType": "FEIDE", "externalId": f"s{number}@feide.example.test"}],
        }
    return users


def make_tests(seed: int, users: Mapping[int, Json]) -> dict[int, Sitting]:
    """Sittings by id, of up to 25 candidates each; one candidate in twenty is absent and gets no grade."""
    chance = random.Random(f"inspera {seed} tests")
    known, tests = list(users), {}
    for position in range(max(3, len(known) // 25)):
        sitting = chance.sample(known, min(25, len(known)))
        run = 350_000_000 + seed % 1000 * 10_000 + position
        absent = [user for user in sitting[1:] if chance.random() < 0.05]
        tests[run] = Sitting(
            id=run,
            title=f"{chance.choice(_COURSES)} {position + 1:03d}",
            starts_at=START + timedelta(hours=position),
            candidates=tuple(sitting),
            grades={user: chance.randint(0, 40) / 4 for user in sitting if user not in absent},
        )
    return tests


def sitting_document(test: Sitting) -> Json:
    """What `GET /v1/test/{testId}` answers; its full list of fields is not public."""
    return {
        "testId": test.id,
        "name": test.title,
        "externalTestId": f"SIS-{test.id % 10_000:04d}",
        "startTime": timestamp(test.starts_at),
        "endTime": timestamp(test.starts_at + timedelta(hours=4)),
        "contributors": [],
        "committees": [{"name": "Committee 1"}],
    }


def result_document(test: Sitting, user: int, details: Json) -> Json:
    """One candidate's result: https://inspera.atlassian.net/wiki/spaces/KB/pages/1562214548"""
    grade = test.grades.get(user)
    external = [
        {"authType": entry["authType"], "externalUserId": entry["externalId"]} for entry in details["externalIds"]
    ]
    automatic: Json = {"roundId": 1, "automaticQuestionScore": None, "finalGrade": None, "roundGrades": []}
    graded: Json = {
        "roundId": 2,
        "finalGrade": grade,
        "roundGrades": [{"evaluatorUserId": 7_001, "totalScore": grade}],
    }
    return {
        "userId": str(user),
        "candidateId": str(10_000 + test.candidates.index(user)),
        "externalUserIds": external,
        "assessmentRunId": test.id,
        "assessmentRunTitle": test.title,
        "assessmentRunStartTime": timestamp(test.starts_at),
        "assessmentRunEndTime": timestamp(test.starts_at + timedelta(hours=4)),
        "evaluationRounds": [automatic] if grade is None else [automatic, graded],
    }


def _of(type: str, number: int, **more: Any) -> Json:
    return {"contextObjectId": number, "contextObjectType": type} | more


def _about(type: str, number: int) -> Json:
    return {"associatedObjectId": number, "associatedObjectType": type}


def _by_hand(user: int) -> Json:
    return {"triggeringUserId": user, "triggeringUserName": f"s{user}"}


def _extra(type: str, value: object, previous: object = None) -> Json:
    return {"extraInfo": {"type": type, "value": value} | ({} if previous is None else {"previousValue": previous})}


def _content(chance: random.Random) -> int:
    return 74_000_000 + chance.randrange(400)


def _export_url(chance: random.Random) -> str:
    signature = f"{chance.getrandbits(128):032x}"
    return f"https://exports.example.test/{_uuid(chance)}.zip?X-Amz-Expires=3600&X-Amz-Signature={signature}"


def _verification(chance: random.Random, test: Sitting, user: int) -> Json:
    return {"contextObjectId": 0, "contextObjectTitle": str(_uuid(chance))}


def _confirmed(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("ASSESSMENT_RUN", test.id) | _by_hand(7_001)


def _delivered(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("ASSESSMENT_RUN", test.id) | _about("CANDIDATE", user)


def _revised(chance: random.Random, test: Sitting, user: int) -> Json:
    steps = ("Draft", "In review", "Approved", "Published")
    step = chance.randrange(1, 4)
    return _of("QUESTION", _content(chance)) | _by_hand(7_002) | _extra("String", steps[step], steps[step - 1])


def _qti(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("QUESTION_SET", _content(chance)) | _extra("String", _export_url(chance))


def _test_export(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("ASSESSMENT_RUN", test.id) | _extra("String", _export_url(chance))


def _file_export(chance: random.Random, test: Sitting, user: int) -> Json:
    value = {"signedResponseUrl": _export_url(chance)}
    return _of("ASSESSMENT_RUN", test.id) | _about("USER", user) | _extra("JSON", value)


def _user(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("USER", user) | _by_hand(7_003)


def _moved(chance: random.Random, test: Sitting, user: int) -> Json:
    ends_at = test.starts_at + timedelta(hours=4)
    return (
        _of("ASSESSMENT_RUN", test.id)
        | _by_hand(7_001)
        | _extra("Date", timestamp(ends_at + timedelta(minutes=30)), timestamp(ends_at))
    )


def _display(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("ASSESSMENT_RUN", test.id) | _extra("scoreDisplayMode", "SHOW_FINAL_GRADE", "HIDDEN")


def _question(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("QUESTION", _content(chance)) | _by_hand(7_002)


def _setting(chance: random.Random, test: Sitting, user: int) -> Json:
    return (
        _of("MARKETPLACE", MARKETPLACE)
        | _about("MARKETPLACE_PROPERTY", chance.randrange(90))
        | _extra("String", "on", "off")
    )


def _contributor(chance: random.Random, test: Sitting, user: int) -> Json:
    return _of("ASSESSMENT_RUN", test.id) | _about("USER", 7_001)


BODIES: Final[dict[str, tuple[str, Callable[[random.Random, Sitting, int], Json]]]] = {
    "verification": ("verification", _verification),
    "confirm_final_grades": ("confirm_final_grades", _confirmed),
    DELIVERED: (DELIVERED, _delivered),
    "revision_status_updated": ("revision_status_updated", _revised),
    "qti_export_ready": ("qti_export_ready", _qti),
    "submissions_export_finished": ("submissions_export_finished", _test_export),
    "event_by_candidates_export_finished": ("event_by_candidates_export_finished", _test_export),
    "resource_export_completed": ("resource_export_completed", _file_export),
    "user.created": ("user_created", _user),
    "user.updated": ("user_updated", _user),
    "user.deleted": ("user_deleted", _user),
    "test.date_changed": ("test_end_time_changed", _moved),
    "test.score_display_mode_changed": ("test_score_display_mode_changed", _display),
    "content.changed": ("question_text_changed", _question),
    "configuration.changed": ("marketplace_setting_changed", _setting),
    UNKNOWN: (UNKNOWN, _contributor),
}
"""Per kind the id that is sent, and what is in the body."""


def timestamp(moment: datetime) -> str:
    """UTC in whole seconds, as the platform writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _uuid(chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)
