"""Many events of one flow are completed from its lists, and a few are not."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import cast

import pytest
from wiseflow_parts import Bridge, batches, bridge

from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from bridge.testing.simulated_api import is_call
from connectors.wiseflow import source
from connectors.wiseflow.lists import Listing, pages


def gathered(parts: Bridge, batch: list[Event], waiting: int) -> list[Event]:
    offered: dict[str, Payload] = {}
    source.gather(batch, parts.client(offered), waiting)
    return [parts.complete(event, parts.client(offered)) for event in batch]


def counts(parts: Bridge, *calls: str) -> list[int]:
    return [sum(times for asked, times in parts.sender.asked.items() if is_call(asked, call)) for call in calls]


def test_a_large_exam_is_completed_from_its_lists_by_workers_that_share_their_answers() -> None:
    parts = bridge(wanted=False)
    long_ago = datetime.now(UTC) - timedelta(minutes=1)
    events = [parts.event(call, long_ago) for call in parts.platform.exam(1030)]
    lanes = [events[lane::4] for lane in range(4)]  # four lanes of uneven ends
    waiting, done, lock = [len(events)], [], threading.Lock()

    def work(mine: list[Event]) -> None:
        for batch in batches(mine):
            results = gathered(parts, batch, waiting[0] if len(batch) == 100 else len(batch))
            with lock:
                waiting[0] -= len(batch)
                done.extend(results)

    workers = [
        threading.Thread(target=lambda half=half: [work(lane) for lane in half]) for half in (lanes[:2], lanes[2:])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert Counter(event.enrichment for event in done) == {"full": 1030}
    assert all(event.data.submission and event.data.submission.is_group is False for event in done)
    assert all(event.data.submission and event.data.submission.submitted_at for event in done)
    assert len({event.data.person and event.data.person.family_name for event in done}) > 3
    assert parts.asked() <= 2 * 11 + 2, "every page once, and the flow"


def test_a_batch_of_one_reads_no_list() -> None:
    parts = bridge()
    batch = [parts.event(parts.platform.sample("paper.submission"))]
    offered: dict[str, Payload] = {}
    source.gather(batch, parts.client(offered), 1)
    assert (parts.asked(), offered) == (0, {})


def test_a_few_events_of_a_large_flow_are_asked_for_one_by_one() -> None:
    parts = bridge(wanted=False)
    batch = [parts.event(call) for call in islice(parts.platform.exam(1000), 6)]
    [*_] = gathered(parts, batch, len(batch))
    pages, papers = counts(parts, "GET /flows/{flowId}/participants", "GET /flows/{flowId}/submissions/{submissionId}")
    assert (pages, papers) == (1, 6), "the first page tells that there are too many"


def test_events_that_came_after_a_page_was_read_are_not_completed_from_it() -> None:
    parts = bridge(wanted=False)
    calls = list(parts.platform.exam(60))
    gathered(parts, [parts.event(call) for call in calls[:30]], 30)
    before = counts(parts, "GET /flows/{flowId}/submissions")
    gathered(parts, [parts.event(call) for call in calls[30:]], 30)
    assert [before, counts(parts, "GET /flows/{flowId}/submissions")] == [[1], [2]]


def test_a_list_that_lags_behind_a_webhook_is_not_believed() -> None:
    parts = bridge(wanted=False)
    calls = list(parts.platform.exam(40))
    batch = [parts.event(call) for call in calls]
    flow = next(reversed(parts.platform.world.flows.values()))
    flow.papers[3].handed_in_at = None
    offered: dict[str, Payload] = {}
    source.gather(batch, parts.client(offered), 40)
    papers = [path for path in offered if "/submissions/" in path]
    assert len(papers) == 39
    assert f"/flows/{flow.id}/submissions/{flow.papers[3].id}" not in offered


def test_a_groups_paper_is_known_by_its_members_in_the_list_too() -> None:
    parts, alone = bridge(), bridge()
    calls = [call for call in islice(parts.platform.day(), 120) if call.kind == "paper.submission"]
    list(islice(alone.platform.day(), 120))
    listed = gathered(parts, [parts.event(call) for call in calls], len(calls))
    single = [alone.complete(alone.event(call)) for call in calls]
    groups = [event.data.submission and event.data.submission.is_group for event in listed]
    assert groups == [event.data.submission and event.data.submission.is_group for event in single]
    assert set(groups) == {True, False}
    assert parts.asked() < alone.asked()


@pytest.mark.parametrize("kind", ["final.mark", "assessment"])
def test_marks_come_from_the_list_of_assessments(kind: str) -> None:
    parts = bridge(wanted=False)
    flow = parts.platform.world.open_flow(60, groups=False)
    for paper in flow.papers:
        parts.platform.world.mark(flow, paper)
    call = parts.platform.sample("final.mark")
    events = []
    for number, paper in enumerate(flow.papers):
        participant, user = paper.participants[0]
        ids = {"submissionId": paper.id, "flowId": flow.id, "userId": user.id, "participantId": participant}
        body = {**call.body, "event": kind, "eventPayload": ids, "sequenceNumber": 9000 + number}
        events.append(parts.event(type(call)(kind=kind, body=body)))
    done = gathered(parts, events, len(events))
    assert {event.enrichment for event in done} == {"full"}
    labels = [event.data.grade.label for event in done if event.data.grade]
    assert labels == [paper.label for paper in flow.papers]
    assert counts(parts, "GET /flow/{flowId}/assessments", "GET /flow/{flowId}/assessments/{participantId}") == [1, 0]


@dataclass(slots=True, kw_only=True)
class ListApi:
    """A bare list, whole or by pages of `step`, whatever is asked for; all else that an API can do is not asked."""

    entries: int
    step: int | None
    asked: int = 0

    def get(self, path: str, query: dict[str, str], **_: object) -> Payload:
        self.asked += 1
        whole = [{"participantId": number} for number in range(self.entries)]
        at = int(query["offset"])
        return Payload(whole if self.step is None else whole[at : at + self.step])


@pytest.mark.parametrize(("entries", "step"), [(120, None), (50, None), (49, None), (120, 50), (100, 50), (0, None)])
def test_a_list_that_says_nothing_about_pages_is_read_once_whether_it_has_any_or_not(
    entries: int, step: int | None
) -> None:
    """GET /flow/{flowId}/assessments is declared without parameters and without a total (OpenAPI description 1.34)."""
    api = ListApi(entries=entries, step=step)
    read = [entry for page in pages(cast(SourceApi, api), Listing(path="/a", page=50)) for entry in page]
    assert [entry["participantId"] for entry in read] == list(range(entries))
    assert api.asked <= entries // 50 + 1


def test_addresses_are_asked_for_once_a_day_and_only_if_somebody_looks_at_them() -> None:
    for wanted, expected in ((True, 1), (False, 0)):
        parts = bridge(wanted=wanted)
        call = parts.platform.sample("paper.submission")
        for _ in range(3):
            parts.take(call)
        assert counts(parts, "GET /users/{userId}/emails") == [expected]
