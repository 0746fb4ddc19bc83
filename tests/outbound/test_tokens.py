"""One token for all workers, whatever Redis does. Against a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import serving
from valkeys import Valkey
from werkzeug.wrappers import Request, Response

from bridge.core.errors import SourceUnavailable
from bridge.core.source import TokenRequest
from bridge.outbound.tokens import Token, TokenCache

REQUEST = TokenRequest(url="https://auth.example/token", form={"client_id": "a", "client_secret": "hush"})


class Endpoint:
    """A token endpoint that takes its time and counts."""

    def __init__(self, seconds: float = 0.0, expires_in: float = 3600.0) -> None:
        self.count = 0
        self._seconds = seconds
        self._expires_in = expires_in
        self._lock = threading.Lock()

    def __call__(self) -> Token:
        time.sleep(self._seconds)
        with self._lock:
            self.count += 1
            return Token(value=f"token-{self.count}", expires_in=self._expires_in)


def at_once(caches: list[TokenCache], fetch: Callable[[], Token]) -> set[str]:
    barrier = threading.Barrier(len(caches))

    def ask(cache: TokenCache) -> str:
        barrier.wait()
        return cache.get("wiseflow", REQUEST, fetch)

    with ThreadPoolExecutor(len(caches)) as pool:
        return set(pool.map(ask, caches))


def test_eight_workers_that_start_at_once_fetch_one_token(valkey: Valkey) -> None:
    endpoint = Endpoint(seconds=0.2)
    assert at_once([TokenCache(valkey.client()) for _ in range(8)], endpoint) == {"token-1"}
    assert endpoint.count == 1


def test_the_threads_of_one_worker_fetch_one_token_without_redis() -> None:
    endpoint = Endpoint(seconds=0.1)
    assert at_once([TokenCache(None)] * 8, endpoint) == {"token-1"}
    assert endpoint.count == 1


WORKER = """
import sys
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from bridge.core.settings import Settings
from bridge.core.source import ApiAccess, TokenRequest
from bridge.outbound.budget import Rules
from bridge.outbound.gate import Gate
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.shared_answers import SharedAnswers
from bridge.outbound.shared_server import SharedServer
from bridge.outbound.source_api import credential_of, platform_of
from bridge.outbound.tokens import TokenCache

redis = Redis(unix_socket_path=sys.argv[1], socket_timeout=2, retry=Retry(NoBackoff(), 0))
token = TokenRequest(url=sys.argv[2] + "/token?key=hush", form={"client_secret": "hush"})
access = ApiAccess(base_url=sys.argv[2] + "/v1", token=token)
server = SharedServer(lambda: redis)
platform = platform_of(
    Settings(name="wiseflow-main"),
    access,
    NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"})),
    TokenCache(redis),
    KeptAnswers(shared=SharedAnswers(server)),
    gate=Gate("s", Rules(calls=5000, span=60, concurrent=16), server=server, credential=credential_of(access)),
)
print("ready", flush=True)
for path in sys.stdin:
    client = platform.client()
    answer = client.get(path.strip(), keep=60)
    print(None if answer is None else answer.value["n"], [record.status for record in client.records], flush=True)
