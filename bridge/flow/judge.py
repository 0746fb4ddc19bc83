"""What an answer means: the target's own rules first, then what HTTP says.

Rules are data from a manifest. All conditions of a rule must hold; the first rule that holds decides.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

from bridge.core.errors import BridgeError, PayloadError
from bridge.core.manifest import Operation, TargetConnector
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Judging, Message, Outcome, Verdict

REGEX_BYTES: Final = 4096
"""How much of a body a rule's pattern is tried on: what says why is at the front, and patterns may be slow."""

SHORTEST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 24 * 3600.0

# Asked in this order when a target throttles and names no Retry-After. Blackboard counts seconds since 1970,
# Brightspace and Pipedrive seconds from now; size tells them apart. HubSpot names its rolling window in milliseconds.
_RESET_HEADERS: Final = (
    ("x-rate-limit-reset", 1.0),
    ("x-ratelimit-reset", 1.0),
    ("ratelimit-reset", 1.0),
    ("x-hubspot-ratelimit-interval-milliseconds", 0.001),
)

_ABSENT: Final = object()


class NoAnswer(BridgeError):
    """A request came to no answer. `reason` is safe to show, `retry_after` in seconds if somebody said so."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(reason)


class NotSent(NoAnswer):
    """The target cannot have acted: no address, no connection, or cut off before the request's last byte."""


class NoTurn(NotSent):
    """The request was kept back: the target has had as many as it may get for now."""


class AnswerLost(NoAnswer):
    """The whole request went out and no whole answer came back: the target may have acted on it or not."""


def outcome_of(connector: TargetConnector, answer: Answer, message: Message, settings: Settings, ask: Ask) -> Outcome:
    """The verdict on an answer: the question's rules, the operation's, the target's, its own code, then the generic
    table.
    """
    operation = connector.manifest.operations[message.operation]
    rules = (*ask.answers, *operation.answers, *connector.manifest.answers)
    found = _by_rules(answer, rules, message.sent_at)
    code: object = connector.code
    if found is None and isinstance(code, Judging):
        found = code.judge(answer, message, settings)
    return settled(found or _generic(answer, message.sent_at), operation, settings)


def outcome_of_silence(error: NoAnswer, operation: Operation, settings: Settings, ask: Ask) -> Outcome:
    """The verdict on a request without an answer."""
    lost = isinstance(error, AnswerLost) and not ask.harmless
    verdict = Verdict.AMBIGUOUS if lost else Verdict.THROTTLED if isinstance(error, NoTurn) else Verdict.RETRY
    outcome = Outcome(verdict=verdict, reason=error.reason, retry_after=error.retry_after)
    return settled(outcome, operation, settings)


def judge_item(result: Any, rules: Iterable[Mapping[str, Any]], answer: Answer, now: datetime) -> Outcome:
    """The verdict on one item of a batch, judged as if its part of the answer were all of it; `ok` without a rule."""
    part = Answer(status=answer.status, headers=answer.headers, body=json.dumps(result).encode())
    return _by_rules(part, tuple(rules), now) or Outcome(verdict=Verdict.OK, reason="")


def settled(outcome: Outcome, operation: Operation, settings: Settings) -> Outcome:
    """An ambiguous outcome becomes a retry where a second request does no harm, or where the operator says so.

    No harm: the operation is idempotent. The operator: option `on_ambiguous: retry`.
    """
    if outcome.verdict is not Verdict.AMBIGUOUS:
        return outcome
    if operation.idempotent or settings.options.get("on_ambiguous") == "retry":
        return replace(outcome, verdict=Verdict.RETRY)
    return outcome


def judge(answer: Answer, rules: Iterable[Mapping[str, Any]], now: datetime) -> Outcome:
    """The verdict of the first rule that holds, else of the generic table.

    `now` is what dates in rate-limit headers are measured against when the answer has no `Date` of its own.
    """
    return _by_rules(answer, tuple(rules), now) or _generic(answer, now)


def wait_asked_for(answer: Answer, now: datetime, *, resets: bool = True) -> float | None:
    """How many seconds the target asks us to wait (1 s to 24 h), or None when it does not say or says nonsense.

    `Retry-After` first, as delta or as date; then, with `resets`, the headers that say when a limit starts anew.
    """
    now = _date(answer.headers.get("date", "")) or now
    given = answer.headers.get("retry-after")
    if given is not None:
        wait = _number(given)
        moment = _date(given) if wait is None else None
        if moment is not None:
            wait = max((moment - now).total_seconds(), 0.0)
        if wait is not None and wait >= 0:
            return _clamped(wait)
    for name, unit in _RESET_HEADERS if resets else ():
        value = _number(answer.headers.get(name, ""))
        if value is not None and value >= 0:
            return _clamped(_until_reset(value * unit, now))
    return None


