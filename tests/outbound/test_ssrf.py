"""The corpus of attempts, in saving and in sending, for targets, source APIs and token URLs alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from loopback import Server, serving
from ssrf_corpus import CORPUS, Attempt
from werkzeug.wrappers import Request as Incoming
from werkzeug.wrappers import Response

from bridge.config.configuration import read_configuration
from bridge.core.errors import BridgeError, DestinationForbidden, SourceUnavailable, TargetError
from bridge.core.settings import Settings
from bridge.core.source import ApiAccess, TokenRequest
from bridge.core.target import Request
from bridge.flow.judge import NoAnswer
from bridge.flow.network import check_destination
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy, Resolve, checked_addresses, system_resolve
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.session import GuardedSession, Limits
from bridge.outbound.source_api import platform_of
from bridge.outbound.target import target_sender
from bridge.outbound.tokens import TokenCache

STRICT = NetworkPolicy()
QUICK = Limits(connect=0.3, read=2.0, total=3.0)
REGISTRY = registry()

Way = Callable[[str, NetworkPolicy, Resolve], object]


def by_session(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    return GuardedSession(policy, QUICK, resolve=resolve).send(Request(method="POST", url=url, body=b"{}"))


def by_target(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    send = target_sender(Settings(name="crm", options={"timeout": 2.0}), policy, resolve=resolve)
    return send(Request(method="POST", url=url, body=b"{}"))


def by_target_token(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    """The address under attack is that of the token endpoint; the target itself is one that may be called."""
    auth = {"kind": "oauth2_client_credentials", "token_url": url, "client_id": "a", "client_secret": "hush"}
    allowed = replace(policy, allow_hosts=policy.allow_hosts | {"target.example"})
    target = "http://target.example:1/"
    send = target_sender(Settings(name="crm", options={"auth": auth, "timeout": 2.0}), allowed, resolve=resolve)
    try:
        return send(Request(method="POST", url=target, body=b"{}"))
    except NoAnswer as silence:
        # A token was fetched, and nobody listens at the target.
        if "target.example" in silence.reason:
            return silence
        raise


def by_source(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    access = ApiAccess(base_url=url.rstrip("/"))
    return _asked(access, policy, resolve)


def by_source_token(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    token = TokenRequest(url=url, form={"secret": "hush"})
    access = ApiAccess(base_url="http://platform.example:1", token=token)
    allowed = replace(policy, allow_hosts=policy.allow_hosts | {"platform.example"})
    return _asked(access, allowed, resolve)


def by_link(url: str, policy: NetworkPolicy, resolve: Resolve) -> object:
    """An address that a platform's answer gave us."""
    access = ApiAccess(base_url="http://platform.example:1")
    return _asked(access, policy, resolve, path=url)


def _asked(access: ApiAccess, policy: NetworkPolicy, resolve: Resolve, path: str = "/flow/1") -> object:
    platform = platform_of(
        Settings(name="exams"), access, policy, TokenCache(None), KeptAnswers(), limits=QUICK, resolve=resolve
    )
    try:
        return replace(platform, pause=0.0).client().get(path)
    except SourceUnavailable as error:
        if "platform.example" in error.reason:
            return error  # the token was fetched
        raise


REFUSED = "leads to|is called on port|the URL must|the URL cannot"
WAYS: list[Way] = [by_session, by_target, by_target_token, by_source, by_source_token]


@pytest.fixture(scope="module")
def inner() -> Iterator[Server]:
    with serving(lambda request: Response(json.dumps({"access_token": "t", "expires_in": 3600}))) as server:
        yield server


@pytest.fixture
def server(inner: Server) -> Server:
    """A server that must not be reached, or that has a token for whoever reaches it."""
    inner.seen.clear()
    return inner


def stages(attempt: Attempt) -> int:
    return max(1, len(attempt.answers))


@pytest.mark.parametrize("attempt", CORPUS, ids=lambda attempt: ascii(attempt.url))
def test_no_attempt_reaches_anything_by_any_way(attempt: Attempt, server: Server) -> None:
    url = attempt.url_at(server.port)
    for way in WAYS:
        resolve = attempt.resolver()
        for _ in range(stages(attempt) - 1):
            with pytest.raises((DestinationForbidden, SourceUnavailable, NoAnswer)):
                way(url, STRICT, resolve)
        with pytest.raises((DestinationForbidden, SourceUnavailable), match=REFUSED):
            way(url, STRICT, resolve)
        assert server.seen == [], way


PERMITTED = [attempt for attempt in CORPUS if attempt.hosts or attempt.private]


@pytest.mark.parametrize(
    "attempt", [attempt for attempt in PERMITTED if attempt.reaches], ids=lambda attempt: ascii(attempt.url)
)
def test_the_right_permission_lets_it_through_by_every_way(attempt: Attempt, server: Server) -> None:
    policy = attempt.permission_at(server.port)
    assert policy is not None
    for count, way in enumerate(WAYS, 1):
        resolve = attempt.resolver()
        for _ in range(stages(attempt) - 1):
            resolve("", 0)
        way(attempt.url_at(server.port), policy, resolve)
        assert len(server.seen) == count, way


