"""What is said to a target for a message: one request, several steps, or one request for a batch of messages.

A conversation is a generator: it yields what to ask, is sent what was answered, and ends with an outcome per message,
None where the last answer speaks for itself. It knows no network; whoever holds it sends and judges (see engine/talk).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.errors import PayloadError, TargetError
from bridge.core.manifest import Batch, Operation, Step, TargetConnector
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Conversation, Conversing, Message, Outcome, Preparing, Verdict
from bridge.flow.declared import keyed, rendered, rendered_request, scope_of
from bridge.flow.judge import json_at, judge_item

_MISSING: Final = "the target's answer does not speak of it"


def conversation(connector: TargetConnector, messages: Sequence[Message], settings: Settings) -> Conversation:
    """What to say for messages of one operation; several only where it has a batch. Raises TargetError as it goes."""
    operation = connector.manifest.operations.get(messages[0].operation)
    if operation is None:
        raise TargetError(f"{connector.name} has no operation {messages[0].operation}")
    alone = len(messages) == 1
    if operation.batch is not None and operation.batch.request is not None and not (alone and operation.request):
        return _together(connector, operation, operation.batch, messages, settings)
    if alone and operation.request is not None:
        return _one(connector, operation, operation.request, messages[0], settings)
    if alone and operation.steps:
        return _stepwise(connector, operation, messages[0], settings)
    if isinstance(connector.code, Conversing):
        return connector.code.converse(messages, settings)
    if isinstance(connector.code, Preparing):
        return _prepared(connector.code, messages[0], settings)
    raise TargetError(f"{connector.name}.{operation.name} has neither a declared request nor code")


def _one(
    connector: TargetConnector, operation: Operation, declared: Mapping[str, Any], message: Message, settings: Settings
) -> Conversation:
    request = rendered_request(declared, scope_of(connector, message, settings), f"{operation.name}: request")
    yield Ask(request=keyed(request, message.key))
    return [None]


def _prepared(code: Preparing, message: Message, settings: Settings) -> Conversation:
    yield Ask(request=keyed(code.prepare(message, settings), message.key))
    return [None]


def _stepwise(connector: TargetConnector, operation: Operation, message: Message, settings: Settings) -> Conversation:
    scope = scope_of(connector, message, settings)
    known: dict[str, Any] = {}
    scope["steps"] = known
    changing = [step.name for step in operation.steps if not step.harmless]
    for step in operation.steps:
        where = f"{operation.name}: {step.name}"
        known[step.name] = dict.fromkeys(step.keep)
        if step.when is not None and not rendered(f"{{{{ {step.when} }}}}", scope, f"{where}.when"):
            continue
        try:
            request = rendered_request(step.request, scope, f"{where}.request")
        except UnicodeEncodeError:  # an answer's JSON may hold half a surrogate pair, no query and no form can
            raise TargetError(f"{where}.request: expected what UTF-8 can hold") from None
        if not step.harmless:
            # A key stands for one effect: steps that change something need one each.
            request = keyed(request, message.key if changing == [step.name] else f"{message.key}-{step.name}")
        answer = yield Ask(request=request, answers=step.answers, harmless=step.harmless)
        known[step.name] = _kept(step, answer, scope, where)
    return [None]


def _kept(step: Step, answer: Answer, scope: Mapping[str, Any], where: str) -> Any:
    seen = {"status": answer.status, "headers": dict(answer.headers), "body": _document(answer)}
    return rendered(step.keep, {**scope, "answer": seen}, f"{where}.keep")


def _together(
    connector: TargetConnector, operation: Operation, batch: Batch, messages: Sequence[Message], settings: Settings
) -> Conversation:
    scopes = [scope_of(connector, message, settings) for message in messages]
    items = [rendered(batch.item, scope, f"{operation.name}: batch.item") for scope in scopes]
    declared = batch.request or {}
    request = rendered_request(declared, {**scopes[0], "items": items}, f"{operation.name}: batch.request")
    answer = yield Ask(request=request)
    if not batch.results:
        return [None] * len(messages)
    document = _document(answer)
    results = [entry for path in batch.results for entry in _list_at(document, path)]
    found = _matched(batch, items, results, scopes[0], f"{operation.name}: batch.match")
    missing = Outcome(verdict=Verdict(batch.missing), reason=_MISSING)
    return [
        missing if result is None else judge_item(result, batch.item_answers, answer, message.sent_at)
        for result, message in zip(found, messages, strict=True)
    ]


def _matched(
    batch: Batch, items: Sequence[Any], results: Sequence[Any], scope: Mapping[str, Any], where: str
) -> Sequence[Any]:
    """Per item the result that speaks of it, or None. By place only where there are as many of both."""
    if batch.match_item is None or batch.match_result is None:
        return results if len(results) == len(items) else [None] * len(items)
    by_key: dict[Any, Any] = {}
    for result in results:
        try:
            key = rendered(f"{{{{ {batch.match_result} }}}}", {**scope, "result": result}, f"{where}.result")
        except TargetError:  # what has no key speaks of nobody
            continue
        if isinstance(key, str | int):
            by_key.setdefault(str(key), result)
    keys = [rendered(f"{{{{ {batch.match_item} }}}}", {**scope, "item": item}, f"{where}.item") for item in items]
    return [by_key.get(str(key)) for key in keys]


def unique_key(connector: TargetConnector, message: Message, settings: Settings) -> str | None:
    """What no two messages of a batch may share; None where nothing is said about that. Raises TargetError."""
    operation = connector.manifest.operations[message.operation]
    if operation.batch is None or operation.batch.unique is None:
        return None
    scope = scope_of(connector, message, settings)
    return str(rendered(f"{{{{ {operation.batch.unique} }}}}", scope, f"{operation.name}: batch.unique"))


def _list_at(document: Any, path: str) -> list[Any]:
    value = document if path == "" else json_at(document, path)
    return value if isinstance(value, list) else []


def _document(answer: Answer) -> Any:
    """The body as JSON, null when it is none."""
    try:
        return Payload.parse(answer.body).value
    except PayloadError:
        return None
