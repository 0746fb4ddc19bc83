"""Operations of several steps and of several messages, as a manifest declares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.core.manifest import TargetConnector, target_manifest
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Outcome, Request, Verdict
from bridge.engine.talk import Said, talk
from bridge.flow.judge import AnswerLost, NotSent

PUT = {
    "about": "",
    "idempotent": True,
    "params": {"properties": {"email": {}, "name": {}}},
    "steps": [
        {
            "name": "found",
            "request": {
                "method": "GET",
                "url": "https://crm.example/people",
                "query": {"email": "{{ params.email }}"},
            },
            "answers": [{"status": 404, "as": "ok"}],
            "keep": {"id": "{{ answer.body.id if answer.status == 200 else none }}"},
        },
        {
            "name": "made",
            "when": "steps.found.id is none",
            "request": {"method": "POST", "url": "https://crm.example/people", "json": {"name": "{{ params.name }}"}},
            "answers": [{"status": 201, "as": "ok", "target_id": "id"}],
        },
        {
            "name": "changed",
            "when": "steps.found.id is not none",
            "request": {
                "method": "PATCH",
                "url": "https://crm.example/people/{{ steps.found.id | urlseg }}",
                "json": {"name": "{{ params.name }}"},
            },
        },
    ],
}
BATCH = {
    "about": "",
    "idempotent": True,
    "params": {"properties": {"id": {}}},
    "batch": {
        "most": 10,
        "item": {"id": "{{ params.id }}"},
        "request": {"method": "POST", "url": "https://crm.example/batch", "json": {"inputs": "{{ items }}"}},
        "results": ["results", "errors"],
        "match": {"item": "item.id", "result": "result.id if 'id' in result else result.context"},
        "item_answers": [
            {"json_path": "context", "as": "permanent", "reason": "refused"},
            {"json_path": "new", "as": "ok", "target_id": "number"},
        ],
        "missing": "retry",
    },
    "answers": [{"status": 207, "as": "partial"}, {"status": 423, "as": "retry", "pause": 2}],
}


def by(part: str) -> dict[str, Any]:
    """Two steps, of which the second says in a part of its request what the first one's answer said."""
    url = "https://crm.example/people"
    found = {"name": "found", "request": {"method": "GET", "url": url}, "keep": {"id": "{{ answer.body.id }}"}}
    changed = {"name": "changed", "request": {"method": "POST", "url": url, part: {"id": "{{ steps.found.id }}"}}}
    return {"about": "", "idempotent": True, "params": {}, "steps": [found, changed]}


CONNECTOR = TargetConnector(
    name="crm",
    title="",
    about="",
    folder=Path(),
    manifest=target_manifest(
        {"operations": {"put": PUT, "many": BATCH, "by_query": by("query"), "by_form": by("form")}}
    ),
    code=None,
)


def message(operation: str, params: dict[str, Any], key: str = "key-1") -> Message:
    return Message(
        key=key,
        mapping="m",
        mapping_version="1",
        target="crm",
        operation=operation,
        params=params,
        event={"id": "e1", "data": {}},
        attempt=1,
        sent_at=datetime(2026, 6, 5, 9, 30, tzinfo=UTC),
    )


def answer(status: int, document: Any = None) -> Answer:
    return Answer(status=status, headers={}, body=b"" if document is None else json.dumps(document).encode())


