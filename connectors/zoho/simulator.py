"""A Zoho CRM account for tests and demonstrations: modules with fields that know no duplicates, and notes."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

TOKEN: Final = "1000.simulated"
CLIENT: Final = ("zoho-client", "zoho-secret", "1000.refresh")
"""Client id, client secret and refresh token that the accounts server knows."""

MOST_TOKENS: Final = 10
"""Access tokens for one refresh token in ten minutes."""

_TOO_MANY_TOKENS: Final[Json] = {
    "error": "Access Denied",
    "error_description": "You have made too many requests continuously. Please try again after some time.",
    "status": "failure",
}
"""Seen by developers; no document has it."""

_UPSERT: Final = re.compile(r"/crm/v8/(?P<module>\w+)/upsert")
_RECORD: Final = re.compile(r"/crm/v8/(?P<module>\w+)/(?P<id>\d+)")
_NOTES: Final = re.compile(r"/crm/v8/Contacts/(?P<id>\d+)/Notes")
_SEARCH: Final = re.compile(r"\((?P<field>\w+):equals:(?P<value>.*)\)")


def target() -> SimulatedZoho:
    """An account with one contact."""
    account = SimulatedZoho()
    account.put("111", {"Last_Name": "Lovelace", "Email": "ada@example.test"})
    return account


def settings(url: str) -> Json:
    """The entry of bridge.yaml for the account at this address."""
    client, secret, refresh = CLIENT
    login = {"kind": "oauth2_refresh_token", "token_url": f"{url}/oauth/v2/token", "client_id": client}
    return {
        "connector": "zoho",
        "base_url": url,
        "auth": {**login, "client_secret": secret, "refresh_token": refresh},
    }


class SimulatedZoho:
    """`fault` is `limit` (429), `broken` (500) or `scope` (401); `locked` are keys whose record is locked.

    `unique` are the fields that take no duplicates; `tokens` counts what the accounts server gave out. `search_lag` is
    how many calls go by before the search finds what was written. The search finds what looks alike, too.
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.locked: set[str] = set()
        self.search_lag = 0
        self.unique = {"Email", "Bridge_Person_Key", "Bridge_Key", "Course_Code"}
        self.tokens = 0
        self.triggered = 0
        self._modules: dict[str, dict[str, Json]] = {}
        self._notes: list[Json] = []
        self._written: dict[str, int] = {}
        self._calls = 0
        self._ids = itertools.count(5_000_001)
        self._lock = threading.Lock()

    def put(self, id: str, contact: Json) -> None:
        """A contact whom somebody in the office made."""
        with self._lock:
            self._modules.setdefault("Contacts", {})[id] = dict(contact)

    def effects(self) -> Json:
        """Records by module and id, and all notes."""
        with self._lock:
            modules = {name: {id: dict(held) for id, held in all.items()} for name, all in self._modules.items()}
            return {"modules": modules, "notes": [dict(note) for note in self._notes]}

    def answer(self, call: ApiCall) -> ApiReply:
        """The API, and the accounts server's token endpoint at `/oauth/v2/token`."""
        with self._lock:
            self._calls += 1
            if call.path == "/oauth/v2/token":
                return self._token(call)
            if call.headers.get("authorization") != f"Zoho-oauthtoken {TOKEN}":
                return _error(401, "INVALID_TOKEN")
            faults = {
                "limit": (429, "TOO_MANY_REQUESTS"),
                "broken": (500, "INTERNAL_ERROR"),
                "scope": (401, "OAUTH_SCOPE_MISMATCH"),
            }
            if self.fault is not None:
                return _error(*faults[self.fault])
            return self._routed(call)

    def _routed(self, call: ApiCall) -> ApiReply:
        if call.method == "GET" and call.path == "/crm/v8/Contacts/search":
            return _found(self._hits(call.query["criteria"]))
        if found := _NOTES.fullmatch(call.path):
            return self._noted(call, found["id"])
        if (found := _UPSERT.fullmatch(call.path)) and call.method == "POST":
            return self._upsert(found["module"], call.json)
        if (found := _RECORD.fullmatch(call.path)) and call.method == "PUT":
            held = self._modules.get(found["module"], {}).get(found["id"])
            if held is None:
                return _results([_failed("INVALID_DATA", "id")])
            held.update(call.json["data"][0])
            return _results([_done("update", found["id"])])
        return _error(404, "INVALID_URL_PATTERN")

    def _upsert(self, module: str, body: Json) -> ApiReply:
        self.triggered += "trigger" not in body
        if not 1 <= len(body["data"]) <= 100:
            return _error(400, "INVALID_DATA", {"api_name": "data", "json_path": "$.data", "maximum_length": 100})
        return _results([self._upserted(module, record, body) for record in body["data"]])

    def _upserted(self, module: str, record: Json, body: Json) -> Json:
        held = self._modules.setdefault(module, {})
        [field] = body["duplicate_check_fields"]
        if field not in self.unique:
            return _failed("INVALID_DATA", field)
        if record[field] in self.locked:
            return _failed("RECORD_LOCKED", field)
        key = record[field].casefold()
        known = next((id for id, values in held.items() if str(values.get(field, "")).casefold() == key), None)
        for name in self.unique & record.keys():
            if any(values.get(name) == record[name] for id, values in held.items() if id != known):
                return _failed("DUPLICATE_DATA", name)
        if known is None and module == "Contacts" and not record.get("Last_Name"):
            return _failed("MANDATORY_NOT_FOUND", "Last_Name")
        id = known or str(next(self._ids))
        held.setdefault(id, {}).update(record)
        self._written.setdefault(id, self._calls)
        return {**_done("insert" if known is None else "update", id), "duplicate_field": field if known else None}

    def _hits(self, criteria: str) -> list[Json]:
        found = _SEARCH.fullmatch(criteria)
        if found is None:
            return []
        value = re.sub(r"\\(.)", r"\1", found["value"])
        return [
            {"id": id, **values}
            for id, values in self._modules.get("Contacts", {}).items()
            if _alike(str(values.get(found["field"], ""))) == _alike(value)
            and self._calls - self._written.get(id, -(10**6)) > self.search_lag
        ]

    def _noted(self, call: ApiCall, contact: str) -> ApiReply:
        if call.method == "GET":
            if wrong := _listing(call.query):
                return wrong
            return _found([note for note in reversed(self._notes) if note["Parent_Id"] == contact])
        if contact not in self._modules.get("Contacts", {}):
            return _results([_failed("INVALID_DATA", "Parent_Id")])
        [note] = call.json["data"]
        for name, most in (("Note_Title", 120), ("Note_Content", 65_535)):
            if len(note.get(name) or "") > most:
                return _results([_failed("INVALID_DATA", name)])
        id = str(next(self._ids))
        self._notes.append({"id": id, "Parent_Id": contact, **note})
        return _results([_done("insert", id)], status=201)

    def _token(self, call: ApiCall) -> ApiReply:
        client, secret, refresh = CLIENT
        wanted = {"grant_type": "refresh_token", "client_id": client, "client_secret": secret, "refresh_token": refresh}
        if any(call.form.get(name) != value for name, value in wanted.items()):
            return ApiReply(json={"error": "invalid_code"})  # with status 200
        if self.tokens >= MOST_TOKENS:
            return ApiReply(status=400, json=_TOO_MANY_TOKENS)
        self.tokens += 1
        domain = f"http://{call.headers.get('host', '')}"
        return ApiReply(json={"access_token": TOKEN, "api_domain": domain, "token_type": "Bearer", "expires_in": 3600})


