"""From a thin body of Inspera to the canonical nouns: https://inspera.atlassian.net/wiki/spaces/KB/pages/664928482"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from bridge.core.errors import PayloadError
from bridge.core.nouns import Artifact, Assessment, Change, Data, Identifier, Person, Submission
from bridge.core.payload import Payload
from bridge.core.source import Notice
from connectors.inspera.kinds import CONFIRMED, CONTENT, DELIVERED, EXPORTS, GRADED, OF_A_TEST, TYPES
from connectors.inspera.results import assessment, identifier, person


def data_of(notice: Notice, options: Mapping[str, Any]) -> Data:
    """All that the body says by itself."""
    body, kind = notice.payload, notice.kind
    who = _person(body, kind, options)
    return Data(
        person=who,
        actor=_actor(body),
        assessment=_assessment(body, kind),
        submission=_submission(notice, who),
        artifact=_artifact(notice, options) if kind in EXPORTS else None,
        change=_change(body, kind),
    )


def subject_of(notice: Notice, options: Mapping[str, Any]) -> str:
    """`<noun>/<id>`, the same for all events about one object."""
    body = notice.payload
    if notice.kind in (DELIVERED, GRADED):
        return f"submission/{_submission_id(body, _person(body, notice.kind, options))}"
    if TYPES[notice.kind].startswith("source."):
        return f"source/{notice.tenant}"
    context = body.at("contextObjectType").maybe_text()
    number = identifier(body.at("contextObjectId"))
    if notice.kind in OF_A_TEST or context == "ASSESSMENT_RUN":
        return f"test/{number}"
    if notice.kind.startswith("user.") or context == "USER":
        return f"user/{number}"
    # A question and a document may share a number (is one series of numbers promised?), so the type is in it.
    return f"{context.lower()}/{number}" if context in CONTENT else f"content/{number}"


def _person(body: Payload, kind: str, options: Mapping[str, Any]) -> Person | None:
    """Who it is about. Seen in clients: the associated id of a delivered paper or a candidate's export is a user id."""
    if kind.startswith("user."):
        return person(identifier(body.at("contextObjectId")), options=options)
    number, what = body.at("associatedObjectId"), body.at("associatedObjectType").maybe_text()
    if kind not in (DELIVERED, GRADED, "resource_export_completed") or not number.present:
        return None
    if what is None or (kind == GRADED and what == "USER") or what in options["user_object_types"]:
        return person(identifier(number), options=options, role="learner")
    if what == "CANDIDATE":  # this tenant's candidate numbers are no user ids: known, but not who
        return Person(role="learner", identifiers=(Identifier(scheme="inspera.candidateId", value=identifier(number)),))
    return None


def _actor(body: Payload) -> Person | None:
    """Who did it; only for what a person did by hand."""
    user, username = body.at("triggeringUserId"), body.at("triggeringUserName").maybe_text()
    if not user.present:
        return None
    number = identifier(user)
    names = (Identifier(scheme="inspera.username", value=username),) if username else ()
    return Person(key=f"inspera:{number}", identifiers=(Identifier(scheme="inspera.userId", value=number), *names))


def _assessment(body: Payload, kind: str) -> Assessment | None:
    if kind in OF_A_TEST or body.at("contextObjectType").value == "ASSESSMENT_RUN":
        return assessment(identifier(body.at("contextObjectId")))
    return None


def _submission_id(body: Payload, who: Person | None) -> str:
    """`<test>.<user>`, as of the candidate's grade, unless the paper's own id is all there is."""
    number = identifier(body.at("associatedObjectId"))
    if body.at("associatedObjectType").value == "USER_ASSESSMENT":
        return number
    run = identifier(body.at("contextObjectId"))
    return f"{run}.{number}" if who is None or who.key else f"{run}.candidate-{number}"


def _submission(notice: Notice, who: Person | None) -> Submission | None:
    if notice.kind not in (DELIVERED, GRADED):
        return None
    number = _submission_id(notice.payload, who)
    if notice.kind == GRADED:
        return Submission(key=f"inspera:{number}")
    return Submission(key=f"inspera:{number}", status="submitted", submitted_at=notice.occurred_at)


def _artifact(notice: Notice, options: Mapping[str, Any]) -> Artifact:
    """The export with its signed address, which dies with the token it was signed under: documented as one hour
    (https://inspera.atlassian.net/wiki/spaces/KB/pages/185434233/Submissions+API)."""
    url = _signed_url(notice.payload.at("extraInfo", "value"))
    expires_at = _later(notice.occurred_at or notice.received_at, options["export_url_minutes"]) if url else None
    return Artifact(kind="export", url=url, url_expires_at=expires_at)


def _later(moment: datetime, minutes: float) -> datetime | None:
    try:
        return moment + timedelta(minutes=minutes)
    except OverflowError:  # the end of the year 9999
        return None


def _signed_url(value: Payload) -> str | None:
    """The address is the value itself or in the value's `signedResponseUrl` (seen in clients); JSON may come quoted."""
    if isinstance(value.value, str) and value.value.lstrip().startswith("{"):
        value = Payload.parse(value.value.encode("utf-8", "replace"))
    found = value.first("signedResponseUrl") if isinstance(value.value, Mapping) else value
    url = found.maybe_text()
    return url if url is not None and is_address(url) else None


def is_address(url: str) -> bool:
    """Whether a text is a web address: anything else would be taken for a path of the API."""
    return url.startswith(("https://", "http://"))


def _change(body: Payload, kind: str) -> Change | None:
    """What changed, in the platform's own words. The event's id names the field where nothing else does."""
    if kind in EXPORTS or kind in ("verification", CONFIRMED, GRADED, DELIVERED):
        return None
    fields = {
        "revision_status_updated": "revisionStatus",
        "test.score_display_mode_changed": "scoreDisplayMode",
    }
    extra = body.at("extraInfo")
    return Change(
        field=fields.get(kind) or body.at("event").text(),
        old=_plain(extra.at("previousValue")),
        new=_plain(extra.at("value")),
    )


def _plain(value: Payload) -> str | None:
    if not value.present or isinstance(value.value, str):
        return value.maybe_text()
    text = json.dumps(value.value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if "\\u0000" in text:
        raise PayloadError(value.path, "texts without NUL")
    return Payload(text, value.path).text()
