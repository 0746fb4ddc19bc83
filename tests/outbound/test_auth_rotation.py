"""A refresh token that is good once: its successor is safe before anything is done with it, whatever happens."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import select, text, update
from token_server import LOCAL, Platform, as_json, form_of, settings
from valkeys import Valkey

from bridge.core.errors import CredentialsRefused, TargetError
from bridge.core.target import Answer, Request
from bridge.flow.judge import NotSent
from bridge.ledger.database import Ledger
from bridge.ledger.tables import credentials
from bridge.outbound.login import Login
from bridge.outbound.oauth import Granted, TokenEndpointAway
from bridge.outbound.rotation import Rotation
from bridge.outbound.session import GuardedSession
from bridge.outbound.target import send_logged_in, target_sender
from bridge.outbound.tokens import TokenCache
from bridge.testing.answering import Asked, Reply

WORKER = """
import json, sys
from bridge.core.settings import Settings
from bridge.core.target import Request
from bridge.ledger.database import Ledger
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender

policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))
ledger = Ledger(sys.argv[1])
options = {"auth": json.loads(sys.argv[2])}
print("ready", flush=True)
for url in sys.stdin:
    # A sender of its own each time: what a worker that has just started knows.
    send = target_sender(Settings(name="lms", options=options), policy, ledger=ledger)
    print(send(Request(method="POST", url=url.strip(), body=b"{}")).status, flush=True)
"""


class SingleUse:
    """Brightspace's way: every answer has the next refresh token, and none is good twice."""

    def __init__(self, *seeds: str) -> None:
        self.good = set(seeds or ("seed",))
        self.used: list[str] = []
        self.before_answer: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def __call__(self, number: int, asked: Asked) -> Reply:
        given = form_of(asked)["refresh_token"]
        with self._lock:
            if given not in self.good:
                return as_json({"error": "invalid_grant"}, 400)
            self.good = (self.good - {given}) | {f"r{number}"}
            self.used.append(given)
        self.before_answer()
        return as_json({"access_token": f"t{number}", "refresh_token": f"r{number}", "expires_in": 3600})


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform(SingleUse())
    yield made
    made.close()


@pytest.fixture
def rules(platform: Platform) -> SingleUse:
    assert isinstance(platform.grant, SingleUse)
    return platform.grant


def auth_of(platform: Platform, seed: str = "seed", **more: Any) -> dict[str, Any]:
    return platform.auth("oauth2_refresh_token", client_secret="hush", refresh_token=seed, rotating=True, **more)


def a_worker(
    platform: Platform, ledger: Ledger, seed: str = "seed", redis: Redis | None = None
) -> Callable[[Request], Answer]:
    """One that has just started."""
    session, auth = GuardedSession(LOCAL), auth_of(platform, seed)
    rotation = Rotation(ledger, auth, writes=(0.0,))
    login = Login(auth, session, TokenCache(redis), rotation, refused_pause=0.0, away_pause=0.0, renewed_after=0.0)
    return lambda request: send_logged_in(session, login, request)


def url_of(ledger: Ledger) -> str:
    return ledger.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")


def rows(ledger: Ledger) -> list[Any]:
    with ledger.read() as connection:
        return list(connection.execute(select(credentials).order_by(credentials.c.updated_ms)))


def processes(platform: Platform, ledger: Ledger, count: int, seed: str = "seed") -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, url_of(ledger), json.dumps(auth_of(platform, seed))]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    assert [said(process) for process in started] == ["ready"] * count
    return started


def ask(process: subprocess.Popen[str], platform: Platform) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{platform.url}/api\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_every_worker_that_starts_uses_the_successor_of_the_last_token(
    platform: Platform, rules: SingleUse, ledger: Ledger
) -> None:
    for _ in range(3):
        assert a_worker(platform, ledger)(platform.request()).status == 200
    assert rules.used == ["seed", "r1", "r2"]
    assert platform.seen == ["Bearer t1", "Bearer t2", "Bearer t3"]


