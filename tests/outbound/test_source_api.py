"""A platform's API as enrichment sees it, against a server that plays one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from loopback import LOCAL, Server, serving
from werkzeug.wrappers import Request, Response

from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import ApiAccess, TokenRequest
from bridge.outbound.budget import Rules
from bridge.outbound.gate import Gate
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import Kept, KeptAnswers
from bridge.outbound.metrics import API_CALLS
from bridge.outbound.session import API_LIMITS, Limits
from bridge.outbound.source_api import HttpSourceApi, Platform, credential_of, platform_of
from bridge.outbound.tokens import TokenCache


@dataclass
class Play:
    """A platform whose API answers from a table of path to answers, the last one for ever."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    good_tokens: set[str] = field(default_factory=set)
    issued: int = 0
    token_answer: Response | None = None
    guarded: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: Request) -> Response:
        if request.path == "/token":
            if self.token_answer is not None:
                return self.token_answer
            with self.lock:
                self.issued += 1
                token = f"t{self.issued}"
                self.good_tokens.add(token)
            return Response(json.dumps({"access_token": token, "expires_in": 3600}))
        if (
            self.guarded
            and request.path.startswith("/v1/")
            and request.headers.get("Authorization", "")[7:] not in self.good_tokens
        ):
            return Response("{}", 401)
        with self.lock:
            answers = self.answers.get(request.path, [Response("no", 404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(request)
        return answer if isinstance(answer, Response) else Response(json.dumps(answer))


@contextmanager
def platform(
    play: Play, *, token: bool = True, limits: Limits = API_LIMITS, gate: Gate | None = None
) -> Iterator[tuple[Platform, Server]]:
    with serving(play) as server:
        access = ApiAccess(
            base_url=f"{server.url}/v1",
            headers={"X-Api": "static"},
            token=TokenRequest(url=f"{server.url}/token", form={"grant_type": "client_credentials", "secret": "hush"})
            if token
            else None,
        )
        settings = Settings(name="wiseflow-main")
        shared = platform_of(settings, access, LOCAL, TokenCache(None), KeptAnswers(), gate=gate, limits=limits)
        yield shared, server


def value(payload: Payload | None) -> object:
    assert payload is not None
    return payload.value


def test_a_call_is_logged_in_and_written_down() -> None:
    with platform(Play({"/v1/flow/1": [{"id": 1}]})) as (shared, server):
        api = shared.client()
        assert value(api.get("/flow/1", {"expand": "a b&c", "email": "ada@example.test"})) == {"id": 1}
    token, call = server.seen
    assert (token.method, token.body) == ("POST", b"grant_type=client_credentials&secret=hush")
    assert call.query == "expand=a+b%26c&email=ada%40example.test"
    assert (call.headers["authorization"], call.headers["x-api"]) == ("Bearer t1", "static")
    assert [(record.call, record.status, record.cached) for record in api.records] == [
        (f"POST {server.url}/token", 200, False),
        ("GET /flow/1", 200, False),
    ]
    assert "ada" not in json.dumps(api.calls())
    assert api.settings.name == "wiseflow-main"
    assert api.now.tzinfo is not None


def test_a_post_sends_json() -> None:
    with platform(Play({"/v1/search": [{"hits": []}]})) as (shared, server):
        assert value(shared.client().post("/search", {"name": "Ø"})) == {"hits": []}
    assert json.loads(server.seen[1].body) == {"name": "Ø"}
    assert server.seen[1].headers["content-type"] == "application/json"


def test_what_is_not_there_is_none_and_no_error() -> None:
    with platform(Play()) as (shared, server):
        assert shared.client().get("/flow/9") is None
    assert len(server.seen) == 2


def test_a_token_that_has_died_is_fetched_once_more_and_the_call_repeated() -> None:
    play = Play({"/v1/flow/1": [{"id": 1}]})
    with platform(play) as (shared, _):
        shared.client().get("/flow/1")
        play.good_tokens.clear()
        api = shared.client()
        assert value(api.get("/flow/1")) == {"id": 1}
        assert [record.status for record in api.records] == [401, 200, 200]
    assert play.issued == 2


def test_a_new_token_that_is_refused_too_is_the_end() -> None:
    play = Play({"/v1/flow/1": [Response("", 401)]})
    with platform(play) as (shared, server):
        with pytest.raises(SourceRefused):
            shared.client().get("/flow/1")
        assert [seen.path for seen in server.seen] == ["/token", "/v1/flow/1", "/token", "/v1/flow/1"]


def test_a_static_key_that_is_refused_is_not_tried_again() -> None:
    with platform(Play(), token=False) as (shared, server), pytest.raises(SourceRefused):
        shared.client().get("/flow/1")
    assert len(server.seen) == 1


def test_a_missing_right_is_the_end() -> None:
    with platform(Play({"/v1/flow/1": [Response("", 403)]})) as (shared, server), pytest.raises(SourceRefused):
        shared.client().get("/flow/1")
    assert len(server.seen) == 2


@pytest.mark.parametrize(
    "passing",
    [Response("", 500), Response("", 503), Response("<html>"), Response('{"half":')],
    ids=["500", "503", "html", "half"],
)
def test_what_a_moment_may_heal_is_tried_once_more_at_once(passing: Response) -> None:
    with platform(Play({"/v1/flow/1": [passing, {"id": 1}]})) as (shared, _):
        assert value(shared.client().get("/flow/1")) == {"id": 1}


@pytest.mark.parametrize(
    ("lasting", "calls", "retry_after"),
    [
        (Response("", 500), 2, None),
        (Response("<html>"), 2, None),
        (Response("", 429), 1, None),
        (Response("", 429, {"Retry-After": "17"}), 1, 17.0),
        (Response("", 503, {"Retry-After": "17"}), 1, 17.0),
        (Response("", 302, {"Location": "/v1/other"}), 1, None),
        (Response("", 400), 1, None),
    ],
    ids=["500", "html", "429", "429 17", "503 17", "302", "400"],
)
def test_what_lasts_waits_for_later(lasting: Response, calls: int, retry_after: float | None) -> None:
    with platform(Play({"/v1/flow/1": [lasting]})) as (shared, server):
        with pytest.raises(SourceUnavailable) as caught:
            shared.client().get("/flow/1")
        assert not isinstance(caught.value, SourceRefused)
        assert caught.value.retry_after == retry_after
        assert len(server.seen) == 1 + calls


def test_silence_is_tried_twice_and_then_waits_for_later() -> None:
    def hang(request: Request) -> Response:
        time.sleep(0.5)
        return Response("{}")

    with platform(Play({"/v1/flow/1": [hang]}), limits=Limits(read=0.1, cut=False)) as (shared, _):
        api = shared.client()
        with pytest.raises(SourceUnavailable, match="no answer in time"):
            api.get("/flow/1")
        assert [record.status for record in api.records[1:]] == [None, None]


def test_an_answer_beyond_the_limit_is_not_asked_for_twice() -> None:
    with platform(Play({"/v1/flow/1": [Response(b" " * 1001)]}), limits=Limits(body=1000, cut=False)) as (
        shared,
        server,
    ):
        with pytest.raises(SourceUnavailable, match="more than 1000 bytes"):
            shared.client().get("/flow/1")
        assert len(server.seen) == 2


def test_a_signed_address_is_fetched_as_it_is_and_without_credentials() -> None:
    with platform(Play({"/file": [{"rows": 2}]})) as (shared, server):
        api = shared.client()
        assert value(api.get(f"{server.url}/file?sig=secret%2B1&e=5")) == {"rows": 2}
        (seen,) = server.seen
        assert seen.query == "sig=secret%2B1&e=5"
        assert "authorization" not in seen.headers
        assert "x-api" not in seen.headers
        assert [record.call for record in api.records] == [f"GET {server.url}/file"]


def test_a_signed_address_goes_through_the_guard_too() -> None:
    with serving(Play()) as server:
        access = ApiAccess(base_url="https://api.example")
        shared = platform_of(Settings(name="s"), access, NetworkPolicy(), TokenCache(None), KeptAnswers())
        with pytest.raises(SourceUnavailable, match="allow_hosts"):
            shared.client().get(f"{server.url}/latest/meta-data")
        assert server.seen == []


@pytest.mark.parametrize("path", ["/flow/../admin", "/flow/%2e%2E", "../x"])
def test_an_id_cannot_climb_to_another_path(path: str) -> None:
    with platform(Play()) as (shared, server), pytest.raises(SourceUnavailable, match="climb"):
        shared.client().get(path)
    assert server.seen == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response("", 400), SourceRefused),
        (Response("", 401), SourceRefused),
        (Response("", 404), SourceRefused),
        (Response("", 500), SourceUnavailable),
        (Response("<html>"), SourceUnavailable),
        (Response("{}"), SourceUnavailable),
        (Response("[]"), SourceUnavailable),
        (Response('{"access_token":"t","expires_in":"soon"}'), SourceUnavailable),
    ],
    ids=["400", "401", "404", "500", "html", "empty", "list", "life"],
)
def test_a_token_endpoint_that_gives_none(answer: Response, error: type[SourceUnavailable]) -> None:
    with platform(Play(token_answer=answer)) as (shared, server):
        with pytest.raises(error) as caught:
            shared.client().get("/flow/1")
        assert "hush" not in str(caught.value)
        assert {seen.path for seen in server.seen} == {"/token"}


