"""A HubSpot account for tests and demonstrations: records with unique properties, notes, associations, timelines.

It knows v3 and dated paths alike, is as strict about texts as HubSpot's documentation, and fails at the turn of a knob.
Of batches it says what developers saw: with a trace id on each input a 207 speaks of each, without one wrong input
spoils all; the same id twice spoils all in either case.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Mapping
from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

TOKEN: Final = "pat-simulated"
CLIENT: Final = ("hubspot-client", "hubspot-secret", "hubspot-refresh")
"""Client id, client secret and refresh token of the app that the token endpoint knows."""

_DATED: Final = r"objects/20\d\d-\d\d"
_OBJECTS: Final = re.compile(rf"/crm/(?:v3/objects|{_DATED})/(?P<kind>[^/]+)(?P<rest>(?:/[^/]+){{0,2}})")
_RELATIONS: Final = re.compile(
    rf"/crm/(?:v4/objects|{_DATED})/(?P<kind>[^/]+)/(?P<id>\d+)/associations/(?P<rest>[^/]+(?:/[^/]+){{0,2}})"
)
_TIMELINE: Final = re.compile(r"/integrators/timeline/(?P<version>v3|20\d\d-\d\d)/events")
_TOKENS: Final = re.compile(r"/oauth/(?:v3|20\d\d-\d\d)/token")

_LIMIT: Final = "You have reached your {} limit."
_FAULTS: Final[Mapping[str, tuple[int, Json, dict[str, str]]]] = {
    "secondly": (
        429,
        {"message": _LIMIT.format("secondly"), "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"},
        {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000", "X-HubSpot-RateLimit-Remaining": "0"},
    ),
    "daily": (
        429,
        {"message": _LIMIT.format("daily"), "errorType": "RATE_LIMIT", "policyName": "DAILY"},
        {"X-HubSpot-RateLimit-Interval-Milliseconds": "10000", "X-HubSpot-RateLimit-Daily-Remaining": "0"},
    ),
    "locked": (423, {"message": "The resource is locked", "category": "CONFLICT"}, {}),
    "moving": (477, {"message": "Migration in progress"}, {"Retry-After": "7200"}),
    "scopes": (403, {"message": "This app is missing scopes", "category": "MISSING_SCOPES"}, {}),
}


def target() -> SimulatedHubSpot:
    """An account with one contact and one course, and the unique properties that the connector's defaults name."""
    account = SimulatedHubSpot()
    account.put("contacts", {"email": "ada@example.test", "bridge_person_key": "wiseflow:1"}, id="512")
    account.put("2-1234567", {"bridge_key": "course:1"}, id="77")
    return account


def settings(url: str) -> Json:
    """The entry of bridge.yaml for the account at this address."""
    return {"connector": "hubspot", "base_url": url, "token": TOKEN}


