"""Every verb, on a ledger that real stages filled: what it says to people, to programs, and when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.config.configuration import load_configuration
from bridge.core.signing import sign
from bridge.core.source import Accepted, Challenge, Inbound
from bridge.engine.assembly import line_of, receiving, stages_of
from bridge.engine.hints import Hints
from bridge.engine.shipper import Lanes
from bridge.flow.receive import verify
from bridge.ledger.accepting import accept
from bridge.ledger.database import Ledger, milliseconds
from bridge.ledger.lanes import claim, due_lanes, release, take
from bridge.ledger.tables import audit, deliveries_in, messages
from bridge.main import registry, web_app
from bridge.testing.platform_server import serve_platform
from bridge.testing.target_server import TargetServer, serve_target

SECRET = "a-secret-of-the-tests"
STARTER = {
    "WISEFLOW_SECRET": "s" * 20,
    "WISEFLOW_CLIENT_ID": "client",
    "WISEFLOW_CLIENT_SECRET": "c" * 20,
    "TARGET_URL": "https://crm.example.test/api",
    "TARGET_TOKEN": "t" * 20,
}
PAPERS = """\
version: 1
description: Hand-ins to the CRM
events: [submission.*]
target: crm
operation: request
with:
  method: PUT
  path: /papers
  json: {subject: "{{ event.subject }}", status: "{{ event.data.submission.status }}"}
tests:
  - event: {type: submission.submitted, subject: submission/1, data: {submission: {status: submitted}}}
    expect: {method: PUT, path: /papers, json: {subject: submission/1, status: submitted}}
"""
FAILING = """\
version: 1
events: [assignment.*]
target: crm
operation: request
with: {method: POST, json: {since: "{{ event.subject | iso }}"}}
"""


def run(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None, input: str | None = None) -> Result:
    """`campusbridge` in this folder's name, in this process."""
    return CliRunner().invoke(
        campusbridge,
        ["--config", str(folder / "bridge.yaml"), *arguments],
        obj=Context(registry=registry(), web_app=web_app),
        env=dict(environ or {}),
        input=input,
    )


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@dataclass(slots=True, kw_only=True)
class Site:
    """A folder with a bridge.yaml, and what came in there."""

    folder: Path
    target: TargetServer
    ledger: Ledger
    deliveries: list[str]

    def run(self, *arguments: str, input: str | None = None) -> Result:
        return run(self.folder, *arguments, input=input)

    def messages(self) -> list[Any]:
        with self.ledger.read() as connection:
            return list(connection.execute(select(messages).order_by(messages.c.seq)))

    def trail(self) -> list[tuple[str, str]]:
        with self.ledger.read() as connection:
            return [(row.action, row.object) for row in connection.execute(select(audit).order_by(audit.c.seq))]


