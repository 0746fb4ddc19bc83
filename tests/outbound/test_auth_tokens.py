"""One access token for all workers, renewed once when it is refused. Against a real server and a real Valkey."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from token_server import LOCAL, Platform, as_json, settings
from valkeys import Valkey

from bridge.core.errors import CredentialsRefused
from bridge.core.target import Answer, Request
from bridge.flow.judge import NotSent
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.login import Login
from bridge.outbound.oauth import TokenEndpointAway
from bridge.outbound.session import GuardedSession
from bridge.outbound.target import send_logged_in, target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.answering import Reply

Send = Callable[[Request], Answer]

WORKER = """
import json, sys
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from bridge.core.target import Request
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.login import Login
from bridge.outbound.session import GuardedSession
from bridge.outbound.target import send_logged_in
from bridge.outbound.tokens import TokenCache

redis = Redis(unix_socket_path=sys.argv[1], socket_timeout=2, retry=Retry(NoBackoff(), 0))
session = GuardedSession(NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"})))
login = Login(json.loads(sys.argv[2]), session, TokenCache(redis), renewed_after=0.5)
print("ready", flush=True)
for url in sys.stdin:
    print(send_logged_in(session, login, Request(method="POST", url=url.strip(), body=b"{}")).status, flush=True)
"""


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform()
    yield made
    made.close()


def slowly(seconds: float) -> Callable[[int, Any], Any]:
    def grant(number: int, _asked: Any) -> Any:
        time.sleep(seconds)
        return as_json({"access_token": f"t{number}", "expires_in": 3600})

    return grant


def sender(auth: dict[str, Any], redis: Redis | None = None, *, policy: NetworkPolicy = LOCAL, **more: Any) -> Send:
    """As target_sender makes one, with times that a test can wait for."""
    session = GuardedSession(policy)
    login = Login(auth, session, TokenCache(redis, redis_pause=0.1), **more)
    return lambda request: send_logged_in(session, login, request)


def at_once(platform: Platform, senders: list[Send]) -> list[int]:
    barrier = threading.Barrier(len(senders))

    def one(send: Send) -> int:
        barrier.wait()
        return send(platform.request()).status

    with ThreadPoolExecutor(len(senders)) as pool:
        return list(pool.map(one, senders))


def test_eight_threads_that_start_at_once_fetch_one_token(platform: Platform) -> None:
    platform.grant = slowly(0.2)
    assert at_once(platform, [target_sender(settings(platform.auth()), LOCAL)] * 8) == [200] * 8
    assert len(platform.tokens) == 1


def test_eight_workers_that_start_at_once_fetch_one_token(platform: Platform, valkey: Valkey) -> None:
    platform.grant = slowly(0.2)
    workers = [sender(platform.auth(), valkey.client()) for _ in range(8)]
    assert at_once(platform, workers) == [200] * 8
    assert len(platform.tokens) == 1
    assert platform.seen == ["Bearer t1"] * 8


def test_processes_fetch_one_token_and_renew_it_once(platform: Platform, valkey: Valkey) -> None:
    platform.grant = slowly(0.3)
    command = [sys.executable, "-c", WORKER, str(valkey.socket), json.dumps(platform.auth())]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    def all_say() -> list[str]:
        return [process.stdout.readline().strip() for process in processes if process.stdout is not None]

    def all_ask() -> list[str]:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{platform.url}/api\n")
            process.stdin.flush()
        return all_say()

    try:
        assert all_say() == ["ready"] * 4
        assert all_ask() == ["200"] * 4
        assert len(platform.tokens) == 1
        time.sleep(0.5)
        platform.dead.add("t1")
        assert all_ask() == ["200"] * 4
        assert len(platform.tokens) == 2
    finally:
        for process in processes:
            process.communicate(timeout=20)
    assert [process.returncode for process in processes] == [0] * 4


def test_a_token_that_dies_is_renewed_by_one_worker_for_all(platform: Platform, valkey: Valkey) -> None:
    workers = [sender(platform.auth(), valkey.client(), renewed_after=0.3) for _ in range(6)]
    assert at_once(platform, workers) == [200] * 6
    time.sleep(0.35)
    platform.dead.add("t1")
    platform.grant = slowly(0.1)
    assert at_once(platform, workers) == [200] * 6
    assert len(platform.tokens) == 2


def test_a_second_401_is_the_answer(platform: Platform) -> None:
    send = sender(platform.auth(), renewed_after=0.0)
    platform.dead.update({"t1", "t2"})
    assert send(platform.request()).status == 401
    assert platform.seen == ["Bearer t1", "Bearer t2"]
    assert len(platform.tokens) == 2


def test_a_401_with_a_young_token_is_about_something_else(platform: Platform) -> None:
    """Canvas answers 401 where a right is missing; Zoho gives no more than ten tokens in ten minutes."""
    platform.dead.add("t1")
    send = target_sender(settings(platform.auth()), LOCAL)
    assert [send(platform.request()).status for _ in range(3)] == [401] * 3
    assert platform.seen == ["Bearer t1"] * 3
    assert len(platform.tokens) == 1


def test_a_token_that_was_nearly_over_when_it_was_given_is_renewed_however_young(platform: Platform) -> None:
    """Blackboard gives the token that it has given already, with the life that it has left."""
    lives = {1: 1, 2: 3600}
    platform.grant = lambda number, asked: as_json({"access_token": f"t{number}", "expires_in": lives[number]})
    platform.dead.add("t1")
    send = target_sender(settings(platform.auth()), LOCAL)
    assert send(platform.request()).status == 401, "it may still live"
    time.sleep(1.05)
    assert send(platform.request()).status == 200
    assert platform.seen == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_the_same_token_again_is_not_tried_again(platform: Platform) -> None:
    """Blackboard gives the token that it has given already, with the life that it has left."""
    platform.grant = lambda number, asked: as_json({"access_token": "t1", "expires_in": 3000})
    platform.dead.add("t1")
    assert sender(platform.auth(), renewed_after=0.0)(platform.request()).status == 401
    assert platform.seen == ["Bearer t1"]


def test_the_message_is_the_same_when_it_is_sent_again(platform: Platform) -> None:
    platform.dead.add("t1")
    request = platform.request("/api/x?y=1", headers={"Idempotency-Key": "k"}, body=b'{"a":1}')
    assert sender(platform.auth(), renewed_after=0.0)(request).status == 200
    first, second = platform.calls
    assert (first.method, first.target, first.body) == (second.method, second.target, second.body)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == "k"


def test_a_token_is_used_until_a_minute_before_its_end(platform: Platform, valkey: Valkey) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": f"t{number}", "expires_in": "600"})
    assert sender(platform.auth(), valkey.client())(platform.request()).status == 200
    (key,) = valkey.client().keys("bridge:token:*")
    assert 535 < valkey.client().ttl(key) <= 540


@pytest.mark.parametrize(("more", "life"), [({}, 840), ({"token_seconds": 3600}, 3540)])
@pytest.mark.parametrize("said", [{}, {"expires_in": 0}, {"expires_in": None}, {"expires_in": "soon"}])
def test_a_token_that_does_not_say_how_long_it_lives(
    platform: Platform, valkey: Valkey, more: dict[str, Any], life: int, said: dict[str, Any]
) -> None:
    """Salesforce's answer has no expires_in."""
    platform.grant = lambda number, asked: as_json({"access_token": f"t{number}", **said})
    assert sender(platform.auth(**more), valkey.client())(platform.request()).status == 200
    (key,) = valkey.client().keys("bridge:token:*")
    assert life - 5 < valkey.client().ttl(key) <= life


def test_two_targets_with_one_login_share_its_token_and_two_logins_do_not(platform: Platform, valkey: Valkey) -> None:
    for auth in (platform.auth(), platform.auth(use_instance_url=False), platform.auth(client_secret="other")):
        assert sender(auth, valkey.client())(platform.request()).status == 200
    assert platform.seen == ["Bearer t1", "Bearer t1", "Bearer t2"]


def test_no_credential_of_ours_is_in_redis(platform: Platform, valkey: Valkey) -> None:
    assert sender(platform.auth(client_secret="hush-hush"), valkey.client())(platform.request()).status == 200
    client = valkey.client()
    for key in client.keys("*"):
        assert b"hush" not in key
        assert b"hush" not in client.get(key)


def test_without_redis_each_worker_fetches_its_own(platform: Platform, valkey: Valkey) -> None:
    workers = [sender(platform.auth(), valkey.client()) for _ in range(3)]
    valkey.stop()
    assert [worker(platform.request()).status for worker in workers for _ in range(3)] == [200] * 9
    assert len(platform.tokens) == 3


def test_redis_that_goes_away_in_between_is_not_noticed(platform: Platform, valkey: Valkey) -> None:
    send = sender(platform.auth(), valkey.client(), renewed_after=0.0)
    assert send(platform.request()).status == 200
    valkey.stop()
    assert send(platform.request()).status == 200
    platform.dead.add("t1")
    assert send(platform.request()).status == 200
    assert platform.seen == ["Bearer t1", "Bearer t1", "Bearer t1", "Bearer t2"]


def test_a_refusal_is_asked_about_again_after_a_while(platform: Platform) -> None:
    send = sender(platform.auth(), refused_pause=0.2, away_pause=0.1)
    platform.grant = lambda number, asked: as_json({"error": "invalid_client"}, 401)
    for _ in range(3):
        with pytest.raises(CredentialsRefused):
            send(platform.request())
    assert len(platform.tokens) == 1
    platform.grant = slowly(0)
    time.sleep(0.25)
    assert send(platform.request()).status == 200


def test_a_token_endpoint_says_itself_how_long_it_wants_to_be_left_alone(platform: Platform) -> None:
    send = sender(platform.auth(), away_pause=0.0)
    platform.grant = lambda number, asked: Reply(429, b"", {"Retry-After": "30"})
    with pytest.raises(TokenEndpointAway) as caught:
        send(platform.request())
    assert caught.value.retry_after == 30
    with pytest.raises(NotSent, match="429"):
        send(platform.request())
    assert len(platform.tokens) == 1


def test_eight_threads_find_out_once_that_the_credentials_are_refused(platform: Platform) -> None:
    platform.grant = lambda number, asked: as_json({"error": "invalid_client"}, 401)
    send = target_sender(settings(platform.auth()), LOCAL)
    barrier = threading.Barrier(8)

    def one(_number: int) -> str:
        barrier.wait()
        try:
            return str(send(platform.request()).status)
        except CredentialsRefused as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert len(platform.tokens) == 1


def test_no_secret_is_in_a_repr(platform: Platform, tmp_path: Path) -> None:
    login = Login(platform.auth(client_secret="hush"), GuardedSession(LOCAL), TokenCache(None))
    bearer = login.bearer()
    for value in (login, bearer, login.put_on(platform.request(), bearer), settings(platform.auth())):
        assert "hush" not in repr(value)
        assert "t1" not in repr(value)
