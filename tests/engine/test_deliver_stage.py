"""Messages reach their target once they can, in order, and what cannot be sent ends where a person sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from engine_parts import EVERYTHING, PAPERS, TARGET, BrokenTarget, Parts, Recorder, parts_for
from sqlalchemy import update

from bridge.core.simulation import Call
from bridge.engine.batches import MAX_STARTS
from bridge.flow.deliver import Patience
from bridge.ledger.byhand import retry
from bridge.ledger.database import Ledger, milliseconds, moment
from bridge.ledger.lanes import LEASE_MS, LeaseLost, claim, take
from bridge.ledger.tables import lanes, messages

Build = Callable[..., Parts]


@pytest.fixture
def build(ledger: Ledger, tmp_path: Path) -> Iterator[Build]:
    """A line without a platform's API: nothing is asked, so that only targets matter."""
    made: list[Parts] = []

    def make(*, mapping: dict[str, Any] = PAPERS, **how: Any) -> Parts:
        made.append(parts_for(ledger, tmp_path, with_api=False, **how))
        made[-1].map("papers", mapping)
        return made[-1]

    yield make
    for parts in made:
        parts.close()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


def story(parts: Parts, *handed_in: bool) -> list[Call]:
    """What one student does with one paper: True hands it in, False takes it back, in this order."""
    first = parts.platform.sample("paper.submission")
    calls = []
    for number, submitted in enumerate(handed_in):
        payload = first.body["eventPayload"] | {"isHandedIn": submitted}
        body = first.body | {
            "action": "updated" if number else "created",
            "eventPayload": payload,
            "sequenceNumber": first.body["sequenceNumber"] + number * 10,
        }
        calls.append(Call(kind=first.kind, body=body))
    return calls


def statuses(parts: Parts) -> list[str]:
    return [row.status for row in parts.messages()]


def test_a_target_that_fails_is_tried_again_and_gets_everything_once(build: Build) -> None:
    parts = build()
    parts.target.knobs.fail_share = 1.0
    for _ in range(5):
        parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert statuses(parts) == ["waiting"] * 5
    assert {(row.verdict, row.status, row.number) for row in parts.attempts()} == {("retry", 503, 1)}
    parts.target.knobs.fail_share = 0.0
    parts.settle(later=60)
    assert statuses(parts) == ["delivered"] * 5
    assert parts.target.keys() == {row.key: 1 for row in parts.messages()}
    assert [row.attempts for row in parts.messages()] == [2] * 5


def test_a_target_that_is_not_there_is_waited_for(build: Build) -> None:
    parts = build()
    parts.target.knobs.down = True
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [message] = parts.messages()
    assert message.status == "waiting"
    assert parts.attempts()[0].status is None
    parts.target.knobs.down = False
    parts.settle(later=60)
    assert statuses(parts) == ["delivered"]


def test_the_pause_that_a_target_asks_for_is_kept_in_the_ledger(build: Build) -> None:
    parts = build()
    parts.target.knobs.fail_share, parts.target.knobs.retry_after = 1.0, 600
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [message] = parts.messages()
    assert 590 < message.due_ms / 1000 - time.time() < 620
    parts.settle(later=500)
    assert len(parts.attempts()) == 1


def test_being_throttled_is_not_the_messages_fault(build: Build) -> None:
    parts = build()
    parts.target.knobs.fail_share, parts.target.knobs.fail_status, parts.target.knobs.retry_after = 1.0, 429, 30
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    parts.settle(later=60, rounds=1)
    [message] = parts.messages()
    assert (message.status, message.attempts) == ("waiting", 0)
    assert [row.verdict for row in parts.attempts()] == ["throttled"] * 2


def test_a_target_that_says_no_makes_a_dead_letter_that_a_person_can_send_again(build: Build) -> None:
    parts = build()
    parts.target.knobs.fail_share, parts.target.knobs.fail_status = 1.0, 422
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [message] = parts.messages()
    assert (message.status, message.reason, message.step) == ("dead", "HTTP 422", "deliver")
    parts.target.knobs.fail_share = 0.0
    retry(parts.ledger, [message.key], who="ada")
    parts.settle()
    assert statuses(parts) == ["delivered"]
    assert parts.target.keys() == {message.key: 1}


