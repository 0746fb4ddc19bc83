"""A Dataverse environment with contacts, notes and an institution's own tables, in memory, and Entra's token endpoint.

learn.microsoft.com: "Compose HTTP requests and handle errors", "Use Upsert to Create or Update a record", "Perform
conditional operations using the Web API", "Service protection API limits".
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from email.parser import BytesParser
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

CLIENT: Final = "11111111-2222-3333-4444-555555555555"
SECRET: Final = "simulated-client-secret"

_TOKEN: Final = "/uni-x.example.org/oauth2/v2.0/token"
_ROOT: Final = re.compile(r"/api/data/v9\.\d/(?P<row>.+)", re.DOTALL)
_ADDRESS: Final = re.compile(r"(?P<table>\w+)(?:\((?P<key>.*)\))?", re.DOTALL)
_KEY: Final = re.compile(r"(?P<column>\w+)=(?:'(?P<text>(?:[^']|'')*)'|(?P<plain>[\w-]+))")
_ID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UNADDRESSABLE: Final = re.compile(r"[/<>*%&:\\?+#]")
_LIMITS: Final = {
    "0x80072322": "Number of requests exceeded the limit of 6000 over the time window of 300 seconds.",
    "0x80072321": "Combined execution time of incoming requests exceeded limit of 1,200,000 milliseconds.",
    "0x80072326": "Number of concurrent requests exceeded the limit of 52.",
}

PRIMARY: Final = {"contacts": "contactid", "accounts": "accountid", "annotations": "annotationid"}
"""Columns with a row's id; those of other tables are called `id`."""


