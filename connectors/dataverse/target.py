"""Dataverse (Dynamics 365) over the Web API: every operation is one request for one row, or several of them in a batch.

- A row is addressed by an alternate key, `contacts(bridge_personkey='p1')`, or by its id. PATCH creates it if it is not
  there, and with `If-Match: *` it only updates. A new row would get the key that the body has, even if it is another
  one: columns of the key are left out of it.
- `If-None-Match: *` only creates, by the row's id that is: by an alternate key it is answered 404, 0x80060891, and
  nothing is created (seen in clients, undocumented). A POST with the key in its body creates, and the key's index
  refuses a second row with 412; whether the key is there and Active is asked before.
- Whoever creates a row may choose its id: a row whose id is the message's own key is never there twice.
- A lookup is set with `<navigation property>@odata.bind` and the other row's address.
- Success is 204 with the row's address in `OData-EntityId`, for a new row and for an old one.
- Errors are `{"error": {"code": "0x80040265", "message": …}}`; messages quote values, only the code is fit to show.

learn.microsoft.com: "Use Upsert to Create or Update a record", "Perform conditional operations using the Web API",
"Compose HTTP requests and handle errors", "Web service error codes".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict
from connectors.dataverse.addresses import address, columns, name_of, reference
from connectors.dataverse.batching import A_BATCH, joined, parts_of

_HEADERS: Final = {"Accept": "application/json", "OData-MaxVersion": "4.0", "OData-Version": "4.0"}
_CONDITIONS: Final = {"update": {"If-Match": "*"}, "create": {"If-None-Match": "*"}}
_NOT_THERE: Final = ("0x80040217", "0x80060891", "0x80048d02")
"""No row of this id, none of this alternate key, and none of this key in a virtual table."""

_ROW: Final = re.compile(r"\(([0-9A-Fa-f-]{36})\)\Z")
_CODE: Final = re.compile(r"0x[0-9A-Fa-f]{8}")

# Two first upserts of one key at a time: the slower one fails with DuplicateRecord or DuplicateRecordEntityKey, and
# finds the row when it comes again. The same codes say that another row has a value that must be unique; then it fails
# again.
_RACE: Final = ("0x80040237", "0x80060892")
_RACE_LOST: Final = {"status": 412, "json_path": "error.code", "in": list(_RACE), "as": "ok"}
_SIMILAR: Final = "0x80040333"
_CHANGED: Final = "0x80060882"
_PLUGIN: Final = "0x80040265"
_NOT_UNIQUE: Final = "another row has a value that must be unique"
_WORDS: Final = {
    **dict.fromkeys(_RACE, _NOT_UNIQUE),
    **dict.fromkeys(_NOT_THERE, "no row has this key, or none the key of a lookup"),
    _SIMILAR: "a duplicate detection rule finds another row like it",
}
_THERE_ALREADY: Final = (
    {"status": 412, "json_path": "error.code", "equals": _SIMILAR, "as": "permanent", "reason": _WORDS[_SIMILAR]},
    {"status": 412, "as": "duplicate", "reason": "the row is there already"},
)
# Before a POST: a key that is not Active is refused here, while nothing would keep a POST from a second row.
_FIRST: Final = (
    {"status": 200, "not_json": False, "as": "duplicate", "reason": "the row is there already"},
    {"status": 404, "json_path": "error.code", "in": [*_NOT_THERE, ""], "as": "ok"},
)
# After a POST that was refused: is it this key that is taken by now, or another value that must be unique?
_WHICH: Final = (_FIRST[0], {"status": 404, "not_json": False, "as": "permanent", "reason": _NOT_UNIQUE})


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """One request for a row, or for all rows; a second one where the first lost a race. Raises TargetError."""
    if len(messages) > 1:
        return _together(messages, settings)
    [message] = messages
    return _deleted(message, settings) if message.operation == "delete_record" else _written(message, settings)


def judge(answer: Answer, message: Message, settings: Settings) -> Outcome | None:
    """The row's id of a success; of an error its code, since the status alone says little."""
    if 200 <= answer.status < 300:
        found = _ROW.search(answer.headers.get("odata-entityid", ""))
        return Outcome(verdict=Verdict.OK, reason=f"HTTP {answer.status}", target_id=found[1] if found else None)
    code = _code(answer)
    if code is None or not 400 <= answer.status < 500 or answer.status in (401, 408, 425, 429):
        return None
    if code == _PLUGIN:  # InvalidPluginExecutionException: most of them say that the data is wrong
        again = settings.options.get("retry_plugin_errors")
        reason = f"a plug-in of the environment refused it ({code})"
        return Outcome(verdict=Verdict.RETRY if again else Verdict.PERMANENT, reason=reason)
    return Outcome(verdict=Verdict.PERMANENT, reason=f"HTTP {answer.status}: {code}")