def test_an_answer_that_was_lost_is_left_to_a_person_where_the_configuration_says_so(build: Build) -> None:
    parts = build(target_options={"on_ambiguous": "hold"})
    parts.target.knobs.down = True
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert statuses(parts) == ["held"]
    parts.target.knobs.down = False
    retry(parts.ledger, [parts.messages()[0].key], who="ada")
    parts.settle()
    assert statuses(parts) == ["delivered"]


def test_a_message_that_waited_too_long_is_a_dead_letter(build: Build) -> None:
    short = Patience(first_delay=timedelta(seconds=1), max_delay=timedelta(seconds=1), longest=timedelta(seconds=0.1))
    parts = build(patience=short)
    parts.target.knobs.fail_share = 1.0
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle(stage="process")
    time.sleep(0.2)
    parts.settle()
    [message] = parts.messages()
    assert (message.status, message.reason) == ("dead", "given up after 1 tries: HTTP 503")


def test_what_the_target_calls_the_thing_is_kept(build: Build) -> None:
    rules = ({"status": "2xx", "as": "ok", "target_id": "id"},)
    recorder = Recorder()
    parts = build(target_options={"base_url": recorder.url})
    http = parts.line.targets[TARGET].connector
    parts.change_target(connector=replace(http, manifest=replace(http.manifest, answers=rules)))
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    recorder.close()
    assert parts.messages()[0].target_id == "crm-1"


@pytest.mark.parametrize("order", ["strict", "latest"])
@pytest.mark.parametrize("at_once", [True, False], ids=["all_at_once", "one_by_one"])
def test_in_whatever_order_states_come_the_target_ends_with_the_truth(
    build: Build, recorder: Recorder, order: str, *, at_once: bool
) -> None:
    """Handed in, taken back, handed in again; each call comes twice, the second time under another id."""
    parts = build(mapping=PAPERS | {"order": order}, target_options={"base_url": recorder.url})
    for arrival in permutations(range(3)):
        calls = story(parts, True, False, True)  # of another paper each time
        subject = f"submission/{calls[0].body['eventPayload']['submissionId']}"
        for attempt in (1, 2):
            for position in arrival:
                parts.receive(calls[position], called=position * 20 - 100, attempt=attempt)
                if not at_once:
                    parts.settle()
        parts.settle()
        assert [body["status"] for body in recorder.bodies if body["subject"] == subject][-1] == "submitted", arrival
        found = [row for row in parts.messages() if json.loads(row.params)["json"]["subject"] == subject]
        assert len(found) == 3
        assert max(found, key=lambda row: row.time_ms).status == "delivered", arrival
        assert {row.status for row in found} <= {"delivered", "superseded"}


@pytest.mark.parametrize("shared", [True, False])
def test_mappings_that_write_one_state_are_in_order_with_each_other(
    build: Build, recorder: Recorder, shared: bool
) -> None:
    """One mapping hands in, another takes back: a hand-in that is late must not undo the withdrawal."""
    state = {"state": "paper"} if shared else {}
    handing_in = PAPERS | state | {"events": ["submission.submitted"]}
    taking_back = PAPERS | state | {"events": ["submission.withdrawn"]}
    parts = build(mapping=handing_in, target_options={"base_url": recorder.url})
    parts.map("taken_back", taking_back)
    submitted, withdrawn = story(parts, True, False)
    recorder.reply = replace(recorder.reply, status=503)
    parts.receive(submitted, called=-60)
    parts.settle()
    recorder.reply = replace(recorder.reply, status=200)
    parts.receive(withdrawn, called=-50)
    parts.settle()
    parts.settle(later=60)
    last = recorder.bodies[-1]["status"]
    assert last == ("withdrawn" if shared else "submitted")


@pytest.mark.parametrize("order", ["strict", "latest"])
def test_a_withdrawal_that_comes_before_its_hand_in_stays_the_truth(
    build: Build, recorder: Recorder, order: str
) -> None:
    parts = build(mapping=PAPERS | {"order": order}, target_options={"base_url": recorder.url})
    submitted, withdrawn = story(parts, True, False)
    parts.receive(withdrawn, called=-10)
    parts.receive(submitted, called=-20)
    parts.settle()
    assert [body["status"] for body in recorder.bodies] == ["withdrawn"]
    assert statuses(parts) == ["delivered", "superseded"]