# --- answers that are kept --------------------------------------------------------------------------------------------


def counting(seconds: float = 0.0) -> Callable[[Request], Response]:
    count = iter(range(1, 1000))

    def answer(request: Request) -> Response:
        time.sleep(seconds)
        return Response(json.dumps({"n": next(count)}))

    return answer


def test_an_answer_is_kept_as_long_as_asked_and_shown_as_kept() -> None:
    with platform(Play({"/v1/flow/1": [counting()], "/v1/search": [counting()]})) as (shared, _):
        api = shared.client()
        assert [value(api.get("/flow/1", keep=0.5)) for _ in range(3)] == [{"n": 1}] * 3
        assert value(shared.client().get("/flow/1", keep=60)) == {"n": 1}
        assert value(api.get("/flow/1", {"page": "2"}, keep=60)) == {"n": 2}
        assert value(api.get("/flow/1")) == {"n": 3}
        time.sleep(0.55)
        assert value(api.get("/flow/1", keep=60)) == {"n": 4}
        assert [record.cached for record in api.records[1:]] == [False, True, True, False, False, False]
        assert value(api.post("/search", {"a": 1, "b": 2}, keep=60)) == {"n": 1}
        assert value(api.post("/search", {"b": 2, "a": 1}, keep=60)) == {"n": 1}
        assert value(api.post("/search", {"a": 2}, keep=60)) == {"n": 2}