# --- conversations ----------------------------------------------------------------------------------------------------


def _deleted(message: Message, settings: Settings) -> Conversation:
    row = address(message.params["table"], message.params["key"])
    yield Ask(request=_request("DELETE", row, settings))
    return [None]


def _written(message: Message, settings: Settings) -> Conversation:
    seen: list[Answer] = []
    while (request := _step(message, seen, settings)) is not None:
        rules = _rules(message, len(seen))
        seen.append((yield Ask(request=request, answers=rules, harmless=request.method == "GET")))
    return [None]


def _together(messages: Sequence[Message], settings: Settings) -> Conversation:
    seen: dict[str, list[Answer]] = {message.key: [] for message in messages}
    unanswered: set[str] = set()
    todo = list(messages)
    while todo:
        requests = [request for message in todo if (request := _step(message, seen[message.key], settings))]
        answer = yield Ask(request=_batch(requests, todo[0], settings), answers=(A_BATCH,))
        # Of an answer that was cut off the first parts are known, and the other rows go again.
        parts = dict(zip((message.key for message in todo), parts_of(answer), strict=False))
        unanswered |= {message.key for message in todo} - parts.keys()
        for key, part in parts.items():
            seen[key].append(part)
        todo = [entry for entry in todo if entry.key in parts and _step(entry, seen[entry.key], settings) is not None]
    lost = Outcome(verdict=Verdict.RETRY, reason="the answer does not speak of this row")
    return [
        lost if message.key in unanswered else _outcome(seen[message.key], message, settings) for message in messages
    ]


def _step(message: Message, seen: Sequence[Answer], settings: Settings) -> Request | None:
    """The next request about a row after the answers so far; None when the last one decides."""
    last = seen[-1] if seen else None
    raced = last is not None and last.status == 412 and _code(last) in _RACE
    if _posted(message):
        absent = last is not None and last.status == 404
        wanted = (last is None, absent, raced)[len(seen)] if len(seen) < 3 else False
        request = _write if len(seen) == 1 else _read
        return request(message, settings) if wanted else None
    again = len(seen) == 1 and raced and _mode(message) == "upsert"
    return _write(message, settings) if last is None or again else None


def _rules(message: Message, step: int) -> tuple[Mapping[str, Any], ...]:
    """What the answer to a message's first, second or third request means, where it is no plain one."""
    if _posted(message):
        return (_FIRST, (_RACE_LOST,), _WHICH)[step]
    if _mode(message) == "upsert":
        return (_RACE_LOST,) if step == 0 else ()
    return _THERE_ALREADY if _mode(message) == "create" else ()


def _outcome(seen: Sequence[Answer], message: Message, settings: Settings) -> Outcome:
    """What the parts of batches' answers about one row mean, as the rules have it for an answer by itself."""
    part = seen[-1]
    code, wait = _code(part), part.headers.get("retry-after", "")
    if part.status == 429:
        pause = float(wait) if wait.isdecimal() else 60.0
        return Outcome(verdict=Verdict.THROTTLED, reason="more than the environment takes", retry_after=pause)
    if part.status >= 500 or code == _CHANGED:
        return Outcome(verdict=Verdict.RETRY, reason=f"HTTP {part.status}")
    read = _posted(message) and len(seen) != 2
    if read and part.status == 404:
        return Outcome(verdict=Verdict.PERMANENT, reason=_NOT_UNIQUE)
    if (read and part.status == 200) or (part.status == 412 and _mode(message) == "create" and code != _SIMILAR):
        return Outcome(verdict=Verdict.DUPLICATE, reason="the row is there already")
    if code in _WORDS:
        return Outcome(verdict=Verdict.PERMANENT, reason=_WORDS[code])
    refusal = Outcome(verdict=Verdict.PERMANENT, reason=f"HTTP {part.status}")
    return judge(part, message, settings) or refusal


