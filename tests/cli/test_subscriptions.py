"""`subscriptions` against simulated platforms that call the real hook while they are asked."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select
from structlog.testing import capture_logs
from werkzeug.serving import make_server

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.config.configuration import load_configuration
from bridge.engine.assembly import receiving
from bridge.engine.hints import Hints
from bridge.engine.shipper import Lanes
from bridge.engine.watch import Watching, watch_once
from bridge.ledger.alerts import Alert, keep
from bridge.ledger.database import Ledger
from bridge.ledger.tables import audit, deliveries_in
from bridge.main import registry, web_app
from bridge.testing.platform_server import PlatformServer, serve_platform
from bridge.web.app import WebParts, create_app
from bridge.web.health import Health
from bridge.web.hooks import Receiver
from bridge.web.keeping import in_ledger

SECRET = "a-secret-of-the-tests-4711"
OTHERS = "https://other.example.edu/in?key=somebody-elses-token"


def no_redis() -> Any:
    raise OSError("away")


@dataclass(slots=True, kw_only=True)
class Site:
    """A bridge.yaml with one source, its simulated platform, and the bridge's own hook on this machine."""

    folder: Path
    name: str
    port: int
    platform: Any
    api: PlatformServer
    entry: dict[str, Any]
    web: dict[str, Any] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def write(self, **changes: Any) -> None:
        document = {
            "version": 1,
            "sources": {self.name: self.entry | changes},
            "web": {"bind": f"127.0.0.1:{self.port}"} | self.web,
            "storage": {"redis": "redis://127.0.0.1:1/0"},
            "network": {"allow_hosts": ["127.0.0.1"]},
        }
        (self.folder / "bridge.yaml").write_text(json.dumps(document), "utf-8")

    def run(self, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(
            campusbridge,
            ["--config", str(self.folder / "bridge.yaml"), *arguments],
            obj=Context(registry=registry(), web_app=web_app),
            input=input,
        )

    def json(self, *arguments: str) -> Any:
        result = self.run("subscriptions", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/{self.name}"

    def ledger(self) -> Ledger:
        known = registry()
        configuration = load_configuration(self.folder / "bridge.yaml", sources=known.sources, targets=known.targets)
        opened = Ledger(configuration.storage.database)
        self.stack.callback(opened.close)
        opened.upgrade()
        return opened

    def serve(self) -> None:
        """The bridge's web process, from here on until the end of the test."""
        known = registry()
        configuration = load_configuration(self.folder / "bridge.yaml", sources=known.sources, targets=known.targets)
        sources, ledger = receiving(configuration, known), self.ledger()
        app = create_app(
            WebParts(
                receiver=Receiver(
                    sources=sources, keep=in_ledger(lambda: ledger, Lanes(sources=sources), Hints(no_redis))
                ),
                health=Health(
                    journal=self.folder / "journal",
                    accept="ledger",
                    ledger=lambda: ledger,
                    ping_redis=lambda: None,
                    mapping_problems=lambda: [],
                ),
                ledger=lambda: ledger,
                console="off",
                max_body_bytes=300_000,
            )
        )
        server = make_server("127.0.0.1", self.port, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.stack.callback(server.server_close)
        self.stack.callback(thread.join, 10)
        self.stack.callback(server.shutdown)


def ask(method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    try:
        connection.request(method, parts.path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def build(folder: Path, stack: ExitStack, name: str) -> Site:
    connector = registry().sources[name]
    platform: Any = connector.simulator.platform()
    api = stack.enter_context(serve_platform(platform))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    site = Site(
        folder=folder,
        name=name,
        port=port,
        platform=platform,
        api=api,
        entry=connector.simulator.settings(SECRET, api.url) | {"budget": {"calls": 1000, "seconds": 1}},
        web={"public_url": f"http://127.0.0.1:{port}"},
        stack=stack,
    )
    site.write()
    return site


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is opened for a test. The web process logs in this process here, which is no answer of the command."""
    with capture_logs(), ExitStack() as stack:
        yield stack


@pytest.fixture
def inspera(tmp_path: Path, stack: ExitStack) -> Site:
    """Inspera calls the hook while a subscription is made, and takes it only after a 200."""
    site = build(tmp_path, stack, "inspera")

    def check(due: Any) -> int:
        signed = site.platform.sign(due.call, due.secret, attempt=1, now=datetime.now(UTC))
        return ask("POST", due.endpoint, signed.headers, signed.body)[0]

    site.platform.subscriptions.check = check
    site.entry["api"]["subscribe_to"] = site.platform.subscriptions.events()[:3]
    site.write()
    return site


def endpoints(site: Site) -> list[str]:
    return [row["endpoint"] for row in site.platform.subscriptions.rows.values()]


# --- with an API ------------------------------------------------------------------------------------------------------


def test_sync_makes_what_is_missing_and_the_platforms_check_of_the_hook_succeeds(inspera: Site) -> None:
    inspera.serve()
    [listed] = inspera.json("list")
    assert "not in the platform's list" in listed["problem"]

    [result] = inspera.json("sync")

    assert set(endpoints(inspera)) == {inspera.url}
    assert [entry["ours"] for entry in result["subscriptions"]] == [True]
    [listed] = inspera.json("list")
    assert listed["problem"] is None
    made = len(endpoints(inspera))
    assert inspera.run("subscriptions", "sync").output.startswith("inspera: is in order")
    assert len(endpoints(inspera)) == made
    with inspera.ledger().read() as connection:
        assert set(connection.execute(select(deliveries_in.c.ignored)).scalars()) == {True}


def test_sync_waits_for_the_first_genuine_call_and_says_how_it_was_proven(inspera: Site) -> None:
    inspera.serve()
    result = inspera.run("subscriptions", "sync", "inspera", "--wait", "5s")
    assert result.exit_code == 0, result.output
    assert "a verification call came" in result.output
    assert "secret 1" in result.output
    assert SECRET not in result.output


def test_rotating_makes_a_new_one_with_the_first_secret_and_removes_the_old_one(inspera: Site) -> None:
    inspera.serve()
    inspera.json("sync")
    before = set(inspera.platform.subscriptions.rows)
    inspera.json("sync", "inspera", "--rotate")
    after = set(inspera.platform.subscriptions.rows)
    assert after
    assert not before & after
    with inspera.ledger().read() as connection:
        actions = connection.execute(select(audit.c.action).order_by(audit.c.seq)).scalars().all()
    assert actions == ["subscriptions.create", "subscriptions.create", "subscriptions.remove"]


def test_those_of_others_are_shown_without_their_tokens_and_never_removed(inspera: Site) -> None:
    inspera.platform.subscriptions.rows[999] = {
        "subscriptionId": 999,
        "event": "user_created",
        "endpoint": OTHERS,
        "lastModified": "2026-06-05T07:00:00.000Z",
    }
    inspera.serve()
    inspera.json("sync")
    result = inspera.run("subscriptions", "list")
    assert "https://other.example.edu/in" in result.output
    assert "somebody-elses-token" not in result.output
    assert inspera.json("remove", "--yes") == [{"source": "inspera", "removed": 1}]
    assert endpoints(inspera) == [OTHERS]


def test_remove_asks_first_and_the_watch_does_not_make_it_again(inspera: Site) -> None:
    inspera.serve()
    inspera.json("sync")
    assert inspera.run("subscriptions", "remove", input="n\n").exit_code == 1
    assert endpoints(inspera)
    assert inspera.run("subscriptions", "remove", input="y\n").exit_code == 0
    assert endpoints(inspera) == []
    assert watch_once(watching(inspera)) == []
    assert endpoints(inspera) == []


def watching(site: Site) -> Watching:
    from bridge.engine.assembly import sources_of

    known = registry()
    configuration = load_configuration(site.folder / "bridge.yaml", sources=known.sources, targets=known.targets)
    return Watching(
        ledger=site.ledger(),
        sources=sources_of(configuration, known, None),
        public_url=configuration.web.public_url,
    )


def test_a_subscription_deleted_behind_the_bridges_back_is_restored_without_a_person(inspera: Site) -> None:
    inspera.serve()
    inspera.json("sync")
    inspera.platform.subscriptions.rows.clear()
    [alert] = watch_once(watching(inspera))
    assert "made anew" in alert.detail
    assert set(endpoints(inspera)) == {inspera.url}
    assert watch_once(watching(inspera)) == []


def test_after_an_outage_in_which_the_platform_gave_up_everything_is_restored(inspera: Site) -> None:
    """Three failed checks of every 8 hours, and Inspera drops the subscription."""
    inspera.serve()
    inspera.json("sync")
    for _ in range(3):
        inspera.platform.subscriptions.checked(inspera.url, 503)
    assert endpoints(inspera) == []
    assert len(watch_once(watching(inspera))) == 1
    assert set(endpoints(inspera)) == {inspera.url}


# --- what has to be there first ---------------------------------------------------------------------------------------


def failure(site: Site, *arguments: str) -> str:
    result = site.run("subscriptions", *arguments)
    assert result.exit_code == 1, result.output
    assert SECRET not in result.output
    return result.output


def test_without_a_bridge_that_answers_nothing_is_asked_of_the_platform(inspera: Site) -> None:
    assert "start the bridge first" in failure(inspera, "sync")
    assert endpoints(inspera) == []


def test_a_platform_that_cannot_reach_the_hook_refuses_in_words(inspera: Site) -> None:
    inspera.serve()
    inspera.platform.subscriptions.check = lambda _due: 503
    assert "answered 400" in failure(inspera, "sync")


@pytest.mark.parametrize(
    ("web", "says"),
    [({}, "web.public_url is missing"), ({"public_url": "http://bridge.example.edu"}, "begin with https://")],
)
def test_an_address_that_no_platform_can_use_is_said_before_anything_is_asked(
    inspera: Site, web: dict[str, Any], says: str
) -> None:
    inspera.web = web
    inspera.write()
    assert says in failure(inspera, "sync")
    assert says in failure(inspera, "remove")
    assert inspera.api.requests == 0


def test_missing_parts_of_the_configuration_are_named(inspera: Site) -> None:
    inspera.serve()
    entry = dict(inspera.entry)
    del inspera.entry["api"]
    inspera.write()
    assert "no `api`" in failure(inspera, "sync")
    assert "no `api`" in failure(inspera, "list")
    inspera.entry = entry
    inspera.write(enabled=False)
    assert "not enabled" in failure(inspera, "sync", "inspera")
    assert "there is no source wise" in failure(inspera, "sync", "wise")


def test_missing_rights_are_named(inspera: Site) -> None:
    inspera.serve()
    inspera.api.fail(403)
    assert "check the credentials" in failure(inspera, "sync")


# --- without an API ---------------------------------------------------------------------------------------------------


def test_the_steps_for_a_platform_without_an_api_have_numbers_and_the_right_address(
    tmp_path: Path, stack: ExitStack
) -> None:
    edusign = build(tmp_path, stack, "edusign")
    edusign.web = {"public_url": "https://bridge.example.edu"}
    edusign.write(mode="both", url_token="a-token-of-the-school")
    result = edusign.run("subscriptions", "sync", "edusign")
    assert result.exit_code == 0, result.output
    assert "  1. " in result.output
    assert "https://bridge.example.edu/hooks/edusign?token=" in result.output
    assert "{url}" not in result.output
    assert "a-token-of-the-school" not in result.output
    assert edusign.json("list")[0]["api"] is False


def test_the_listener_learns_the_header_that_wise_sends_its_key_in(tmp_path: Path, stack: ExitStack) -> None:
    wise = build(tmp_path, stack, "wise")
    wise.entry |= {"auth_header": None, "auth_scheme": "any"}
    wise.write()
    wise.serve()
    body = wise.platform.sign(
        wise.platform.sample("MeetingStartedEvent"), SECRET, attempt=1, now=datetime.now(UTC)
    ).body
    sent: list[int] = []

    def press_the_test() -> None:
        for key in ("wrong", SECRET):
            sent.append(ask("POST", wise.url, {"Content-Type": "application/json", "X-Wise-Key": key}, body)[0])

    test = threading.Timer(0.7, press_the_test)
    test.start()
    result = wise.run("subscriptions", "sync", "wise", "--wait", "20s")
    test.join()
    assert sent == [401, 200]
    assert result.exit_code == 0, result.output
    assert "static key in header x-wise-key" in result.output
    assert "Set auth_header: x-wise-key for wise" in result.output
    assert SECRET not in result.output


def test_a_listener_that_hears_nothing_says_where_to_look(tmp_path: Path, stack: ExitStack) -> None:
    wise = build(tmp_path, stack, "wise")
    result = wise.run("subscriptions", "sync", "wise", "--wait", "1s")
    assert result.exit_code == 1
    assert "no genuine call came" in result.output


# --- alerts -----------------------------------------------------------------------------------------------------------


def test_an_alert_shows_in_doctor_readyz_and_metrics_until_it_is_over(inspera: Site) -> None:
    inspera.serve()
    ledger, now = inspera.ledger(), datetime.now(UTC)
    keep(ledger, [Alert(source="inspera", about="silence", detail="nothing since noon")], [], ["inspera"], now)
    base = f"http://127.0.0.1:{inspera.port}"

    def page(path: str) -> str:
        return ask("GET", base + path)[1]

    assert "PROBLEM: inspera, silence" in inspera.run("doctor").output
    ready = json.loads(page("/readyz"))
    assert ready["status"] == "degraded"
    assert "nothing since noon" in ready["checks"]["sources"][0]
    assert 'bridge_alert{about="silence",source="inspera"} 1.0' in page("/metrics")

    keep(ledger, [], [("inspera", "silence")], ["inspera"], now)
    assert "silence" not in inspera.run("doctor").output
    assert json.loads(page("/readyz"))["checks"]["sources"] == "ok"
    assert "bridge_alert{" not in page("/metrics")