def test_the_successor_is_safe_before_the_access_token_is_used(platform: Platform, ledger: Ledger) -> None:
    """The API looks, when it is called, what a worker that starts at this moment would use."""
    found: list[str] = []
    send = a_worker(platform, ledger)

    platform.calls = LookingList(
        lambda: Rotation(ledger, auth_of(platform)).exchanged(lambda token: noted(found, token))
    )
    assert send(platform.request()).status == 200
    assert found == ["r1"]


class LookingList(list[Asked]):
    """Does something whenever a call comes in."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__()
        self._look = look

    def append(self, asked: Asked) -> None:
        self._look()
        super().append(asked)


def noted(found: list[str], token: str) -> Granted:
    found.append(token)
    return Granted(access_token="none", expires_in=1)


def test_processes_take_turns_and_none_uses_a_token_twice(platform: Platform, rules: SingleUse, ledger: Ledger) -> None:
    workers = processes(platform, ledger, 2)
    try:
        for _ in range(5):
            for worker in workers:
                ask(worker, platform)
            assert [said(worker) for worker in workers] == ["200", "200"]
    finally:
        for worker in workers:
            worker.communicate(timeout=20)
    assert len(rules.used) == len(set(rules.used)) == 10
    assert len(platform.tokens) == 10


def test_workers_with_redis_exchange_once_for_all(
    platform: Platform, rules: SingleUse, ledger: Ledger, valkey: Valkey
) -> None:
    workers = [a_worker(platform, ledger, redis=valkey.client()) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda send: send(platform.request()).status, workers)) == [200] * 6
    assert rules.used == ["seed"]


def test_a_worker_that_dies_after_the_answer_was_made_leaves_a_clear_word(
    platform: Platform, rules: SingleUse, ledger: Ledger
) -> None:
    """The platform has taken the token and nobody has its successor: a person has to authorise anew."""
    (worker,) = processes(platform, ledger, 1)
    rules.before_answer = worker.kill
    ask(worker, platform)
    worker.wait(timeout=20)
    worker.communicate()
    rules.before_answer = lambda: None
    with ledger.write() as connection:  # its claim runs out in a minute
        assert connection.execute(update(credentials).where(credentials.c.owner != "").values(until_ms=1)).rowcount == 1
    with pytest.raises(CredentialsRefused, match="invalid_grant: check refresh_token"):
        a_worker(platform, ledger)(platform.request())
    rules.good.add("second")
    assert a_worker(platform, ledger, "second")(platform.request()).status == 200


def test_a_claim_of_a_worker_that_is_at_it_is_waited_for_and_then_tried_again_later(
    platform: Platform, ledger: Ledger
) -> None:
    first, second = (Rotation(ledger, auth_of(platform), patience=0.3) for _ in range(2))

    def slow(_token: str) -> Granted:
        with pytest.raises(TokenEndpointAway, match="another worker is exchanging"):
            second.exchanged(lambda token: pytest.fail("both at once"))
        return Granted(access_token="t", expires_in=1, refresh_token="next")

    assert first.exchanged(slow).refresh_token == "next"
    used: list[str] = []
    second.exchanged(lambda token: noted(used, token))
    assert used == ["next"]


def expire_all_claims(ledger: Ledger) -> None:
    with ledger.write() as connection:
        connection.execute(update(credentials).values(until_ms=1))


def test_who_lost_the_race_takes_what_the_winner_has_kept(ledger: Ledger, platform: Platform) -> None:
    """A worker that slept through its claim comes back with a token that another has used meanwhile."""
    slow, quick = (Rotation(ledger, auth_of(platform)) for _ in range(2))
    asked: list[str] = []

    def late(token: str) -> Granted:
        asked.append(token)
        if len(asked) == 1:
            expire_all_claims(ledger)
            quick.exchanged(lambda _: Granted(access_token="q", expires_in=1, refresh_token="of-quick"))
            raise CredentialsRefused("invalid_grant")
        return Granted(access_token="s", expires_in=1, refresh_token="of-slow")

    assert slow.exchanged(late).access_token == "s"
    assert asked == ["seed", "of-quick"]


def test_an_answer_that_came_too_late_is_not_written_over_a_newer_one(ledger: Ledger, platform: Platform) -> None:
    """A platform that lets a token be used twice for a moment gives two successors."""
    slow, quick = (Rotation(ledger, auth_of(platform)) for _ in range(2))
    asked: list[str] = []

    def late(token: str) -> Granted:
        asked.append(token)
        if len(asked) == 1:
            expire_all_claims(ledger)
            quick.exchanged(lambda _: Granted(access_token="q", expires_in=1, refresh_token="of-quick"))
        return Granted(access_token=f"s{len(asked)}", expires_in=1, refresh_token=f"of-slow-{len(asked)}")

    assert slow.exchanged(late).access_token == "s2"
    assert asked == ["seed", "of-quick"]


def test_a_successor_that_cannot_be_written_waits_and_its_access_token_is_not_used(
    platform: Platform, rules: SingleUse, ledger: Ledger
) -> None:
    def break_ledger() -> None:
        with ledger.write() as connection:
            connection.execute(text("alter table credentials rename to away"))

    send = a_worker(platform, ledger)
    rules.before_answer = break_ledger
    with pytest.raises(NotSent, match="cannot be kept safe now") as caught:
        send(platform.request())
    assert "r1" not in str(caught.value)
    assert platform.calls == []
    with pytest.raises(NotSent, match="cannot be kept safe now"):  # nobody is asked while nothing can be kept
        send(platform.request())
    assert rules.used == ["seed"]

    rules.before_answer = lambda: None
    with ledger.write() as connection:
        connection.execute(text("alter table away rename to credentials"))
    expire_all_claims(ledger)
    assert send(platform.request()).status == 200
    assert rules.used == ["seed", "r1"]


def test_a_new_seed_begins_anew_and_the_old_one_goes_on_where_it_was(
    platform: Platform, rules: SingleUse, ledger: Ledger
) -> None:
    """While a new configuration is rolled out, workers with the old one may not take the chain away from it."""
    rules.good.add("second")
    for seed in ("seed", "second", "second", "seed", "second"):
        assert a_worker(platform, ledger, seed)(platform.request()).status == 200
    assert rules.used == ["seed", "second", "r2", "r1", "r3"]


def test_an_answer_without_a_successor_leaves_the_token_as_it_is(platform: Platform, ledger: Ledger) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": f"t{number}", "expires_in": 60})
    for _ in range(2):
        assert a_worker(platform, ledger)(platform.request()).status == 200
    assert [form_of(asked)["refresh_token"] for asked in platform.tokens] == ["seed", "seed"]


def test_a_refused_access_token_is_renewed_with_the_next_refresh_token(
    platform: Platform, rules: SingleUse, ledger: Ledger
) -> None:
    send = a_worker(platform, ledger)
    assert send(platform.request()).status == 200
    platform.dead.add("t1")
    assert send(platform.request()).status == 200
    assert rules.used == ["seed", "r1"]


def test_nothing_in_the_ledger_can_be_used_without_the_settings(platform: Platform, ledger: Ledger) -> None:
    for _ in range(2):
        assert a_worker(platform, ledger)(platform.request()).status == 200
    (row,) = rows(ledger)
    assert row.secret
    assert not {"seed", "r1", "r2", "hush", platform.url} & set(row)
    assert all(word not in str(tuple(row)) for word in ("seed", "hush", platform.url))
    assert (row.owner, row.until_ms) == ("", 0)
    assert row.updated_ms > 0


def test_a_row_that_cannot_be_read_is_a_matter_for_a_person(platform: Platform, ledger: Ledger) -> None:
    assert a_worker(platform, ledger)(platform.request()).status == 200
    with ledger.write() as connection:
        connection.execute(update(credentials).values(secret="hush"))
    with pytest.raises(CredentialsRefused, match="authorise anew"):
        a_worker(platform, ledger)(platform.request())


def test_rotation_without_a_ledger_is_a_mistake(platform: Platform, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="ledger"):
        target_sender(settings(auth_of(platform)), LOCAL)