class Refused(Exception):
    """An error as the Web API words it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(code)


class Environment:
    """One environment. The knobs work at any moment:

    `limit_on`   one of the codes of the service protection limits: every request is refused with it, and Retry-After
                 grows while one keeps on asking
    `racing`     so many first upserts come a moment after somebody else's with the same key
    `member`     False: the app is no application user
    `keys`       the alternate keys that are Active, by table
    """

    def __init__(self) -> None:
        self.limit_on: str | None = None
        self.racing = 0
        self.member = True
        self.token_seconds = 3599
        one_key = {"contacts": "bridge_personkey", "bridge_examgrades": "bridge_key"}
        self.keys: dict[str, set[frozenset[str]]] = {table: {frozenset({key})} for table, key in one_key.items()}
        self.rows: dict[str, dict[str, Json]] = {}
        self.logins = 0
        self._asked_in_vain = 0
        self._tokens: dict[str, float] = {}

    def answer(self, call: ApiCall) -> ApiReply:
        """Entra's token endpoint of one tenant, and the Web API."""
        if call.path == _TOKEN:
            return self._token(call)
        try:
            return self._routed(call)
        except Refused as error:
            wait = {"Retry-After": str(min(2**self._asked_in_vain, 300))} if error.status == 429 else {}
            return _error(error, wait)

    def effects(self) -> Json:
        """Rows by table."""
        return {table: [dict(row) for row in rows.values()] for table, rows in self.rows.items() if rows}

    def _token(self, call: ApiCall) -> ApiReply:
        host = f"http://{call.headers.get('host', 'localhost')}"
        if call.form.get("grant_type") != "client_credentials":
            return ApiReply(status=400, json={"error": "unsupported_grant_type", "error_description": "AADSTS70003"})
        if (call.form.get("client_id"), call.form.get("client_secret")) != (CLIENT, SECRET):
            return ApiReply(status=401, json={"error": "invalid_client", "error_description": "AADSTS7000215"})
        if call.form.get("scope") != f"{host}/.default":
            return ApiReply(status=400, json={"error": "invalid_scope", "error_description": "AADSTS70011"})
        self.logins += 1
        token = f"eyJ0.simulated{self.logins}"
        self._tokens[f"Bearer {token}"] = time.monotonic() + self.token_seconds
        life = {"expires_in": self.token_seconds, "ext_expires_in": self.token_seconds}
        return ApiReply(json={"token_type": "Bearer", **life, "access_token": token})

    def _routed(self, call: ApiCall) -> ApiReply:
        if self._tokens.get(call.headers.get("authorization", ""), 0.0) <= time.monotonic():
            raise Refused(401, "", "Authorization has been denied for this request.")
        if not self.member:
            raise Refused(403, "0x80072560", "The user is not a member of the organization.")
        if self.limit_on is not None:
            self._asked_in_vain += 1
            raise Refused(429, self.limit_on, _LIMITS[self.limit_on])
        self._asked_in_vain = 0
        if any(call.headers.get(name) != "4.0" for name in ("odata-version", "odata-maxversion")):
            raise Refused(400, "", "The OData-Version header is missing.")
        if call.method == "POST" and call.path.endswith("/$batch"):
            return self._batch(call)
        return self._row(call)

    def _batch(self, call: ApiCall) -> ApiReply:
        """Each part by itself, in order; without the preference they end with the first that fails."""
        head = f"Content-Type: {call.headers.get('content-type', '')}\r\n\r\n".encode()
        whole = BytesParser().parsebytes(head + call.body)
        if not whole.is_multipart():
            raise Refused(400, "0x80060888", "The batch request has no boundary.")
        going_on = "odata.continue-on-error" in call.headers.get("prefer", "")
        answers = []
        for part in whole.walk():
            if part.get_content_type() != "application/http":
                continue
            reply = self._part(bytes(part.get_payload(decode=True) or b""), call)
            answers.append(_as_part(reply))
            if reply.status >= 400 and not going_on:
                break
        kind = {"Content-Type": "multipart/mixed; boundary=batchresponse_1", "OData-Version": "4.0"}
        return ApiReply(text="".join(answers) + "--batchresponse_1--\r\n", headers=kind)

    def _part(self, message: bytes, batch: ApiCall) -> ApiReply:
        head, _, content = message.partition(b"\r\n\r\n")
        first, _, rest = head.partition(b"\r\n")
        method, target, _ = first.decode().split(" ")
        path = target.partition("?")[0]
        headers = {name.lower(): value for name, value in BytesParser().parsebytes(rest + b"\r\n\r\n").items()}
        body = json.loads(content) if content else None
        try:
            return self._row(
                replace(batch, method=method, path=unquote(path), headers={**batch.headers, **headers}, json=body)
            )
        except Refused as error:
            return _error(error)

    def _row(self, call: ApiCall) -> ApiReply:
        found = _ROOT.fullmatch(call.path)
        address = _ADDRESS.fullmatch(found["row"]) if found else None
        if address is None:
            raise Refused(404, "0x8006088a", "Resource not found for the segment.")
        table, key = address["table"], self._key(address["table"], address["key"]) if address["key"] else {}
        match call.method:
            case "POST" if not key:
                return self._posted(table, call.json, call.headers)
            case "GET" if key:
                asked = self._id(table, key)
                return ApiReply(json=self.rows[table][asked])
            case "PATCH" if key:
                return self._patched(table, key, call.json, call.headers)
            case "DELETE" if key:
                gone = self._id(table, key)
                del self.rows[table][gone]
                return ApiReply(status=204)
        raise Refused(405, "0x80060800", "The method is not allowed.")

    def _patched(self, table: str, key: Json, body: Json, headers: Mapping[str, str]) -> ApiReply:
        primary = PRIMARY.get(table, "id")
        identifier, by_id = self._maybe_id(table, key), key.keys() == {primary}
        # By an alternate key nothing is created like this: seen in clients, undocumented.
        if identifier is None and (
            headers.get("if-match") == "*" or (headers.get("if-none-match") == "*" and not by_id)
        ):
            raise _not_there(table, by_id)
        if identifier is not None and headers.get("if-none-match") == "*":
            raise Refused(412, "0x80040237", "A record with matching key values already exists.")
        values = dict(self._resolved(name, value) for name, value in body.items())
        if identifier is None:
            identifier = str(key.get(primary) or uuid.uuid5(uuid.NAMESPACE_OID, f"{table} {sorted(key.items())}"))
            lost = self.racing > 0 and primary not in key
            self.rows.setdefault(table, {})[identifier] = {primary: identifier, **key, **({} if lost else values)}
            if lost:  # somebody else's row was there first
                self.racing -= 1
                raise Refused(412, "0x80060892", "A record that has these attribute values already exists.")
        else:
            # "Use Upsert to Create or Update a record": a new row gets the key that the body has, an old one keeps its.
            self.rows[table][identifier] |= {name: value for name, value in values.items() if name not in key}
        return _done(table, identifier, headers)

    def _posted(self, table: str, body: Json, headers: Mapping[str, str]) -> ApiReply:
        for columns in self.keys.get(table, ()):
            if self._maybe_id(table, {column: body.get(column) for column in columns}) is not None:
                raise Refused(412, "0x80060892", "Entity Key violated. A record with the same value already exists.")
        values = dict(self._resolved(name, value) for name, value in body.items())
        identifier = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{table} {len(self.rows.get(table, {}))}"))
        self.rows.setdefault(table, {})[identifier] = {PRIMARY.get(table, "id"): identifier, **values}
        return _done(table, identifier, headers)

    def _key(self, table: str, text: str) -> Json:
        """`bridge_personkey='O''Hara'` or an id, as columns with values. Refuses what cannot be addressed."""
        if _ID.fullmatch(text):
            return {PRIMARY.get(table, "id"): text.lower()}
        parts = list(_KEY.finditer(text))
        if not parts or ",".join(part[0] for part in parts) != text:
            raise Refused(400, "0x80060888", "Syntax error in the key of the request.")
        key: Json = {}
        for part in parts:
            value = part["plain"] if part["text"] is None else part["text"].replace("''", "'")
            if _UNADDRESSABLE.search(value):
                raise Refused(400, "", "A potentially dangerous Request.Path value was detected from the client.")
            key[part["column"]] = value
        if table in self.keys and frozenset(key) not in self.keys[table]:
            raise Refused(400, "0x80060888", "The specified key properties are not defined as key.")
        return key

    def _maybe_id(self, table: str, key: Json) -> str | None:
        rows = self.rows.get(table, {})
        wanted = {column: str(value) for column, value in key.items()}  # a number of the address is text here
        same = (entry for entry, row in rows.items() if wanted.items() <= {c: str(v) for c, v in row.items()}.items())
        return next(same, None)

    def _id(self, table: str, key: Json) -> str:
        found = self._maybe_id(table, key)
        if found is None:
            raise _not_there(table, key.keys() == {PRIMARY.get(table, "id")})
        return found

    def _resolved(self, name: str, value: Any) -> tuple[str, Any]:
        """A column; `x@odata.bind` becomes the id of the row that it names."""
        lookup, bind, _ = name.partition("@odata.bind")
        lookup = lookup.lower()  # the column behind a navigation property
        if not bind:
            return name, value
        if value is None:
            return f"_{lookup}_value", None
        # No percent-decoding here: github.com/MicrosoftDocs/powerapps-docs, issue 1895.
        found = _ADDRESS.fullmatch(value.removeprefix("/"))
        if found is None or found["key"] is None:
            raise Refused(400, "0x80048d19", "Error identified in payload: invalid @odata.bind.")
        return f"_{lookup}_value", self._id(found["table"], self._key(found["table"], found["key"]))


