"""A Learning Record Store: it keeps the first statement of an id, takes lists as a whole, and forgets nothing."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from bridge.core.events import Json, stamp
from bridge.core.simulation import ApiCall, ApiReply
from connectors.xapi.simulated_validation import sound
from connectors.xapi.statements import VERBS, moment, same

_PATH: Final = "/xapi/statements"
_USER: Final = "bridge"
_PASSWORD: Final = "lrs-password"
_LOGIN: Final = f"Basic {b64encode(f'{_USER}:{_PASSWORD}'.encode()).decode()}"
_VERSION: Final = re.compile(r"(1\.0(\.[0-3])?|2\.0\.0)")
_MOST_BYTES: Final = 1024 * 1024
# xAPI-Communication, 2.1; stores refuse every other one.
_PARAMETERS: Final[Mapping[str, set[str]]] = {
    "PUT": {"statementId"},
    "GET": {
        "statementId", "voidedStatementId", "agent", "verb", "activity", "registration", "related_activities",
        "related_agents", "since", "until", "limit", "format", "attachments", "ascending",
    },
}  # fmt: skip


class Store:
    """One store. `conflicts_on_equal` lets it greet every known id with 409, `silent` none at all. `limit_on` lets it
    throttle; `behind` is how many seconds its searches lag behind. `terse` is a store that names nothing that it knew,
    and shows single statements as lists (Ralph); `voids_once` one that refuses to void what is voided (ADL's).
    """

    def __init__(self) -> None:
        self.terse = False
        self.voids_once = False
        self.conflicts_on_equal = False
        self.silent = False
        self.limit_on = False
        self.behind = 0.0
        self._statements: dict[str, Json] = {}
        self._voided: set[str] = set()

    def answer(self, call: ApiCall) -> ApiReply:
        answers = {"PUT": self._put, "POST": self._post, "GET": self._found}
        refused = self._refused(call)
        if refused is not None:
            return refused
        return answers[call.method](call) if call.method in answers else _wrong(405, "method")

    def _put(self, call: ApiCall) -> ApiReply:
        name = call.query.get("statementId", "")
        if not isinstance(call.json, dict) or call.json.get("id", name) != name:
            return _wrong(400, "statementId")
        return self._stored([{**call.json, "id": name}], ApiReply(status=204, text=""))

    def _post(self, call: ApiCall) -> ApiReply:
        made = call.json if isinstance(call.json, list) else [call.json]
        ids = [entry.get("id") for entry in made if isinstance(entry, dict)]
        if len(set(ids)) != len(made):
            return _wrong(400, "two statements with one id")
        new = [name for name in ids if not self.terse or name not in self._statements]
        return self._stored(made, ApiReply(json=new) if new else ApiReply(status=204, text=""))

    def _refused(self, call: ApiCall) -> ApiReply | None:
        kind = call.headers.get("content-type", "").partition(";")[0]
        refusals = (
            (call.path != _PATH, 404, "no such resource"),
            (call.headers.get("authorization") != _LOGIN, 401, "credentials"),
            (not _VERSION.fullmatch(call.headers.get("x-experience-api-version", "")), 400, "X-Experience-API-Version"),
            (bool(call.query.keys() - _PARAMETERS.get(call.method, set())), 400, "unknown parameters"),
            (call.method != "GET" and kind != "application/json", 400, "Content-Type"),
            (len(call.body) > _MOST_BYTES, 413, "too large"),
            (self.limit_on, 429, "Too Many Requests"),
        )
        return next((_wrong(status, words) for refused, status, words in refusals if refused), None)

    def _stored(self, made: list[Json], done: ApiReply) -> ApiReply:
        if not all(map(sound, made)):
            return _wrong(400, "not a statement")
        known = [entry for entry in made if entry["id"] in self._statements]
        differing = [entry for entry in known if not same(entry, self._statements[entry["id"]])]
        if not self.silent and (differing or (known and self.conflicts_on_equal)):
            return _wrong(409, "there is a statement with this id")
        if (refused := self._unvoidable([entry for entry in made if entry not in known])) is not None:
            return _wrong(400, refused)
        for entry in made:
            self._statements.setdefault(entry["id"], _kept(entry))
            if entry["verb"]["id"] == VERBS["voided"]:
                self._voided.add(entry["object"]["id"])
        return done

    def _unvoidable(self, made: list[Json]) -> str | None:
        """What forbids to void what these want voided (xAPI-Data, 2.3.2); a store need not know it."""
        for name in (entry["object"]["id"] for entry in made if entry["verb"]["id"] == VERBS["voided"]):
            if self._statements.get(name, {}).get("verb", {}).get("id") == VERBS["voided"]:
                return "a voiding statement cannot be voided"
            if self.voids_once and name in self._voided:
                return f"Statement with ID: {name} is already voided, cannot unvoid"
        return None

    def _found(self, call: ApiCall) -> ApiReply:
        for parameter, wants in (("statementId", False), ("voidedStatementId", True)):
            if (name := call.query.get(parameter)) is not None and self.terse:
                listed = [self._statements[name]] if not wants and name in self._statements else []
                return ApiReply(json={"statements": listed})
            if name is not None:
                if name in self._statements and (name in self._voided) is wants:
                    return ApiReply(json=self._statements[name])
                return _wrong(404, "no such statement")
        agent = json.loads(call.query["agent"]) if "agent" in call.query else None
        until = datetime.now(UTC).timestamp() - self.behind
        found = [
            entry
            for entry in reversed(self._statements.values())
            if entry["id"] not in self._voided
            and (agent is None or same(agent, entry["actor"]))
            and call.query.get("verb", entry["verb"]["id"]) == entry["verb"]["id"]
            and call.query.get("activity", entry["object"]["id"]) == entry["object"]["id"]
            and ((stored := moment(entry["stored"])) is None or stored.timestamp() <= until)
        ]
        limit = int(call.query.get("limit", "0")) or len(found)
        headers = {
            "X-Experience-API-Consistent-Through": stamp(datetime.fromtimestamp(until, UTC)),
            "Date": format_datetime(datetime.now(UTC), usegmt=True),
        }
        more = f"{_PATH}/more/1" if len(found) > limit else ""
        return ApiReply(json={"statements": found[:limit], "more": more}, headers=headers)

    def effects(self) -> Json:
        return {"statements": self._statements, "voided": sorted(self._voided)}


def _kept(made: Json) -> Json:
    """As a store gives it back: with what it adds."""
    return {
        **made,
        "stored": stamp(datetime.now(UTC)),
        "authority": {"objectType": "Agent", "account": {"homePage": "https://lrs.example.org", "name": _USER}},
        "version": "1.0.3",
    }


def _wrong(status: int, words: str) -> ApiReply:
    return ApiReply(status=status, json={"error": words}, headers={"X-Experience-API-Version": "1.0.3"})


def target() -> Store:
    return Store()


def settings(url: str) -> Json:
    return {
        "connector": "xapi",
        "url": f"{url}/xapi",
        "home_page": "https://sis.example.org",
        "auth": {"kind": "basic", "username": _USER, "password": _PASSWORD},
    }
