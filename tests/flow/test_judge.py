"""What answers mean, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bridge.core.manifest import Operation, TargetConnector, target_manifest
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Outcome, Request, Verdict
from bridge.flow.judge import (
    AnswerLost,
    NotSent,
    judge,
    outcome_of,
    outcome_of_silence,
    wait_asked_for,
)
from bridge.flow.retry import next_attempt

NOW = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)

ASK = Ask(request=Request(method="POST", url="https://target.example/"))


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    return Answer(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=body)


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ((200, 201, 202, 204, 207, 299), "ok"),
        ((300, 301, 302, 304, 307, 308), "permanent"),
        ((400, 402, 403, 404, 405, 406, 409, 411, 413, 414, 415, 418, 422, 431), "permanent"),
        ((401,), "auth"),
        ((410,), "gone"),
        ((408, 425, 500, 502, 503, 504, 520, 524, 529, 599), "retry"),
        ((429,), "throttled"),
        ((501,), "permanent"),
    ],
)
def test_without_rules_http_decides(statuses: tuple[int, ...], verdict: str) -> None:
    assert {judge(answer(status), [], NOW).verdict.value for status in statuses} == {verdict}


def test_a_redirect_is_named_as_one() -> None:
    assert "redirects are not followed" in judge(answer(302, location="https://elsewhere"), [], NOW).reason


MOODLE = [
    {"status": 200, "json_path": "errorcode", "in": ["invalidtoken", "accessexception"], "as": "auth"},
    {"status": 200, "json_path": "errorcode", "in": ["sitemaintenance"], "as": "retry", "pause": 90},
    {"status": 200, "json_path": "exception", "exists": True, "as": "permanent", "reason": "refused by Moodle"},
    {"status": 200, "not_json": True, "as": "retry"},
    {"status": 200, "as": "ok"},
]
HUBSPOT = [
    {"status": 429, "json": {"policyName": "DAILY"}, "as": "throttled", "pause": 3600},
    {"status": 409, "body_regex": r"Existing ID: (?P<id>\d+)", "as": "duplicate"},
    {"status": [201, "2xx"], "json": {"status": "COMPLETE"}, "as": "ok", "target_id": "results[0].id"},
    {"status": "4xx", "header_present": "X-Why", "as": "permanent"},
    {"status": 403, "as": "throttled"},
]


@pytest.mark.parametrize(
    ("rules", "given", "verdict", "reason", "target_id", "wait"),
    [
        (MOODLE, answer(body=b'{"errorcode":"invalidtoken","exception":"x"}'), "auth", "HTTP 200", None, None),
        (MOODLE, answer(body=b'{"errorcode":"sitemaintenance"}'), "retry", "HTTP 200", None, 90.0),
        (MOODLE, answer(body=b'{"exception":null}'), "permanent", "refused by Moodle", None, None),
        (MOODLE, answer(body=b"<html>"), "retry", "HTTP 200", None, None),
        (MOODLE, answer(body=b"null"), "ok", "HTTP 200", None, None),
        (MOODLE, answer(502, b'{"errorcode":"invalidtoken"}'), "retry", "HTTP 502", None, None),
        (HUBSPOT, answer(429, b'{"policyName":"DAILY","x":1}'), "throttled", "HTTP 429", None, 3600.0),
        (HUBSPOT, answer(429, b'{"policyName":"SECONDLY"}'), "throttled", "HTTP 429", None, None),
        (HUBSPOT, answer(429, b'{"policyName":"DAILY"}', retry_after="7"), "throttled", "HTTP 429", None, 7.0),
        (HUBSPOT, answer(409, b"Contact exists. Existing ID: 17"), "duplicate", "HTTP 409", None, None),
        (HUBSPOT, answer(409, b"conflict"), "permanent", "HTTP 409", None, None),
        (HUBSPOT, answer(200, b'{"status":"COMPLETE","results":[{"id":"91"}]}'), "ok", "HTTP 200", "91", None),
        (HUBSPOT, answer(201, b'{"status":"COMPLETE","results":[{"id":91}]}'), "ok", "HTTP 201", "91", None),
        (HUBSPOT, answer(200, b'{"status":"COMPLETE","results":[]}'), "ok", "HTTP 200", None, None),
        (HUBSPOT, answer(403, x_why="rights"), "permanent", "HTTP 403", None, None),
        (HUBSPOT, answer(403), "throttled", "HTTP 403", None, None),
    ],
)
def test_the_first_rule_that_holds_decides(
    *, rules: list[dict[str, Any]], given: Answer, verdict: str, reason: str, target_id: str | None, wait: float | None
) -> None:
    expected = Outcome(verdict=Verdict(verdict), reason=reason, target_id=target_id, retry_after=wait)
    assert judge(given, rules, NOW) == expected


@pytest.mark.parametrize(
    ("rule", "body", "holds"),
    [
        ({"json": {"a": {"b": 1}}}, b'{"a":{"b":1,"c":2}}', True),
        ({"json": {"a": {"b": 1}}}, b'{"a":{"b":true}}', False),
        ({"json": {"a": [1]}}, b'{"a":[1,2]}', False),
        ({"json": {}}, b"[1]", False),
        ({"json": {}}, b"not json", False),
        ({"json_path": "a.b"}, b'{"a":{"b":null}}', True),
        ({"json_path": "a.b", "exists": False}, b'{"a":{}}', True),
        ({"json_path": "a.b", "exists": False}, b"not json", True),
        ({"json_path": "a[1].b", "equals": "x"}, b'{"a":[0,{"b":"x"}]}', True),
        ({"json_path": "a.1.b", "equals": "x"}, b'{"a":[0,{"b":"x"}]}', True),
        ({"json_path": "[0]", "in": [1, 2]}, b"[2]", True),
        ({"json_path": "[0]", "in": [1, 2]}, b"[true]", False),
        ({"json_path": "a[-1]"}, b'{"a":[1]}', False),
        ({"not_json": False}, b"{}", True),
        ({"not_json": False}, b"<", False),
        ({"body_regex": "late"}, b"x" * 4090 + b"too late", False),
        ({"body_regex": "(?i)QUEUE is full"}, b"\xff Queue is full.", True),
    ],
)
def test_every_condition(rule: dict[str, Any], body: bytes, holds: bool) -> None:
    verdict = judge(answer(200, body), [{**rule, "as": "superseded"}], NOW).verdict
    assert (verdict is Verdict.SUPERSEDED) is holds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "12"}, 12.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "0"}, 1.0),
        ({"retry_after": "99999999"}, 86400.0),
        ({"retry_after": "Fri, 05 Jun 2026 09:31:00 GMT"}, 60.0),
        ({"retry_after": "Fri, 05 Jun 2026 09:31:00 GMT", "date": "Fri, 05 Jun 2026 09:30:30 GMT"}, 30.0),
        ({"retry_after": "Thu, 04 Jun 2026 09:31:00 GMT"}, 1.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "9" * 400}, None),
        ({"retry_after": "soon", "x_rate_limit_reset": "8"}, 8.0),
        ({"retry_after": "3", "x_rate_limit_reset": "8"}, 3.0),
        ({"x_rate_limit_reset": str(int(NOW.timestamp()) + 40)}, 40.0),
        ({"x_rate_limit_reset": str((int(NOW.timestamp()) + 40) * 1000)}, 40.0),
        ({"x_rate_limit_reset": "1"}, 1.0),
        ({"x_ratelimit_reset": "2"}, 2.0),
        ({"x_hubspot_ratelimit_interval_milliseconds": "10000"}, 10.0),
        ({}, None),
    ],
)
def test_how_long_a_target_asks_us_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_asked_for(answer(429, **headers), NOW) == seconds
    assert judge(answer(429, **headers), [], NOW).retry_after == seconds


def test_a_reset_header_says_nothing_about_a_server_that_is_down() -> None:
    assert judge(answer(503, x_rate_limit_reset="500"), [], NOW).retry_after is None
    assert judge(answer(503, retry_after="500"), [], NOW).retry_after == 500.0


def operation(*, idempotent: bool) -> Operation:
    return Operation(name="send", about="", params={}, idempotent=idempotent)


@pytest.mark.parametrize(
    ("idempotent", "on_ambiguous", "verdict"),
    [
        (True, None, Verdict.RETRY),
        (True, "hold", Verdict.RETRY),
        (False, "retry", Verdict.RETRY),
        (False, "hold", Verdict.AMBIGUOUS),
        (False, None, Verdict.AMBIGUOUS),
    ],
)
def test_a_lost_answer_is_held_where_a_second_request_could_do_harm(
    idempotent: bool, on_ambiguous: str | None, verdict: Verdict
) -> None:
    settings = Settings(name="t", options={"on_ambiguous": on_ambiguous} if on_ambiguous else {})
    silence = AnswerLost("no answer in time")
    assert outcome_of_silence(silence, operation(idempotent=idempotent), settings, ASK).verdict is verdict


def test_what_was_never_sent_is_always_tried_again() -> None:
    outcome = outcome_of_silence(NotSent("refused"), operation(idempotent=False), Settings(name="t"), ASK)
    assert outcome == Outcome(verdict=Verdict.RETRY, reason="refused")


def test_rules_of_the_operation_go_before_those_of_the_target_and_both_before_http() -> None:
    manifest = target_manifest(
        {
            "operations": {
                "send": {
                    "about": "",
                    "params": {},
                    "idempotent": False,
                    "answers": [{"status": 404, "as": "retry"}, {"status": 500, "as": "ambiguous"}],
                }
            },
            "answers": [{"status": 404, "as": "gone"}, {"status": 409, "as": "duplicate"}],
        }
    )
    connector = TargetConnector(name="t", title="", about="", folder=Path(), manifest=manifest, code=None)
    message = Message(
        key="k",
        mapping="m",
        mapping_version="1",
        target="t",
        operation="send",
        params={},
        event={},
        attempt=1,
        sent_at=NOW,
    )

    def verdict(status: int, **options: str) -> str:
        settings = Settings(name="t", options=options)
        return outcome_of(connector, answer(status), message, settings, ASK).verdict.value

    assert [verdict(status) for status in (404, 409, 429, 200, 500)] == [
        "retry",
        "duplicate",
        "throttled",
        "ok",
        "ambiguous",
    ]
    assert verdict(500, on_ambiguous="retry") == "retry"


def test_pauses_grow_with_full_jitter_up_to_the_longest() -> None:
    rng = Random(1)
    for attempt, longest in ((1, 5), (2, 10), (4, 40), (12, 3600), (500, 3600)):
        pauses = [next_attempt(attempt, None, rng) for _ in range(300)]
        seconds = [pause.total_seconds() for pause in pauses if pause is not None]
        assert len(seconds) == 300
        assert 1.0 <= min(seconds) < max(2.0, longest * 0.1)
        assert longest * 0.9 < max(seconds) <= longest


def test_what_a_target_asks_for_is_never_shortened() -> None:
    rng = Random(2)
    pauses = [next_attempt(1, 600.0, rng) for _ in range(100)]
    assert all(pause is not None and 600 <= pause.total_seconds() <= 605 for pause in pauses)


def test_after_three_days_a_message_is_given_up_and_its_last_attempt_is_not_wasted() -> None:
    rng = Random(3)
    assert next_attempt(30, None, rng, age=timedelta(hours=72)) is None
    last = next_attempt(30, None, rng, age=timedelta(hours=72, seconds=-2))
    assert last is not None
    assert last <= timedelta(seconds=2)
    assert next_attempt(30, 7200.0, rng, age=timedelta(hours=71)) is None
    assert next_attempt(1, None, rng, age=timedelta(hours=2), max_hours=1) is None