def _not_there(table: str, by_id: bool) -> Refused:
    """ObjectDoesNotExist, or RecordNotFoundByEntityKey ("Web service error codes")."""
    if by_id:
        return Refused(404, "0x80040217", f"{table} With Id = … Does Not Exist")
    return Refused(404, "0x80060891", f"A record with the specified key values does not exist in {table} entity")


def _done(table: str, identifier: str, headers: Mapping[str, str]) -> ApiReply:
    entity = f"http://{headers.get('host', 'localhost')}/api/data/v9.2/{table}({identifier})"
    return ApiReply(status=204, headers={"OData-Version": "4.0", "OData-EntityId": entity})


def _error(error: Refused, headers: Mapping[str, str] | None = None) -> ApiReply:
    document = {"error": {"code": error.code, "message": error.message}}
    return ApiReply(status=error.status, json=document, headers={"OData-Version": "4.0", **(headers or {})})


def _as_part(reply: ApiReply) -> str:
    """An answer as a part of a batch's answer."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    body = "" if reply.json is None else json.dumps(reply.json)
    return (
        "--batchresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}\r\n{headers}\r\n{body}\r\n"
    )


def target() -> Environment:
    """An empty environment whose contacts have the alternate key that the settings name."""
    return Environment()


def settings(url: str) -> Json:
    """The entry of bridge.yaml's `targets` that fits an environment at this address."""
    login = {"kind": "oauth2_client_credentials", "token_url": f"{url}{_TOKEN}", "scope": f"{url}/.default"}
    return {
        "connector": "dataverse",
        "url": url,
        "auth": {**login, "client_id": CLIENT, "client_secret": SECRET},
    }
