"""xAPI 1.0.3: statements of our own ids, so that what is sent twice is there once.

- A store keeps the first statement of an id and answers 409, or nothing at all, to another one. What it holds is looked
  at (`verify`), because 409 also greets what is equal at some stores.
- A list of statements is taken as a whole or refused as a whole; two equal ids in it are an error. Where all of it is
  known a store may answer 204 (2.1.2.s2.b4), and Ralph's 200 names only what is new (github.com/openfun/ralph,
  src/ralph/api/routers/statements.py): what an answer does not name goes out once more, alone.
- Asked for one statement Ralph answers with a list of one or none, and knows no voidedStatementId.
- Nothing is ever deleted. A statement is voided by another one, for good, and searches do not find it any more: that is
  how a grade is taken back. A store does not say that it knows no statement which is to be voided.
- A store may search in what it knew a while ago, and says how long: X-Experience-API-Consistent-Through.

github.com/adlnet/xAPI-Spec, xAPI-Communication.md (2.1) and xAPI-Data.md (2.3.2).
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict
from connectors.xapi.statements import VERBS, activity, agent, moment, same, statement, statement_id, verb

_CONFLICT: Final = {"status": 409, "as": "ok"}
_ABSENT: Final = {"status": 404, "as": "ok"}
_WHOLE: Final = {
    "status": [400, 409, 413],
    "as": "permanent",
    "reason": "the store takes a list as a whole or not at all",
}
# github.com/adlnet/ADL_LRS, lrs/utils/req_validate.py: the same again with another id is an error there.
_VOIDED: Final = {"status": 400, "body_regex": "already voided", "as": "ok"}
_LAG: Final = timedelta(seconds=2)
_PATIENT_TRIES: Final = 6

_Held = Generator[Ask, Answer, Json | None]
_Judged = Generator[Ask, Answer, Outcome]


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One statement with PUT, several with POST, and what has to be looked for with GET. Raises TargetError."""
    message = messages[0]
    taken_back = {
        "void": True,
        "sync_grade": message.params.get("revoked"),
        "sync_submission": message.params.get("withdrawn"),
    }
    if taken_back.get(message.operation):
        return (yield from _voided(message, settings))
    made = [statement(message, settings) for message in messages]
    if len(made) == 1:
        return [(yield from _put(made[0], settings))]
    answer = yield Ask(request=_request("POST", settings, body=made), answers=(_WHOLE,))
    stored = _document(answer)
    ids = {str(entry).lower() for entry in stored} if isinstance(stored, list) else set()
    outcomes = []
    for entry in made:
        if entry["id"] in ids or answer.status == 204:
            outcomes.append((yield from _taken(entry, settings, known=answer.status == 204)))
        else:
            outcomes.append((yield from _put(entry, settings)))
    return outcomes


def _put(made: Json, settings: Settings) -> _Judged:
    answer = yield Ask(request=_request("PUT", settings, {"statementId": made["id"]}, made), answers=(_CONFLICT,))
    return (yield from _taken(made, settings, known=answer.status == 409, conflict=answer.status == 409))


def _taken(made: Json, settings: Settings, *, known: bool, conflict: bool = False) -> _Judged:
    """What became of a statement that the store has now: `known` when it had it before, or another one with its id."""
    verify = settings.options.get("verify", "conflicts")
    if verify == "always" or (conflict and verify == "conflicts"):
        held = yield from _held(made["id"], settings)
        if held is not None and not same(made, held):
            return Outcome(verdict=Verdict.PERMANENT, reason="the store holds another statement with this id")
    verdict = Verdict.DUPLICATE if known else Verdict.OK
    return Outcome(verdict=verdict, reason="the store has it already" if known else "", target_id=made["id"])


