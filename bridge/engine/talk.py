"""Holds a conversation with a target: sends what it asks, judges what comes back, and ends with an outcome each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bridge.core.errors import CredentialsRefused, DestinationForbidden, TargetError
from bridge.core.manifest import TargetConnector
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Outcome, Request, Verdict
from bridge.engine.bugs import place_of
from bridge.flow.conversation import conversation
from bridge.flow.judge import NoAnswer, outcome_of, outcome_of_silence, settled

Send = Callable[[Request], Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What came of each message, in their order, and the last HTTP status. `together` when one answer spoke for all."""

    outcomes: Sequence[Outcome]
    status: int | None = None
    together: bool = True


def talk(connector: TargetConnector, messages: Sequence[Message], settings: Settings, send: Send) -> Said:
    """Say what has to be said for messages of one operation. Never raises: a connector's bug is an outcome too."""
    said = Said(outcomes=())
    begun = False
    try:
        talking = conversation(connector, messages, settings)
        ask = next(talking)
        while True:
            begun = begun or not ask.harmless
            answer, outcome = _asked(connector, messages[0], settings, send, ask)
            said = Said(outcomes=[outcome] * len(messages), status=None if answer is None else answer.status)
            if answer is None or outcome.verdict not in (Verdict.OK, Verdict.PARTIAL):
                return said
            try:
                ask = talking.send(answer)
            except StopIteration as end:
                return _ended(end.value, said, connector, messages[0], settings)
    except StopIteration:  # nothing to say at all
        return Said(outcomes=[Outcome(verdict=Verdict.OK, reason="nothing to do")] * len(messages))
    except TargetError as error:
        return replace(said, outcomes=[Outcome(verdict=Verdict.PERMANENT, reason=str(error))] * len(messages))
    except Exception as error:  # noqa: BLE001  a connector's bug: it takes no other message with it
        verdict = Verdict.AMBIGUOUS if begun else Verdict.PERMANENT
        return replace(said, outcomes=[Outcome(verdict=verdict, reason=place_of(error))] * len(messages))


def _asked(
    connector: TargetConnector, message: Message, settings: Settings, send: Send, ask: Ask
) -> tuple[Answer | None, Outcome]:
    operation = connector.manifest.operations[message.operation]
    try:
        answer = send(ask.request)
    except NoAnswer as silence:
        return None, outcome_of_silence(silence, operation, settings, ask)
    except CredentialsRefused as refused:
        return None, Outcome(verdict=Verdict.AUTH, reason=refused.reason)
    except (TargetError, DestinationForbidden) as error:
        return None, Outcome(verdict=Verdict.PERMANENT, reason=str(error))
    return answer, outcome_of(connector, answer, message, settings, ask)


def _ended(
    outcomes: Sequence[Outcome | None], said: Said, connector: TargetConnector, message: Message, settings: Settings
) -> Said:
    operation = connector.manifest.operations[message.operation]
    last = said.outcomes[0]
    if last.verdict is Verdict.PARTIAL:  # judged by itself it would be neither done nor undone
        last = Outcome(verdict=Verdict.PERMANENT, reason=last.reason)
    each = [last if outcome is None else settled(outcome, operation, settings) for outcome in outcomes]
    return Said(outcomes=each, status=said.status, together=all(outcome is None for outcome in outcomes))
