"""Which of the manifest's kinds an event of Inspera is: by its id, by the settings' tables, or by its object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload

DELIVERED: Final = "candidate_submission_delivered"
CONFIRMED: Final = "confirm_final_grades"
GRADED: Final = "candidate.grade_confirmed"
"""One candidate's grade is confirmed: `confirm_final_grades` about a candidate, or what is found missing later. The
pages show the event about whole tests alone; is there one about candidates?"""
EXPORTS: Final = frozenset(
    {
        "qti_export_ready",
        "submissions_export_finished",
        "event_by_candidates_export_finished",
        "resource_export_completed",
    }
)
BY_OBJECT: Final[Mapping[str, str]] = {
    "user.created": "person.created",
    "user.updated": "person.updated",
    "user.deleted": "person.deleted",
    "test.date_changed": "assessment.period_changed",
    "test.score_display_mode_changed": "assessment.state_changed",
    "content.changed": "content.changed",
    "configuration.changed": "source.configuration_changed",
}
"""Kinds that are recognised by the object, because the ids of these events are not public. Inspera's own ids have no
dots, so the two cannot be confused."""
TYPES: Final[Mapping[str, str]] = {
    "verification": "source.verification",
    CONFIRMED: "grade.confirmed",
    GRADED: "grade.published",
    DELIVERED: "submission.submitted",
    "revision_status_updated": "content.revision_status_changed",
    **dict.fromkeys(sorted(EXPORTS), "export.ready"),
    **BY_OBJECT,
}
CONTENT: Final = frozenset({"QUESTION", "QUESTION_SET", "ITEM_BANK", "QTI_SECTION", "DOCUMENT", "PRESET", "ASSET"})
OF_A_TEST: Final = frozenset(
    {
        CONFIRMED,
        GRADED,
        DELIVERED,
        "submissions_export_finished",
        "event_by_candidates_export_finished",
        "test.date_changed",
        "test.score_display_mode_changed",
    }
)


def kind_of(body: Payload, options: Mapping[str, Any]) -> str:
    """The manifest's kind of a body, or Inspera's own word where no rule knows it."""
    native = body.at("event").text()
    aliases: Mapping[str, str] = options["aliases"]
    if native in aliases:
        return aliases[native]
    if native == options["delivered_event"]:
        return DELIVERED
    if native == CONFIRMED and "CANDIDATE" in options["user_object_types"]:
        # Of a USER it could be whoever confirmed, and a whole test's grades would be missed.
        return GRADED if body.at("associatedObjectType").value == "CANDIDATE" else CONFIRMED
    return native if native in TYPES else _kind_by_object(native, body, options) or native


def _kind_by_object(native: str, body: Payload, options: Mapping[str, Any]) -> str | None:
    context = body.at("contextObjectType").maybe_text()
    if context in CONTENT:
        return "content.changed"
    if context in ("MARKETPLACE", "CUSTOM_USER_ROLE"):
        return "configuration.changed"
    if body.at("associatedObjectType").present:
        return None  # about something inside: one candidate's extra time is not the test's, a lost role no lost person
    if context == "USER":
        for action, pattern in options["user_patterns"].items():
            try:
                if pattern and re.search(pattern, native, re.IGNORECASE):
                    return f"user.{action}"
            except re.error:
                raise PayloadError("$.event", f"a readable pattern at user_patterns.{action} in the settings") from None
    if context == "ASSESSMENT_RUN":
        by_change = {"Date": "test.date_changed", "scoreDisplayMode": "test.score_display_mode_changed"}
        return by_change.get(body.at("extraInfo", "type").maybe_text() or "")
    return None
