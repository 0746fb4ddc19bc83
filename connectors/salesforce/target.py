"""Salesforce: what its manifest cannot say, which is many records in one request and its errors' own words.

- One error has three shapes: a list at the top (`errorCode`), a list in a record's result (`statusCode`), and a list in
  the body of a part of a composite. The code in it says more than the status: most 400s are final, a locked row is not.
- A collection is answered with 200 whatever became of its records; results are in the order of the records.
- In a composite that is all or none, one part failed and all others say PROCESSING_HALTED.
- A composite's parts are put together and run in any order unless collateSubrequests is false, although a later record
  may look an earlier one up by its external ID; and of its headers they inherit only Accept, Authorization and
  Content-Type.
- Messages of errors quote values; only codes and names of fields are fit to show.

developer.salesforce.com, REST API Developer Guide: "Upsert Multiple Records with Fewer Round-Trips", "Composite",
"Composite Request Body" (requests_composite), "Status Codes and Error Responses".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict

_NAME: Final = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)

_PASSING: Final = {
    "UNABLE_TO_LOCK_ROW": "another transaction holds the record or its parent",
    "SERVER_UNAVAILABLE": "the server is too busy",
    # Are these always gone at the next try? Recalled from clients, undocumented.
    "QUERY_TIMEOUT": "a query behind it took too long",
    "TXN_SECURITY_METERING_ERROR": "a transaction security policy had no time",
}
_REFUSED: Final = {
    "INVALID_FIELD": "a field or a record that is looked up does not exist",
    "REQUIRED_FIELD_MISSING": "a field is missing that the object needs",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "a validation rule of the org refuses it",
    "STRING_TOO_LONG": "a text is longer than its field",
    "INVALID_EMAIL_ADDRESS": "not an e-mail address",
    "MALFORMED_ID": "not an id of this object",
    "DUPLICATES_DETECTED": "a duplicate rule finds another record like it",
    "DUPLICATE_EXTERNAL_ID": "several records have this key",
    "DUPLICATE_VALUE": "another record has a value that must be unique",
    "INSUFFICIENT_ACCESS": "the user that the app runs as may not do this",
    "INSUFFICIENT_ACCESS_OR_READONLY": "the user that the app runs as may not do this",
    "NOT_FOUND": "no such object, external ID field or record",
}
# A trigger or a flow of the org fails under these names, whatever it was that failed in it; a lock passes.
_AUTOMATION: Final = {
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": "a trigger of the org failed",
    "CANNOT_EXECUTE_FLOW_TRIGGER": "a flow of the org failed",
}
_LOCKED: Final = "UNABLE_TO_LOCK_ROW"
_A_LIST: Final = ({"status": 200, "body_regex": r"\A\s*\[", "as": "ok"},)
"""A collection's answer, also one that was cut off because it is too long."""

_LIMIT: Final = "REQUEST_LIMIT_EXCEEDED"
_LIMIT_PAUSE: Final = 900.0  # as in the manifest, for a limit that is met in the middle of a request


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """Several upserts in as few requests as there are objects and key fields; or one message's records together."""
    if messages[0].operation == "upsert_together":
        return _composed(messages[0], settings)
    return _collected(messages, settings)


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """A refusal in the words of its error; what HTTP says where there is none in the answer."""
    if answer.status in (400, 403, 404, 405, 409, 412, 415):
        errors = _document(answer)
        if _code(errors) is not None:
            return _refusal(answer.status, errors)
    return None


# --- collections ------------------------------------------------------------------------------------------------------


def _collected(messages: Sequence[Message], settings: Settings) -> Conversation:
    outcomes: dict[str, Outcome] = {}
    todo = list(_by_place(messages, settings))
    while todo:
        place, company = todo.pop(0)
        answer = yield Ask(request=_collection(place, company, settings), answers=_A_LIST)
        results = _results(answer, company)
        if results is None and len(company) > 1:  # the answer was longer than what is read of one: half as many
            middle = len(company) // 2
            todo += [(place, company[:middle]), (place, company[middle:])]
            continue
        late = [message for message in company if results and _raced(results[message.key])]
        if results and late:  # two first upserts of one key at a time: the second try finds the record
            answer = yield Ask(request=_collection(place, late, settings), answers=_A_LIST)
            results |= _results(answer, late) or dict.fromkeys(message.key for message in late)
        for message in company:
            outcomes[message.key] = _outcome(answer, (results or {}).get(message.key))
    return [outcomes[message.key] for message in messages]


def _by_place(messages: Sequence[Message], settings: Settings) -> Iterable[tuple[tuple[str, str], list[Message]]]:
    """Messages by object and key field: a collection has one of each."""
    found: dict[tuple[str, str], list[Message]] = {}
    for message in messages:
        place = (
            message.params.get("object") or "Contact",
            message.params.get("key_field") or settings.options["person_key"],
        )
        found.setdefault(place, []).append(message)
    return found.items()


def _collection(place: tuple[str, str], messages: Sequence[Message], settings: Settings) -> Request:
    kind, field = place
    records = [
        {"attributes": {"type": kind}, field: message.params["key"]}
        | {name: value for name, value in message.params["fields"].items() if name != field}
        for message in messages
    ]
    path = f"{_root(settings)}/composite/sobjects/{_segment(kind)}/{_segment(field)}"
    return _request("PATCH", path, {"allOrNone": False, "records": records}, settings)


def _results(answer: Answer, messages: Sequence[Message]) -> dict[str, Any] | None:
    """Each message's result, by place; None when there are not as many as records."""
    found = _document(answer)
    if not isinstance(found, list) or len(found) != len(messages):
        return None
    return {message.key: result for message, result in zip(messages, found, strict=True)}


