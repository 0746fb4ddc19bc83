"""The simulated tenant's webhook bodies, and what each does to it. Ids of events that are not public are made up."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from bridge.core.events import Json
from connectors.inspera.simulated_world import (
    ADMINISTRATOR,
    AUTHOR,
    MARKETPLACE,
    PLANNER,
    Sitting,
    World,
    timestamp,
)

DELIVERED: Final = "candidate_submission_delivered"
UNKNOWN: Final = "contributor_added"
"""An event that no rule of the connector knows."""


@dataclass(frozen=True, slots=True)
class Happening:
    """What a body is made of: chance, the tenant, a test, one of its candidates, and when."""

    chance: random.Random
    world: World
    test: Sitting
    user: int
    moment: datetime


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


def verification(chance: random.Random) -> Json:
    """A check of an endpoint, which has neither a tenant nor a time in it here: both are added when it is sent."""
    return {"contextObjectId": 0, "contextObjectTitle": str(_uuid(chance))}


def _confirmed(now: Happening) -> Json:
    for user in now.test.grades:
        now.test.confirm(user, now.moment)
    return _of("ASSESSMENT_RUN", now.test.id) | _by_hand(PLANNER)


def _regraded(now: Happening) -> Json:
    """An appeal: another grade for one candidate."""
    grades = now.test.grades
    grades[now.user] = (grades[now.user] + now.chance.randint(1, 8) / 4) % 10 + 0.25
    now.test.confirm(now.user, now.moment)
    return _of("ASSESSMENT_RUN", now.test.id) | _about("CANDIDATE", now.user) | _by_hand(PLANNER)


def _delivered(now: Happening) -> Json:
    now.test.papers.append((now.user, now.moment))
    return _of("ASSESSMENT_RUN", now.test.id) | _about("CANDIDATE", now.user)


def _revised(now: Happening) -> Json:
    steps = ("Draft", "In review", "Approved", "Published")
    step = now.chance.randrange(1, 4)
    return _of("QUESTION", _content(now.chance)) | _by_hand(AUTHOR) | _extra("String", steps[step], steps[step - 1])


def _qti(now: Happening) -> Json:
    return _of("QUESTION_SET", _content(now.chance)) | _extra("String", _export_url(now.chance))


def _test_export(now: Happening) -> Json:
    return _of("ASSESSMENT_RUN", now.test.id) | _extra("String", _export_url(now.chance))


def _file_export(now: Happening) -> Json:
    value = {"signedResponseUrl": _export_url(now.chance)}
    return _of("ASSESSMENT_RUN", now.test.id) | _about("USER", now.user) | _extra("JSON", value)


def _user_created(now: Happening) -> Json:
    return _of("USER", now.world.newcomer(now.chance)) | _by_hand(ADMINISTRATOR)


def _user_updated(now: Happening) -> Json:
    now.world.rename(now.user, now.chance)
    return _of("USER", now.user) | _by_hand(ADMINISTRATOR)


def _user_deleted(now: Happening) -> Json:
    return _of("USER", now.world.leaver(now.chance)) | _by_hand(ADMINISTRATOR)


def _moved(now: Happening) -> Json:
    before = now.test.ends_at
    now.test.ends_at = before + timedelta(minutes=30)
    change = _extra("Date", timestamp(now.test.ends_at), timestamp(before))
    return _of("ASSESSMENT_RUN", now.test.id) | _by_hand(PLANNER) | change


def _display(now: Happening) -> Json:
    change = _extra("scoreDisplayMode", "SHOW_FINAL_GRADE", "HIDDEN")
    return _of("ASSESSMENT_RUN", now.test.id) | _by_hand(PLANNER) | change


def _question(now: Happening) -> Json:
    return _of("QUESTION", _content(now.chance)) | _by_hand(AUTHOR)


def _setting(now: Happening) -> Json:
    about = _about("MARKETPLACE_PROPERTY", now.chance.randrange(90))
    return _of("MARKETPLACE", MARKETPLACE) | about | _by_hand(ADMINISTRATOR) | _extra("String", "on", "off")


def _contributor(now: Happening) -> Json:
    return _of("ASSESSMENT_RUN", now.test.id) | _about("USER", PLANNER)


BODIES: Final[dict[str, tuple[str, Callable[[Happening], Json]]]] = {
    "verification": ("verification", lambda now: verification(now.chance)),
    "confirm_final_grades": ("confirm_final_grades", _confirmed),
    "candidate.grade_confirmed": ("candidate_final_grade_changed", _regraded),
    DELIVERED: (DELIVERED, _delivered),
    "revision_status_updated": ("revision_status_updated", _revised),
    "qti_export_ready": ("qti_export_ready", _qti),
    "submissions_export_finished": ("submissions_export_finished", _test_export),
    "event_by_candidates_export_finished": ("event_by_candidates_export_finished", _test_export),
    "resource_export_completed": ("resource_export_completed", _file_export),
    "user.created": ("user_created", _user_created),
    "user.updated": ("user_updated", _user_updated),
    "user.deleted": ("user_deleted", _user_deleted),
    "test.date_changed": ("test_end_time_changed", _moved),
    "test.score_display_mode_changed": ("test_score_display_mode_changed", _display),
    "content.changed": ("question_text_changed", _question),
    "configuration.changed": ("marketplace_setting_changed", _setting),
    UNKNOWN: (UNKNOWN, _contributor),
}
"""Per kind the id that is sent, and what is in the body."""


def _uuid(chance: random.Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)