class SimulatedHubSpot:
    """`fault` is one of `secondly`, `daily`, `locked`, `moving`, `scopes`; `faulty_calls` is how many meet it.

    `unique` are the unique properties by kind of record, `""` for all; `unknown` are properties that do not exist.
    `nameless` is whether a contact can be made without e-mail address and name: the documentation says no; is it so?
    """

    def __init__(self) -> None:
        self.fault: str | None = None
        self.faulty_calls = -1
        self.unique = {
            "contacts": ["email", "bridge_person_key"],
            "notes": ["bridge_note_key"],
            "": ["bridge_key", "course_code"],
        }
        self.unknown: set[str] = set()
        self.nameless = True
        self._records: dict[str, dict[str, dict[str, str]]] = {}
        self._relations: dict[tuple[str, str, str, str], int] = {}
        self._timeline: dict[tuple[str, str], Json] = {}
        self._ids = itertools.count(1001)
        self._lock = threading.Lock()

    def effects(self) -> Json:
        """Records by kind and id, associations as `[kind, id, kind, id]`, and what is on timelines."""
        with self._lock:
            return {
                "records": {
                    kind: {key: dict(values) for key, values in all.items()} for kind, all in self._records.items()
                },
                "associations": [list(pair) for pair in self._relations],
                "timeline": list(self._timeline.values()),
            }

    def put(self, kind: str, properties: Mapping[str, str], *, id: str | None = None, on: str | None = None) -> str:
        """A record that somebody in the office made, `on` a contact if they said so; its id."""
        with self._lock:
            made = self._made(kind, properties, id)
            if on is not None:
                self._relate(kind, made, "contacts", on, 0)
            return made

    def answer(self, call: ApiCall) -> ApiReply:
        """The API and the token endpoint."""
        with self._lock:
            if _TOKENS.fullmatch(call.path):
                return _token(call.form)
            if call.headers.get("authorization") != f"Bearer {TOKEN}":
                return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
            if self.fault is not None and self.faulty_calls != 0:
                self.faulty_calls -= 1
                status, body, headers = _FAULTS[self.fault]
                return ApiReply(status=status, json={"status": "error", **body}, headers=headers)
            return self._routed(call)

    def _routed(self, call: ApiCall) -> ApiReply:
        if _TIMELINE.fullmatch(call.path) and call.method == "POST":
            return self._occurred(call.json, dated="/v3/" not in call.path)
        if found := _RELATIONS.fullmatch(call.path):
            return self._related(call, found["kind"], found["id"], found["rest"].split("/"))
        if found := _OBJECTS.fullmatch(call.path):
            return self._recorded(call, found["kind"], found["rest"].split("/")[1:])
        return _error(404, "OBJECT_NOT_FOUND", "No such path.")

    # --- records ------------------------------------------------------------------------------------------------------

    def _recorded(self, call: ApiCall, kind: str, steps: list[str]) -> ApiReply:
        match call.method, steps:
            case "POST", []:
                return self._create(kind, call.json)
            case "POST", ["batch", "upsert"]:
                return self._upsert(kind, call.json["inputs"])
            case "POST", ["batch", "read"]:
                known = [entry["id"] for entry in call.json["inputs"] if entry["id"] in self._of(kind)]
                return ApiReply(json={"status": "COMPLETE", "results": [self._shown(kind, id) for id in known]})
            case "GET" | "PATCH", [value]:
                return self._one(call, kind, value)
        return _error(404, "OBJECT_NOT_FOUND", "No such path.")

    def _of(self, kind: str) -> dict[str, dict[str, str]]:
        return self._records.setdefault(kind, {})

    def _unique(self, kind: str) -> list[str]:
        return self.unique.get(kind, self.unique[""])

    def _shown(self, kind: str, id: str) -> Json:
        return {"id": id, "properties": {**self._of(kind)[id], "hs_object_id": id}, "archived": False}

    def _made(self, kind: str, properties: Mapping[str, str], id: str | None = None) -> str:
        id = id or str(next(self._ids))
        self._of(kind)[id] = dict(properties)
        return id

    def _with(self, kind: str, property: str, value: str) -> str | None:
        value = value.lower() if property == "email" else value
        return next((id for id, held in self._of(kind).items() if held.get(property) == value), None)

    def _wrong(self, kind: str, properties: Any, but: str | None) -> ApiReply | None:
        """Why properties cannot be written: no texts, unknown names, something missing, or somebody else's value."""
        if not isinstance(properties, dict) or not all(isinstance(value, str) for value in properties.values()):
            return _error(400, "VALIDATION_ERROR", "Invalid input JSON: expected texts")
        wrong = dict.fromkeys(sorted(self.unknown & properties.keys()), "PROPERTY_DOESNT_EXIST")
        missing = _missing(kind, properties, nameless=self.nameless) if but is None else ()
        wrong |= dict.fromkeys(missing, "REQUIRED_FIELD")
        for property in self._unique(kind):
            other = self._with(kind, property, properties.get(property) or "\0")
            if other not in (None, but) and property == "email":
                return _error(409, "CONFLICT", f"Contact already exists. Existing ID: {other}")
            wrong |= {} if other in (None, but) else {property: "CONFLICTING_UNIQUE_VALUE"}
        said = [{"isValid": False, "error": code, "name": name} for name, code in wrong.items()]
        return _error(400, "VALIDATION_ERROR", f"Property values were not valid: {json.dumps(said)}") if said else None

    def _create(self, kind: str, body: Any) -> ApiReply:
        wrong = self._wrong(kind, body["properties"], None)
        if wrong is not None:
            return wrong
        id = self._made(kind, _lowered(body["properties"]))
        for association in body.get("associations", ()):
            self._relate(
                kind, id, "contacts", str(association["to"]["id"]), association["types"][0]["associationTypeId"]
            )
        return ApiReply(status=201, json=self._shown(kind, id))

    def _one(self, call: ApiCall, kind: str, value: str) -> ApiReply:
        property = call.query.get("idProperty")
        found = self._with(kind, property, value) if property else value
        if found is None or found not in self._of(kind):
            return _error(404, "OBJECT_NOT_FOUND", "resource not found")
        if call.method == "PATCH":
            wrong = self._wrong(kind, call.json["properties"], found)
            if wrong is not None:
                return wrong
            self._of(kind)[found].update(_lowered(call.json["properties"]))
        return ApiReply(json=self._shown(kind, found))

    def _upsert(self, kind: str, inputs: list[Json]) -> ApiReply:
        keys = [entry["id"] for entry in inputs]
        if not 1 <= len(inputs) <= 100 or len(set(keys)) < len(keys):
            return _error(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input: [...], or none, or over 100")
        if any(entry["idProperty"] not in self._unique(kind) or entry["idProperty"] == "email" for entry in inputs):
            return _error(400, "VALIDATION_ERROR", f"Unable to perform update/upsert by non-unique {kind} property")
        traced = len({entry.get("objectWriteTraceId") for entry in inputs} - {None}) == len(inputs)
        results: list[Json] = []
        errors: list[Json] = []
        for entry in inputs:
            trace = entry.get("objectWriteTraceId")
            found = self._with(kind, entry["idProperty"], entry["id"])
            wrong = self._wrong(kind, entry["properties"], found)
            if wrong is not None and not traced:
                return wrong
            if wrong is not None:
                errors.append({**wrong.json, "context": {"objectWriteTraceId": [trace]}})
                continue
            id = found or self._made(kind, {entry["idProperty"]: entry["id"]})
            self._of(kind)[id].update(_lowered(entry["properties"]))
            results.insert(0, {**self._shown(kind, id), "new": found is None, "objectWriteTraceId": trace})
        body = {"status": "COMPLETE", "results": results}
        return (
            ApiReply(status=207, json={**body, "numErrors": len(errors), "errors": errors})
            if errors
            else ApiReply(json=body)
        )

    # --- what hangs on them -------------------------------------------------------------------------------------------

    def _relate(self, kind: str, id: str, other: str, other_id: str, label: int) -> None:
        self._relations[kind, id, other, other_id] = label
        self._relations[other, other_id, kind, id] = label

    def _related(self, call: ApiCall, kind: str, id: str, steps: list[str]) -> ApiReply:
        match call.method, steps:
            case "GET", [other]:
                found = [entry[3] for entry in self._relations if entry[:3] == (kind, id, other)]
                return ApiReply(json=_page(found, call.query))
            case "PUT", ["default", other, other_id] | [other, other_id]:
                if id not in self._of(kind) or other_id not in self._of(other):
                    return _error(404, "OBJECT_NOT_FOUND", "resource not found")
                label = 0 if steps[0] == "default" else call.json[0]["associationTypeId"]
                self._relate(kind, id, other, other_id, label)
                return ApiReply(status=200 if steps[0] == "default" else 201, json={"status": "COMPLETE"})
            case "DELETE", [other, other_id]:
                self._relations.pop((kind, id, other, other_id), None)
                self._relations.pop((other, other_id, kind, id), None)
                return ApiReply(status=204, text="")
        return _error(405, "METHOD_NOT_ALLOWED", "No such method.")

    def _occurred(self, body: Json, *, dated: bool) -> ApiReply:
        kind, values = ("eventTypeName", "properties") if dated else ("eventTemplateId", "tokens")
        if (
            kind not in body
            or not isinstance(body.get(values), dict)
            or not (body.get("email") or body.get("objectId"))
        ):
            return _error(400, "VALIDATION_ERROR", f"Expected {kind}, {values}, and email or objectId")
        if (body[kind], body["id"]) in self._timeline:
            return _error(409, "CONFLICT", "An occurrence with this id already exists")
        self._timeline[body[kind], body["id"]] = body
        return ApiReply(status=201, json=body)


def _missing(kind: str, properties: Mapping[str, str], *, nameless: bool) -> list[str]:
    """What a new record lacks (developers.hubspot.com/docs, "Contacts", "Notes")."""
    named = nameless or any(properties.get(name) for name in ("email", "firstname", "lastname"))
    if kind == "contacts" and not named:
        return ["email"]
    return ["hs_timestamp"] if kind == "notes" and not properties.get("hs_timestamp") else []


def _lowered(properties: Mapping[str, str]) -> dict[str, str]:
    return {name: value.lower() if name == "email" else value for name, value in properties.items()}


def _page(ids: list[str], query: Mapping[str, str]) -> Json:
    start, limit = int(query.get("after", 0)), int(query.get("limit", 500))
    page: Json = {"results": [{"toObjectId": int(id), "associationTypes": []} for id in ids[start : start + limit]]}
    if start + limit < len(ids):
        page["paging"] = {"next": {"after": str(start + limit)}}
    return page


def _token(form: Mapping[str, str]) -> ApiReply:
    client, secret, refresh = CLIENT
    known = form.get("client_id") == client and form.get("client_secret") == secret
    granted = form.get("grant_type") == "client_credentials" or form.get("refresh_token") == refresh
    if not known or not granted:
        return ApiReply(status=400, json={"status": "BAD_REFRESH_TOKEN", "message": "missing or invalid refresh token"})
    body = {"access_token": TOKEN, "refresh_token": refresh, "expires_in": 1800, "token_type": "bearer", "hub_id": 1}
    return ApiReply(json=body)


def _error(status: int, category: str, message: str) -> ApiReply:
    body = {"status": "error", "message": message, "category": category, "correlationId": _CORRELATION}
    return ApiReply(status=status, json=body)


_CORRELATION: Final = "00000000-0000-4000-8000-000000000000"
