"""What strangers wrote reaches a terminal as text: it steers nothing, and is no markup."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import unicodedata
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click import ClickException
from click.testing import CliRunner, Result

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.cli.terminal import printable, printable_json, printable_lines
from bridge.core.events import Event
from bridge.core.source import Accepted, Inbound, Verified
from bridge.ledger.accepting import Arrival, accept
from bridge.ledger.alerts import Alert, keep
from bridge.ledger.byhand import pause
from bridge.ledger.database import Ledger
from bridge.ledger.lanes import release, take
from bridge.ledger.processing import NewEvent, NewMessage, Processed, finish
from bridge.ledger.tables import deliveries_in
from bridge.main import registry, web_app

HOSTILE = "\x1b]0;mine\x07\x1b[2J\x9b2J\u202e[/x][bold]:smile:\r\ngrün"
SHOWN = r"\x1b]0;mine\x07\x1b[2J\x9b2J\u202e[/x][bold]:smile:\r\ngrün"
LANE = "process:exams:0"
LOG = """
import sys
import structlog
from bridge.cli.context import set_up_logging
from bridge.config.values import LogConfig

set_up_logging(LogConfig(level="info", format=sys.argv[1]), "web")
structlog.get_logger("test").info("refused", source=sys.argv[2])
try:
    raise ValueError(sys.argv[2])
