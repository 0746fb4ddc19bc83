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
"""The custom fields that hold the bridge's keys."""

_RECORDS: Final = re.compile(r"/api/v2/(?P<kind>persons|deals)(?:/(?P<rest>search|\d+))?")
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
    }


class SimulatedPipedrive:
    """`fault` is `burst` (429), `daily` (429, nothing left) or `shut_out` (Cloudflare's page).

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
        if self.fault is not None:
            left = "0" if self.fault == "daily" else "20000"
            headers = {"x-ratelimit-reset": "2", "x-daily-ratelimit-token-remaining": left}
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
            case "GET", "search" | None:
                return self._listed(kind, call.query, searched=rest is not None)
            case "POST", None:
                if not call.json.get("name" if kind == "persons" else "title"):
                    return _error(400, "Validation failed")
                id = next(self._ids)
                self._records[kind][id] = {"custom_fields": {}, **call.json}
                self._written[id] = self._calls
                return _data({"id": id}, status=201)
            case "PATCH", str() if rest.isdigit():
                record = self._records[kind].get(int(rest))
                if record is None:
                    return _error(404, "Not found")
                fields = record["custom_fields"] | call.json.get("custom_fields", {})
                record.update({**call.json, "custom_fields": fields})
                return _data({"id": int(rest)})
        return _error(404, "Unknown method.")

    def _listed(self, kind: str, query: Mapping[str, str], *, searched: bool) -> ApiReply:
        limit = int(query.get("limit", 100))
        if searched:
            hits = [{"result_score": 1, "item": {"id": id}} for id in self._hits(kind, query)]
            return _data({"items": hits[:limit]}, additional_data={"next_cursor": None})
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
        if call.json.get("person_id") not in self._records["persons"]:
            return _error(400, "Person not found")
        note = {"id": next(self._ids), **call.json}
        self._notes.append(note)
        return _data(note, status=201)


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
