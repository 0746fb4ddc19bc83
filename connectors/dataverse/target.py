"""Dataverse (Dynamics 365) over the Web API: every operation is one request for one row, or several of them in a batch.

- A row is addressed by an alternate key, `contacts(bridge_personkey='p1')`, or by its id. PATCH creates it if it is not
  there; `If-Match: *` only updates, `If-None-Match: *` only creates. Columns of the key must not be in the body.
- Whoever creates a row may choose its id: a row whose id is the message's own key is never there twice.
- A key whose value has one of `/ < > * % & : \\ ? + #` can be stored and never be addressed, percent-encoded or not.
- A lookup is set with `<navigation property>@odata.bind` and the other row's address.
- Success is 204 with the row's address in `OData-EntityId`, for a new row and for an old one.
- Errors are `{"error": {"code": "0x80040265", "message": …}}`; messages quote values, only the code is fit to show.

learn.microsoft.com: "Use Upsert to Create or Update a record", "Define alternate keys", "Perform conditional operations
using the Web API", "Compose HTTP requests and handle errors".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Message, Outcome, Request, Verdict
from connectors.dataverse.batching import A_BATCH, joined, parts_of

_HEADERS: Final = {"Accept": "application/json", "OData-MaxVersion": "4.0", "OData-Version": "4.0"}
_CONDITIONS: Final = {"update": {"If-Match": "*"}, "create": {"If-None-Match": "*"}}

_UNADDRESSABLE: Final = re.compile(r"[/<>*%&:\\?+#~]")
"""What a key's value must not have, and the sign that stands in for it."""

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
_WORDS: Final = {
    **dict.fromkeys(_RACE, "another row has a value that must be unique"),
    _SIMILAR: "a duplicate detection rule finds another row like it",
    "0x80040217": "no row has this key, or none the key of a lookup",
}
_THERE_ALREADY: Final = (
    {"status": 412, "json_path": "error.code", "equals": _SIMILAR, "as": "permanent", "reason": _WORDS[_SIMILAR]},
    {"status": 412, "as": "duplicate", "reason": "the row is there already"},
)


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


def address(table: str, key: Mapping[str, Any] | str) -> str:
    """A row's address below the API's root: `contacts(bridge_personkey='p1')`, or by id. Raises TargetError."""
    if isinstance(key, str):
        return f"{_name(table)}({quote(key, safe='')})"
    return f"{_name(table)}({','.join(f'{_name(column)}={_literal(column, value)}' for column, value in key.items())})"


def _name(text: str) -> str:
    """A table's or column's name; anything else would be another address."""
    if not re.fullmatch(r"\w+", text, re.ASCII):
        raise TargetError("table, key: expected names of letters, digits and _")
    return text


def _literal(column: str, value: Any) -> str:
    """A key's value as OData writes it: a text in quotes that are doubled inside, percent-encoded."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if not text:
        raise TargetError(f"key.{column}: expected a value")
    if column.startswith("_") and column.endswith("_value"):  # the id in a lookup, no text
        return quote(text, safe="")
    addressable = _UNADDRESSABLE.sub(lambda sign: f"~{ord(sign[0]):02X}", text)
    return f"'{quote(addressable.replace(chr(39), chr(39) * 2), safe='')}'"


# --- conversations ----------------------------------------------------------------------------------------------------


def _deleted(message: Message, settings: Settings) -> Conversation:
    row = address(message.params["table"], message.params["key"])
    yield Ask(request=_request("DELETE", row, settings))
    return [None]


def _written(message: Message, settings: Settings) -> Conversation:
    request = _write(message, settings)
    if _mode(message) == "create":
        yield Ask(request=request, answers=_THERE_ALREADY)
    elif _mode(message) == "update":
        yield Ask(request=request)
    else:
        answer = yield Ask(request=request, answers=(_RACE_LOST,))
        if answer.status == 412:
            yield Ask(request=request)
    return [None]


def _together(messages: Sequence[Message], settings: Settings) -> Conversation:
    answer = yield Ask(request=_batch(messages, settings), answers=(A_BATCH,))
    # Of an answer that was cut off the first parts are known, and the other rows go again.
    parts = dict(zip((message.key for message in messages), parts_of(answer), strict=False))
    late = [message for message in messages if message.key in parts and _raced(parts[message.key], message)]
    if late:
        answer = yield Ask(request=_batch(late, settings), answers=(A_BATCH,))
        for message in late:
            del parts[message.key]
        parts |= zip((message.key for message in late), parts_of(answer), strict=False)
    return [_outcome(parts.get(message.key), message, settings) for message in messages]


def _raced(part: Answer, message: Message) -> bool:
    return part.status == 412 and _mode(message) == "upsert" and _code(part) in _RACE


def _outcome(part: Answer | None, message: Message, settings: Settings) -> Outcome:
    """What one part of a batch's answer means, as the manifest's rules have it for an answer by itself."""
    if part is None:
        return Outcome(verdict=Verdict.RETRY, reason="the answer does not speak of this row")
    code, wait = _code(part), part.headers.get("retry-after", "")
    if part.status == 429:
        pause = float(wait) if wait.isdecimal() else 60.0
        return Outcome(verdict=Verdict.THROTTLED, reason="more than the environment takes", retry_after=pause)
    if part.status >= 500 or code == _CHANGED:
        return Outcome(verdict=Verdict.RETRY, reason=f"HTTP {part.status}")
    if part.status == 412 and _mode(message) == "create" and code != _SIMILAR:
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


def _write(message: Message, settings: Settings) -> Request:
    """The PATCH of a row."""
    params = message.params
    match message.operation:
        case "upsert_contact":
            row = address("contacts", {settings.options["person_key"]: params["key"]})
        case "create_record":
            row = address(params["table"], message.key)
        case "add_note":
            row = address("annotations", message.key)
        case _:
            row = address(params["table"], params["key"])
    body = _note(params, settings) if message.operation == "add_note" else _body(params)
    return _request("PATCH", row, settings, body, _CONDITIONS.get(_mode(message), {}))


def _batch(messages: Sequence[Message], settings: Settings) -> Request:
    requests = [_write(message, settings) for message in messages]
    content_type, body = joined(requests, f"batch_{messages[0].key}")
    # Without the preference the first row that fails is the last one that is tried.
    headers = {**_HEADERS, "Prefer": "odata.continue-on-error", "Content-Type": content_type}
    return Request(method="POST", url=f"{_root(settings)}/$batch", headers=headers, body=body)


def _body(params: Mapping[str, Any]) -> Json:
    return {**params["fields"], **_bound(params.get("lookups") or {})}


def _bound(lookups: Mapping[str, Any]) -> Json:
    return {
        f"{name}@odata.bind": None if row is None else f"/{address(row['table'], row['key'])}"
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
