"""What happens on an exam day, and which webhooks tell of it. Each changes the world that the API shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bridge.core.events import Json
from connectors.wiseflow.simulated_world import ASSESSOR, MANAGER, Explanation, Flow, Paper, World

# How a day is made up, in parts of a hundred. Hand-ins are what remains.
WEIGHTS: Final = (
    ("mark", 12.0),
    ("withdrawal", 4.0),
    ("correction", 2.0),
    ("state", 1.5),
    ("alternative", 1.5),
    ("alternative taken back", 0.5),
    ("justification", 2.0),
    ("assignment", 1.0),
    ("assignment changed", 0.4),
    ("assignment removed", 0.2),
    ("revocation", 0.8),
    ("assessment", 0.8),
    ("external source", 0.6),
    ("period", 0.4),
    ("test", 0.1),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What a webhook says of it: its kind, its action and its payload."""

    kind: str
    action: str
    payload: Json


def handed_in(flow: Flow, paper: Paper) -> list[Told]:
    """A group hands in once, and the webhook names one of its members (help page)."""
    return [Told("paper.submission", "created", _ids(flow, paper, 0) | {"isHandedIn": True})]


def announcements(world: World) -> list[Told]:
    """The opening of flows that nobody was told of."""
    told = []
    for flow in reversed(world.flows.values()):
        if flow.announced:
            break
        flow.announced = True
        told.append(_moved(flow))
    return told[::-1]


def _hand_in(world: World) -> list[Told]:
    flow, paper = _fresh(world)
    paper.handed_in_at = world.now()
    return handed_in(flow, paper)


def _withdrawal(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.handed_in_at is not None and not paper.marked)
    if found is None:
        return []
    flow, paper = found
    paper.handed_in_at = None
    return [Told("paper.submission", "updated", _ids(flow, paper, 0) | {"isHandedIn": False})]


def _marked(flow: Flow, paper: Paper, action: str) -> list[Told]:
    """One for each participant. Whether a group's mark is told once or for each member is not documented."""
    return [Told("final.mark", action, _ids(flow, paper, member)) for member in range(len(paper.participants))]


def _mark(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.handed_in_at is not None and not paper.marked)
    flow, paper = found or _fresh(world)
    paper.handed_in_at = paper.handed_in_at or world.now()
    world.mark(flow, paper)
    return _marked(flow, paper, "created")


def _correction(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.marked)
    if found is None:
        return []
    world.mark(*found, administrative=True)
    return _marked(*found, "updated")


def _revocation(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.marked)
    if found is None:
        return []
    world.revoke(found[1])
    return _marked(*found, "deleted")


def _alternative(world: World) -> list[Told]:
    flow, paper = _pick(world, lambda paper: paper.alternative is not None) or _fresh(world)
    if world.random.random() < 0.8:
        flow, paper = _fresh(world)
    action = "updated" if paper.alternative else "created"
    paper.alternative, paper.alternative_at = world.random.choice(("Sick", "Absent")), world.now()
    return _alternatively(flow, paper, action)


def _alternative_taken_back(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.alternative is not None)
    if found is None:
        return []
    flow, paper = found
    paper.alternative = paper.alternative_at = None
    return _alternatively(flow, paper, "deleted")


def _alternatively(flow: Flow, paper: Paper, action: str) -> list[Told]:
    return [
        Told(
            "alternative.grade",
            action,
            {
                "flowId": flow.id,
                "participantId": participant,
                "action": action,
                "updatedBy": MANAGER,
                "asRole": "manager",
            },
        )
        for participant, _ in paper.participants
    ]


def _justification(world: World) -> list[Told]:
    flow = _flow(world)
    waiting = [number for number, request in flow.explanations.items() if not request.answered]
    number = waiting[0] if waiting else flow.id % 100000 * 100 + len(flow.explanations)
    if waiting:
        flow.explanations[number].answered = True
    else:
        participant = world.random.choice(flow.entries)[0]
        flow.explanations[number] = Explanation(participant=participant, asked_at=world.now())
    payload = {
        "flowId": flow.id,
        "explanationRequestId": number,
        "participantId": flow.explanations[number].participant,
        "assessorId": ASSESSOR,
    }
    return [Told("grade.justification", "updated" if waiting else "created", payload)]