def build(folder: Path, stack: ExitStack) -> Site:
    """Two hand-ins that were delivered, one that the target refused, one message that failed, one unknown kind."""
    known = registry()
    connector = known.sources["wiseflow"]
    platform = connector.simulator.platform()
    api = stack.enter_context(serve_platform(platform))
    target = stack.enter_context(serve_target())
    (folder / "mappings").mkdir()
    (folder / "mappings" / "papers.yaml").write_text(PAPERS)
    (folder / "mappings" / "tasks.yaml").write_text(FAILING)
    document = {
        "version": 1,
        "sources": {"exams": connector.simulator.settings(SECRET, api.url)},
        "targets": {"crm": {"connector": "http", "base_url": target.url}},
        "storage": {"redis": "redis://127.0.0.1:1/0"},
        "network": {"allow_hosts": ["127.0.0.1"]},
    }
    (folder / "bridge.yaml").write_text(json.dumps(document, indent=1))
    configuration = load_configuration(folder / "bridge.yaml", sources=known.sources, targets=known.targets, environ={})
    ledger = Ledger(configuration.storage.database)
    stack.callback(ledger.close)
    ledger.upgrade()

    def no_redis() -> Any:
        raise OSError("away")

    line = line_of(configuration, known, ledger, Hints(no_redis))
    stages = stages_of(line, 4)
    site = Site(folder=folder, target=target, ledger=ledger, deliveries=[])
    lanes = Lanes(sources=receiving(configuration, known))

    def receive(body: bytes, headers: Mapping[str, str]) -> None:
        inbound = Inbound(
            id=f"0123456789ab{len(site.deliveries):04d}",
            source="exams",
            received_at=datetime.now(UTC),
            headers={name.lower(): value for name, value in headers.items()},
            query={},
            body=body,
        )
        proven = verify(connector, inbound, configuration.sources["exams"].settings)
        assert not isinstance(proven, Challenge)
        accept(ledger, [lanes.arrival(Accepted(verified=proven))])
        site.deliveries.append(inbound.id)

    def settle() -> None:
        now = milliseconds(datetime.now(UTC))
        while due := due_lanes(ledger, now_ms=now):
            for lane in due:
                lease = take(ledger, lane, "the test")
                assert lease is not None
                stage = stages[lane.partition(":")[0]]
                stage.work(lease, claim(ledger, lease, now_ms=now, limit=stage.batch))
                release(ledger, lease)
            now = milliseconds(datetime.now(UTC))

    def send(kind: str) -> None:
        signed = platform.sign(platform.sample(kind), SECRET, attempt=1, now=datetime.now(UTC))
        receive(signed.body, signed.headers)

    send("paper.submission")
    send("paper.submission")
    settle()
    target.knobs.fail_share, target.knobs.fail_status = 1.0, 422
    send("paper.submission")
    settle()
    target.knobs.fail_share = 0.0
    send("assignment.added")
    unknown = b'{"event": "brand.new", "eventPayload": {}, "sequenceNumber": 900}'
    receive(unknown, {"Signature": sign(SECRET, unknown, encoding="base64")})
    settle()
    assert sorted(row.status for row in site.messages()) == ["dead", "dead", "delivered", "delivered"]
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """For tests that only look."""
    with ExitStack() as stack:
        yield build(tmp_path_factory.mktemp("site"), stack)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Site]:
    """For tests that change something."""
    with ExitStack() as stack:
        yield build(tmp_path, stack)


# --- setting up -------------------------------------------------------------------------------------------------------


def test_what_init_writes_passes_check_once_its_variables_are_set(tmp_path: Path) -> None:
    made = run(tmp_path, "init", str(tmp_path))
    assert made.exit_code == 0
    assert (tmp_path / "bridge.yaml").exists()
    checked = run(tmp_path, "check", environ=STARTER)
    assert checked.exit_code == 0, checked.output
    assert "fine. 1 mappings, 2 tests passed." in checked.output
    assert parsed(run(tmp_path, "check", "--json", environ=STARTER)) == {
        "ok": True,
        "problems": [],
        "warnings": [],
        "mappings": {"first": {"tests": 2, "ok": True}},
        "connectors": {},
    }


def test_init_leaves_files_alone_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text("mine")
    again = run(tmp_path, "init", str(tmp_path))
    assert f"left  {tmp_path}/bridge.yaml as it is" in again.output
    assert (tmp_path / "bridge.yaml").read_text() == "mine"


def test_check_lists_all_that_is_wrong_with_file_and_line(tmp_path: Path) -> None:
    run(tmp_path, "init", str(tmp_path))
    text = (tmp_path / "bridge.yaml").read_text().replace("connector: http", "connector: htp")
    (tmp_path / "bridge.yaml").write_text(text.replace("secrets:", "secretz:"))
    result = run(tmp_path, "check", environ=STARTER)
    assert result.exit_code == 1
    lines = (tmp_path / "bridge.yaml").read_text().splitlines()
    place = next(number for number, line in enumerate(lines, start=1) if "secretz" in line)
    other = next(number for number, line in enumerate(lines, start=1) if "connector: htp" in line)
    assert f"{tmp_path}/bridge.yaml:{place}:" in result.output
    assert f"{tmp_path}/bridge.yaml:{other}:" in result.output
    assert "did you mean" in result.output
    document = json.loads(run(tmp_path, "check", "--json", environ=STARTER).stdout)
    assert document["ok"] is False
    assert all(problem["file"] and problem["message"] for problem in document["problems"])