# --- requests ---------------------------------------------------------------------------------------------------------


def _mode(message: Message) -> str:
    if message.operation in ("create_record", "add_note"):
        return "create"
    return "update" if message.operation == "clear_fields" else message.params.get("mode") or "upsert"


def _posted(message: Message) -> bool:
    """Whether the row is one that only a POST creates: it has an alternate key and must not be there yet."""
    return _mode(message) == "create" and not isinstance(_row(message, {})[1], str)


def _row(message: Message, options: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | str]:
    """The table and the key of a message's row."""
    params = message.params
    match message.operation:
        case "upsert_contact":
            return "contacts", {options.get("person_key", ""): params["key"]}
        case "create_record":
            return params["table"], message.key
        case "add_note":
            return "annotations", message.key
        case _:
            return params["table"], params["key"]


def _write(message: Message, settings: Settings) -> Request:
    """The PATCH of a row, or the POST of one that must not be there yet."""
    params = message.params
    table, key = _row(message, settings.options)
    body = _note(params, settings) if message.operation == "add_note" else _body(params)
    if not isinstance(key, str):
        body = {name: value for name, value in body.items() if name not in key}
    if _mode(message) == "create" and not isinstance(key, str):
        return _request("POST", name_of(table), settings, {**body, **columns(key, params.get("lookups") or {})})
    return _request("PATCH", address(table, key), settings, body, _CONDITIONS.get(_mode(message), {}))


def _read(message: Message, settings: Settings) -> Request:
    """The question whether a row is there."""
    table, key = _row(message, settings.options)
    return _request("GET", f"{address(table, key)}?$select={','.join(key)}", settings)


def _batch(requests: Sequence[Request], first: Message, settings: Settings) -> Request:
    content_type, body = joined(requests, f"batch_{first.key}")
    # Without the preference the first row that fails is the last one that is tried.
    headers = {**_HEADERS, "Prefer": "odata.continue-on-error", "Content-Type": content_type}
    return Request(method="POST", url=f"{_root(settings)}/$batch", headers=headers, body=body)


def _body(params: Mapping[str, Any]) -> Json:
    return {**params["fields"], **_bound(params.get("lookups") or {})}


def _bound(lookups: Mapping[str, Any]) -> Json:
    return {
        f"{name}@odata.bind": None if row is None else reference(row["table"], row["key"])
        for name, row in lookups.items()
    }


def _note(params: Mapping[str, Any], settings: Settings) -> Json:
    about = params.get("regarding") or {
        "entity": "contact",
        "table": "contacts",
        "key": {settings.options["person_key"]: params["contact_key"]},
    }
    # A note may be about any table: its lookup has one navigation property for each.
    lookup = {f"objectid_{about['entity']}": {"table": about["table"], "key": about["key"]}}
    return {"subject": params.get("subject"), "notetext": params["text"], **_bound(lookup)}


def _request(
    method: str, row: str, settings: Settings, body: Json | None = None, condition: Mapping[str, str] | None = None
) -> Request:
    headers = {**_HEADERS, **(condition or {})}
    url = f"{_root(settings)}/{row}"
    if body is None:
        return Request(method=method, url=url, headers=headers)
    headers["Content-Type"] = "application/json"
    if settings.options.get("detect_duplicates"):
        headers["MSCRM.SuppressDuplicateDetection"] = "false"
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("fields: expected what JSON and UTF-8 can hold") from None
    return Request(method=method, url=url, headers=headers, body=text)


def _root(settings: Settings) -> str:
    return f"{settings.options['url']}/api/data/v{settings.options['api_version']}"


def _code(answer: Answer) -> str | None:
    """`0x80040265`; it is often empty."""
    try:
        document = json.loads(answer.body)
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None
