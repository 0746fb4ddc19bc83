"""A Salesforce org with contacts, tasks, custom objects and platform events, in memory.

developer.salesforce.com, REST API Developer Guide: sObject Rows by External ID, sObject Collections, Composite.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply
from connectors.salesforce.simulated_login import PATH, Sessions

CLIENT: Final = "3MVG9simulated"
SECRET: Final = "simulated-consumer-secret"
USER: Final = "bridge@uni-x.example.org"

_PREFIXES: Final = {"Contact": "003", "Account": "001", "Task": "00T", "Case": "500"}
_MOST: Final = 200
_PARTS: Final = 25
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_REFERENCE: Final = re.compile(r"@\{(\w+)\.id\}")
_INHERITED: Final = {"accept", "authorization", "content-type"}
"""Headers of a composite that its parts have too, and may not have of their own."""


class Refused(Exception):
    """An error as the API words it."""

    def __init__(self, status: int, code: str, message: str, *fields: str) -> None:
        self.status, self.code, self.message, self.fields = status, code, message, list(fields)
        super().__init__(code)


class Org:
    """One org. The knobs work at any moment:

    `limit_on`        True: the API calls of 24 hours are used up; `daily_calls` is how many there are
    `locked`          so many writes of a record fail because another transaction holds it
    `racing`          so many first upserts come a moment after somebody else's with the same key
    `empty_updates`   True: an update answers 204, as older versions do
    `sessions`        logins, their length, and whom the app may act for
    `rule`            the message of a validation rule that refuses every contact without an e-mail address
    `similar`         True: a duplicate rule finds a like contact for every new one, and lets whoever insists save it
    """

    def __init__(self) -> None:
        self.limit_on = False
        self.daily_calls = 100_000
        self.locked = 0
        self.racing = 0
        self.empty_updates = False
        self.sessions = Sessions(CLIENT, SECRET, USER)
        self.rule: str | None = None
        self.similar = False
        self.records: dict[str, dict[str, Json]] = {kind: {} for kind in _PREFIXES}
        self.events: list[Json] = []
        self.calls = 0
        self._made = 0
        self._may_be_like_another = False

    def answer(self, call: ApiCall) -> ApiReply:
        """The token endpoint, and the REST API of any version."""
        if call.path == PATH:
            return self.sessions.answer(call)
        if not self.sessions.alive(call.headers.get("authorization", "")):
            return _errors(Refused(401, "INVALID_SESSION_ID", "Session expired or invalid"))
        self.calls += 1
        headers = {"Sforce-Limit-Info": f"api-usage={self.calls}/{self.daily_calls}"}
        if self.limit_on or self.calls > self.daily_calls:
            return _errors(Refused(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."), headers)
        self._may_be_like_another = _allows(call.headers)
        try:
            reply = self._routed(call.method, call.path, call.query, call.json)
        except Refused as error:
            return _errors(error, headers)
        return ApiReply(status=reply.status, json=reply.json, text=reply.text, headers=headers)

    def effects(self) -> Json:
        """Records by object, and the platform events."""
        kept = {kind: [dict(record) for record in rows.values()] for kind, rows in self.records.items() if rows}
        return {**copy.deepcopy(kept), "events": copy.deepcopy(self.events)}

    def add(self, kind: str, record: Json) -> str:
        """A record that was there before, whatever its fields; its id."""
        self._made += 1
        identifier = f"{_PREFIXES.get(kind, 'a00')}{self._made:012d}AAA"
        self.records.setdefault(kind, {})[identifier] = {**record, "Id": identifier}
        return identifier

    # --- the API --------------------------------------------------------------------------------------------------

    def _routed(self, method: str, path: str, query: Mapping[str, str], body: Any) -> ApiReply:
        match path.split("/")[1:]:
            case ["services", "data", _, "composite"] if method == "POST":
                return self._composite(body)
            case ["services", "data", _, "composite", "sobjects", kind, field] if method == "PATCH":
                return self._collection(kind, field, body)
            case ["services", "data", _, "sobjects", kind] if method == "POST":
                return self._published(body) if kind.endswith("__e") else self._created(kind, body)
            # The path is decoded before it is cut: a key may have slashes.
            case ["services", "data", _, "sobjects", kind, field, *key] if key and method == "PATCH":
                return self._upserted(kind, field, "/".join(key), body, query.get("updateOnly") == "true")
            case ["services", "data", _, "sobjects", kind, field, *key] if key and method == "DELETE":
                return self._deleted(kind, field, "/".join(key))
        raise _not_found()

    def _published(self, body: Json) -> ApiReply:
        number = str(uuid.uuid5(uuid.NAMESPACE_OID, str(len(self.events))))
        self.events.append(dict(body))
        enqueued = {"statusCode": "OPERATION_ENQUEUED", "message": number, "fields": []}
        return ApiReply(status=201, json={"id": "e01000000000001AAA", "success": True, "errors": [enqueued]})

    def _created(self, kind: str, body: Json) -> ApiReply:
        return ApiReply(status=201, json={"id": self._saved(kind, None, body), "success": True, "errors": []})

    def _deleted(self, kind: str, field: str, key: str) -> ApiReply:
        found = self._found(kind, field, key)
        if not found:
            raise _not_found()
        for identifier in found:
            del self.records[kind][identifier]
        return ApiReply(status=204)

    def _upserted(self, kind: str, field: str, key: str, body: Json, update_only: bool = False) -> ApiReply:
        if field in body or "Id" in body:
            raise Refused(400, "INVALID_FIELD", f"The {field} field should not be specified in the sobject data.")
        found = self._found(kind, field, key)
        if len(found) > 1:
            return ApiReply(status=300, json=[f"/services/data/v68.0/sobjects/{kind}/{entry}" for entry in found])
        if not found and update_only:
            raise _not_found()
        if not found and self.racing:
            self.racing -= 1
            other = self.add(kind, {field: key, "LastName": "of the other"})
            raise Refused(
                400, "DUPLICATE_VALUE", f"duplicate value found: {field} duplicates value on record with id: {other}"
            )
        stored = self._saved(kind, found[0] if found else None, {**body, field: key})
        if found and self.empty_updates:
            return ApiReply(status=204)
        created = not found
        return ApiReply(
            status=201 if created else 200, json={"id": stored, "success": True, "errors": [], "created": created}
        )

    def _collection(self, kind: str, field: str, body: Json) -> ApiReply:
        if len(body["records"]) > _MOST:
            raise Refused(400, "LIMIT_EXCEEDED", f"record limit reached. cannot submit more than {_MOST} records")
        keys = [str(record.get(field, "")).lower() for record in body["records"]]
        results = []
        for record, key in zip(body["records"], keys, strict=True):
            values = {name: value for name, value in record.items() if name not in ("attributes", field)}
            try:
                if not key or keys.count(key) > 1:
                    raise Refused(400, "DUPLICATE_VALUE", f"Duplicate external id specified: {key}", field)
                reply = self._upserted(kind, field, str(record[field]), values)
                if reply.status == 300:
                    raise Refused(400, "DUPLICATE_EXTERNAL_ID", f"more than one record found for {field}", field)
            except Refused as error:
                wrong = {"statusCode": error.code, "message": error.message, "fields": error.fields}
                results.append({"success": False, "errors": [wrong]})
                continue
            done = {"id": self._found(kind, field, str(record[field]))[0], "success": True, "errors": []}
            results.append({**done, "created": reply.status == 201})
        return ApiReply(json=results)

    def _composite(self, body: Json) -> ApiReply:
        requests = body["compositeRequest"]
        if len(requests) > _PARTS:
            raise Refused(400, "INVALID_INPUT", f"The maximum number of subrequests is {_PARTS}")
        names = [request["referenceId"] for request in requests]
        before = copy.deepcopy(self.records)
        known: dict[str, str] = {}
        done: dict[str, Json] = {}
        for request in _in_order(requests, body.get("collateSubrequests", True)):
            own = {name.lower(): value for name, value in request.get("httpHeaders", {}).items()}
            if own.keys() & _INHERITED:
                raise Refused(400, "INVALID_HTTP_HEADER", "This header may not be in a subrequest")
            self._may_be_like_another = _allows(own)
            try:
                values = _referring(request.get("body"), known)
                reply = self._routed(request["method"], unquote(request["url"]), {}, values)
                content, status = reply.json, reply.status
            except Refused as error:
                content, status = _listed(error), error.status
            name = request["referenceId"]
            known |= {name: content["id"]} if isinstance(content, dict) and "id" in content else {}
            done[name] = {"body": content, "httpHeaders": {}, "httpStatusCode": status, "referenceId": name}
        parts = [done[name] for name in names]
        if body.get("allOrNone") and any(part["httpStatusCode"] >= 300 for part in parts):
            self.records = before
            for part in parts:
                if part["httpStatusCode"] < 300:
                    part["body"], part["httpStatusCode"] = _listed(_HALTED), 400
        return ApiReply(json={"compositeResponse": parts})

    # --- records --------------------------------------------------------------------------------------------------

    def _found(self, kind: str, field: str, key: str) -> list[str]:
        """Ids of the records with a key; capital letters make no difference unless the field is made so."""
        if not field.endswith("__c") and field != "Email":
            raise Refused(404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}")
        rows = self.records.get(kind, {})
        return [entry for entry, record in rows.items() if str(record.get(field, "")).lower() == key.lower()]

    def _saved(self, kind: str, identifier: str | None, body: Json) -> str:
        if kind not in self.records and not kind.endswith("__c"):
            raise _not_found()
        if self.locked:
            self.locked -= 1
            raise Refused(400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
        values = dict(self._resolved(name, value) for name, value in body.items())
        if kind == "Contact":
            if self.rule is not None and not values.get("Email"):
                raise Refused(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", self.rule, "Email")
            if identifier is None and not values.get("LastName"):
                raise Refused(400, "REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]", "LastName")
            if values.get("Email") and not _EMAIL.fullmatch(str(values["Email"])):
                raise Refused(400, "INVALID_EMAIL_ADDRESS", "Email: invalid email address", "Email")
            if identifier is None and self.similar and not self._may_be_like_another:
                raise Refused(400, "DUPLICATES_DETECTED", "Use one of these records?")
            if len(values.get("LastName") or "") > 80:
                raise Refused(400, "STRING_TOO_LONG", "Last Name: data value too large (max length=80)", "LastName")
        if identifier is None:
            return self.add(kind, values)
        self.records[kind][identifier] |= values
        return identifier

    def _resolved(self, name: str, value: Any) -> tuple[str, Any]:
        """A field; `Contact__r: {Key__c: p1}` and `Who: {attributes, Key__c: p1}` become the id of that record."""
        if not isinstance(value, Mapping):
            return name, value
        kind = value.get("attributes", {}).get("type") or name.removesuffix("__r")
        [(field, key)] = [(field, key) for field, key in value.items() if field != "attributes"]
        found = self._found(kind, field, str(key))
        if len(found) != 1:
            raise Refused(
                400, "INVALID_FIELD", f"Foreign key external ID: {key} not found for field {field} in entity {kind}"
            )
        return (name.removesuffix("__r") + "__c" if name.endswith("__r") else f"{name}Id"), found[0]


def _not_found() -> Refused:
    return Refused(404, "NOT_FOUND", "The requested resource does not exist")


_HALTED: Final = Refused(
    400,
    "PROCESSING_HALTED",
    "The transaction was rolled back since another operation in the same transaction failed.",
)


def target() -> Org:
    """An empty org."""
    return Org()


def settings(url: str) -> Json:
    """The entry of bridge.yaml's `targets` that fits an org at this address."""
    login = {"kind": "oauth2_client_credentials", "token_url": f"{url}{PATH}"}
    return {
        "connector": "salesforce",
        "url": url,
        "auth": {**login, "client_id": CLIENT, "client_secret": SECRET},
    }


def _allows(headers: Mapping[str, str]) -> bool:
    return "allowSave=true" in headers.get("sforce-duplicate-rule-header", "")


def _in_order(requests: list[Json], collated: bool) -> list[Json]:
    """A composite's parts as they are run: those that are put together come in any order, here the worst one, unless
    one refers to another or has headers ("Composite Request Body").
    """
    if not collated or any(part.get("httpHeaders") or _REFERENCE.search(json.dumps(part)) for part in requests):
        return requests
    return requests[::-1]


def _referring(body: Any, known: Mapping[str, str]) -> Any:
    """A part's body with the ids of earlier parts in it."""
    return json.loads(_REFERENCE.sub(lambda found: known.get(found[1], found[0]), json.dumps(body)))


def _listed(error: Refused) -> list[Json]:
    return [{"message": error.message, "errorCode": error.code, "fields": error.fields}]


def _errors(error: Refused, headers: Mapping[str, str] | None = None) -> ApiReply:
    return ApiReply(status=error.status, json=_listed(error), headers=headers or {})