def test_the_same_question_at_the_same_time_is_asked_once() -> None:
    with platform(Play({"/v1/flow/1": [counting(0.3)]})) as (shared, server):
        barrier = threading.Barrier(8)

        def ask(_: int) -> object:
            barrier.wait()
            return value(shared.client().get("/flow/1", keep=60))

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(8))) == [{"n": 1}] * 8
        assert [seen.path for seen in server.seen].count("/v1/flow/1") == 1


def test_neither_a_failure_nor_a_404_is_kept() -> None:
    answers = [Response("", 404), Response("", 400), {"id": 1}]
    with platform(Play({"/v1/flow/1": answers})) as (shared, _):
        api = shared.client()
        assert api.get("/flow/1", keep=60) is None
        with pytest.raises(SourceUnavailable):
            api.get("/flow/1", keep=60)
        assert value(api.get("/flow/1", keep=60)) == {"id": 1}


def test_what_is_kept_has_bounds() -> None:
    kept = KeptAnswers(max_entries=3, max_bytes=100)

    def ask(key: str, weight: int = 10) -> bool:
        return kept.get(key, 60, lambda: Kept(key, weight))[1]

    assert [ask(key) for key in "abc"] == [False] * 3
    assert ask("a")
    assert not ask("d")
    assert [ask(key) for key in "ad"] == [True] * 2
    assert not ask("b")
    assert not ask("heavy", 90)
    assert ask("b")
    assert not ask("too heavy", 101)
    assert not ask("too heavy", 101)
    assert ask("heavy", 90)