def _held(name: str, settings: Settings) -> _Held:
    """The statement of an id, voided or not; None for one that the store does not show."""
    for parameter in ("statementId", "voidedStatementId"):
        answer = yield Ask(request=_request("GET", settings, {parameter: name}), answers=(_ABSENT,), harmless=True)
        document = _document(answer) if answer.status != 404 else None
        listed = document.get("statements") if isinstance(document, dict) else None
        for found in listed if isinstance(listed, list) else [document]:
            if isinstance(found, dict) and str(found.get("id", "")).lower() == name:
                return found
    return None


def _voided(message: Message, settings: Settings) -> Conversation:
    """Void the statement that is named, or all that the person's deed has left at the object."""
    named = message.params.get("statement_id")
    if named is not None:
        return (yield from _void(message, settings, [statement_id(named)]))
    search = yield Ask(request=_request("GET", settings, _search(message, settings)), harmless=True)
    document = _document(search)
    found = document.get("statements") if isinstance(document, dict) else None
    if not isinstance(found, list):
        return [Outcome(verdict=Verdict.RETRY, reason="the store's answer is not one to a search")]
    before = moment(message.event.get("time"))
    # A search finds voiding statements too, by what they refer to; what is newer than the event it does not take back.
    ours = [
        str(entry["id"])
        for entry in found
        if entry.get("object", {}).get("objectType") != "StatementRef"
        and not ((when := moment(entry.get("timestamp"))) and before and when > before)
    ]
    if not ours:
        if message.attempt <= _PATIENT_TRIES and _lags(search):
            return [Outcome(verdict=Verdict.RETRY, reason="the store searches in what it knew before")]
        return [Outcome(verdict=Verdict.DUPLICATE, reason="the store has nothing to void")]
    outcomes = yield from _void(message, settings, ours)
    if isinstance(document, dict) and document.get("more"):
        return [Outcome(verdict=Verdict.RETRY, reason="there are more statements to void")]
    return outcomes


def _void(message: Message, settings: Settings, names: Sequence[str]) -> Conversation:
    for name in names:
        made: Json = {
            "id": statement_id(f"{message.key} {name}"),
            "actor": agent(None, settings.options),
            "verb": verb("voided", settings.options),
            "object": {"objectType": "StatementRef", "id": name},
            "timestamp": message.event.get("time"),
        }
        yield Ask(request=_request("PUT", settings, {"statementId": made["id"]}, made), answers=(_CONFLICT, _VOIDED))
    return [Outcome(verdict=Verdict.OK, reason="")]


def _search(message: Message, settings: Settings) -> Mapping[str, Any]:
    params, options = message.params, settings.options
    words = {"sync_grade": "scored", "sync_submission": "submitted"}
    word = words.get(message.operation) or params.get("verb")
    what = params.get("object") or {"kind": "assessment", **(params.get("assessment") or {})}
    if not word or params.get("person") is None or not (what.get("key") or what.get("iri")):
        raise TargetError("expected statement_id, or person, verb and object")
    return {
        "agent": _dump(agent(params["person"], options, named=False)).decode(),
        "verb": VERBS.get(word) or verb(word, options)["id"],
        "activity": activity(what["kind"], what, options)["id"],
        "limit": options.get("void_most", 100),
    }


def _lags(answer: Answer) -> bool:
    """Whether the store's searches are behind the store, both by its own clock."""
    through = moment(answer.headers.get("x-experience-api-consistent-through"))
    try:
        now = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return False
    return through is not None and now.tzinfo is not None and now - through > _LAG


def _request(method: str, settings: Settings, query: Mapping[str, Any] | None = None, body: Any = None) -> Request:
    headers = {"X-Experience-API-Version": settings.options.get("version", "1.0.3"), "Accept": "application/json"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    url = f"{str(settings.options['url']).rstrip('/')}/statements"
    return Request(
        method=method,
        url=f"{url}?{urlencode(query, quote_via=quote)}" if query else url,  # a blank is %20 to every store
        headers=headers,
        body=b"" if body is None else _dump(body),
    )


def _dump(document: Any) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("statement: expected what JSON and UTF-8 can hold") from None


def _document(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None
