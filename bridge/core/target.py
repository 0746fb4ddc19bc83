"""What a target connector offers, and the values between a message and what became of it.

A target connector is a manifest alone, or one with a module `connectors/<system>/target.py` whose top-level functions
satisfy `Target`. They are pure: no network, no clock, no database.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from bridge.core.events import Json
from bridge.core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event for one target as a mapping rendered it. `key` is the idempotency key; `attempt` counts from 1."""

    key: str
    mapping: str
    mapping_version: str
    target: str
    operation: str
    params: Json
    event: Json
    attempt: int
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What goes on the wire. `url` is absolute; the body is exactly these bytes."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, the body cut at the cap. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Verdict(StrEnum):
    """What an answer means; what happens next hangs on it."""

    OK = "ok"
    DUPLICATE = "duplicate"
    SUPERSEDED = "superseded"
    RETRY = "retry"
    THROTTLED = "throttled"
    AUTH = "auth"
    PERMANENT = "permanent"
    GONE = "gone"
    PARTIAL = "partial"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A verdict with its reason in words, the target's own id for what it stored, and how long it asked us to wait.

    After `patience` seconds in which nothing went well at the target, the verdict is `finally_` instead.
    """

    verdict: Verdict
    reason: str
    target_id: str | None = None
    retry_after: float | None = None
    patience: float | None = None
    finally_: Verdict | None = None


@runtime_checkable
class Judging(Protocol):
    """Offered by a target whose answers need more than the manifest's rules."""

    def judge(self, answer: Answer, message: Message, settings: Settings) -> Outcome | None:
        """What the target's answer means where the manifest's rules do not say; None leaves it to what HTTP says."""


@runtime_checkable
class Preparing(Protocol):
    """Offered by a target that makes one request for one message."""

    def prepare(self, message: Message, settings: Settings) -> Request:
        """The request for a message, or TargetError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request of a conversation with a target.

    An answer is judged by `answers` (rules as in a manifest), then as always. What is judged `ok` goes back into the
    conversation; everything else is its end, and the outcome. A `harmless` request only looks: when no answer comes,
    asking again does no harm.
    """

    request: Request
    answers: tuple[Mapping[str, Any], ...] = ()
    harmless: bool = False


Conversation = Generator[Ask, Answer, Sequence[Outcome | None]]
"""Asks, takes answers, and ends with an outcome per message; None is what the last answer was judged to be."""


@runtime_checkable
class Conversing(Protocol):
    """Offered by a target that takes several requests for one message, or several messages in one request."""

    def converse(self, messages: Sequence[Message], settings: Settings) -> Conversation:
        """What to say for messages of one operation: one, or as many as its batch may hold. Raises TargetError."""


Target = Preparing | Conversing
"""What `connectors/<system>/target.py` offers, `judge` or not; where the manifest says everything there is none."""