def _alike(value: str) -> str:
    """What of a value the search looks at: no case, and no signs between the words."""
    return re.sub(r"[\W_]", "", value).lower()


def _listing(query: Mapping[str, str]) -> ApiReply | None:
    """Why a related list cannot be asked for like this (github.com/zoho/crm-oas, v8.0/related_records)."""
    if not query.get("fields"):
        return _error(400, "REQUIRED_PARAM_MISSING", {"param_name": "fields"})
    if query.get("sort_by", "id") not in ("id", "Created_Time", "Modified_Time"):
        return _error(400, "INVALID_DATA", {"api_name": "sort_by"})
    if query.get("sort_order", "desc") not in ("asc", "desc") or not 1 <= int(query.get("per_page", 200)) <= 200:
        return _error(400, "INVALID_DATA", {"api_name": "per_page"})
    return None


def _found(records: list[Any]) -> ApiReply:
    return (
        ApiReply(json={"data": records, "info": {"more_records": False}}) if records else ApiReply(status=204, text="")
    )


def _results(results: list[Json], *, status: int = 200) -> ApiReply:
    """Each record's own result; 400 when none was done, 207 when some were not."""
    failed = sum(result["status"] == "error" for result in results)
    return ApiReply(status=400 if failed == len(results) else 207 if failed else status, json={"data": results})


def _done(action: str, id: str) -> Json:
    return {"code": "SUCCESS", "action": action, "details": {"id": id}, "status": "success", "message": "done"}


def _failed(code: str, field: str) -> Json:
    return {"code": code, "details": {"api_name": field}, "status": "error", "message": "not done"}


def _error(status: int, code: str, details: Json | None = None) -> ApiReply:
    body = {"code": code, "details": details or {}, "message": code.lower(), "status": "error"}
    return ApiReply(status=status, json=body)
