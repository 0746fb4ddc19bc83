"""The first targets, as receivers see them: what the official libraries read, and what each platform's answers mean."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from jsonschema import Draft202012Validator
from standardwebhooks import Webhook, WebhookVerificationError

import connectors
from bridge.config.connectors import target_connector
from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Outcome, Request
from bridge.flow.conversation import conversation
from bridge.flow.judge import AnswerLost, outcome_of
from bridge.outbound.auth import authorised
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from connectors.cloudevents import target as cloudevents
from connectors.http import target as http
from connectors.webhook import target as webhook

FOLDER = Path(connectors.__file__).parent
CODE: dict[str, Any] = {"http": http, "webhook": webhook, "cloudevents": cloudevents}
HOOKS = ("zapier", "make", "pabbly", "n8n", "power_automate")
ALL = {name: target_connector(FOLDER / name, CODE.get(name)) for name in (*CODE, *HOOKS)}
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "9394b24c-6822-573b-8ba0-177eadda89f7",
    "source": "urn:edu:wiseflow:lic-7",
    "type": "edu.grade.published.v1",
    "subject": "submission/65253469",
    "time": "2026-06-05T09:30:00.000Z",
    "datacontenttype": "application/json",
    "dataschema": "https://bridge.example/schemas/edu-event/1.json",
    "tenant": "uni-x",
    "sourceevent": 'final "mark" 100% Løve 😀',
    "sequence": "7",
    "data": {"grade": {"label": "10", "note": "Ærø"}, "person": None},
}


@dataclass
class Receiver:
    url: str
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    got: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            time.sleep(target.seconds)
            target.got.append((self.command, self.path, headers, body))
            self.send_response(target.status)
            for name, value in target.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(target.body)))
            self.end_headers()
            self.wfile.write(target.body)

        def __getattr__(self, name: str) -> Any:
            """Every method, whatever its name."""
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    target = Receiver(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield target
    server.shutdown()
    thread.join()
    server.server_close()


def message(params: dict[str, Any], operation: str = "send", **changes: Any) -> Message:
    return Message(
        **{
            "key": "6019ce76-b63e-52e2-a450-dc7b4dacb101",
            "mapping": "m",
            "mapping_version": "1",
            "target": "t",
            "operation": operation,
            "params": params,
            "event": EVENT,
            "attempt": 1,
            "sent_at": datetime.now(UTC),
        }
        | changes
    )


def deliver(name: str, options: dict[str, Any], sent: Message) -> tuple[Request, Outcome]:
    connector = ALL[name]
    assert not list(Draft202012Validator(connector.manifest.options).iter_errors(options))
    assert not list(Draft202012Validator(connector.manifest.operations[sent.operation].params).iter_errors(sent.params))
    settings = Settings(name=name, options=options)
    ask = next(conversation(connector, [sent], settings))
    request = ask.request
    send = target_sender(settings, NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"})))
    return request, outcome_of(connector, send(request), sent, settings, ask)


# --- what holds for all of them ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_manifest_is_sound(name: str) -> None:
    connector = ALL[name]
    Draft202012Validator.check_schema(connector.manifest.options)
    for operation in connector.manifest.operations.values():
        Draft202012Validator.check_schema(operation.params)
        assert operation.params["additionalProperties"] is False
        for rule in (*operation.answers, *connector.manifest.answers):
            re.compile(rule.get("body_regex", ""))
    names = set(connector.manifest.options["properties"])
    assert not names & {"connector", "enabled", "concurrency", "retry"}, "these belong to bridge.yaml itself"


@pytest.mark.parametrize("name", HOOKS)
def test_the_address_of_a_hook_is_a_secret(name: str) -> None:
    assert ALL[name].manifest.options["properties"]["url"]["secret"] is True


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_request_carries_the_messages_key(name: str, receiver: Receiver) -> None:
    options = {
        "http": {"base_url": receiver.url},
        "webhook": {"url": receiver.url, "secrets": [SECRET]},
        "n8n": {"url": receiver.url, "method": "PUT"},
    }.get(name, {"url": receiver.url})
    params: dict[str, Any] = {"json": {"a": 1}} if name in HOOKS else {}
    sent = message(params, "request" if name == "http" else "send")
    _, outcome = deliver(name, options, sent)
    assert outcome.verdict.value == "ok"
    assert receiver.got[0][2]["idempotency-key"] == sent.key
    _, again = deliver(name, options, replace(sent, attempt=2))
    assert again.verdict.value == "ok"
    assert receiver.got[1][2]["idempotency-key"] == sent.key


# --- http -------------------------------------------------------------------------------------------------------------


def test_an_http_request_is_what_the_mapping_says(receiver: Receiver) -> None:
    params = {
        "method": "PATCH",
        "path": "/students/a%2Fb/grade ø",
        "query": {"q": "ø & =", "many": [1, "2"], "none": None, "yes": True},
        "headers": {"x-version": "2", "X-Null": None},
        "json": {"grade": 83.5, "note": "Ærø", "null": None},
    }
    options = {
        "base_url": f"{receiver.url}/api/",
        "headers": {"X-Version": "1", "X-Campus": "main"},
        "auth": {"kind": "basic", "username": "ada", "password": "pæss:word"},
    }
    deliver("http", options, message(params, "request"))
    method, path, headers, body = receiver.got[0]
    assert method == "PATCH"
    place, _, query = path.partition("?")
    assert place == "/api/students/a%2Fb/grade%20%C3%B8"
    assert parse_qsl(query) == [("q", "ø & ="), ("many", "1"), ("many", "2"), ("yes", "true")]
    assert json.loads(body) == params["json"]
    assert (headers["content-type"], headers["x-version"], headers["x-campus"]) == ("application/json", "2", "main")
    assert "x-null" not in headers
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == "ada:pæss:word".encode()


@pytest.mark.parametrize(
    ("params", "content_type", "body"),
    [
        ({}, None, b""),
        ({"json": None}, "application/json", b"null"),
        ({"json": [1, "10"]}, "application/json", b'[1,"10"]'),
        ({"form": {"a": "1 2", "b": [1, None, 2]}}, "application/x-www-form-urlencoded", b"a=1+2&b=1&b=2"),
        ({"body": "<x>ø</x>"}, "text/plain; charset=utf-8", "<x>ø</x>".encode()),
        ({"body": "<x/>", "headers": {"content-type": "application/xml"}}, "application/xml", b"<x/>"),
    ],
)
def test_the_kinds_of_body(receiver: Receiver, params: dict[str, Any], content_type: str | None, body: bytes) -> None:
    deliver("http", {"base_url": receiver.url}, message(params, "request"))
    method, path, headers, got = receiver.got[0]
    assert (method, path, headers.get("content-type"), got) == ("POST", "/", content_type, body)


@pytest.mark.parametrize("params", [{"json": 1, "form": {}}, {"form": {}, "body": ""}, {"methode": "POST"}])
def test_parameters_that_cannot_be_meant(params: dict[str, Any]) -> None:
    schema = ALL["http"].manifest.operations["request"].params
    assert list(Draft202012Validator(schema).iter_errors(params))


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("", "/api"),
        ("x", "/api/x"),
        ("//evil.example/x", "/api/evil.example/x"),
        ("@evil.example", "/api/@evil.example"),
        (":80@evil.example/", "/api/:80@evil.example/"),
        ("http://evil.example/", "/api/http://evil.example/"),
    ],
)
def test_a_path_never_leaves_the_base(receiver: Receiver, path: str, arrives: str) -> None:
    deliver("http", {"base_url": f"{receiver.url}/api"}, message({"path": path}, "request"))
    assert receiver.got[0][1] == arrives


@pytest.mark.parametrize("path", ["../x", "a/../../x", "a/%2e%2E/x", "a%2f..%2fx", "a?b=c", "a#b", "\\\\evil\\x", "."])
def test_a_path_that_tries_is_a_mistake(path: str) -> None:
    with pytest.raises(TargetError, match="path"):
        http.prepare(message({"path": path}, "request"), Settings(name="t", options={"base_url": "https://a.example"}))


# --- webhook ----------------------------------------------------------------------------------------------------------


def test_the_published_vector_comes_out() -> None:
    event = EVENT | {"type": "edu.grade.published.v1", "time": "2026-01-02T03:04:05Z", "data": {"id": "g1"}}
    sent = message({}, key="msg_test1", event=event, sent_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    request = webhook.prepare(sent, Settings(name="t", options={"url": "https://x.example", "secrets": [SECRET]}))
    assert request.body == b'{"type":"grade.published","timestamp":"2026-01-02T03:04:05Z","data":{"id":"g1"}}'
    assert request.headers["webhook-timestamp"] == "1767323045"
    assert request.headers["webhook-signature"] == "v1,uo+7w6kmM9AVzwIUTWbztnb8CI9/yWH8Sj24I65ajJU="


def test_the_official_library_verifies_with_every_secret_of_a_rotation(receiver: Receiver) -> None:
    sent = message({})
    deliver("webhook", {"url": receiver.url, "secrets": [SECRET, OTHER], "headers": {"X-Campus": "1"}}, sent)
    _, _, headers, body = receiver.got[0]
    assert headers["webhook-id"] == sent.key
    assert headers["x-campus"] == "1"
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(body, headers) == {
            "type": "grade.published",
            "timestamp": "2026-06-05T09:30:00.000Z",
            "data": EVENT["data"],
        }
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"x" * 32).decode()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body.replace(b"10", b"12"), headers)


def test_an_attempt_has_its_own_time_and_the_same_id_and_body() -> None:
    settings = Settings(name="t", options={"url": "https://x.example", "secrets": [SECRET]})
    first = webhook.prepare(message({}, sent_at=datetime(2026, 1, 1, tzinfo=UTC)), settings)
    second = webhook.prepare(message({}, sent_at=datetime(2026, 1, 1, 1, tzinfo=UTC), attempt=2), settings)
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 3600
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_a_mapping_can_choose_type_and_data(receiver: Receiver) -> None:
    deliver("webhook", {"url": receiver.url, "secrets": [SECRET]}, message({"type": "mark.out", "data": None}))
    _, _, headers, body = receiver.got[0]
    document = Webhook(SECRET).verify(body, headers)
    assert (document["type"], document["data"]) == ("mark.out", None)


@pytest.mark.parametrize("secret", ["whsec_", "whsec_not base64!", "whsec_ø", "x"])
def test_a_malformed_secret_is_a_mistake_and_stays_unsaid(secret: str) -> None:
    settings = Settings(name="t", options={"url": "https://x.example", "secrets": [secret]})
    with pytest.raises(TargetError) as caught:
        webhook.prepare(message({}), settings)
    assert "not base64" not in str(caught.value)
    assert list(Draft202012Validator(ALL["webhook"].manifest.options).iter_errors(dict(settings.options)))


# --- CloudEvents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_the_official_sdk_reads_the_event(receiver: Receiver, mode: str) -> None:
    deliver("cloudevents", {"url": receiver.url, "mode": mode}, message({}))
    _, _, headers, body = receiver.got[0]
    read = from_http_event(HTTPMessage(headers=headers, body=body))
    assert read.get_id() == EVENT["id"]
    assert read.get_type() == "edu.grade.published.v1"
    assert read.get_source() == EVENT["source"]
    assert read.get_subject() == EVENT["subject"]
    assert read.get_time() == datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
    assert read.get_extension("sourceevent") == EVENT["sourceevent"]
    assert read.get_extension("sequence") == "7"
    data = read.get_data()
    assert (data if isinstance(data, dict) else json.loads(data)) == EVENT["data"]


def test_binary_mode_has_no_header_for_what_content_type_says(receiver: Receiver) -> None:
    deliver("cloudevents", {"url": receiver.url, "mode": "binary"}, message({"data": {"only": "this"}}))
    _, _, headers, body = receiver.got[0]
    assert headers["content-type"] == "application/json"
    assert "ce-datacontenttype" not in headers
    assert "ce-data" not in headers
    assert headers["ce-sourceevent"] == "final%20%22mark%22%20100%25%20L%C3%B8ve%20%F0%9F%98%80"
    assert json.loads(body) == {"only": "this"}


def test_the_specifications_own_example_of_a_header() -> None:
    assert cloudevents.header_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert cloudevents.header_value("urn:x/a?b=c&d#~'[]") == "urn:x/a?b=c&d#~'[]"


def test_batched_mode_sends_a_list_of_one(receiver: Receiver) -> None:
    deliver("cloudevents", {"url": receiver.url, "mode": "batched"}, message({}))
    _, _, headers, body = receiver.got[0]
    assert headers["content-type"].startswith("application/cloudevents-batch+json")
    assert json.loads(body) == [EVENT]


# --- automation platforms ---------------------------------------------------------------------------------------------

ZAP_OK = b'{"attempt":"a1","id":"018f","request_id":"018f","status":"success"}'
NOT_REGISTERED = b'{"code":404,"message":"The requested webhook \\"POST x\\" is not registered.","hint":"..."}'


@pytest.mark.parametrize(
    ("name", "status", "body", "verdict", "target_id", "wait"),
    [
        ("zapier", 200, ZAP_OK, "ok", "018f", None),
        ("zapier", 200, b"whatever", "ok", None, None),
        ("zapier", 404, b"", "gone", None, None),
        ("zapier", 410, b"", "gone", None, None),
        ("zapier", 413, b"", "permanent", None, None),
        ("zapier", 429, b"", "throttled", None, 10.0),
        ("zapier", 502, b"", "retry", None, None),
        ("make", 200, b"Accepted", "ok", None, None),
        ("make", 201, b"{}", "ok", None, None),
        ("make", 400, b"Queue is full.", "throttled", None, 60.0),
        ("make", 400, b"Bad request", "permanent", None, None),
        ("make", 401, b"", "auth", None, None),
        ("make", 410, b"", "gone", None, None),
        ("make", 429, b"", "throttled", None, 10.0),
        ("pabbly", 200, b'{"status":"success"}', "ok", None, None),
        ("pabbly", 202, b"", "ok", None, None),
        ("pabbly", 404, b"", "gone", None, None),
        ("pabbly", 500, b"", "retry", None, None),
        ("n8n", 200, b'{"message":"Workflow was started"}', "ok", None, None),
        ("n8n", 404, NOT_REGISTERED, "retry", None, None),
        ("n8n", 404, b"", "retry", None, None),
        ("n8n", 403, b"", "auth", None, None),
        ("n8n", 500, b'{"message":"Error in workflow"}', "ambiguous", None, None),
        ("n8n", 503, b"", "retry", None, None),
        ("n8n", 413, b"", "permanent", None, None),
        ("power_automate", 202, b"", "ok", None, None),
        ("power_automate", 400, b"", "permanent", None, None),
        ("power_automate", 401, b"", "auth", None, None),
        ("power_automate", 404, b"", "gone", None, None),
        ("power_automate", 429, b"", "throttled", None, None),
        ("power_automate", 502, b"", "ambiguous", None, None),
        ("power_automate", 504, b"", "ambiguous", None, None),
        ("cloudevents", 204, b"", "ok", None, None),
        ("cloudevents", 410, b"", "gone", None, None),
        ("cloudevents", 415, b"", "permanent", None, None),
        ("webhook", 204, b"", "ok", None, None),
        ("webhook", 302, b"", "permanent", None, None),
        ("webhook", 410, b"", "gone", None, None),
        ("webhook", 504, b"", "retry", None, None),
        ("http", 404, b"", "permanent", None, None),
    ],
)
def test_what_an_answer_means(
    *, name: str, status: int, body: bytes, verdict: str, target_id: str | None, wait: float | None
) -> None:
    sent = message({}, "request" if name == "http" else "send")
    outcome = outcome_of(
        ALL[name],
        Answer(status=status, headers={}, body=body),
        sent,
        Settings(name=name),
        Ask(request=Request(method="POST", url="")),
    )
    assert (outcome.verdict.value, outcome.target_id, outcome.retry_after) == (verdict, target_id, wait)


def test_a_hook_gets_the_json_with_its_nulls(receiver: Receiver) -> None:
    document = {"email": "ada@example.test", "grade": "10", "late": None, "n": 1.5, "deep": {"a": [None, True]}}
    receiver.body = ZAP_OK
    _, outcome = deliver("zapier", {"url": f"{receiver.url}/hooks/catch/1/abc/"}, message({"json": document}))
    method, path, headers, body = receiver.got[0]
    assert (method, path, headers["content-type"]) == ("POST", "/hooks/catch/1/abc/", "application/json")
    assert json.loads(body) == document
    assert outcome.target_id == "018f"


@pytest.mark.parametrize("name", HOOKS)
def test_a_list_is_refused_because_it_would_start_many_runs(name: str) -> None:
    schema = ALL[name].manifest.operations["send"].params
    assert list(Draft202012Validator(schema).iter_errors({"json": [1]}))
    assert not list(Draft202012Validator(schema).iter_errors({"json": {}}))


def test_make_gets_its_key_only_when_there_is_one(receiver: Receiver) -> None:
    deliver("make", {"url": receiver.url}, message({"json": {}}))
    deliver("make", {"url": receiver.url, "api_key": "k-1"}, message({"json": {}}))
    assert [got[2].get("x-make-apikey") for got in receiver.got] == [None, "k-1"]


def test_power_automates_sig_can_be_kept_apart_from_the_address(receiver: Receiver) -> None:
    url = f"{receiver.url}/invoke?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun"
    request, _ = deliver("power_automate", {"url": url, "sig": "a+b/c="}, message({"json": {}}))
    assert parse_qsl(receiver.got[0][1].partition("?")[2]) == [
        ("api-version", "1"),
        ("sp", "/triggers/manual/run"),
        ("sig", "a+b/c="),
    ]
    assert "a%2Bb" not in repr(replace(request, url=""))


@pytest.mark.parametrize(
    ("auth", "name", "value"),
    [
        ({"kind": "none"}, "authorization", None),
        ({"kind": "bearer", "token": "t"}, "authorization", "Bearer t"),
        ({"kind": "bearer", "token": "t", "scheme": "Zoho-oauthtoken"}, "authorization", "Zoho-oauthtoken t"),
        ({"kind": "header", "name": "X-API-Key", "value": "k"}, "x-api-key", "k"),
    ],
)
def test_the_kinds_of_auth(receiver: Receiver, auth: dict[str, str], name: str, value: str | None) -> None:
    deliver("n8n", {"url": receiver.url, "method": "POST", "auth": auth}, message({"json": {}}))
    assert receiver.got[0][2].get(name) == value


def test_credentials_of_the_settings_win_over_a_mappings_header() -> None:
    request = Request(method="POST", url="https://a.example", headers={"AUTHORIZATION": "mine", "X": "1"})
    made = authorised(request, {"auth": {"kind": "bearer", "token": "ours"}})
    assert made.headers == {"X": "1", "Authorization": "Bearer ours"}


@pytest.mark.parametrize("auth", [{"kind": "digest"}, {"kind": "basic", "username": "x"}, {"kind": "bearer"}])
def test_auth_that_cannot_be_used_is_a_mistake(auth: dict[str, str]) -> None:
    with pytest.raises(TargetError, match="auth"):
        authorised(Request(method="GET", url="https://a.example"), {"auth": auth})
    assert list(
        Draft202012Validator(ALL["http"].manifest.options).iter_errors({"base_url": "https://a.example", "auth": auth})
    )


def test_a_slow_targets_time_is_what_the_settings_say(receiver: Receiver) -> None:
    receiver.seconds = 0.5
    with pytest.raises(AnswerLost):
        deliver("http", {"base_url": receiver.url, "timeout": 0.2}, message({}, "request"))
    _, outcome = deliver("http", {"base_url": receiver.url, "timeout": 5}, message({}, "request"))
    assert outcome.verdict.value == "ok"
