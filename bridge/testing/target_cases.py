"""A target's `tests.yaml`: what goes on the wire for a message, byte for byte, and what each answer means. The same is
`tests` in a connector of one's own (config/own_connectors.py); config/target_tests.schema.json is its schema.

settings: {token: t0ken}              options as in bridge.yaml, for all cases
event: {...}                          the canonical event, for all cases; a grade.published without it
cases:
  - name: a contact is made
    operation: upsert_contact
    with: {key: p1}                   or `batch: [{key: p1}, {key: p2}]`, one `with` per message
    exchange:
      - request: {method: PUT, url: "https://…", headers: {…}, json: {…}}      or `form: {…}`, `body: "…"`, `empty`
        answer: {status: 200, headers: {…}, json: {…}}      or `text: "…"`; `lost: true` for none
    outcome: {as: ok, target_id: "5"}        or `outcomes: […]`, one per message
answers:
  - {operation: upsert_contact, status: 423, json: {…}, as: retry, retry_after: 2}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from bridge.config.documents import Document, Steps, read_document
from bridge.config.own_connectors import OwnConnector
from bridge.config.validation import did_you_mean, problems_of, with_defaults
from bridge.core.errors import ConfigurationError, Problem
from bridge.core.manifest import TargetConnector
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Outcome, Request
from bridge.engine.talk import talk
from bridge.flow.judge import AnswerLost, outcome_of

KEY: Final = "6019ce76-b63e-52e2-a450-dc7b4dacb101"
"""The first message's idempotency key; that of the next ends with 102, and so on."""

SENT_AT: Final = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)


def cases(connector: TargetConnector) -> Mapping[str, Any]:
    """The connector's tests as they stand in its folder; empty without any."""
    file = connector.folder / "tests.yaml"
    if not file.exists():
        return {}
    document, problems = read_document(file)
    if document is None or problems:
        raise ConfigurationError(problems)
    found: Mapping[str, Any] = document.value
    return found


def own_problems(own: OwnConnector) -> list[Problem]:
    """What fails of the tests in an admin's own connector, each with its line, or is not as a mapping may write it."""
    connector, tests = own.connector, own.tests
    problems: list[Problem] = []
    for section, check in (("cases", case_problems), ("answers", answer_problems)):
        for place, entry in enumerate(tests.get(section, ())):
            at: Steps = ("tests", section, place)
            wrong = _unsound(own, entry, at)
            name = f"{entry['name']}: " if "name" in entry else ""
            problems += wrong or [own.document.problem(at, name + words) for words in check(connector, entry, tests)]
    return problems


def tests_of(own: OwnConnector) -> int:
    """How many tests a connector's file has."""
    return sum(len(own.tests.get(section, ())) for section in ("cases", "answers"))


def untested(own: OwnConnector) -> list[Problem]:
    """The operations that no test speaks of."""
    tested = {case["operation"] for case in own.tests.get("cases", ())}
    return [
        own.document.problem(("target", "operations", name), "no test speaks of this operation")
        for name in own.connector.manifest.operations.keys() - tested
    ]


def _unsound(own: OwnConnector, entry: Mapping[str, Any], at: Steps) -> list[Problem]:
    """What could be no mapping and no bridge.yaml."""
    manifest, document = own.connector.manifest, own.document
    operation = manifest.operations.get(entry["operation"])
    if operation is None:
        hint = did_you_mean(entry["operation"], manifest.operations)
        return [document.problem((*at, "operation"), "there is no operation of this name", hint)]
    problems = _settings_problems(document, manifest.options, own.tests, entry, at)
    if "with" in entry or "exchange" in entry:
        each = [((*at, "batch", place), part) for place, part in enumerate(entry.get("batch", ()))]
        for place, params in each or [((*at, "with"), entry.get("with", {}))]:
            problems += problems_of(operation.params, params, document, at=place)
    return problems


def _settings_problems(
    document: Document, options: Mapping[str, Any], tests: Mapping[str, Any], entry: Mapping[str, Any], at: Steps
) -> list[Problem]:
    given = {**tests.get("settings", {}), **entry.get("settings", {})}
    place = (*at, "settings") if "settings" in entry else ("tests", "settings")
    return problems_of(options, given, document, at=place)


def case_problems(connector: TargetConnector, case: Mapping[str, Any], tests: Mapping[str, Any]) -> list[str]:
    """What is not as a case says: requests compared byte for byte, then outcomes. Empty when all is well."""
    exchange: Sequence[Mapping[str, Any]] = case["exchange"]
    sent: list[Request] = []

    def send(request: Request) -> Answer:
        sent.append(request)
        if len(sent) > len(exchange):
            raise AssertionError("more requests than the case has")
        answer = exchange[len(sent) - 1].get("answer", {"status": 200})
        if answer.get("lost"):
            raise AnswerLost("no answer within 30 s")
        return answer_of(answer)

    messages = messages_of(case, tests)
    said = talk(connector, messages, settings_of(connector, case, tests), send)
    problems = [
        f"request {number}: {problem}"
        for number, (request, part) in enumerate(zip(sent, exchange, strict=False), start=1)
        for problem in _request_problems(request, part["request"])
    ]
    if len(sent) != len(exchange):
        problems.append(f"{len(sent)} requests, expected {len(exchange)}")
    expected = case["outcomes"] if "outcomes" in case else [case["outcome"]]
    if len(said.outcomes) != len(expected):
        problems.append(f"{len(said.outcomes)} outcomes, expected {len(expected)}")
    for number, (outcome, wanted) in enumerate(zip(said.outcomes, expected, strict=False), start=1):
        problems += [f"outcome {number}: {problem}" for problem in _outcome_problems(outcome, wanted)]
    return problems