@pytest.mark.parametrize(
    "attempt", [attempt for attempt in PERMITTED if not attempt.reaches], ids=lambda attempt: ascii(attempt.url)
)
def test_the_guard_opens_with_the_right_permission_where_no_server_is(attempt: Attempt) -> None:
    policy = attempt.permission_at(8080)
    assert policy is not None
    host, port = check_destination(attempt.url_at(8080), policy)
    answer = attempt.answers[-1] if attempt.answers else system_resolve("127.0.0.1" if "crm" in host else host, port)
    assert checked_addresses(host, port, policy, lambda host, port: answer) == answer


@pytest.mark.parametrize("attempt", [attempt for attempt in CORPUS if attempt.hosts and not attempt.private])
def test_private_networks_open_nothing_but_private_networks(attempt: Attempt, server: Server) -> None:
    policy = NetworkPolicy(allow_private=True)
    with pytest.raises((DestinationForbidden, TargetError)):
        by_session(attempt.url_at(server.port), policy, lambda host, port: attempt.answers[-1])
    assert server.seen == []


def test_a_name_is_looked_up_once_for_a_connection_so_that_there_is_nothing_between_check_and_use(
    server: Server,
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    policy = NetworkPolicy(allow_hosts=frozenset({"crm.example"}))
    by_session(f"http://crm.example:{server.port}/", policy, resolve)
    assert asked == ["crm.example"]
    assert len(server.seen) == 1


@pytest.mark.parametrize("way", [*WAYS, by_link])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_not_even_to_where_calls_may_go(way: Way, status: int, server: Server) -> None:
    target = f"{server.url}/inner"

    def away(request: Incoming) -> Response:
        return Response("{}", status, {"Location": target, "Refresh": f"0; url={target}"})

    with serving(away) as outer:
        policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))
        with suppress(BridgeError):
            way(outer.url, policy, lambda host, port: ["127.0.0.1"])
        assert len(outer.seen) >= 1
    assert server.seen == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{port}/export", "HTTP://2130706433:{port}/export", "http://evil.example:{port}/"]
)
def test_a_link_in_a_platforms_answer_leads_nowhere_else(url: str, server: Server) -> None:
    with pytest.raises(SourceUnavailable, match="network"):
        by_link(url.replace("{port}", str(server.port)), STRICT, lambda host, port: ["127.0.0.1"])
    assert server.seen == []


# --- saving -----------------------------------------------------------------------------------------------------------

SETTINGS = {
    "sources.exams.api.base_url": """\
sources: {{exams: {{connector: wiseflow, secrets: ["${{S}}"], api: {{base_url: {url}, api_key: "${{S}}"}}}}}}
""",
    "targets.crm.base_url": """\
sources: {{exams: {{connector: wiseflow, secrets: ["${{S}}"]}}}}
targets: {{crm: {{connector: http, base_url: {url}}}}}
""",
    "targets.crm.auth.token_url": """\
sources: {{exams: {{connector: wiseflow, secrets: ["${{S}}"]}}}}
targets:
  crm:
    connector: http
    base_url: https://crm.example
    auth: {{kind: oauth2_client_credentials, client_id: a, client_secret: "${{S}}", token_url: {url}}}
""",
}


def saved(folder: Path, place: str, url: str, policy: NetworkPolicy) -> list[tuple[int | None, str, str]]:
    """Line, place and text of every problem of a bridge.yaml with a URL at a place."""
    network = {"allow_hosts": sorted(policy.allow_hosts), "allow_private": policy.allow_private}
    text = "version: 1\n" + SETTINGS[place].format(url=json.dumps(url)) + f"network: {json.dumps(network)}\n"
    (folder / "bridge.yaml").write_text(text, "utf-8")
    reading = read_configuration(
        folder / "bridge.yaml",
        sources=REGISTRY.sources,
        targets=REGISTRY.targets,
        environ={"S": "a-long-enough-secret"},
    )
    return [(problem.line, problem.where, f"{problem.message} {problem.hint}") for problem in reading.problems]


@pytest.mark.parametrize("attempt", CORPUS, ids=lambda attempt: ascii(attempt.url))
def test_what_is_plainly_forbidden_cannot_be_saved_at_any_place(attempt: Attempt, tmp_path: Path) -> None:
    for place in SETTINGS:
        problems = saved(tmp_path, place, attempt.url_at(8080), STRICT)
        if attempt.refused == "connecting":
            assert problems == []  # names are not looked up
            continue
        assert {where for _, where, _ in problems} == {place}
        assert all(line is not None for line, _, _ in problems)
        permission = attempt.permission_at(8080)
        if permission is not None:
            # The connector's own pattern may be stricter: only small letters, no #.
            assert "network.allow_" in problems[0][2] or "expected form" in problems[0][2]
            left = saved(tmp_path, place, attempt.url_at(8080), permission)
            assert left == [] or all("expected form" in text for _, _, text in left)
