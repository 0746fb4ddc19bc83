"""A simulated Edusign's API: HTTP 200 with an envelope whose `status` tells, errors in plain text, pages from 0.

developers.edusign.com/docs/requests-and-responses and /docs/api-reference; the texts of errors are seen in clients.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import unquote

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.edusign import simulated_records as records
from connectors.edusign.world import Noun, School, Sheet

API_KEY: Final = "5b0c0f0e-6a43-4a71-9f55-3f1f6a9d2c11"
CALLS_A_MINUTE: Final = 480
DELAY: Final = 0.1
"""Seconds that each call beyond the limit waits longer than the one before it: nothing is refused."""
LONGEST_DELAY: Final = 2.0
"""Ours: how far the platform goes is not documented, and a simulation should end."""

_NOUNS: Final[Mapping[str, Noun]] = {
    "student": "student", "professor": "professor", "group": "group", "course": "course",
}  # fmt: skip
Entry = TypeVar("Entry")

_PAGE: Final = 100
_COURSES: Final = 40
_MOST_DAYS: Final = 90
_NO_SHEET: Final = "No course with this ID found"
"""Seen in github.com/lewagon/edusign, lib/edusign/client.rb; what is said of other objects is not known."""


class SimulatedApi:
    """`calls` counts calls by method and path template. The knobs work at any moment:

    `maintenance`  True: everything fails in plain text
    `unpaid`       True: 402, the school has no right to use the API
    `forbidden`    first steps of paths that the key may not ask for ("student"): 403
    `slows_down`   True: calls beyond 480 a minute really take longer; `delayed` counts them in any case
    """

    def __init__(self, school: School) -> None:
        self.school = school
        self.calls: Counter[str] = Counter()
        self.maintenance = False
        self.unpaid = False
        self.forbidden: frozenset[str] = frozenset()
        self.slows_down = False
        self.delayed = 0
        self.sleep: Callable[[float], None] = time.sleep
        self._recent: deque[float] = deque()
        self._counting = threading.Lock()

    def answer(self, call: ApiCall) -> ApiReply:
        """The answer to one request. Safe for threads."""
        self._slow_down()
        refusal = self._refusal(call)
        if refusal is not None:
            return ApiReply(status=refusal[0], text=refusal[1])
        steps = [unquote(part) for part in call.path.strip("/").split("/")]
        reply = self._posted(steps, call.json) if call.method == "POST" else self._got(steps, call.query)
        return reply or ApiReply(status=404, text="Not Found")

    def _refusal(self, call: ApiCall) -> tuple[int, str] | None:
        steps = call.path.strip("/").split("/")
        if self.maintenance:
            return 500, "Internal Server Error"
        if call.headers.get("authorization") != f"Bearer {API_KEY}":
            return 401, "Unauthorized"
        if self.unpaid:
            return 402, "Payment Required"
        if len(steps) > 1 and steps[1] in self.forbidden:
            return 403, "Forbidden"
        return None if call.method in ("GET", "POST") else (404, "Not Found")

    def _posted(self, steps: list[str], body: Any) -> ApiReply | None:
        return self._by_ids(body) if steps == ["v1", "student", "by-ids"] else None

    def _got(self, steps: list[str], query: Mapping[str, str]) -> ApiReply | None:
        reply: ApiReply | None = None
        match steps:
            case ["v1", "school"]:
                self._count("GET /v1/school")
                about = {"ID": self.school.id, "NAME": "École Exemple", "LANGUAGE": "fr", "TIMEZONE": "Europe/Paris"}
                reply = _success(about)
            case ["v1", "course", "lock", id]:
                self._count("GET /v1/course/lock/{courseId}")
                reply = _success({"ID": id}) if self.school.lock_sheet(id) else _failure(_NO_SHEET)
            case ["v1", noun, "by-email", email] if noun in ("student", "professor"):
                self._count(f"GET /v1/{noun}/by-email/{{email}}")
                reply = _one(records.by_email(self.school, _NOUNS[noun], email), noun)
            case ["v1" | "v2", name, id] if name in _ONES:
                noun = _ONES[name]
                self._count(f"GET /{steps[0]}/{name}/{{{noun}Id}}")
                reply = _one(self._record(noun, id), noun)
            case ["v1" | "v2", name] if name in _LISTS:
                self._count(f"GET /{steps[0]}/{name}")
                reply = _LISTS[name](self, query)
        return reply

    def _record(self, noun: str, id: str) -> Json | None:
        school = self.school
        if noun in _NOUNS:
            return records.record(school, _NOUNS[noun], id)
        if noun == "training":
            return records.training(school, id)
        if noun == "survey":
            numbers = {school.id_of("survey", number): number for number in range(records.SURVEYS)}
            return records.survey(school, numbers[id]) if id in numbers else None
        with school.lock:
            found = school.documents.get(id)
            return records.document(school, found) if found else None

    # --- lists --------------------------------------------------------------------------------------------------------

    def _people(self, noun: Noun, query: Mapping[str, str]) -> ApiReply:
        """Lists have no GROUPS. `updatedAfter` and `search` are of students only."""
        school, after = self.school, _time(query.get("updatedAfter"))
        with school.lock:
            members = list(school.members[noun].items())
        if noun == "student" and after is not None:
            members = [(id, member) for id, member in members if member.updated > after]
        search = query.get("search", "").casefold()
        if noun == "student" and search:
            members = [
                (id, member)
                for id, member in members
                if search in " ".join((*school.name(noun, member.number), school.email(noun, member.number))).casefold()
            ]
        size = int(query["limit"]) if noun == "student" and query.get("limit", "").isdigit() else _PAGE
        return _page(members, query, size, lambda entry: _listed(records.record(school, noun, entry[0])))

    def _courses(self, query: Mapping[str, str]) -> ApiReply:
        first, last = _time(query.get("start")), _time(query.get("end"))
        if first and last and last - first > timedelta(days=_MOST_DAYS):
            return _failure(["The difference between start and end must be 90 days maximum"])
        created, updated = _span(query.get("dateCreated")), _span(query.get("dateUpdated"))
        filters = query.get("filters", "").split(",")

        def is_shown(sheet: Sheet) -> bool:
            return (
                not sheet.deleted
                and (first is None or sheet.start >= first)
                and (last is None or sheet.end < last + timedelta(days=1))
                and (created is None or created[0] <= sheet.created < created[1])
                and (updated is None or updated[0] <= sheet.updated < updated[1])
                and ("locked" not in filters or sheet.locked)
                and ("unlocked" not in filters or not sheet.locked)
            )

        with self.school.lock:
            sheets = [sheet for sheet in self.school.sheets.values() if is_shown(sheet)]
            return _page(sheets, query, _COURSES, lambda sheet: records.course(self.school, sheet))

    def _absences(self, query: Mapping[str, str]) -> ApiReply:
        with self.school.lock:
            asked = list(reversed(self.school.absences.values()))
        return _page(asked, query, _PAGE, lambda entry: records.absence(self.school, entry))

    def _documents(self, query: Mapping[str, str]) -> ApiReply:
        """`offset` counts pages."""
        after, state = _time(query.get("createdAfter")), query.get("state")
        with self.school.lock:
            shown = [
                document
                for document in self.school.documents.values()
                if (after is None or document.created >= after)
                and (not state or state == ("completed" if document.completed else "pending"))
            ]
        page, size = {"page": query.get("offset", "0")}, min(int(query.get("limit", "100")), 500)
        reply = _page(shown, page, size, lambda entry: records.document(self.school, entry))
        return _success({"documents": reply.json.get("result", []), "total": len(shown)})

    def _by_ids(self, body: Any) -> ApiReply:
        self._count("POST /v1/student/by-ids")
        wanted = body.get("studentIds") if isinstance(body, dict) else None
        if not isinstance(wanted, list):
            return _failure(["studentIds is required"])
        found = (records.record(self.school, "student", str(id)) for id in wanted)
        return _success([_listed(record) for record in found if record])

    # --- limit --------------------------------------------------------------------------------------------------------

    def _count(self, call: str) -> None:
        with self._counting:
            self.calls[call] += 1

    def _slow_down(self) -> None:
        now = time.monotonic()
        with self._counting:
            self._recent.append(now)
            while self._recent[0] < now - 60:
                self._recent.popleft()
            beyond = len(self._recent) - CALLS_A_MINUTE
            if beyond <= 0:
                return
            self.delayed += 1
        if self.slows_down:
            self.sleep(min(beyond * DELAY, LONGEST_DELAY))


_ONES: Final[Mapping[str, str]] = {
    **_NOUNS, "trainings": "training", "surveys": "survey", "documents": "document",
}  # fmt: skip
_LISTS: Final[Mapping[str, Callable[[SimulatedApi, Mapping[str, str]], ApiReply]]] = {
    "course": SimulatedApi._courses,
    "student": lambda api, query: api._people("student", query),
    "professor": lambda api, query: api._people("professor", query),
    "group": lambda api, query: api._people("group", query),
    "justified-absence": SimulatedApi._absences,
    "documents": SimulatedApi._documents,
}


def _listed(record: Json | None) -> Json:
    return {key: value for key, value in (record or {}).items() if key != "GROUPS"}


def _page(entries: Sequence[Entry], query: Mapping[str, str], size: int, show: Callable[[Entry], Json]) -> ApiReply:
    """Pages count from 0."""
    page = query.get("page", "0")
    if not (page.isascii() and page.isdigit() and len(page) < 8):
        return _failure(["page must be a number"])
    return _success([show(entry) for entry in entries[int(page) * size : (int(page) + 1) * size]])


def _one(record: Json | None, noun: str) -> ApiReply:
    return _success(record) if record else _failure(_NO_SHEET if noun == "course" else f"{noun.capitalize()} not found")


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    found = datetime.fromisoformat(text.strip())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _span(text: str | None) -> tuple[datetime, datetime] | None:
    """Two dates; the last day counts, whole."""
    days: Iterable[datetime | None] = [_time(part) for part in text.split(",")] if text else []
    match [day for day in days if day]:
        case [first, last]:
            return first, last + timedelta(days=1)
        case _:
            return None


def _success(result: object) -> ApiReply:
    return ApiReply(json={"status": "success", "result": result})


def _failure(message: object) -> ApiReply:
    return ApiReply(json={"status": "error", "message": message})
