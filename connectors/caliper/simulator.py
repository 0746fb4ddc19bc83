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
_EVENT: Final = {"@context", "id", "type", "actor", "action", "object", "eventTime"}
_ACTIONS: Final = {"GradeEvent": {"Graded"}, "AssessmentEvent": {"Started", "Paused", "Resumed", "Submitted", "Reset"}}


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
        if envelope["dataVersion"] != self.version:
            return 422
        events = envelope["data"]
        sound = isinstance(events, list) and events and all(self._sound(event) for event in events)
        return None if sound else 400

    def _sound(self, event: Any) -> bool:
        if not isinstance(event, dict) or not event.keys() >= _EVENT or event["@context"] != self.version:
            return False
        if not _ID.fullmatch(event["id"]) or not _TIME.fullmatch(event["eventTime"]):
            return False
        return event["action"] in _ACTIONS.get(event["type"], {event["action"]}) and "id" in event["object"]

    def effects(self) -> Json:
        return {"events": self._events}


def target() -> Endpoint:
    return Endpoint()


def settings(url: str) -> Json:
    return {
        "connector": "caliper",
        "url": f"{url}{_PATH}",
        "iris": "https://sis.example.org",
        "auth": {"kind": "bearer", "token": _TOKEN},
    }