def answer_problems(connector: TargetConnector, row: Mapping[str, Any], tests: Mapping[str, Any]) -> list[str]:
    """Whether one answer is judged as a row of the table says."""
    case = {"operation": row["operation"], "with": row.get("with", {})}
    [message] = messages_of(case, tests)
    ask = Ask(request=Request(method="POST", url="https://target.example/"))
    outcome = outcome_of(connector, answer_of(row), message, settings_of(connector, row, tests), ask)
    return list(_outcome_problems(outcome, row))


def messages_of(case: Mapping[str, Any], tests: Mapping[str, Any]) -> list[Message]:
    """The messages of a case, each with a key of its own."""
    each: Sequence[Mapping[str, Any]] = case["batch"] if "batch" in case else [case.get("with", {})]
    event = case.get("event") or tests.get("event") or _EVENT
    return [
        Message(
            key=f"{KEY[:-3]}{101 + place}",
            mapping="a-mapping",
            mapping_version="1",
            target=case.get("target", "target"),
            operation=case["operation"],
            params=dict(params),
            event=event,
            attempt=case.get("attempt", 1),
            sent_at=SENT_AT,
        )
        for place, params in enumerate(each)
    ]


def settings_of(connector: TargetConnector, case: Mapping[str, Any], tests: Mapping[str, Any]) -> Settings:
    """The options of a case with the connector's defaults filled in."""
    given = dict(tests.get("settings", {})) | dict(case.get("settings", {}))
    return Settings(name="target", options=with_defaults(connector.manifest.options, given))


def answer_of(document: Mapping[str, Any]) -> Answer:
    headers = {name.lower(): str(value) for name, value in document.get("headers", {}).items()}
    if "json" in document:
        return Answer(status=document["status"], headers=headers, body=json.dumps(document["json"]).encode())
    return Answer(status=document["status"], headers=headers, body=document.get("text", "").encode())


def _request_problems(request: Request, wanted: Mapping[str, Any]) -> Iterator[str]:
    if request.method != wanted.get("method", "POST"):
        yield f"method {request.method}, expected {wanted.get('method', 'POST')}"
    if request.url != wanted["url"]:
        yield f"url {request.url}, expected {wanted['url']}"
    headers = {name.lower(): value for name, value in request.headers.items()}
    for name, value in wanted.get("headers", {}).items():
        if headers.get(name.lower()) != value:
            yield f"header {name}: {headers.get(name.lower())}, expected {value}"
    if "json" in wanted:
        if request.body != json.dumps(wanted["json"], ensure_ascii=False, separators=(",", ":")).encode():
            yield f"body {request.body.decode(errors='replace')}"
        if "json" not in headers.get("content-type", ""):
            yield f"content type {headers.get('content-type')}"
    elif "form" in wanted:
        found = parse_qsl(request.body.decode(), keep_blank_values=True)
        if found != [(name, str(value)) for name, value in wanted["form"].items()]:
            yield f"form {found}"
        if headers.get("content-type") != "application/x-www-form-urlencoded":
            yield f"content type {headers.get('content-type')}"
    elif request.body.decode() != wanted.get("body", ""):
        yield f"body {request.body.decode(errors='replace')}"


def _outcome_problems(outcome: Outcome, wanted: Mapping[str, Any]) -> Iterator[str]:
    if outcome.verdict.value != wanted["as"]:
        yield f"{outcome.verdict.value} ({outcome.reason}), expected {wanted['as']}"
    for name in ("target_id", "retry_after"):
        if name in wanted and getattr(outcome, name) != wanted[name]:
            yield f"{name} {getattr(outcome, name)}, expected {wanted[name]}"
    if "reason" in wanted and wanted["reason"] not in outcome.reason:
        yield f"reason {outcome.reason}, expected {wanted['reason']}"


_EVENT: Final[dict[str, Any]] = {
    "specversion": "1.0",
    "id": "9394b24c-6822-573b-8ba0-177eadda89f7",
    "source": "urn:edu:wiseflow:lic-7",
    "type": "edu.grade.published.v1",
    "subject": "submission/65253469",
    "time": "2026-06-05T09:30:00.000Z",
    "datacontenttype": "application/json",
    "tenant": "uni-x",
    "sourceevent": "final.mark",
    "data": {},
}
