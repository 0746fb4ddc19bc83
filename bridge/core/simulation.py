"""What simulated platforms and simulated targets offer: `connectors/<system>/simulator.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from bridge.core.events import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingRule:
    """How a platform delivers: what it takes for success, its timeout, and its pauses before retries, in seconds."""

    success: range
    timeout: float
    retries: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One webhook that a simulated platform has to deliver: its kind and the JSON body, not yet signed or dated."""

    kind: str
    body: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCall:
    """One attempt at a call: exact bytes and headers."""

    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """A request to a simulated system's API. Header names are lower case; `form` or `json` is the decoded body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]
    json: Any
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReply:
    """A simulated API's answer; `json` unless `text` is given."""

    status: int = 200
    json: Any = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class SimulatedPlatform(Protocol):
    """A platform with its people, exams and classes, made from a seed: webhooks and API tell the same story."""

    def day(self) -> Iterator[Call]:
        """An endless realistic day, one call after the other."""

    def sample(self, kind: str) -> Call:
        """One call of a kind. Raises KeyError for a kind that the platform does not have."""

    def sign(self, call: Call, secret: str, *, attempt: int, now: datetime) -> SignedCall:
        """The bytes and headers of one attempt (counted from 1), signed as the platform signs."""

    def answer(self, call: ApiCall) -> ApiReply:
        """The platform's API."""


class Simulator(Protocol):
    """What `connectors/<system>/simulator.py` offers."""

    RULE: SendingRule

    def platform(self, seed: int = 1, people: int = 200) -> SimulatedPlatform:
        """A platform of its own, the same for the same seed."""

    def settings(self, secret: str, api_url: str) -> Json:
        """The entry of bridge.yaml's `sources` that fits a simulated platform at this address."""


class SimulatedTarget(Protocol):
    """A receiving system with a memory: what it was told can be asked of it."""

    def answer(self, call: ApiCall) -> ApiReply:
        """The system's API, its token endpoint too."""

    def effects(self) -> Json:
        """What it holds now, for people and for tests: `{"contacts": {...}, "notes": [...]}`."""


class TargetSimulator(Protocol):
    """What a target's `connectors/<system>/simulator.py` offers."""

    def target(self) -> SimulatedTarget:
        """A system of its own, empty or with the people and courses that the simulated platforms have."""

    def settings(self, url: str) -> Json:
        """The entry of bridge.yaml's `targets` that fits a simulated system at this address."""