def _until_reset(value: float, now: datetime) -> float:
    if value > 1e12:
        return value / 1000 - now.timestamp()
    return value - now.timestamp() if value > 1e9 else value


def _clamped(seconds: float) -> float:
    return min(max(seconds, SHORTEST_WAIT), LONGEST_WAIT)


def _number(text: str) -> float | None:
    try:
        value = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _generic(answer: Answer, now: datetime) -> Outcome:
    verdict = _verdict(answer.status)
    wait = None
    if verdict in (Verdict.RETRY, Verdict.THROTTLED):
        wait = wait_asked_for(answer, now, resets=verdict is Verdict.THROTTLED)
    reason = f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        reason += ": redirects are not followed"
    return Outcome(verdict=verdict, reason=reason, retry_after=wait)


def _verdict(status: int) -> Verdict:
    """RFC 9110, and what Standard Webhooks asks of senders (github.com/standard-webhooks/standard-webhooks)."""
    if 200 <= status < 300:
        return Verdict.OK
    if status == 401:
        return Verdict.AUTH
    if status == 410:
        return Verdict.GONE
    if status == 429:
        return Verdict.THROTTLED
    if status in (408, 425) or (status >= 500 and status != 501):
        return Verdict.RETRY
    return Verdict.PERMANENT


def _by_rules(answer: Answer, rules: tuple[Mapping[str, Any], ...], now: datetime) -> Outcome | None:
    if not rules:
        return None
    document = _json(answer.body)
    for rule in rules:
        if _holds(rule, answer, document):
            return _ruled(rule, answer, document, now)
    return None


def _ruled(rule: Mapping[str, Any], answer: Answer, document: object, now: datetime) -> Outcome:
    verdict = Verdict(rule["as"])
    wait = None
    if verdict in (Verdict.RETRY, Verdict.THROTTLED):
        wait = wait_asked_for(answer, now, resets=verdict is Verdict.THROTTLED)
        if wait is None and "pause" in rule:
            wait = _clamped(float(rule["pause"]))
    stored = json_at(document, rule["target_id"]) if "target_id" in rule else None
    return Outcome(
        verdict=verdict,
        reason=rule.get("reason", f"HTTP {answer.status}"),
        target_id=str(stored) if isinstance(stored, str | int) and not isinstance(stored, bool) else None,
        retry_after=wait,
        patience=rule.get("patience"),
        finally_=Verdict(rule["finally"]) if "finally" in rule else None,
    )


def _holds(rule: Mapping[str, Any], answer: Answer, document: object) -> bool:
    if "status" in rule and not _status_in(answer.status, rule["status"]):
        return False
    if "header_present" in rule and rule["header_present"].lower() not in answer.headers:
        return False
    if "not_json" in rule and rule["not_json"] is not (document is _ABSENT):
        return False
    if "json" in rule and not _contains(document, rule["json"]):
        return False
    if "json_path" in rule and not _path_holds(rule, json_at(document, rule["json_path"])):
        return False
    return "body_regex" not in rule or bool(
        _pattern(rule["body_regex"]).search(answer.body[:REGEX_BYTES].decode("utf-8", "replace"))
    )


def _status_in(status: int, wanted: Any) -> bool:
    entries = wanted if isinstance(wanted, list) else [wanted]
    return any(entry == status or entry == f"{status // 100}xx" for entry in entries)


def _path_holds(rule: Mapping[str, Any], value: object) -> bool:
    found = value is not _ABSENT
    if found is not rule.get("exists", True):
        return False
    if "equals" in rule and not _same(value, rule["equals"]):
        return False
    return "in" not in rule or any(_same(value, entry) for entry in rule["in"])


def _same(value: object, wanted: object) -> bool:
    """Equal as JSON: `true` is not 1."""
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _contains(value: object, wanted: object) -> bool:
    """Whether a JSON value has at least what is wanted; lists are compared as a whole."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and _contains(value[key], part) for key, part in wanted.items()
        )
    return _same(value, wanted)


def json_at(document: object, path: str) -> object:
    """The value at `results[0].id`, or _ABSENT. `results.0.id` is the same."""
    value = document
    for step in _steps(path) if path else ():
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _ABSENT
    return value


@lru_cache(maxsize=1024)
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.replace("[", ".").replace("]", "").removeprefix(".").split("."))


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _json(body: bytes) -> object:
    try:
        return Payload.parse(body).value
    except PayloadError:
        return _ABSENT
