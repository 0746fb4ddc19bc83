"""Completes many events of one flow from its lists: 100 participants or submissions, or all assessments, in one call.

WISEflow allows 5,000 calls a minute; asked for one by one, the hand-ins of a large exam would take it for an hour.
Only what agrees with its webhook is offered: an entry that does not yet is asked for by itself, and not from memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bridge.core.events import Event
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import (
    ASSESSMENT,
    ASSESSMENTS,
    LIST_KEPT,
    PARTICIPANT,
    PARTICIPANTS,
    ROSTER_KEPT,
    SUBMISSION,
    SUBMISSIONS,
    known_id,
)
from connectors.wiseflow.lists import ASSESSMENTS_PAGE, PAGE, Entry, Listing, worth_reading

_TELLING: Final = 3
"""Events of one flow in a batch; fewer say nothing about how many more of it wait."""
_WORTH_A_LOOK: Final = 5
"""Events of one flow, from which on its first page is read: it may turn out to be one of too many."""
_LATE: Final = timedelta(seconds=5)
_PAGES_EACH: Final = 20
"""Events that have all waited a while are the end of a backlog, for which others have very likely read the lists a
moment ago. If not, a page for a twentieth of what it saves is the most that is lost, and that once in `LIST_KEPT`."""
_MARKED: Final = ("final.mark", "assessment")
_NAMED: Final = ("paper.submission", "grade.justification", *_MARKED)
"""Kinds that take their participant from a list; an alternative grade needs to know which submission is theirs now."""


def flow_of(event: Event) -> str | None:
    """The flow whose lists know about an event."""
    return known_id(event, "flowId")


def gather(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Offer the participants, submissions and assessments of every flow of which enough events wait."""
    flows: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        flow = flow_of(event)
        if flow is not None and event.sourceevent in _NAMED:
            flows[flow].append(event)
    share = max(waiting, len(events)) / max(len(events), 1)
    for flow, mine in flows.items():
        if len(mine) >= _TELLING and len(mine) * share >= _WORTH_A_LOOK:
            late = all(api.now - event.recordedtime > _LATE for event in mine)
            _Flow(id=flow, events=mine, share=max(share, _PAGES_EACH) if late else share, api=api).gather()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """The events of one flow in this batch; each stands for `share` that its lists would serve, as far as seen."""

    id: str
    events: list[Event]
    share: float
    api: SourceApi

    def gather(self) -> None:
        papers = [event for event in self.events if event.sourceevent == "paper.submission"]
        marks = [event for event in self.events if event.sourceevent in _MARKED]
        # Without names a hand-in saves one call, and takes two lists: its own, and the members of groups' papers.
        named = len(self.events) if self.api.settings.options["person_details"] else len(papers) / 2
        pages = worth_reading(self.api, self._listing(PARTICIPANTS, keep=ROSTER_KEPT), saves=named * self.share)
        if pages is None:
            return
        members: dict[str, list[Entry]] = {number: [] for number in _by(papers, "submissionId")}
        total = self._participants(pages, members)
        if papers:
            self._submissions(papers, members)
        if marks:
            self._assessments(marks, total)

    def _participants(self, pages: Iterator[list[Entry]], members: dict[str, list[Entry]]) -> int:
        """Offer those of this batch, note who else shares a paper, and count them all."""
        wanted = _by(self.events, "participantId")
        total = 0
        for entry in _entries(pages):
            total += 1
            paper, number = str(entry.get("submissionId")), str(entry.get("participantId"))
            if paper in members:
                members[paper].append(entry)
            if number in wanted:
                self._offer(PARTICIPANT, number, _wrapped(entry))
        return total

    def _submissions(self, papers: list[Event], members: dict[str, list[Entry]]) -> None:
        """Entries have neither members nor marks: the members are those participants who name the submission."""
        pages = worth_reading(self.api, self._listing(SUBMISSIONS), saves=len(papers) * self.share)
        wanted = _by(papers, "submissionId")
        for entry in _entries(pages or iter(())):
            number = str(entry.get("id"))
            if number not in wanted:
                continue
            handed = Payload(entry).at("status", "handedIn").value
            expected = {event.type for event in wanted[number]}
            if expected == {"submission.submitted" if handed is True else "submission.withdrawn"}:
                group = [
                    {"id": member.get("participantId"), "userId": member.get("userId")}
                    for member in members.get(number, ())
                ]
                self._offer(SUBMISSION, number, Payload({**entry, "participants": group}))

    def _assessments(self, marks: list[Event], likely: int) -> None:
        """The list is declared bare, without a total: there is one assessment for each participant."""
        listing = self._listing(ASSESSMENTS, ASSESSMENTS_PAGE)
        pages = worth_reading(self.api, listing, saves=len(marks) * self.share, likely=likely)
        wanted = _by(marks, "participantId")
        for entry in _entries(pages or iter(())):
            number = str(entry.get("participantId"))
            if number not in wanted:
                continue
            marked = any(entry.get(key) not in (None, "") for key in ("grade", "adminGrade"))
            expected = {event.type != "grade.revoked" for event in wanted[number]}
            if expected == {marked}:
                self._offer(ASSESSMENT, number, _wrapped(entry))

    def _listing(self, path: str, page: int = PAGE, keep: float = LIST_KEPT) -> Listing:
        return Listing(
            path=path.format_map({"flowId": self.id}),
            page=page,
            keep=keep,
            since=max(event.recordedtime for event in self.events),
            start=int(self.events[0].id[:8], 16),
        )

    def _offer(self, path: str, number: str, answer: Payload) -> None:
        ids = {"flowId": self.id, "participantId": number, "submissionId": number}
        self.api.offer(path.format_map(ids), answer)


def _by(events: list[Event], name: str) -> dict[str, list[Event]]:
    found: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        number = known_id(event, name)
        if number is not None:
            found[number].append(event)
    return dict(found)


def _entries(pages: Iterator[list[Entry]]) -> Iterator[Entry]:
    for page in pages:
        yield from page


def _wrapped(entry: Entry) -> Payload:
    """As the endpoint of a single one answers."""
    return Payload({"success": True, "data": entry, "error": None})