except ValueError as error:
    structlog.get_logger("test").error("failed", exc_info=error)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bridge to which somebody sent one hostile delivery."""
    document = {
        "version": 1,
        "sources": {"exams": {"connector": "wiseflow", "secrets": ["a-secret-of-the-tests-4711"]}},
        "targets": {"crm": {"connector": "http", "base_url": "https://crm.example.test"}},
    }
    (tmp_path / "bridge.yaml").write_text(json.dumps(document), "utf-8")
    (tmp_path / "mappings").mkdir()
    ledger = ledger_of(tmp_path)
    ledger.upgrade()
    happened(ledger, 1)
    pause(ledger, "crm", HOSTILE, who="somebody")
    ledger.close()
    return tmp_path


def ledger_of(folder: Path) -> Ledger:
    (folder / "data").mkdir(exist_ok=True)
    return Ledger(f"sqlite:///{folder}/data/bridge.db")


def happened(ledger: Ledger, number: int) -> None:
    """A delivery that became an event and a dead letter, with hostile text wherever senders and targets have a say."""
    now = datetime.now(UTC)
    inbound = Inbound(id=f"d{number:015}", source="exams", received_at=now, headers={}, query={}, body=b"{}")
    verified = Verified(inbound=inbound, proof=HOSTILE, dedupe_key=str(number), dedupe_window=timedelta(minutes=1))
    accept(ledger, [Arrival(accepted=Accepted(verified=verified), lane=LANE, order_key="o")])
    lease = take(ledger, LANE, "the test")
    assert lease is not None
    with ledger.read() as connection:
        seq = connection.execute(deliveries_in.select().order_by(deliveries_in.c.seq.desc())).first().seq
    event = Event(
        id=f"00000000-0000-5000-8000-{number:012}",
        source="urn:edu:wiseflow:lic-1",
        type="submission.submitted",
        subject=f"submission/{HOSTILE}",
        time=now,
        recordedtime=now,
        tenant="wiseflow",
        sourceevent=HOSTILE,
        sourceaction=HOSTILE,
    )
    message = NewMessage(
        key=f"11111111-0000-5000-8000-{number:012}",
        event_id=event.id,
        mapping="papers",
        mapping_version="v1",
        target="crm",
        operation="request",
        params={"subject": HOSTILE},
        lane="deliver:crm:0",
        order_key="o",
        state=True,
        latest_only=False,
        time_ms=1,
        sequence=None,
        status="dead",
        step="map",
        reason=HOSTILE,
    )
    trace = {
        "enrichment": {"calls": [{"call": HOSTILE, "cached": False, "ms": 1, "status": 200}], "reason": HOSTILE},
        "mappings": [{"mapping": "papers", "matched": False, "why": HOSTILE}],
    }
    new = NewEvent(event=event, document=event.to_json(), source="exams", trace=trace)
    finish(ledger, lease, [Processed(seq=seq, source="exams", events=[new], messages=[message])])
    release(ledger, lease)


def run(folder: Path, *arguments: str) -> Result:
    context = Context(registry=registry(), web_app=web_app)
    config = ["--config", str(folder / "bridge.yaml")]
    return CliRunner().invoke(campusbridge, [*config, *arguments], obj=context, env={"COLUMNS": "500"})


def steers(text: str) -> bool:
    return any(unicodedata.category(character) in {"Cc", "Cf"} for character in text.replace("\n", ""))


@pytest.mark.parametrize(
    ("verb", "times"),
    [("events list", 1), ("events show d000000000000001", 8), ("deliveries list", 1), ("targets list", 1)],
)
def test_what_strangers_wrote_is_shown_and_neither_steers_nor_styles(folder: Path, verb: str, times: int) -> None:
    result = run(folder, *verb.split())
    assert result.exit_code == 0, result.exception
    assert result.stdout.count(SHOWN) == times
    assert not steers(result.stdout)


@pytest.mark.parametrize("verb", ["events list", "events show d000000000000001", "deliveries list", "targets list"])
def test_for_programs_it_is_what_they_wrote_in_json_that_steers_nothing(folder: Path, verb: str) -> None:
    result = run(folder, *verb.split(), "--json")
    assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(result.stdout))
    assert not steers(result.stdout)
    assert "grün" in result.stdout


def test_an_alert_is_shown_the_same_way(folder: Path) -> None:
    ledger = ledger_of(folder)
    alert = Alert(source="exams", about="silence", detail=HOSTILE)
    keep(ledger, [alert], {alert.key}, {"exams"}, datetime.now(UTC))
    ledger.close()
    result = run(folder, "doctor")
    assert SHOWN in result.stdout
    assert not steers(result.stdout)


def test_an_event_that_is_followed_is_one_line(folder: Path) -> None:
    reading, writing = os.pipe()

    def go_on_until_it_is_seen() -> None:
        ledger = ledger_of(folder)
        for number in range(2, 100):
            happened(ledger, number)
            if select.select([reading], [], [], 0.2)[0]:
                break
        with ledger.write() as connection:
            connection.exec_driver_sql("alter table events rename to elsewhere")  # this ends who follows it
        ledger.close()

    others = threading.Thread(target=go_on_until_it_is_seen)
    others.start()
    arguments = ["--config", str(folder / "bridge.yaml"), "events", "tail"]
    context = Context(registry=registry(), web_app=web_app)
    with os.fdopen(writing, "w", encoding="utf-8") as stdout, redirect_stdout(stdout), pytest.raises(ClickException):
        campusbridge.main(arguments, standalone_mode=False, obj=context)
    others.join()
    with os.fdopen(reading, encoding="utf-8") as seen:
        lines = seen.readlines()
    assert lines
    assert all(f" submission/{SHOWN} " in line for line in lines)
    assert not any(map(steers, lines))


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_log_steers_no_terminal(format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOG, format, HOSTILE], capture_output=True, text=True, check=True, timeout=60
    )
    assert "refused" in done.stderr
    assert "ValueError" in done.stderr
    assert not steers(done.stderr)


def test_letters_of_any_language_are_printed_as_they_are() -> None:
    assert printable("Prüfung é 試験 Ελληνικά 🎓\u00a0: [a]") == "Prüfung é 試験 Ελληνικά 🎓\u00a0: [a]"


def test_characters_beyond_two_bytes_and_halves_of_one_have_an_escape_too() -> None:
    text = "\U000e0041 \ud83d \u2028"
    assert printable(text) == r"\U000e0041 \ud83d \u2028"
    assert json.loads(printable_json(json.dumps(text, ensure_ascii=False))) == text


def test_a_text_of_several_lines_keeps_them() -> None:
    assert printable_lines("a\n\tb\x1b") == "a\n\\tb\\x1b"