def test_of_states_of_one_second_the_higher_sequence_number_is_the_truth(build: Build, recorder: Recorder) -> None:
    parts = build(target_options={"base_url": recorder.url})
    submitted, withdrawn = story(parts, True, False)
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
    for call in (withdrawn, submitted):
        signed = parts.platform.sign(call, "a-secret-of-the-tests", attempt=1, now=now)
        parts.receive_bytes(signed.body, signed.headers)
    parts.settle()
    assert [body["status"] for body in recorder.bodies] == ["withdrawn"]
    assert parts.messages()[1].reason == "the target already got a newer state"


def test_a_retry_of_an_older_state_never_overwrites_a_newer_one(build: Build, recorder: Recorder) -> None:
    parts = build(target_options={"base_url": recorder.url})
    submitted, withdrawn = story(parts, True, False)
    recorder.reply = replace(recorder.reply, status=422)
    parts.receive(submitted, called=-20)
    parts.settle()
    recorder.reply = replace(recorder.reply, status=200)
    parts.receive(withdrawn, called=-10)
    parts.settle()
    retry(parts.ledger, [parts.messages()[0].key], who="ada")
    parts.settle()
    assert [body["status"] for body in recorder.bodies] == ["withdrawn"]
    assert statuses(parts) == ["superseded", "delivered"]


def test_states_behind_one_that_waits_do_not_overtake_and_survive_many_retries(
    build: Build, recorder: Recorder
) -> None:
    parts = build(target_options={"base_url": recorder.url})
    recorder.reply = replace(recorder.reply, status=503)
    for position, call in enumerate(story(parts, True, False, True)):
        parts.receive(call, called=position - 60)
    parts.settle()
    for number in range(1, MAX_STARTS + 3):
        parts.settle(later=number * 3600, rounds=1)
        with parts.ledger.write() as connection:  # an hour later
            connection.execute(update(messages).values(due_ms=messages.c.due_ms + 3_600_000))
    assert recorder.bodies == []
    assert statuses(parts) == ["waiting"] * 3
    recorder.reply = replace(recorder.reply, status=200)
    parts.settle(later=20 * 3600)
    assert [body["status"] for body in recorder.bodies] == ["submitted", "withdrawn", "submitted"]
    assert statuses(parts) == ["delivered"] * 3


def test_latest_skips_states_that_a_waiting_one_makes_needless(build: Build, recorder: Recorder) -> None:
    parts = build(mapping=PAPERS | {"order": "latest"}, target_options={"base_url": recorder.url})
    for position, call in enumerate(story(parts, True, False, True, False)):
        parts.receive(call, called=position - 60)
    parts.settle()
    assert [body["status"] for body in recorder.bodies] == ["withdrawn"]
    assert statuses(parts) == ["superseded"] * 3 + ["delivered"]
    assert parts.messages()[0].reason == "a newer state is waiting"


def test_occurrences_are_never_superseded(build: Build, recorder: Recorder) -> None:
    every = EVERYTHING | {"order": "latest"}
    parts = build(mapping=every, source="edusign", target_options={"base_url": recorder.url})
    call = parts.platform.sample("on_student_sign")
    for position in (3, 1, 2):
        parts.receive(call, called=position * 600 - 7200, at=datetime.now(UTC) + timedelta(seconds=position * 100))
    parts.settle()
    assert len(parts.messages()) == len(recorder.bodies) > 0
    assert set(statuses(parts)) == {"delivered"}


def test_a_target_that_is_switched_off_keeps_its_messages(build: Build) -> None:
    parts = build()
    parts.change_target(enabled=False)
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [message] = parts.messages()
    assert (message.status, message.reason) == ("waiting", f"target {TARGET} is switched off")
    assert parts.target.state()["requests"] == 0
    parts.change_target(enabled=True)
    parts.settle(later=90)
    assert statuses(parts) == ["delivered"]


