"""A Pipedrive company for tests and demonstrations: persons, deals, notes, a search that can lag."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

TOKEN: Final = "pipedrive-token"
CLIENT: Final = ("pipedrive-client", "pipedrive-secret", "pipedrive-refresh")
"""Client id, client secret and refresh token of the app that the token endpoint knows."""

PERSON_KEY: Final = "1" * 40
DEAL_KEY: Final = "2" * 40
GRADE: Final = "3" * 40
"""The custom fields that hold the bridge's keys and a grade."""

_RECORDS: Final = re.compile(r"/api/v2/(?P<kind>persons|deals)(?:/(?P<rest>search|\d+))?")
_SEARCHED: Final[Mapping[str, set[str]]] = {
    "persons": {"custom_fields", "email", "name", "notes", "phone"},
    "deals": {"custom_fields", "notes", "title"},
}
_WRITTEN: Final[Mapping[str, set[str]]] = {
    "persons": {"name", "owner_id", "org_id", "emails", "phones", "visible_to", "label_ids", "custom_fields"},
    "deals": {
        *("title", "owner_id", "person_id", "org_id", "pipeline_id", "stage_id", "value", "currency", "status"),
        *("probability", "lost_reason", "visible_to", "expected_close_date", "label_ids", "custom_fields"),
    },
}
"""What version 2 of the API takes, as in github.com/pipedrive/client-nodejs, src/versions/v2."""

_BASIC: Final = "Basic cGlwZWRyaXZlLWNsaWVudDpwaXBlZHJpdmUtc2VjcmV0"


def target() -> SimulatedPipedrive:
    """A company with one person."""
    company = SimulatedPipedrive()
    company.put("Ada Lovelace", "ada@example.test", "wiseflow:1", id=7)
    return company


def settings(url: str) -> Json:
    """The entry of bridge.yaml for the company at this address."""
    return {
        "connector": "pipedrive",
        "base_url": url,
        "auth": {"kind": "header", "value": TOKEN},
        "person_key_field": PERSON_KEY,
        "deal_key_field": DEAL_KEY,
        "custom_fields": {"last_grade": GRADE},
    }