def test_check_finds_what_is_wrong_with_every_mapping(tmp_path: Path) -> None:
    run(tmp_path, "init", str(tmp_path))
    mappings = tmp_path / "mappings"
    (mappings / "second.yaml").write_text(
        "version: 1\nevents: [grade.publisht]\ntarget: receiver\noperation: request\n"
    )
    (mappings / "third.yaml").write_text("version: 1\nevents: [grade.*]\ntarget: nobody\noperation: request\n")
    result = run(tmp_path, "check", environ=STARTER)
    assert result.exit_code == 1
    assert f"{mappings}/second.yaml:2:" in result.output
    assert f"{mappings}/third.yaml:3:" in result.output


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    run(tmp_path, "init", str(tmp_path))
    result = run(tmp_path, "check", environ={key: value for key, value in STARTER.items() if key != "TARGET_TOKEN"})
    assert result.exit_code == 1
    assert "TARGET_TOKEN" in result.output
    assert STARTER["WISEFLOW_SECRET"] not in result.output


@pytest.mark.parametrize("verb", [["check"], ["doctor"], ["events", "list"], ["mapping", "list"], ["web"]])
def test_without_a_configuration_every_verb_ends_in_words(tmp_path: Path, verb: list[str]) -> None:
    result = run(tmp_path, *verb)
    assert result.exit_code in (1, 2)
    assert "bridge.yaml" in result.output
    assert isinstance(result.exception, SystemExit)


def test_doctor_looks_at_everything(tmp_path: Path) -> None:
    run(tmp_path, "init", str(tmp_path))
    result = run(tmp_path, "doctor", environ=STARTER)
    assert result.exit_code == 0, result.output
    for text in ("configuration", "journal", "sqlite, up to date", "embedded, starts with the worker"):
        assert text in result.output
    assert "/hooks/wiseflow-main" in result.output
    assert not any(secret in result.output for secret in STARTER.values() if len(secret) == 20)


def test_doctor_says_what_is_away_and_fails(site: Site) -> None:
    result = site.run("doctor")
    assert result.exit_code == 1
    assert "PROBLEM" in result.output
    assert isinstance(result.exception, SystemExit)


# --- a database that is away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb", ["events list", "events show 01234567", "deliveries list", "db upgrade", "replay 01234567"]
)
@pytest.mark.parametrize(
    "database", ["postgresql://bridge:a-password@127.0.0.1:1/nothing", "sqlite:////proc/none/b.db"]
)
def test_a_database_that_is_away_is_one_line_and_a_failure(
    site: Site, tmp_path: Path, verb: str, database: str
) -> None:
    document = json.loads((site.folder / "bridge.yaml").read_text())
    document["storage"]["database"] = database
    (tmp_path / "mappings").mkdir()
    (tmp_path / "bridge.yaml").write_text(json.dumps(document))
    result = run(tmp_path, *verb.split())
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert len(result.output.strip().splitlines()) == 1, result.output
    assert result.output.startswith("Error: the ledger cannot be reached: ")
    assert "a-password" not in result.output


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_are_listed_newest_first_and_filtered(site: Site) -> None:
    rows = parsed(site.run("events", "list", "--json"))
    assert len(rows) == 5
    assert [row["cursor"] for row in rows] == sorted((row["cursor"] for row in rows), reverse=True)
    papers = parsed(site.run("events", "list", "--json", "--type", "submission.*"))
    assert {row["type"] for row in papers} == {"submission.submitted"}
    assert len(papers) == 3
    assert len(parsed(site.run("events", "list", "--json", "--limit", "2"))) == 2
    assert parsed(site.run("events", "list", "--json", "--source", "nobody")) == []
    [one] = parsed(site.run("events", "list", "--json", "--subject", papers[0]["subject"]))
    assert one == papers[0]


def test_the_list_for_people_holds_whole_ids(site: Site) -> None:
    result = site.run("events", "list")
    assert result.exit_code == 0
    for row in parsed(site.run("events", "list", "--json")):
        assert row["id"] in result.stdout
        assert row["subject"] in result.stdout


