"""A gradebook behind Assignment and Grade Services that behaves as Moodle's or as Canvas's, grudges included.

github.com/moodle/moodle, mod/lti/service/gradebookservices; github.com/instructure/canvas-lms,
app/controllers/lti/ims. Where the two differ `canvas` says which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.lti_ags.simulated_registration import Registration, login

_MEDIA: Final = {
    "items": "application/vnd.ims.lis.v2.lineitem+json",
    "scores": "application/vnd.ims.lis.v1.score+json",
}
_COURSE: Final = r"/(?:api/lti/courses|mod/lti/services\.php|mod/lti/services\.php/CourseSection)/(?P<course>[^/]+)"
_ITEM: Final = rf"{_COURSE}/line_?items/(?P<item>\d+)(?:/lineitem)?"
_ROUTES: Final = {
    "members": re.compile(rf"{_COURSE}/(?:names_and_roles|bindings/2/memberships)"),
    "items": re.compile(rf"{_COURSE}/line_?items"),
    "item": re.compile(_ITEM),
    "scores": re.compile(rf"{_ITEM}/scores"),
    "results": re.compile(rf"{_ITEM}/results"),
}
_ACTIVITY: Final = ("Initialized", "Started", "InProgress", "Submitted", "Completed")


class Refused(Exception):
    """An answer that is no 2xx."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason


