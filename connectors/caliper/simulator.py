"""An endpoint of Caliper: it takes envelopes of one version, with nothing in them that does not belong there."""

from __future__ import annotations

import re
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_PATH: Final = "/caliper/events"
_TOKEN: Final = "caliper-token"
_ENVELOPE: Final = {"sensor", "sendTime", "dataVersion", "data"}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_ID: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NEEDED: Final = {"@context", "id", "type", "actor", "action", "object", "eventTime"}
# Whatever else an event tells goes into its extensions (fragments/events/caliper-event-event.html).
_KNOWN: Final = _NEEDED | {
    "profile", "edApp", "generated", "target", "referrer", "group", "membership", "session", "federatedSession",
    "extensions",
}  # fmt: skip
# github.com/1EdTech/caliper-spec, model/caliper_v1p2.lines: the actions, what some events are limited to, and roles.
_VOCABULARY: Final = (
    "Abandoned Accepted Activated Added Archived Attached Bookmarked ChangedResolution ChangedSize ChangedSpeed "
    "ChangedVolume Classified ClosedPopout Commented Completed Copied Created Deactivated Declined Deleted Described "
    "DisabledClosedCaptioning Disliked Downloaded EnabledClosedCaptioning Ended EnteredFullScreen ExitedFullScreen "
    "ForwardedTo Graded Hid Highlighted Identified JumpedTo Launched Liked Linked LoggedIn LoggedOut MarkedAsRead "
    "MarkedAsUnread Modified Muted NavigatedTo OpenedPopout OptedIn OptedOut Paused Posted Printed Published "
    "Questioned Ranked Recommended Removed Reset Restarted Restored Resumed Retrieved Returned Reviewed Rewound Saved "
    "Searched Sent Shared Showed Skipped Started Submitted Subscribed Tagged TimedOut Unmuted Unpublished Unsubscribed "
    "Uploaded Used Viewed"
)
_ACTIONS: Final = frozenset(_VOCABULARY.split())
_LIMITS: Final = {
    "GradeEvent": ({"Graded"}, {"Attempt"}, "GradingProfile"),
    "AssessmentEvent": (
        {"Started", "Paused", "Resumed", "Restarted", "Reset", "Submitted"},
        {"Assessment"},
        "AssessmentProfile",
    ),
    "Event": (_ACTIONS, None, "GeneralProfile"),
}
_ROLES: Final = {
    "Administrator", "ContentDeveloper", "Instructor", "Learner", "Manager", "Member", "Mentor", "Officer",
}  # fmt: skip
_IRI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+|_:\S+")


class Endpoint:
    """One endpoint of one `version`; `limit_on` lets it throttle. Readers count an event once, whatever comes twice."""

    def __init__(self) -> None:
        self.version = "http://purl.imsglobal.org/ctx/caliper/v1p1"
        self.limit_on = False
        self._events: dict[str, Json] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        if (status := self._refused(call)) is not None:
            return ApiReply(status=status, text="")
        for event in call.json["data"]:
            self._events.setdefault(event["id"], event)
        return ApiReply(status=200, text="")

    def _refused(self, call: ApiCall) -> int | None:
        if call.path != _PATH or call.method != "POST":
            return 404
        if call.headers.get("authorization") != f"Bearer {_TOKEN}":
            return 401
        if self.limit_on:
            return 429
        if call.headers.get("content-type", "").partition(";")[0] != "application/json":
            return 415
        return self._wrong(call.json)

    def _wrong(self, envelope: Any) -> int | None:
        if not isinstance(envelope, dict) or envelope.keys() != _ENVELOPE or not _TIME.fullmatch(envelope["sendTime"]):
            return 400
        if not isinstance(envelope["sensor"], str) or not envelope["sensor"]:  # an IRI is a SHOULD
            return 400
        if envelope["dataVersion"] != self.version:
            return 422
        events = envelope["data"]
        sound = isinstance(events, list) and events and all(self._sound(event) for event in events)
        return None if sound else 400

    def _sound(self, event: Any) -> bool:
        if (
            not isinstance(event, dict)
            or not _KNOWN >= event.keys() >= _NEEDED
            or not self._in_context(event["@context"])
        ):
            return False
        if not _ID.fullmatch(event["id"]) or not _TIME.fullmatch(event["eventTime"]):
            return False
        actions, objects, profile = _LIMITS.get(event["type"], (_ACTIONS, None, event.get("profile")))
        parts = [event[name] for name in ("actor", "object", "generated", "edApp", "group") if name in event]
        return (
            event["action"] in actions
            and event.get("profile", profile) == profile
            and all(map(_entity, parts))
            and (objects is None or isinstance(event["object"], str) or event["object"]["type"] in objects)
        )

    def _in_context(self, context: Any) -> bool:
        """Other vocabularies may stand before Caliper's, which is the last."""
        return (context[-1:] == [self.version]) if isinstance(context, list) else context == self.version

    def effects(self) -> Json:
        return {"events": self._events}


def _entity(made: Any) -> bool:
    """An entity is an IRI, or has one and a type; so do those within it."""
    if isinstance(made, str):
        return _IRI.fullmatch(made) is not None
    if not isinstance(made, dict) or "type" not in made or not _IRI.fullmatch(made.get("id", "")):
        return False
    within = [made[name] for name in ("assignee", "assignable", "attempt", "member", "organization") if name in made]
    return all(map(_entity, within)) and (made["type"] != "Membership" or _membership(made))


def _membership(made: Json) -> bool:
    roles = made.get("roles", [])
    cores = {role.partition("#")[0] for role in roles}
    return cores <= _ROLES and cores <= set(roles) and made.get("status", "Active") in ("Active", "Inactive")


def target() -> Endpoint:
    return Endpoint()


def settings(url: str) -> Json:
    return {
        "connector": "caliper",
        "url": f"{url}{_PATH}",
        "iris": "https://sis.example.org",
        "auth": {"kind": "bearer", "token": _TOKEN},
    }