def test_the_story_of_an_event_is_found_by_three_names(site: Site) -> None:
    [*_, first] = parsed(site.run("events", "list", "--json"))
    stories = [parsed(site.run("events", "show", name, "--json")) for name in (first["id"], first["id"][:8])]
    stories.append(parsed(site.run("events", "show", site.deliveries[0], "--json")))
    assert stories[0] == stories[1] == stories[2]
    story = stories[0]
    assert story["event"]["id"] == first["id"]
    assert story["delivery"]["id"] == site.deliveries[0]
    assert story["delivery"]["proof"].startswith("secret 1")
    assert [call["status"] for call in story["trace"]["enrichment"]["calls"]]
    [message] = story["messages"]
    assert (message["status"], [entry["status"] for entry in message["tries"]]) == ("delivered", [200])


def test_the_story_for_people_names_every_step(site: Site) -> None:
    event = parsed(site.run("events", "list", "--json", "--type", "submission.*"))[0]
    result = site.run("events", "show", event["id"])
    assert result.exit_code == 0
    for text in (site.deliveries[2], "verified by secret 1", "enrichment: full", "papers: matched", "dead", "HTTP 422"):
        assert text in result.stdout, text


def test_an_event_that_is_not_there_is_said_in_one_line(site: Site) -> None:
    result = site.run("events", "show", "ffffffff")
    assert result.exit_code == 1
    assert len(result.output.strip().splitlines()) == 1


def test_deliveries_that_could_not_be_processed_have_a_list_of_their_own(own: Site) -> None:
    assert parsed(own.run("events", "list", "--unprocessed", "--json")) == []
    with own.ledger.write() as connection:
        connection.execute(
            deliveries_in.update().where(deliveries_in.c.seq == 1).values(status="dead", reason="KeyError")
        )
    [row] = parsed(own.run("events", "list", "--unprocessed", "--json"))
    assert (row["id"], row["reason"]) == (own.deliveries[0], "KeyError")
    assert own.deliveries[0] in own.run("events", "list", "--unprocessed").stdout


def test_a_replay_puts_the_delivery_back_and_is_written_down(own: Site) -> None:
    event = parsed(own.run("events", "list", "--json", "--type", "assignment.*"))[0]
    for verb in (["replay"], ["events", "replay"]):
        result = own.run(*verb, event["id"])
        assert result.exit_code == 0, result.output
    with own.ledger.read() as connection:
        row = connection.execute(select(deliveries_in).where(deliveries_in.c.id == own.deliveries[3])).one()
    assert (row.status, row.purpose) == ("waiting", "replay")
    assert own.trail() == [("events.replay", own.deliveries[3])] * 2
    assert own.run("replay", "nothing").exit_code == 1


# --- deliveries -------------------------------------------------------------------------------------------------------


def test_messages_are_listed_and_filtered(site: Site) -> None:
    rows = parsed(site.run("deliveries", "list", "--json"))
    assert len(rows) == 4
    dead = parsed(site.run("deliveries", "list", "--json", "--status", "dead"))
    assert {(row["mapping"], row["step"]) for row in dead} == {("papers", "deliver"), ("tasks", "map")}
    assert len(parsed(site.run("deliveries", "list", "--json", "--mapping", "papers", "--target", "crm"))) == 3
    assert parsed(site.run("deliveries", "list", "--json", "--event", rows[0]["event"])) == rows[:1]
    shown = site.run("deliveries", "list").stdout
    assert all(row["key"][:8] in shown for row in rows)


def test_a_dead_letter_is_sent_again_by_the_beginning_of_its_key(own: Site) -> None:
    dead = next(row for row in own.messages() if row.status == "dead" and row.step == "deliver")
    result = own.run("deliveries", "retry", dead.key[:8])
    assert result.exit_code == 0, result.output
    assert next(row for row in own.messages() if row.key == dead.key).status == "waiting"
    assert own.trail() == [("deliveries.retry", dead.key)]


def test_all_dead_letters_can_be_sent_again_at_once(own: Site) -> None:
    assert own.run("deliveries", "retry", "--all-dead", "--target", "crm").exit_code == 0
    assert sorted(row.status for row in own.messages()) == ["dead", "delivered", "delivered", "waiting"]
    again = own.run("deliveries", "retry", "--all-dead")
    assert again.exit_code == 0
    assert "events replay" in again.output