class Gradebook:
    """`limited` answers as a throttle does, `page` is the most entries of a page, `clock` what the platform's clock
    is ahead by, `domain` what Canvas writes as its own address. Each course has a line item from the start, number 9
    and number 10.
    """

    def __init__(self, *, canvas: bool = False) -> None:
        self.canvas = canvas
        self.limited = False
        self.page = 50
        self.clock = timedelta(0)
        self.domain: str | None = None
        self.registration = Registration()
        self.courses = {"101", "102"}
        self.members = [
            {"user_id": "501", "email": "ada@example.test", "lis_person_sourcedid": "S-100", "name": "Ada"},
            {"user_id": "502", "email": "grace@example.test", "lis_person_sourcedid": "S-101", "name": "Grace"},
            {"user_id": "503", "email": "alan@example.test", "lis_person_sourcedid": "S-102", "name": "Alan"},
        ]
        self._items = {
            number: {"label": "Attendance", "resourceId": "attendance", "tag": "", "scoreMaximum": 1, "course": course}
            for number, course in ((9, "101"), (10, "102"))
        }
        self._marks: dict[tuple[int, str], Json] = {}
        self._comments: list[Json] = []
        self._submissions: list[Json] = []

    def effects(self) -> Json:
        """Line items; marks by line item and learner; comments and submissions as often as they were made."""
        return {
            "line_items": [dict(item) for item in self._items.values()],
            "scores": {
                f"{self._items[item]['resourceId']}/{user}": mark["score"]
                for (item, user), mark in self._marks.items()
                if item in self._items
            },
            "comments": list(self._comments),
            "submissions": list(self._submissions),
        }

    def answer(self, call: ApiCall) -> ApiReply:
        try:
            if call.path in ("/mod/lti/token.php", "/login/oauth2/token"):
                return self.registration.token(call)
            return self._served(call)
        except Refused as refused:
            return self._refusal(refused)

    def _refusal(self, refused: Refused) -> ApiReply:
        if self.canvas:
            return ApiReply(status=refused.status, json={"errors": {"type": "error", "message": refused.reason}})
        return ApiReply(status=refused.status, json={"status": refused.status, "reason": refused.reason})

    def _served(self, call: ApiCall) -> ApiReply:
        if self.limited:
            return ApiReply(status=403, text="403 Forbidden (Rate Limit Exceeded)\n")
        found = [
            (route, match) for route, pattern in _ROUTES.items() if (match := pattern.fullmatch(call.path)) is not None
        ]
        if not found:
            raise Refused(404, "Not found")
        [(route, match)] = found
        if not self.registration.allows(call, "items" if route == "item" else route):
            raise Refused(401, "invalid token, or without the scope")
        if match["course"] not in self.courses:
            raise Refused(404, "Course doesn't exist")
        if call.method == "POST" and call.headers.get("content-type") != _MEDIA.get(route):
            raise Refused(415 if self.canvas else 400, "unsupported content type")
        if route in ("members", "items"):
            return self._of_course(call, route, match["course"])
        return self._of_item(call, route, int(match["item"]))

    def _of_course(self, call: ApiCall, route: str, course: str) -> ApiReply:
        if call.method == "POST":
            return self._made(call, course)
        if route == "members":
            page, headers = self._paged(call, self.members)
            return ApiReply(json={"id": self._address(call), "members": page}, headers=headers)
        page, headers = self._paged(call, self._filtered(call, course))
        return ApiReply(json=page, headers=headers)

    def _of_item(self, call: ApiCall, route: str, number: int) -> ApiReply:
        item = self._items.get(number)
        if item is None:
            raise Refused(404, "Line item does not exist")
        match route, call.method:
            case "item", "DELETE":
                del self._items[number]
                return ApiReply(status=204, text="")
            case "scores", "POST":
                return self._scored(call, number, item)
            case "results", "GET":
                return ApiReply(json=self._results(call, number, item))
        raise Refused(405, "method not allowed")

    def _filtered(self, call: ApiCall, course: str) -> list[Json]:
        wanted = {"resourceId": call.query.get("resource_id"), "tag": call.query.get("tag")}
        return [
            self._shown(call, number)
            for number, item in self._items.items()
            if item["course"] == course and all(value in (None, item[name]) for name, value in wanted.items())
        ]

    def _shown(self, call: ApiCall, number: int) -> Json:
        item, base = self._items[number], self._base(call)
        if self.canvas:
            address = f"{base}/api/lti/courses/{item['course']}/line_items/{number}"
        else:
            address = f"{base}/mod/lti/services.php/{item['course']}/lineitems/{number}/lineitem?type_id=2"
        return {"id": address, **{name: value for name, value in item.items() if name != "course"}}

    def _made(self, call: ApiCall, course: str) -> ApiReply:
        if not call.json.get("label") or not call.json.get("scoreMaximum"):
            raise Refused(422 if self.canvas else 400, "label and scoreMaximum are required")
        number = max(self._items) + 1
        named = {name: call.json.get(name) or "" for name in ("resourceId", "tag")}
        sized = {name: call.json[name] for name in ("label", "scoreMaximum")}
        self._items[number] = {**sized, **named, "course": course}
        return ApiReply(status=201, json=self._shown(call, number))

    def _scored(self, call: ApiCall, number: int, item: Json) -> ApiReply:
        score, key = call.json, (number, str(call.json.get("userId")))
        known = any(member["user_id"] == key[1] for member in self.members)
        if not known:
            raise Refused(422, "User not found in course or is not a student") if self.canvas else _incorrect()
        if score.get("activityProgress") not in _ACTIVITY or "gradingProgress" not in score or "timestamp" not in score:
            raise Refused(400, "missing parameter") if self.canvas else _incorrect()
        given, moment = score.get("scoreGiven"), datetime.fromisoformat(score["timestamp"])
        if given is not None and "scoreMaximum" not in score:
            raise Refused(422, "ScoreMaximum not supplied when ScoreGiven present.") if self.canvas else _incorrect()
        self._check_time(key, moment)
        full = ("FullyGraded", "PendingManual") if self.canvas else ("FullyGraded",)
        counts = given is not None and score["gradingProgress"] in full
        value = round(given * item["scoreMaximum"] / score["scoreMaximum"], 5) if counts else None
        extension = score.get("https://canvas.instructure.com/lti/submission", {}) if self.canvas else {}
        if extension.get("preserve_score"):
            value = self._marks.get(key, {}).get("score")
        updated = moment if self.canvas or counts else datetime.now(UTC) + self.clock
        self._marks[key] = {"score": value, "updated": updated, "comment": score.get("comment")}
        if score.get("comment"):
            self._commented(key, score["comment"])
        if not self.canvas:
            return ApiReply(json=[])
        if extension.get("new_submission", True):
            self._submissions.append({"item": number, "user": key[1]})
        return ApiReply(json={"resultUrl": f"{self._address(call).removesuffix('/scores')}/results/{key[1]}"})

    def _check_time(self, key: tuple[int, str], moment: datetime) -> None:
        held = self._marks.get(key)
        if held is None:
            return
        if self.canvas and held["updated"] > moment:
            raise Refused(
                400,
                f"Provided timestamp of {moment.isoformat()} before last updated timestamp of {held['updated']}",
            )
        if not self.canvas and int(held["updated"].timestamp()) >= int(moment.timestamp()):
            raise Refused(409, f"Refusing score with an earlier timestamp for item {key[0]} and user {key[1]}")

    def _commented(self, key: tuple[int, str], text: str) -> None:
        """Canvas adds to what is there, Moodle has one feedback."""
        if not self.canvas:
            self._comments = [comment for comment in self._comments if (comment["item"], comment["user"]) != key]
        self._comments.append({"item": key[0], "user": key[1], "comment": text})

    def _results(self, call: ApiCall, number: int, item: Json) -> list[Json]:
        results = []
        for (of, user), mark in self._marks.items():
            if of != number or call.query.get("user_id") not in (None, user):
                continue
            result = {"id": f"{self._address(call)}/{user}", "userId": user, "scoreOf": self._shown(call, number)["id"]}
            if self.canvas:
                result["userId"] = f"lti-id-of-{user}"  # whatever it was asked by: results_serializer.rb
                result |= {"resultScore": mark["score"], "resultMaximum": item["scoreMaximum"]}
                result |= {"comment": mark["comment"]}
            elif mark["score"] is not None:
                result |= {"resultScore": mark["score"], "resultMaximum": item["scoreMaximum"]}
                result |= {"comment": mark["comment"]} if mark["comment"] else {}
                result |= {"timestamp": mark["updated"].replace(microsecond=0).isoformat()}
            results.append(result)
        return results

    def _paged(self, call: ApiCall, entries: list[Any]) -> tuple[list[Any], Mapping[str, str]]:
        size = min(int(call.query.get("limit", self.page)), self.page)
        start = int(call.query.get("from", 0))
        if start + size >= len(entries):
            return entries[start : start + size], {}
        query = urlencode({**call.query, "from": start + size})
        link = f'<{self._address(call)}?{query}>; rel="next"'
        if not self.canvas and entries is not self.members:  # lineitems.php: typographic quotes, and moodle_url::out()
            link = f"<{self._address(call)}?{query.replace('&', '&amp;')}>; rel=“next”".encode().decode("latin-1")
        return entries[start : start + size], {"Link": link}

    def _address(self, call: ApiCall) -> str:
        return f"{self._base(call)}{call.path}"

    def _base(self, call: ApiCall) -> str:
        own = self.domain if self.canvas else None
        return f"http://{own or call.headers['host']}"


def _incorrect() -> Refused:
    return Refused(400, "Incorrect score received")


def target() -> Gradebook:
    """A gradebook as Moodle has it, with two courses and three learners."""
    return Gradebook()


def settings(url: str) -> Json:
    """A tool that is registered there."""
    return {
        "connector": "lti_ags",
        "base_url": url,
        "line_items": "/mod/lti/services.php/{course}/lineitems?type_id=2",
        "members": "/mod/lti/services.php/CourseSection/{course}/bindings/2/memberships",
        "platform": "moodle",
        "auth": login(f"{url}/mod/lti/token.php"),
    }