def _raced(result: Any) -> bool:
    return isinstance(result, Mapping) and _code(result.get("errors")) == "DUPLICATE_VALUE"


def _outcome(answer: Answer, result: Any) -> Outcome:
    if not isinstance(result, Mapping):
        return Outcome(verdict=Verdict.RETRY, reason="the answer does not speak of this record")
    if result.get("success") is True:
        return Outcome(verdict=Verdict.OK, reason=f"HTTP {answer.status}", target_id=_text(result.get("id")))
    return _refusal(answer.status, result.get("errors"))


# --- composite --------------------------------------------------------------------------------------------------------


def _composed(message: Message, settings: Settings) -> Conversation:
    request = _composite(message, settings)
    answer = yield Ask(request=request)
    if _code(_culprit(answer).get("body")) == "DUPLICATE_VALUE":  # nothing was saved, and now the other record is there
        answer = yield Ask(request=request)
    culprit = _culprit(answer)
    if culprit:
        return [_refusal(culprit["httpStatusCode"], culprit.get("body"))]
    parts = _parts(answer)
    if len(parts) != len(message.params["records"]):
        return [Outcome(verdict=Verdict.RETRY, reason="the answer does not speak of every record")]
    body = parts[0].get("body")
    stored = _text(body.get("id")) if isinstance(body, Mapping) else None
    return [Outcome(verdict=Verdict.OK, reason=f"HTTP {answer.status}", target_id=stored)]


def _composite(message: Message, settings: Settings) -> Request:
    own_headers = _duplicate_rule(settings)
    parts = [
        {
            "method": "PATCH",
            "url": f"{_root(settings)}/sobjects/{_segment(record['object'])}/{_segment(record['key_field'])}/"
            + _segment(record["key"]),
            "referenceId": record.get("name") or f"record{number}",
            "body": record["fields"],
            **({"httpHeaders": own_headers} if own_headers else {}),
        }
        for number, record in enumerate(message.params["records"], start=1)
    ]
    path = f"{_root(settings)}/composite"
    body: Json = {"allOrNone": True, "collateSubrequests": False, "compositeRequest": parts}
    return _request("POST", path, body, settings)


def _parts(answer: Answer) -> Sequence[Mapping[str, Any]]:
    document = _document(answer)
    parts = document.get("compositeResponse") if isinstance(document, Mapping) else None
    if not isinstance(parts, list):
        return []
    return [part for part in parts if isinstance(part, Mapping) and isinstance(part.get("httpStatusCode"), int)]


def _culprit(answer: Answer) -> Mapping[str, Any]:
    """The part that failed; empty when none did."""
    failed = [part for part in _parts(answer) if part["httpStatusCode"] >= 300]
    own = [part for part in failed if _code(part.get("body")) != "PROCESSING_HALTED"]
    return next(iter(own or failed), {})


# --- errors -----------------------------------------------------------------------------------------------------------


def _refusal(status: int, errors: Any) -> Outcome:
    """What an error means; without a code in it, what the status of its part says."""
    code = _code(errors)
    if code == _LIMIT:
        reason = "the org has used up its API calls of 24 hours"
        return Outcome(verdict=Verdict.THROTTLED, reason=reason, retry_after=_LIMIT_PAUSE)
    passing = _LOCKED if code in _AUTOMATION and _LOCKED in _message(errors) else code
    if passing in _PASSING:
        return Outcome(verdict=Verdict.RETRY, reason=f"{_PASSING[passing]} ({passing})")
    if code is None:
        reason = "several records have this key" if status == 300 else f"refused without a code, HTTP {status}"
        return Outcome(verdict=Verdict.RETRY if status >= 500 else Verdict.PERMANENT, reason=reason)
    known = _REFUSED | _AUTOMATION
    words = f"{known[code]} ({code})" if code in known else code
    fields = ", ".join(_fields(errors))
    return Outcome(verdict=Verdict.PERMANENT, reason=f"{words}: {fields}" if fields else words)


def _code(errors: Any) -> str | None:
    """The first error's code."""
    first = errors[0] if isinstance(errors, list) and errors else None
    code = (first.get("errorCode") or first.get("statusCode")) if isinstance(first, Mapping) else None
    return code if isinstance(code, str) and _NAME.fullmatch(code) else None


def _message(errors: Any) -> str:
    """The first error's words, to look for a code in them: they are not fit to show."""
    message = errors[0].get("message")
    return message if isinstance(message, str) else ""


def _fields(errors: Any) -> Sequence[str]:
    """Names of the fields that the first error is about."""
    fields = errors[0].get("fields")
    if not isinstance(fields, list):
        return []
    return [field for field in fields if isinstance(field, str) and _NAME.fullmatch(field)]


# --- requests ---------------------------------------------------------------------------------------------------------


def _root(settings: Settings) -> str:
    return f"/services/data/v{settings.options['api_version']}"


def _segment(text: str) -> str:
    """One segment of a path. Raises TargetError for what would name another address."""
    if text in ("", ".", ".."):
        raise TargetError("key: expected something that can be a segment of a path")
    return quote(text, safe="")


def _request(method: str, path: str, body: Json, settings: Settings) -> Request:
    headers = {"Content-Type": "application/json", **_duplicate_rule(settings)}
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("fields: expected what JSON and UTF-8 can hold") from None
    return Request(method=method, url=settings.options["url"] + path, headers=headers, body=text)


def _duplicate_rule(settings: Settings) -> dict[str, str]:
    return {"Sforce-Duplicate-Rule-Header": "allowSave=true"} if settings.options.get("allow_duplicates") else {}


def _document(answer: Answer) -> Any:
    """The body as JSON, None when it is none."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