@pytest.mark.parametrize("keys", [["short"], ["ffffffff"], []])
def test_keys_that_name_nothing_are_refused(site: Site, keys: list[str]) -> None:
    result = site.run("deliveries", "retry", *keys)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit)


def test_discarding_asks_first(own: Site) -> None:
    dead = next(row for row in own.messages() if row.status == "dead")
    assert own.run("deliveries", "discard", dead.key, input="n\n").exit_code == 1
    assert own.trail() == []
    assert own.run("deliveries", "discard", dead.key, input="y\n").exit_code == 0
    assert next(row for row in own.messages() if row.key == dead.key).status == "discarded"
    assert own.run("deliveries", "discard", "--all-dead", "--yes").exit_code == 0
    assert sorted(row.status for row in own.messages()) == ["delivered", "delivered", "discarded", "discarded"]


# --- mappings ---------------------------------------------------------------------------------------------------------


def test_mappings_are_listed_with_those_that_are_broken(own: Site) -> None:
    (own.folder / "mappings" / "broken.yaml").write_text("version: 1\nevents: []\n")
    document = parsed(own.run("mapping", "list", "--json"))
    assert [entry["name"] for entry in document["mappings"]] == ["papers", "tasks"]
    assert any("broken.yaml" in problem for problem in document["problems"])
    assert "Hand-ins to the CRM" in own.run("mapping", "list").stdout


def test_a_preview_shows_what_would_be_sent_and_sends_nothing(site: Site) -> None:
    before = site.target.state()["requests"]
    file = str(site.folder / "mappings" / "papers.yaml")
    results = parsed(site.run("mapping", "preview", file, "--last", "20", "--json"))
    assert sorted(result["result"] for result in results) == ["sent"] * 3 + ["skipped"] * 2
    assert all(result["params"]["path"] == "/papers" for result in results if result["result"] == "sent")
    tasks = str(site.folder / "mappings" / "tasks.yaml")
    failed = [row for row in parsed(site.run("mapping", "preview", tasks, "--json")) if row["result"] == "failed"]
    assert failed[0]["detail"].startswith("with.json.since: ")
    people = site.run("mapping", "preview", file)
    assert "3 sent" in people.stdout
    assert site.target.state()["requests"] == before


def test_a_preview_of_one_event_shows_its_parameters(site: Site) -> None:
    event = parsed(site.run("events", "list", "--json", "--type", "submission.*"))[0]
    file = str(site.folder / "mappings" / "papers.yaml")
    result = site.run("mapping", "preview", file, "--event", event["id"])
    assert result.exit_code == 0
    assert json.dumps(event["subject"]) in result.stdout
    assert site.run("mapping", "preview", file, "--event", "ffffffff").exit_code == 1


def test_tests_of_a_mapping_pass_or_say_what_differs(own: Site) -> None:
    file = own.folder / "mappings" / "papers.yaml"
    good = own.run("mapping", "test", str(file))
    assert (good.exit_code, good.stdout) == (0, f"{file}: 1 tests passed\n")
    file.write_text(PAPERS.replace("status: submitted}}\n", "status: withdrawn}}\n"))
    bad = own.run("mapping", "test", str(file))
    assert bad.exit_code == 1
    assert 'expected "withdrawn", got "submitted"' in bad.output


# --- all of it --------------------------------------------------------------------------------------------------------


def verbs(command: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    import click

    yield name
    if isinstance(command, click.Group):
        for verb in command.list_commands(click.Context(command)):
            yield from verbs(command.get_command(click.Context(command), verb), (*name, verb))


@pytest.mark.parametrize("verb", list(verbs(campusbridge)), ids=" ".join)
def test_every_verb_explains_itself(tmp_path: Path, verb: tuple[str, ...]) -> None:
    result = run(tmp_path, *verb, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_a_verb_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path, "dance").exit_code == 2


def test_the_tables_can_be_made_by_hand(site: Site) -> None:
    result = site.run("db", "upgrade")
    assert (result.exit_code, result.output) == (0, "The ledger is up to date.\n")
    assert replace(site).ledger.is_current()
