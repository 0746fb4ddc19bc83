"""Requests that are declared in a manifest."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from bridge.core.errors import TargetError
from bridge.core.manifest import TargetConnector, target_manifest
from bridge.core.settings import Settings
from bridge.core.target import Message, Request
from bridge.flow.conversation import conversation

EVENT = {"id": "e1", "type": "edu.grade.published.v1", "data": {"grade": {"label": "10"}, "person": None}}
BASE = "https://crm.example/api"


def request(
    declared: dict[str, Any],
    params: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    attempt: int = 3,
) -> Request:
    manifest = target_manifest(
        {
            "options": {"base_url": {}, "api_key": {}},
            "operations": {
                "put": {
                    "about": "",
                    "idempotent": True,
                    "params": {"type": "object", "properties": {"key": {}, "extra": {}, "note": {}}},
                    "request": {"method": "POST", "url": "{{ settings.base_url }}/x"} | declared,
                }
            },
        }
    )
    connector = TargetConnector(name="crm", title="", about="", folder=Path(), manifest=manifest, code=None)
    message = Message(
        key="key-1",
        mapping="m",
        mapping_version="1",
        target="crm",
        operation="put",
        params=params or {},
        event=EVENT,
        attempt=attempt,
        sent_at=datetime(2026, 6, 5, 9, 30, tzinfo=UTC),
    )
    settings = Settings(name="crm", options={"base_url": BASE} | (options or {}))
    return next(conversation(connector, [message], settings)).request


def test_a_lone_expression_keeps_its_type_and_text_around_one_makes_text() -> None:
    declared = {
        "json": {
            "whole": "{{ params.extra }}",
            "label": "{{ event.data.grade.label }}",
            "text": "attempt {{ message.attempt }} of {{ message.mapping }}",
            "number": "{{ message.attempt }}",
            "list": ["{{ params.key }}", 1, None, True],
            "plain": "no braces",
            "missing": "{{ params.note }}",
            "sent": "{{ message.sent_at }}",
        }
    }
    made = request(declared, {"key": "007", "extra": {"a": [1.5, None, "2"]}})
    assert json.loads(made.body) == {
        "whole": {"a": [1.5, None, "2"]},
        "label": "10",
        "text": "attempt 3 of m",
        "number": 3,
        "list": ["007", 1, None, True],
        "plain": "no braces",
        "missing": None,
        "sent": "2026-06-05T09:30:00.000Z",
    }
    assert made.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "text",
    [
        " {{ params.extra }}\n",
        "{{- params.extra -}}",
        "{#- why -#}{{ params.extra }}",
        "{{ params.extra }}{# why #}",
        "{{ {'x': [1.5, none, '}}']} }}",
    ],
)
def test_a_lone_expression_is_one_however_it_is_written(text: str) -> None:
    made = request({"json": text}, {"extra": {"x": [1.5, None, "}}"]}})
    assert json.loads(made.body) == {"x": [1.5, None, "}}"]}


def test_loops_and_texts_of_a_manifest_are_bounded() -> None:
    extra = list(range(3000))
    rounds = "{% for a in params.extra %}{% for b in params.extra %}{% endfor %}{% endfor %}"
    growth = "{% set a = 'aaaaaaaaaaaaaaaa' %}" + "{% set a = a ~ a ~ a ~ a %}" * 8 + "{{ a }}"
    started = time.process_time()
    with pytest.raises(TargetError, match=r"put: request\.json: more than 10000 rounds of loops"):
        request({"json": rounds}, {"extra": extra})
    with pytest.raises(TargetError, match=r"put: request\.json: a text of more than 262144 characters"):
        request({"json": growth})
    assert time.process_time() - started < 0.9


def test_a_loop_can_call_its_entry_as_a_batch_calls_one() -> None:
    made = request({"json": "{% for item in params.extra %}{{ item }};{% endfor %}"}, {"extra": [1, "b"]})
    assert json.loads(made.body) == "1;b;"


def test_every_request_carries_the_messages_key() -> None:
    assert request({}).headers["Idempotency-Key"] == "key-1"
    own = request({"headers": {"idempotency-key": "crm-{{ message.key }}"}})
    assert [value for name, value in own.headers.items() if name.lower() == "idempotency-key"] == ["crm-key-1"]


def test_null_leaves_a_query_value_and_a_header_out() -> None:
    made = request(
        {
            "query": {"a": "{{ params.key }}", "none": "{{ params.note }}", "many": "{{ params.extra }}", "yes": True},
            "headers": {"X-Key": "{{ settings.api_key }}", "X-Attempt": "{{ message.attempt }}"},
        },
        {"key": "ø & =", "extra": ["1", 2]},
    )
    assert parse_qsl(urlsplit(made.url).query) == [("a", "ø & ="), ("many", "1"), ("many", "2"), ("yes", "true")]
    assert "X-Key" not in made.headers
    assert made.headers["X-Attempt"] == "3"
    assert request({"headers": {"X-Key": "{{ settings.api_key }}"}}, options={"api_key": "s"}).headers["X-Key"] == "s"


def test_a_query_is_added_to_one_that_the_address_has() -> None:
    made = request({"url": "https://flow.example/run?api-version=1", "query": {"sig": "a+b"}})
    assert made.url == "https://flow.example/run?api-version=1&sig=a%2Bb"


def test_a_form() -> None:
    made = request({"form": {"name": "{{ params.key }}", "n": 1, "none": None}}, {"key": "Ada Løve"})
    assert (made.body, made.headers["Content-Type"]) == (
        b"name=Ada+L%C3%B8ve&n=1",
        "application/x-www-form-urlencoded",
    )


def test_a_value_in_a_path_stays_one_segment() -> None:
    made = request({"url": "{{ settings.base_url }}/contacts/{{ params.key | urlseg }}"}, {"key": "a/b?c#d"})
    assert made.url == f"{BASE}/contacts/a%2Fb%3Fc%23d"


@pytest.mark.parametrize("key", ["../admin", "..", "%2e%2E/x", "a/./b"])
def test_a_path_cannot_climb(key: str) -> None:
    with pytest.raises(TargetError, match=r"put: request\.url: a path may not climb"):
        request({"url": "{{ settings.base_url }}/contacts/{{ params.key }}"}, {"key": key})


@pytest.mark.parametrize("url", ["{{ params.note }}", "file:///etc/passwd", "/relative", "{{ params.extra }}"])
def test_an_address_that_is_none_is_a_mistake_of_the_message(url: str) -> None:
    with pytest.raises(TargetError, match="expected an absolute http or https URL"):
        request({"url": url}, {"extra": 5})


def test_an_error_names_the_place_and_never_a_value() -> None:
    for template in ("{{ params.extra.secret }}", "{{ params.key + 1 }}", "{{ nobody }}", "{{ params.key | items }}"):
        with pytest.raises(TargetError) as caught:
            request({"json": {"deep": [template]}}, {"key": "ada@example.test", "extra": {"x": "ada@example.test"}})
        assert "request.json.deep[0]" in str(caught.value)
        assert "ada@" not in str(caught.value)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TargetError, match="JSON"):
        request({"json": "{{ params.key }}"}, {"key": "\ud800"})


def test_python_is_out_of_reach() -> None:
    with pytest.raises(TargetError):
        request({"json": "{{ params.key.__class__ }}"}, {"key": "x"})


def test_an_operation_that_is_not_there() -> None:
    manifest = target_manifest({"operations": {"put": {"about": "", "params": {}, "idempotent": True}}})
    connector = TargetConnector(name="crm", title="", about="", folder=Path(), manifest=manifest, code=None)
    message = Message(
        key="k",
        mapping="m",
        mapping_version="1",
        target="t",
        operation="gone",
        params={},
        event={},
        attempt=1,
        sent_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    with pytest.raises(TargetError, match="crm has no operation gone"):
        next(conversation(connector, [message], Settings(name="t")))