def _assignment(world: World) -> list[Told]:
    flow = _flow(world)
    number = next(world.assignment_ids)
    flow.assignments[number] = 1
    return _assigned(flow, number, "created")


def _assignment_changed(world: World) -> list[Told]:
    flow = next((flow for flow in _recent(world) if flow.assignments), None)
    if flow is None:
        return []
    number = world.random.choice(list(flow.assignments))
    flow.assignments[number] += 1
    return _assigned(flow, number, "updated")


def _assignment_removed(world: World) -> list[Told]:
    flow = next((flow for flow in _recent(world) if flow.assignments), None)
    if flow is None:
        return []
    number = world.random.choice(list(flow.assignments))
    del flow.assignments[number]
    return _assigned(flow, number, "deleted")


def _assigned(flow: Flow, number: int, action: str) -> list[Told]:
    payload = {"assignmentId": number, "assignmentReference": f"A{number}", "flowId": flow.id}
    return [Told("assignment.added", action, payload)]


def _state(world: World) -> list[Told]:
    moving = [flow for flow in _recent(world) if flow.state < 4] or [world.open_flow()]
    flow = world.random.choice(moving)
    world.move(flow, flow.state + 1)
    flow.announced = True
    return [_moved(flow)]


def _moved(flow: Flow) -> Told:
    return Told("flow.state", "updated", {"state": flow.state, "flowId": flow.id})


def _external_source(world: World) -> list[Told]:
    flow = _flow(world)
    flow.source_state = "PENDING"
    sources = [{"id": 3, "reference": flow.code}]
    return [Told("flow.external.source", "updated", {"flowId": flow.id, "externalSources": sources})]


def _period(world: World) -> list[Told]:
    flow = next((flow for flow in _recent(world) if flow.state == 2), None) or world.open_flow()
    flow.ends_at += timedelta(minutes=15)
    return [Told("flow.period", "updated", {"flowId": flow.id, "periodId": 11})]


def _assessment(world: World) -> list[Told]:
    found = _pick(world, lambda paper: paper.marked)
    if found is None:
        return []
    flow, paper = found
    return [Told("assessment", "created", {"flowId": flow.id, "participantId": paper.participants[0][0]})]


def _assessment_at_once(world: World) -> list[Told]:
    if _pick(world, lambda paper: paper.marked) is None:
        _mark(world)
    return _assessment(world)


def _test(world: World) -> list[Told]:
    return [Told("webhook.test", "created", {})]


def _ids(flow: Flow, paper: Paper, member: int) -> Json:
    participant, user = paper.participants[member]
    return {"submissionId": paper.id, "flowId": flow.id, "userId": user.id, "participantId": participant}


def _fresh(world: World) -> tuple[Flow, Paper]:
    """A paper of the newest flow that is still to come in; the next flow opens when there is none."""
    flow = next(reversed(world.flows.values()))
    waiting = [paper for paper in flow.papers if paper.handed_in_at is None and not paper.alternative]
    if not waiting:
        flow = world.open_flow()
        waiting = flow.papers
    return flow, world.random.choice(waiting)


def _recent(world: World) -> list[Flow]:
    """The newest flows only: a day is endless, a search is not."""
    return list(world.flows.values())[-8:]


def _flow(world: World) -> Flow:
    return world.random.choice(_recent(world))


def _pick(world: World, fits: Callable[[Paper], bool]) -> tuple[Flow, Paper] | None:
    papers = [(flow, paper) for flow in _recent(world) for paper in flow.papers if fits(paper)]
    return world.random.choice(papers) if papers else None


HAPPENINGS: Final[dict[str, Callable[[World], list[Told]]]] = {
    "hand-in": _hand_in,
    "withdrawal": _withdrawal,
    "mark": _mark,
    "correction": _correction,
    "revocation": _revocation,
    "alternative": _alternative,
    "alternative taken back": _alternative_taken_back,
    "justification": _justification,
    "assignment": _assignment,
    "assignment changed": _assignment_changed,
    "assignment removed": _assignment_removed,
    "state": _state,
    "external source": _external_source,
    "period": _period,
    "assessment": _assessment,
    "assessment at once": _assessment_at_once,
    "test": _test,
}