def test_a_client_is_what_enrichment_expects() -> None:
    with platform(Play()) as (shared, _):
        client: HttpSourceApi = shared.client()
        assert client.calls() == []


# --- politeness -------------------------------------------------------------------------------------------------------

WIDE = Rules(calls=100_000, span=60.0, concurrent=8)


def test_every_request_to_the_platform_waits_for_its_turn_and_a_signed_address_does_not() -> None:
    answers: dict[str, list[Any]] = {"/v1/flow/1": [Response("", 401), Response("", 500), {"id": 1}], "/file": [{}]}
    with platform(Play(answers), gate=Gate("turns", WIDE)) as (shared, server):
        shared.client().get("/flow/1")
        shared.client().get(f"{server.url}/file?sig=1")
        assert len(server.seen) == 6
    outcomes = {
        sample.labels["outcome"]: sample.value
        for metric in API_CALLS.collect()
        for sample in metric.samples
        if sample.labels["source"] == "turns" and sample.name.endswith("_total")
    }
    # Two tokens and the call that is good; the file is none of the platform's calls.
    assert outcomes == {"ok": 3, "refused": 1, "failed": 1}


def test_a_429_holds_all_calls_back_until_its_time_is_over() -> None:
    answers = [Response("", 429, {"Retry-After": "1"}), {"id": 1}]
    with platform(Play({"/v1/flow/1": answers}, guarded=False), token=False, gate=Gate("s", WIDE)) as (shared, server):
        with pytest.raises(SourceUnavailable, match="429") as caught:
            shared.client().get("/flow/1")
        assert caught.value.retry_after == 1.0
        began = time.monotonic()
        assert value(shared.client().get("/flow/1")) == {"id": 1}  # a short pause is waited for
        assert 0.8 < time.monotonic() - began < 1.5
        assert len(server.seen) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{epoch}"},
        {"RateLimit-Remaining": "0", "RateLimit-Reset": "30"},
        {"RateLimit": "limit=100, remaining=0, reset=30"},
        {"RateLimit": '"burst";r=12;t=1, "daily";r=0;t=30'},
        {
            "RateLimit-Remaining": "199",
            "RateLimit-Reset": "1",
            "X-RateLimit-Minute-Remaining": "0",
            "X-RateLimit-Minute-Reset": "30",
        },
    ],
    ids=["x", "epoch", "plain", "draft", "newer draft", "minute"],
)
def test_a_limit_that_the_platform_says_is_used_up_is_not_tried(headers: dict[str, str]) -> None:
    given = {name: text.replace("{epoch}", str(int(time.time()) + 30)) for name, text in headers.items()}
    with platform(
        Play({"/v1/flow/1": [Response("{}", 200, given)]}, guarded=False), token=False, gate=Gate("s", WIDE)
    ) as (
        shared,
        server,
    ):
        shared.client().get("/flow/1")
        with pytest.raises(SourceUnavailable, match="pause") as caught:
            shared.client().get("/flow/1")
        assert caught.value.retry_after == pytest.approx(30, abs=1.5)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"X-RateLimit-Remaining": "0"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"},
        {"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "30"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "864000"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"},
        {"X-RateLimit-Remaining": "nan", "X-RateLimit-Reset": "1e400"},
        {"RateLimit": '"remaining=0;reset=30"'},
        {"RateLimit": "limit=100"},
    ],
)
def test_headers_that_say_nothing_clear_stop_nobody(headers: dict[str, str]) -> None:
    with platform(
        Play({"/v1/flow/1": [Response("{}", 200, headers)]}, guarded=False), token=False, gate=Gate("s", WIDE)
    ) as (
        shared,
        server,
    ):
        shared.client().get("/flow/1")
        shared.client().get("/flow/1")
        assert len(server.seen) == 2