def held(messages: Sequence[Message], *replies: Answer | Exception) -> tuple[Said, list[Request]]:
    asked: list[Request] = []

    def send(request: Request) -> Answer:
        asked.append(request)
        reply = replies[len(asked) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return talk(CONNECTOR, messages, Settings(name="crm"), send), asked


def test_a_step_is_left_out_unless_its_condition_holds() -> None:
    person = message("put", {"email": "ada@example.test", "name": "Ada"})
    said, asked = held([person], answer(404), answer(201, {"id": 7}))
    assert [(request.method, request.url) for request in asked] == [
        ("GET", "https://crm.example/people?email=ada%40example.test"),
        ("POST", "https://crm.example/people"),
    ]
    assert (said.outcomes[0].verdict, said.outcomes[0].target_id) == (Verdict.OK, "7")
    said, asked = held([person], answer(200, {"id": "a/7"}), answer(204))
    assert [request.method for request in asked] == ["GET", "PATCH"]
    assert asked[1].url == "https://crm.example/people/a%2F7"


def test_only_what_changes_something_carries_a_key_and_each_its_own() -> None:
    _, asked = held([message("put", {})], answer(404), answer(201, {}))
    assert [request.headers.get("Idempotency-Key") for request in asked] == [None, "key-1-made"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (answer(503), Verdict.RETRY),
        (answer(429), Verdict.THROTTLED),
        (answer(401), Verdict.AUTH),
        (AnswerLost("no answer"), Verdict.RETRY),
        (NotSent("no connection"), Verdict.RETRY),
    ],
)
def test_a_step_that_fails_ends_it(reply: Answer | Exception, verdict: Verdict) -> None:
    said, asked = held([message("put", {})], reply)
    assert (said.outcomes[0].verdict, len(asked)) == (verdict, 1)


def test_items_of_a_batch_are_judged_one_by_one() -> None:
    messages = [message("many", {"id": id}, key=f"k-{id}") for id in ("a", "b", "c")]
    said, asked = held(
        messages, answer(207, {"results": [{"id": "b", "new": True, "number": 5}], "errors": [{"context": "a"}]})
    )
    assert json.loads(asked[0].body) == {"inputs": [{"id": "a"}, {"id": "b"}, {"id": "c"}]}
    assert [outcome.verdict for outcome in said.outcomes] == [Verdict.PERMANENT, Verdict.OK, Verdict.RETRY]
    assert said.outcomes[1].target_id == "5"
    assert not said.together


def test_what_refuses_or_delays_the_whole_batch_is_everyones_outcome() -> None:
    messages = [message("many", {"id": id}) for id in ("a", "b")]
    for reply, verdict in (
        (answer(400), Verdict.PERMANENT),
        (answer(423), Verdict.RETRY),
        (answer(500), Verdict.RETRY),
    ):
        said, _ = held(messages, reply)
        assert [outcome.verdict for outcome in said.outcomes] == [verdict] * 2
        assert said.together


@pytest.mark.parametrize("body", [b"[" * 60_000, b"\xff{}", b"<html>", b""])
def test_an_answer_that_is_no_json_speaks_of_no_item(body: bytes) -> None:
    messages = [message("many", {"id": id}) for id in ("a", "b")]
    said, _ = held(messages, Answer(status=207, headers={}, body=body))
    assert [outcome.verdict for outcome in said.outcomes] == [Verdict.RETRY] * 2


@pytest.mark.parametrize("part", ["query", "form"])
def test_half_a_character_of_an_answer_goes_into_no_further_request(part: str) -> None:
    said, asked = held([message(f"by_{part}", {})], answer(200, {"id": "a\ud800"}))
    assert [request.method for request in asked] == ["GET"]
    assert said.outcomes == [
        Outcome(verdict=Verdict.PERMANENT, reason=f"by_{part}: changed.request: expected what UTF-8 can hold")
    ]


def test_a_connectors_bug_is_an_outcome_and_after_a_change_an_open_question() -> None:
    class Code:
        def converse(self, messages: Sequence[Message], settings: Settings) -> Any:
            if settings.options.get("early"):
                raise LookupError("ada@example.test")
            from bridge.core.target import Ask

            yield Ask(request=Request(method="POST", url="https://crm.example/x"))
            raise LookupError("ada@example.test")

    operation = {"about": "", "idempotent": False, "params": {}}
    connector = TargetConnector(
        name="crm",
        title="",
        about="",
        folder=Path(),
        manifest=target_manifest({"operations": {"put": operation}}),
        code=Code(),
    )
    send: Callable[[Request], Answer] = lambda request: answer(200)  # noqa: E731
    for options, verdict in (({"early": True}, Verdict.PERMANENT), ({}, Verdict.AMBIGUOUS)):
        said = talk(connector, [message("put", {})], Settings(name="crm", options=options), send)
        found: Outcome = said.outcomes[0]
        assert found.verdict is verdict
        assert "LookupError in converse" in found.reason
        assert "ada@" not in found.reason