class SimulatedPipedrive:
    """`fault` is `burst` (429), `daily` (429, nothing left), `shut_out` (Cloudflare's page) or `unpaid` (402).

    `search_lag` is how many calls go by before the search finds what was written.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.search_lag = 0
        self._records: dict[str, dict[int, Json]] = {"persons": {}, "deals": {}}
        self._notes: list[Json] = []
        self._written: dict[int, int] = {}
        self._ids = itertools.count(100)
        self._calls = 0
        self._lock = threading.Lock()

    def put(self, name: str, email: str, key: str, *, id: int) -> None:
        """A person whom somebody in the office added."""
        with self._lock:
            person = {"name": name, "emails": [{"value": email}], "custom_fields": {PERSON_KEY: key}}
            self._records["persons"][id], self._written[id] = person, -(10**6)

    def note_down(self, kind: str, id: int, field: str, value: str) -> None:
        """Something that somebody in the office wrote into a custom field."""
        with self._lock:
            self._records[kind].setdefault(id, {"name": "Somebody", "custom_fields": {}})["custom_fields"][field] = (
                value
            )
            self._written.setdefault(id, -(10**6))

    def effects(self) -> Json:
        """Persons and deals by id, and all notes."""
        with self._lock:
            held = {kind: {str(id): dict(record) for id, record in all.items()} for kind, all in self._records.items()}
            return {**held, "notes": [dict(note) for note in self._notes]}

    def answer(self, call: ApiCall) -> ApiReply:
        """The API, and the token endpoint at `/oauth/token`."""
        with self._lock:
            self._calls += 1
            if call.path == "/oauth/token":
                return _token(call)
            if TOKEN not in (call.headers.get("x-api-token"), call.headers.get("authorization", "")[7:]):
                return _error(401, "unauthorized access")
            return self._faulty() or self._routed(call)

    def _faulty(self) -> ApiReply | None:
        if self.fault == "shut_out":
            return ApiReply(status=403, text="<html><title>Access denied</title></html>")
        if self.fault == "unpaid":
            return _error(402, "Company account is not open")
        if self.fault is not None:
            left = "0" if self.fault == "daily" else "20000"
            headers = {"Retry-After": "2", "x-ratelimit-reset": "2", "x-daily-ratelimit-token-remaining": left}
            return ApiReply(status=429, json={"success": False, "error": "Rate limit exceeded"}, headers=headers)
        return None

    def _routed(self, call: ApiCall) -> ApiReply:
        if call.path == "/api/v1/notes":
            return self._noted(call)
        if found := _RECORDS.fullmatch(call.path):
            return self._recorded(call, found["kind"], found["rest"])
        return _error(404, "Unknown method.")

    def _recorded(self, call: ApiCall, kind: str, rest: str | None) -> ApiReply:
        match call.method, rest:
            case "GET", "search":
                return self._found(kind, call.query)
            case "GET", None:
                return self._listed(kind, call.query)
            case "POST", None:
                return self._added(kind, call.json)
            case "GET" | "PATCH", str() if rest.isdigit():
                return self._one(call, kind, int(rest))
        return _error(404, "Unknown method.")

    def _added(self, kind: str, body: Json) -> ApiReply:
        if not body.get("name" if kind == "persons" else "title") or _wrong(kind, body):
            return _error(400, "Validation failed")
        id = next(self._ids)
        self._records[kind][id] = {"custom_fields": {}, **body}
        self._written[id] = self._calls
        return _data({"id": id}, status=201)

    def _one(self, call: ApiCall, kind: str, id: int) -> ApiReply:
        record = self._records[kind].get(id)
        if record is None:
            return _error(404, "Not found")
        if call.method == "PATCH":
            if _wrong(kind, call.json):
                return _error(400, "Validation failed")
            fields = record["custom_fields"] | call.json.get("custom_fields", {})
            record.update({**call.json, "custom_fields": fields})
        return _data({"id": id, **record})

    def _found(self, kind: str, query: Mapping[str, str]) -> ApiReply:
        limit, exact = int(query.get("limit", 100)), query.get("exact_match", "false")
        fields = set(query["fields"].split(","))
        if not query.get("term") or exact not in ("true", "false") or limit > 100 or not fields <= _SEARCHED[kind]:
            return _error(400, "Validation failed")
        hits = [{"result_score": 1, "item": self._shown(kind, id)} for id in self._hits(kind, query)]
        return _data({"items": hits[:limit]}, additional_data={"next_cursor": None})

    def _shown(self, kind: str, id: int) -> Json:
        """As a search shows a record: values without the names of their fields."""
        record = self._records[kind][id]
        held = [value for value in record["custom_fields"].values() if value is not None]
        emails = [entry["value"] for entry in record.get("emails", ())]
        return {"id": id, "type": kind[:-1], "custom_fields": held} | ({"emails": emails} if kind == "persons" else {})

    def _listed(self, kind: str, query: Mapping[str, str]) -> ApiReply:
        limit = int(query.get("limit", 100))
        order = (query.get("sort_by", "id"), query.get("sort_direction", "asc"))
        if limit > 500 or order[0] not in ("id", "add_time", "update_time") or order[1] not in ("asc", "desc"):
            return _error(400, "Validation failed")
        newest = sorted(self._records[kind].items(), reverse=True)[:limit]
        return _data([{"id": id, **record} for id, record in newest])

    def _hits(self, kind: str, query: Mapping[str, str]) -> list[int]:
        term = query["term"].lower()
        return [
            id
            for id, record in self._records[kind].items()
            if term in _held(record, query["fields"]) and self._calls - self._written[id] > self.search_lag
        ]

    def _noted(self, call: ApiCall) -> ApiReply:
        if call.method == "GET":
            person = int(call.query["person_id"])
            found = [note for note in reversed(self._notes) if note["person_id"] == person]
            return _data(found[: int(call.query.get("limit", 100))] or None)
        if not call.json.get("content"):
            return _error(400, "Bad request")
        if call.json.get("person_id") not in self._records["persons"]:
            return _error(400, "Person not found")
        note = {"id": next(self._ids), **call.json}
        self._notes.append(note)
        return _data(note, status=201)


def _wrong(kind: str, body: Json) -> bool:
    """Whether version 2 would refuse it: it knows no other names, and turns no text into a number or the reverse."""
    fields = body.get("custom_fields", {})
    return (
        not body.keys() <= _WRITTEN[kind]
        or any(not re.fullmatch(r"[0-9a-f]{40}", name) or value == [] for name, value in fields.items())
        or not isinstance(body.get("value", 0), int | float)
        or not isinstance(body.get("person_id", 0), int)
        or body.get("status", "open") not in ("open", "won", "lost")
        or any(not entry.get("value") for name in ("emails", "phones") for entry in body.get(name, ()))
    )


def _held(record: Json, fields: str) -> set[str]:
    if fields == "email":
        return {entry["value"].lower() for entry in record.get("emails", ())}
    return {str(value).lower() for value in record["custom_fields"].values()}


def _token(call: ApiCall) -> ApiReply:
    known = call.headers.get("authorization") == _BASIC and call.form.get("grant_type") == "refresh_token"
    if not known or call.form.get("refresh_token") != CLIENT[2]:
        return ApiReply(status=400, json={"success": False, "error": "invalid_grant"})
    domain = f"http://{call.headers.get('host', '')}"
    body = {"access_token": TOKEN, "refresh_token": CLIENT[2], "expires_in": 3599, "api_domain": domain}
    return ApiReply(json=body)


def _data(data: Any, *, status: int = 200, **more: Any) -> ApiReply:
    return ApiReply(status=status, json={"success": True, "data": data, **more})


def _error(status: int, error: str) -> ApiReply:
    return ApiReply(status=status, json={"success": False, "error": error, "error_info": "", "code": None})