"""


class Workers:
    """Worker processes with everything that they share, each asking at a word."""

    def __init__(self, count: int, socket: Path, url: str) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(socket), url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        assert self._said() == ["ready\n"] * count

    def ask(self, path: str) -> list[str]:
        """All at once; {worker} in the path is another number for each."""
        for number, process in enumerate(self._processes):
            assert process.stdin is not None
            process.stdin.write(f"{path.format(worker=number)}\n")
            process.stdin.flush()
        return [line.strip() for line in self._said()]

    def close(self) -> None:
        for process in self._processes:
            process.communicate(timeout=20)

    def _said(self) -> list[str]:
        return [process.stdout.readline() for process in self._processes if process.stdout is not None]


def test_eight_processes_that_start_at_once_fetch_one_token_and_ask_once(valkey: Valkey) -> None:
    good = {"t1"}
    asked = iter(range(1, 100))

    def slowly(request: Request) -> Response:
        time.sleep(0.3)
        if request.path == "/token":
            return Response(f'{{"access_token": "t{len(good)}", "expires_in": 600}}')
        if request.headers["Authorization"].removeprefix("Bearer ") not in good:
            return Response("{}", 401)
        return Response(f'{{"n": {next(asked)}}}', 404 if "missing" in request.path else 200)

    with serving(slowly) as server:
        workers = Workers(8, valkey.socket, server.url)
        try:
            assert {answer.split()[0] for answer in workers.ask("/flow/1")} == {"1"}
            assert [seen.path for seen in server.seen] == ["/token", "/v1/flow/1"]
            # The token dies, and all learn it at once.
            good.clear()
            good.update({"t2", "other"})
            server.seen.clear()
            workers.ask("/users/{worker}")
            paths = [seen.path for seen in server.seen]
            assert paths.count("/token") == 1
            assert sorted(set(paths) - {"/token"}) == [f"/v1/users/{number}" for number in range(8)]
            server.seen.clear()
            assert {answer.split()[0] for answer in workers.ask("/missing")} == {"None"}
            assert len(server.seen) == 1
            server.seen.clear()
            workers.ask("/missing")
            assert len(server.seen) == 1  # shared by those who asked at once, and not kept
        finally:
            workers.close()


@pytest.mark.parametrize(
    ("expires_in", "at_least", "at_most"), [(3600, 3530, 3540), (62, 1, 5), (30, 4, 5), (-1, 4, 5)]
)
def test_a_token_is_given_up_a_minute_before_its_end(
    valkey: Valkey, expires_in: float, at_least: int, at_most: int
) -> None:
    TokenCache(valkey.client()).get("wiseflow", REQUEST, Endpoint(expires_in=expires_in))
    client = valkey.client()
    (key,) = client.keys("bridge:token:*")
    assert at_least <= client.pttl(key) / 1000 <= at_most


@pytest.mark.parametrize("expires_in", [1e20, 9e15])
def test_a_token_that_is_said_to_live_for_ages_is_shared_all_the_same(valkey: Valkey, expires_in: float) -> None:
    endpoint = Endpoint(expires_in=expires_in)
    other = Endpoint(expires_in=expires_in)
    assert TokenCache(valkey.client()).get("wiseflow", REQUEST, endpoint) == "token-1"
    assert TokenCache(valkey.client()).get("wiseflow", REQUEST, other) == "token-1"
    assert (endpoint.count, other.count) == (1, 0)


def test_redis_holds_no_credentials(valkey: Valkey) -> None:
    TokenCache(valkey.client()).get("wiseflow", REQUEST, Endpoint())
    client = valkey.client()
    keys = client.keys("*")
    assert len(keys) == 1
    assert not any(b"hush" in part for key in keys for part in (key, client.get(key) or b""))


def test_other_credentials_mean_another_token(valkey: Valkey) -> None:
    endpoint = Endpoint()
    cache = TokenCache(valkey.client())
    other = TokenRequest(url=REQUEST.url, form={"client_id": "a", "client_secret": "new"})
    given = [cache.get("a", REQUEST, endpoint), cache.get("a", other, endpoint), cache.get("b", REQUEST, endpoint)]
    assert given == ["token-1", "token-2", "token-3"]


def test_a_refused_token_is_fetched_anew_once_for_all_workers(valkey: Valkey) -> None:
    endpoint = Endpoint()
    first, second = TokenCache(valkey.client()), TokenCache(valkey.client())
    old = first.get("s", REQUEST, endpoint)
    assert second.get("s", REQUEST, endpoint) == old
    first.drop("s", REQUEST, old)
    assert first.get("s", REQUEST, endpoint) == "token-2"
    # The second worker still holds the old one. Dropping it must not drop the new one.
    second.drop("s", REQUEST, old)
    assert second.get("s", REQUEST, endpoint) == "token-2"
    assert endpoint.count == 2


def test_a_fetch_that_fails_leaves_no_lock_behind(valkey: Valkey) -> None:
    def failing() -> Token:
        raise SourceUnavailable("HTTP 503")

    cache = TokenCache(valkey.client())
    with pytest.raises(SourceUnavailable):
        cache.get("s", REQUEST, failing)
    began = time.monotonic()
    assert TokenCache(valkey.client()).get("s", REQUEST, Endpoint()) == "token-1"
    assert time.monotonic() - began < 0.5


def test_a_worker_that_dies_with_the_lock_holds_the_others_up_only_for_a_while(valkey: Valkey) -> None:
    endpoint = Endpoint()
    client = valkey.client()
    TokenCache(client).get("s", REQUEST, endpoint)
    (key,) = client.keys("*")
    client.delete(key)
    client.set(f"{key.decode()}:lock", "dead", px=60_000)
    began = time.monotonic()
    assert TokenCache(client, fetch_seconds=1).get("s", REQUEST, endpoint) == "token-2"
    assert 0.9 < time.monotonic() - began < 3


def test_without_redis_every_worker_has_its_own_token_and_nobody_fails(valkey: Valkey) -> None:
    endpoint = Endpoint()
    first, second = TokenCache(valkey.client()), TokenCache(valkey.client())
    valkey.stop()
    began = time.monotonic()
    assert first.get("s", REQUEST, endpoint) == first.get("s", REQUEST, endpoint) == "token-1"
    assert second.get("s", REQUEST, endpoint) == "token-2"
    first.drop("s", REQUEST, "token-1")
    assert first.get("s", REQUEST, endpoint) == "token-3"
    assert time.monotonic() - began < 2


def test_a_redis_that_comes_back_is_used_again(valkey: Valkey) -> None:
    endpoint = Endpoint()
    cache = TokenCache(valkey.client(), redis_pause=0.1)
    valkey.stop()
    old = cache.get("s", REQUEST, endpoint)
    valkey.start()
    time.sleep(0.15)
    cache.drop("s", REQUEST, old)
    new = cache.get("s", REQUEST, endpoint)
    assert TokenCache(valkey.client()).get("s", REQUEST, endpoint) == new == "token-2"


def test_a_redis_killed_while_workers_wait_for_a_token_makes_them_fetch_their_own(valkey: Valkey) -> None:
    endpoint = Endpoint(seconds=0.4)
    caches = [TokenCache(valkey.client()) for _ in range(4)]
    killer = threading.Timer(0.15, valkey.stop)
    killer.start()
    assert len(at_once(caches, endpoint)) == 4
    killer.join()
    assert endpoint.count == 4