def test_a_message_of_a_target_that_was_taken_out_of_the_configuration_waits(build: Build) -> None:
    parts = build()
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle(stage="process")
    parts.line = replace(parts.line, targets={})
    parts.settle()
    assert (parts.messages()[0].status, parts.messages()[0].reason) == (
        "waiting",
        f"target {TARGET} is not in bridge.yaml",
    )


def test_a_message_that_killed_its_workers_is_put_aside(build: Build) -> None:
    parts = build()
    for _ in range(2):
        parts.receive(parts.platform.sample("paper.submission"))
    parts.settle(stage="process")
    with parts.ledger.write() as connection:
        connection.execute(update(messages).where(messages.c.seq == 1).values(starts=MAX_STARTS))
    parts.settle()
    first, second = parts.messages()
    assert (first.status, first.reason) == ("dead", "its worker died 5 times while working on it")
    assert second.status == "delivered"


@pytest.mark.parametrize("breaks_at", ["prepare", "judge"])
def test_a_bug_of_a_targets_code_stops_its_own_message_alone(build: Build, breaks_at: str) -> None:
    parts = build()
    for _ in range(4):
        parts.receive(parts.platform.sample("paper.submission"))
    parts.settle(stage="process")
    good = parts.line.targets[TARGET].connector
    unlucky = json.loads(parts.messages()[1].params)["json"]["subject"]
    parts.change_target(connector=replace(good, code=BrokenTarget(good, breaks_at, only=unlucky)))
    parts.settle()
    parts.settle(later=3600, rounds=3)
    found = statuses(parts)
    assert [found[position] for position in (0, 2, 3)] == ["delivered"] * 3
    broken = parts.messages()[1]
    assert broken.status == ("dead" if breaks_at == "prepare" else "held")
    assert "KeyError" in broken.reason
    assert "secret" not in broken.reason
    assert [count for key, count in parts.target.keys().items() if key != broken.key] == [1, 1, 1]
    parts.change_target(connector=good)
    retry(parts.ledger, [broken.key], who="ada")
    parts.settle()
    assert statuses(parts) == ["delivered"] * 4


def test_an_operation_that_the_target_does_not_have_is_said_plainly(build: Build) -> None:
    parts = build(mapping=PAPERS | {"operation": "teleport"})
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert (statuses(parts), parts.messages()[0].reason) == (["dead"], "http has no operation teleport")


def test_parameters_that_make_no_request_are_a_dead_letter(build: Build) -> None:
    parts = build(mapping=PAPERS | {"with": {"method": "POST", "path": "../../etc"}})
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [message] = parts.messages()
    assert message.status == "dead"
    assert message.reason.startswith("path: expected steps without")
    assert parts.target.state()["requests"] == 0


def test_a_worker_that_lost_its_lane_while_it_was_sending_writes_nothing(build: Build) -> None:
    parts = build()
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle(stage="process")
    [message] = parts.messages()
    now = milliseconds(datetime.now(UTC))
    lease = take(parts.ledger, message.lane, "slow worker")
    assert lease is not None
    rows = claim(parts.ledger, lease, now_ms=now, limit=10)
    with parts.ledger.write() as connection:
        connection.execute(update(lanes).values(until_ms=lanes.c.until_ms - LEASE_MS))
    assert take(parts.ledger, message.lane, "its successor") is not None
    with pytest.raises(LeaseLost):
        parts.stages()["deliver"].work(lease, rows)
    assert statuses(parts) == ["waiting"]
    assert parts.attempts() == []


def test_one_mapping_that_is_down_does_not_hold_up_another(build: Build) -> None:
    parts = build()
    parts.map("all", EVERYTHING)
    parts.map("refused", PAPERS | {"with": {"method": "POST", "path": "/.."}})
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    assert {row.mapping: row.status for row in parts.messages()} == {
        "papers": "delivered",
        "all": "delivered",
        "refused": "dead",
    }


def test_attempts_are_written_with_their_time(build: Build) -> None:
    parts = build()
    parts.receive(parts.platform.sample("paper.submission"))
    parts.settle()
    [tried] = parts.attempts()
    assert (tried.number, tried.verdict, tried.status) == (1, "ok", 200)
    assert abs(moment(tried.at_ms) - datetime.now(UTC)) < timedelta(seconds=30)