def test_an_api_that_goes_away_is_left_alone_and_found_again() -> None:
    rules = Rules(calls=100_000, span=60.0, concurrent=8, failures=4, first_pause=0.5)
    gate = Gate("s", rules)
    with platform(Play({"/v1/flow/1": [{"id": 1}]}, guarded=False), token=False, gate=gate) as (shared, server):
        assert value(shared.client().get("/flow/1")) == {"id": 1}
        port = server.port
    for _ in range(2):  # each tries twice
        with pytest.raises(SourceUnavailable, match=r"no connection|could not be sent"):
            shared.client().get("/flow/1")
    api = shared.client()
    began = time.monotonic()
    with pytest.raises(SourceUnavailable, match="left alone") as caught:
        api.get("/flow/1")
    assert time.monotonic() - began < 0.1
    assert caught.value.retry_after is not None
    assert api.records == []
    time.sleep(0.55)
    with serving(Play({"/v1/flow/1": [{"id": 2}]}, guarded=False), port=port):
        assert value(shared.client().get("/flow/1")) == {"id": 2}
        assert value(shared.client().get("/flow/1")) == {"id": 2}


def test_an_export_file_may_be_longer_than_an_answer() -> None:
    long = json.dumps({"rows": ["x" * 1000] * 9000})
    with platform(Play({"/file": [Response(long)], "/v1/flow/1": [Response(long)]}, guarded=False), token=False) as (
        shared,
        server,
    ):
        with pytest.raises(SourceUnavailable, match="more than 8388608 bytes"):
            shared.client().get("/flow/1")
        found = value(shared.client().get(f"{server.url}/file"))
        assert isinstance(found, dict)
        assert len(found["rows"]) == 9000


def test_neither_a_key_in_an_address_nor_credentials_are_shown() -> None:
    token = TokenRequest(url="http://127.0.0.1:9/token?key=hush", form={"client_secret": "hush"})
    access = ApiAccess(base_url="http://127.0.0.1:9/v1", headers={"x-api-key": "hush"}, token=token)
    shared = platform_of(Settings(name="s"), access, LOCAL, TokenCache(None), KeptAnswers(), gate=Gate("s", WIDE))
    api = shared.client()
    with pytest.raises(SourceUnavailable) as caught:
        api.get("/flow/1?key=hush", keep=60)
    shown = [
        repr(shared),
        repr(api),
        repr(shared.client),
        str(caught.value),
        repr(caught.value),
        json.dumps(api.calls()),
    ]
    assert not [text for text in shown if "hush" in text]
    assert api.calls()[0]["call"] == "POST http://127.0.0.1:9/token"


def test_other_credentials_are_another_budget_and_another_memory() -> None:
    token = TokenRequest(url="https://a.example/token", form={"client_id": "a", "client_secret": "hush"})
    base = ApiAccess(base_url="https://a.example", headers={"x-api-key": "k"}, token=token)
    others = [
        ApiAccess(base_url="https://b.example", headers={"x-api-key": "k"}, token=token),
        ApiAccess(base_url="https://a.example", headers={"x-api-key": "l"}, token=token),
        ApiAccess(base_url="https://a.example", headers={"x-api-key": "k"}),
    ]
    assert len({credential_of(access) for access in (base, *others)}) == 4
    assert credential_of(base) == credential_of(
        ApiAccess(base_url="https://a.example", headers={"x-api-key": "k"}, token=token)
    )
