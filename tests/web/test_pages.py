"""Health, figures, the schema and the page, over real HTTP and in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import pytest
from sqlalchemy import update
from web_parts import Client, Web, build, genuine, no_redis

from bridge.core.events import Event
from bridge.journal.writer import JournalWriter
from bridge.ledger.byhand import pause, resume
from bridge.ledger.database import Ledger
from bridge.ledger.figures import count
from bridge.ledger.lanes import take
from bridge.ledger.processing import NewEvent, NewMessage, Processed, finish
from bridge.ledger.tables import deliveries_in
from bridge.main import registry
from bridge.testing.fixtures import read_fixtures, run_fixture
from bridge.web.keeping import in_journal

XSS = "<script>document.title='taken over'</script>"


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    yield build(tmp_path, ledger)
    ledger.close()


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with web.served() as client:
        yield client


def happened(web: Web, client: Client, subject: str = "submission/1", reason: str = "field: reason") -> Event:
    """One delivery that became an event and a dead letter."""
    assert client.post("wiseflow", genuine("wiseflow")).status == 200
    with web.ledger.read() as connection:
        row = connection.execute(deliveries_in.select()).one()
    now = datetime.now(UTC)
    event = Event(
        id="00000000-0000-5000-8000-000000000001",
        source="urn:edu:wiseflow:lic-1",
        type="submission.submitted",
        subject=subject,
        time=now,
        recordedtime=now,
        tenant="wiseflow",
        sourceevent="paper.submission",
    )
    message = NewMessage(
        key="11111111-0000-5000-8000-000000000001",
        event_id=event.id,
        mapping="papers",
        mapping_version="v1",
        target="crm",
        operation="request",
        params={},
        lane="deliver:crm:0",
        order_key="o",
        state=True,
        latest_only=False,
        time_ms=1,
        sequence=None,
        status="dead",
        step="map",
        reason=reason,
    )
    lease = take(web.ledger, row.lane, "the test")
    assert lease is not None
    new = NewEvent(event=event, document=event.to_json(), source="wiseflow", trace={})
    finish(web.ledger, lease, [Processed(seq=row.seq, source="wiseflow", events=[new], messages=[message])])
    return event


# --- health -----------------------------------------------------------------------------------------------------------


def test_alive_is_alive_whatever_is_away(web: Web, client: Client) -> None:
    with web.ledger.write() as connection:
        connection.exec_driver_sql("drop table alembic_version")
    reply = client.ask("GET", "/healthz")
    assert (reply.status, reply.json) == (200, {"status": "ok"})


def test_ready_when_all_is_well(client: Client) -> None:
    reply = client.ask("GET", "/readyz")
    assert reply.status == 200
    assert reply.json == {
        "status": "ready",
        "checks": {"storage": "ok", "ledger": "ok", "redis": "ok", "mappings": "ok", "sources": "ok", "targets": "ok"},
    }


def test_a_broken_mapping_is_degraded_and_named(web: Web, client: Client) -> None:
    web.problems.append("mappings/papers.yaml:3: with.x: is broken")
    reply = client.ask("GET", "/readyz")
    assert (reply.status, reply.json["status"]) == (200, "degraded")
    assert reply.json["checks"]["mappings"] == ["mappings/papers.yaml:3: with.x: is broken"]


def test_redis_away_is_degraded(web: Web) -> None:
    web.ping_redis = no_redis
    with web.served() as client:
        reply = client.ask("GET", "/readyz")
    assert (reply.status, reply.json["status"]) == (200, "degraded")
    assert reply.json["checks"]["redis"] == "unreachable (ConnectionError)"


def test_a_ledger_away_is_degraded_with_a_journal_and_not_ready_without(web: Web, tmp_path: Path) -> None:
    away = Ledger("postgresql://bridge:a-password@127.0.0.1:1/nothing")
    good, web.ledger = web.ledger, away
    with web.served() as client:
        without = client.ask("GET", "/readyz")
    web.journal = tmp_path / "journal"
    with web.served() as client:
        reply = client.ask("GET", "/readyz")
        metrics = client.ask("GET", "/metrics")
        page = client.ask("GET", "/")
    web.ledger = good
    away.close()
    assert (without.status, without.json["status"]) == (503, "unavailable")
    assert (reply.status, reply.json["status"]) == (200, "degraded")
    assert b"a-password" not in without.body + reply.body + page.body
    assert metrics.status == 200
    assert page.status == 200
    assert b"cannot be reached" in page.body


def test_a_journal_that_cannot_be_written_is_not_ready(web: Web, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    web.journal = tmp_path / "file" / "journal"
    with web.served() as client:
        reply = client.ask("GET", "/readyz")
    assert (reply.status, reply.json["status"]) == (503, "unavailable")


def test_tables_of_another_version_are_said(web: Web, client: Client) -> None:
    with web.ledger.write() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '0000'")
    assert "run campusbridge db upgrade" in client.ask("GET", "/readyz").json["checks"]["ledger"]


# --- figures ----------------------------------------------------------------------------------------------------------


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_figures_have_the_names_that_the_documentation_gives(web: Web, client: Client) -> None:
    before = client.ask("GET", "/metrics").body.decode()
    client.post("wiseflow", genuine("wiseflow"))
    client.ask("POST", "/hooks/wiseflow", {}, b"{}")
    client.ask("POST", "/hooks/wiseflow", {}, b"x" * 400_000)
    after = client.ask("GET", "/metrics").body.decode()
    for outcome in ("accepted", "refused", "too_large"):
        name = f'bridge_received_total{{outcome="{outcome}",source="wiseflow"}}'
        assert value(after, name) == value(before, name) + 1, name
    for name in ("bridge_proofs_total", "bridge_events_total", "bridge_enriched_total", "bridge_deliveries_total"):
        assert f"# TYPE {name} counter" in after
    assert "# TYPE bridge_delivery_seconds histogram" in after
    assert value(after, 'bridge_oldest_unfinished_seconds{stage="process"}') >= 0.0
    assert "# TYPE bridge_oldest_unfinished_seconds gauge" in after


def test_a_target_that_is_left_alone_is_said_everywhere(web: Web, client: Client) -> None:
    with web.ledger.write() as connection:
        count(connection, {("target:crm", "messages"): 1})
    pause(web.ledger, "crm", "migration <on> Sunday", who="somebody")
    document = client.ask("GET", "/readyz").json
    assert (document["status"], document["checks"]["targets"]) == ("degraded", ["crm paused: migration <on> Sunday"])
    metrics = client.ask("GET", "/metrics").body.decode()
    assert value(metrics, 'bridge_target_left_alone{state="paused",target="crm"}') == 1.0
    page = client.ask("GET", "/").body.decode()
    assert 'title="migration &lt;on&gt; Sunday">paused' in page
    assert "campusbridge targets list" in page
    resume(web.ledger, "crm", who="somebody")
    assert "targets list" not in client.ask("GET", "/").body.decode()


def test_the_age_of_what_is_unfinished_grows(web: Web, client: Client) -> None:
    client.post("wiseflow", genuine("wiseflow"))
    with web.ledger.write() as connection:
        connection.execute(update(deliveries_in).values(received_ms=deliveries_in.c.received_ms - 90_000))
    text = client.ask("GET", "/metrics").body.decode()
    assert 89 < value(text, 'bridge_oldest_unfinished_seconds{stage="process"}') < 150
    assert value(text, 'bridge_oldest_unfinished_seconds{stage="deliver"}') == 0.0


def test_the_age_of_the_journal_is_a_figure_too(web: Web, tmp_path: Path) -> None:
    web.journal = tmp_path / "journal"
    writer = JournalWriter(web.journal)
    web.keep = in_journal(writer)
    with web.served() as client:
        client.post("wiseflow", genuine("wiseflow"))
        time.sleep(0.05)
        text = client.ask("GET", "/metrics").body.decode()
    writer.close()
    assert 0 < value(text, 'bridge_oldest_unfinished_seconds{stage="journal"}') < 60


def test_what_is_left_in_a_journal_that_is_not_written_any_more_is_told(web: Web, client: Client) -> None:
    in_ledger, writer = web.keep, JournalWriter(web.folder / "journal")
    web.keep = in_journal(writer)
    client.post("wiseflow", genuine("wiseflow"))
    writer.close()
    web.keep = in_ledger
    time.sleep(0.05)
    reply = client.ask("GET", "/readyz")
    assert (reply.status, reply.json["status"]) == (200, "degraded")
    assert "campusbridge shipper" in reply.json["checks"]["journal"]
    text = client.ask("GET", "/metrics").body.decode()
    assert 0 < value(text, 'bridge_oldest_unfinished_seconds{stage="journal"}') < 60


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_served_schema_takes_every_event_of_every_fixture(client: Client) -> None:
    reply = client.ask("GET", "/schemas/edu-event/1.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/schema+json")
    schema = reply.json
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    seen = 0
    for connector in registry().sources.values():
        for fixture in read_fixtures(connector):
            result = run_fixture(connector, fixture)
            for event in [*result.events, *(result.enriched or [])]:
                assert validator.is_valid(event), f"{connector.name}/{fixture.name}"
                assert event["dataschema"] == schema["$id"]
                seen += 1
    assert seen > 100


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_shows_figures_and_what_waits_for_a_person(web: Web, client: Client) -> None:
    happened(web, client)
    reply = client.ask("GET", "/")
    page = reply.body.decode()
    assert reply.status == 200
    assert "deliveries taken in" in page.lower()
    for text in ("submission/1", "submission.submitted", "crm", "field: reason", "11111111"):
        assert text in page
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert reply.headers["cache-control"] == "no-store"


def test_what_strangers_send_is_text_on_the_page(web: Web, client: Client) -> None:
    happened(web, client, subject=f"submission/{XSS}", reason=f'{XSS}"onmouseover="x')
    page = client.ask("GET", "/").body.decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 2


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
@pytest.mark.parametrize("value", ["for=203.0.113.7", ""])
def test_nobody_behind_a_proxy_sees_the_page(client: Client, header: str, value: str) -> None:
    assert client.ask("GET", "/", {header: value}).status == 404


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8080", "LocalHost", "[::1]", "[::1]:8080"])
def test_the_page_is_shown_under_the_names_of_this_machine(client: Client, host: str) -> None:
    assert client.ask("GET", "/", {"Host": host}).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example:8080", "127.0.0.1.rebound.example", "localhost.rebound.example", "user@localhost", "[::1",
        "::1", "localhost:", "localhost:x", "localhost:\u0661", "a b", "\xff", "",
    ],
)  # fmt: skip
def test_a_page_elsewhere_that_points_its_name_here_reads_nothing(web: Web, host: str) -> None:
    local = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": host.encode().decode("latin-1")}
    assert web.app().test_client().get("/", environ_overrides=local).status_code == 404


def test_nobody_from_elsewhere_sees_the_page(web: Web) -> None:
    asked = web.app().test_client()
    assert asked.get("/", environ_base={"REMOTE_ADDR": "203.0.113.7"}).status_code == 404
    assert asked.get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200


def test_the_page_can_be_for_everybody_or_nobody(web: Web) -> None:
    web.console = "on"
    assert web.app().test_client().get("/", environ_base={"REMOTE_ADDR": "203.0.113.7"}).status_code == 200
    web.console = "off"
    assert web.app().test_client().get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"}).status_code == 404


def test_a_browser_shows_the_tables_and_runs_nothing_of_what_strangers_sent(
    web: Web, client: Client, tmp_path: Path
) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By

    happened(web, client, subject=f"submission/{XSS}")
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path}/profile",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.set_page_load_timeout(30)
        driver.get(f"http://127.0.0.1:{client.port}/")
        assert driver.title == "Campus Bridge"
        tables = {table.get_attribute("id"): table.text for table in driver.find_elements(By.TAG_NAME, "table")}
        assert set(tables) == {"sources", "targets", "people", "events"}
        assert "wiseflow" in tables["sources"]
        assert "crm" in tables["targets"]
        assert XSS in tables["events"]
        tiles = [tile.text.lower() for tile in driver.find_elements(By.CLASS_NAME, "tile")]
        assert [tile for tile in tiles if "taken in" in tile and "1" in tile.split()]
    finally:
        driver.quit()
    assert json.dumps(tables)
