"""What a source connector offers, and the values between a webhook and its event.

A source connector is a module `connectors/<system>/source.py` whose top-level functions satisfy `Source`, and others of
these protocols if it can do more. All of them are pure: no network, no clock, no database.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Inbound:
    """A request as it arrived. Header names are lower case; `id` is ours and grows with time."""

    id: str
    source: str
    received_at: datetime
    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Proven to come from the platform; the only value that may be stored and parsed.

    `proof` says how, in words for people: which secret matched (counted from 1) and in which mode.
    Two deliveries with one `dedupe_key` that arrive within `dedupe_window` of each other are the same one.
    """

    inbound: Inbound
    proof: str
    dedupe_key: str
    dedupe_window: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A call that only wants an answer (verification, installation …): `200` with `answer`, nothing is forwarded.

    With `keep` the call was proven genuine and is stored all the same, so that somebody can see that it came.
    """

    reason: str
    answer: Json | list[Any] = field(default_factory=lambda: {"status": "ignored"})
    keep: Verified | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A delivery to be kept. `ignored` ones (verification calls and such) were answered so, and are kept to be seen.

    `clock` is the host's monotonic time in nanoseconds when it arrived: it orders deliveries of several processes.
    """

    verified: Verified
    ignored: bool = False
    clock: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One native event; a delivery may hold several.

    `kind` is the key of the manifest's table of kinds, or, for a kind that is not in it, the platform's own word.
    `key` must differ between two happenings whose payloads are equal (see `events.event_id`).
    `occurred_at` is None when the platform does not say when.
    """

    kind: str
    payload: Payload
    tenant: str
    key: str
    action: str | None = None
    occurred_at: datetime | None = None
    sequence: int | None = None
    received_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A form POST that answers with a JSON object holding an access token and its life in seconds."""

    url: str = field(repr=False)
    form: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiAccess:
    """How to reach a platform's API: base URL without a final slash, fixed headers, and how to get a bearer token."""

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: TokenRequest | None = None


class SourceApi(Protocol):
    """A platform's API as `enrich` and its siblings see it: logged in, within its budget, timed, written down.

    `get` and `post` give the JSON answer of a 2xx, or None for a 404. Anything else raises SourceUnavailable, except an
    `extra` call on an event's last try: that one gives None too, and the event goes on as `partial` at best. Answers
    are kept for `keep` seconds and shared by all workers; one older than `since` is asked for again.
    """

    @property
    def settings(self) -> Settings: ...
    @property
    def now(self) -> datetime: ...

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None: ...

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        """A POST that only asks: it may be sent twice."""

    def change(self, method: str, path: str, body: Json | None = None) -> Payload | None:
        """A call that changes something at the platform: sent once, never repeated, never kept."""

    def offer(self, path: str, answer: Payload) -> None:
        """An entry of a list that was read: `get(path)` finds it for the rest of this batch, and asks nobody."""

    def known(self, subject: str) -> Event | None:
        """The newest event about a subject (`<noun>/<id>`) that this bridge has; None when it has none."""

    def wants(self, field: str) -> bool:
        """Whether anybody looks at a field of the event, such as `data.person.email`."""

    def lack(self, reason: str, *, for_good: bool = False) -> None:
        """What an `extra` call was answered with is no answer, although the platform called it one (200 with an error).

        Raises SourceUnavailable, except on an event's last try, or where waiting does not help (`for_good`): then the
        event goes on as `partial` at best, and the reason is kept.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something that a platform's API says has happened, as the webhook about it would have said it.

    `body` is the JSON of such a webhook: `parse` reads it like any other. `fact` names what happened and not how one
    learnt of it: the same words that `fact(event)` has for the completed event of the genuine webhook.

    `after` is for what can come true again in the same words: the id of the newest event that this bridge has, where
    that one says something else and is the older one. What was told before has then come back.
    """

    kind: str
    body: Json
    occurred_at: datetime
    fact: str
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A webhook subscription as a platform's API lists it; `kinds` are the platform's own names, empty for all."""

    id: str
    url: str
    active: bool
    kinds: tuple[str, ...] = ()


class Source(Protocol):
    """What `connectors/<system>/source.py` offers."""

    def verify(self, inbound: Inbound, settings: Settings) -> Verified | Challenge:
        """Prove that the raw bytes come from the platform, or raise NotGenuine."""

    def parse(self, verified: Verified, settings: Settings) -> Iterable[Notice]:
        """Split a delivery into native events, or raise PayloadError."""

    def normalise(self, notice: Notice, settings: Settings) -> Event:
        """One canonical event from one notice whose kind is in the manifest."""

    def access(self, settings: Settings) -> ApiAccess | None:
        """How to reach the platform's API with these settings; None when they name none."""

    def enrich(self, event: Event, api: SourceApi) -> Iterable[Event]:
        """Complete an event over the platform's API; may fan out, and may change the type to the present truth."""


@runtime_checkable
class Gathering(Protocol):
    """Offered by a source whose API has lists: many events are completed with few calls."""

    def listed_with(self, event: Event) -> str:
        """Events with the same answer are completed from the same lists, such as those of their exam."""

    def gather(self, events: Sequence[Event], api: SourceApi, waiting: int) -> None:
        """Read lists where that costs fewer calls than asking for each event, and `offer` their entries.

        `events` are those of this batch that are listed together; others may be gathered at the same time. `waiting` is
        how many such deliveries of the source are likely to wait, these included. Best effort: what it raises or leaves
        out is asked for one by one.
        """


@runtime_checkable
class Reconciling(Protocol):
    """Offered by a source whose API can say what happened."""

    def happened(self, since: datetime, api: SourceApi) -> Iterator[Found]:
        """Everything since a time, oldest first where the API allows it, page by page."""

    def fact(self, event: Event) -> str | None:
        """What a completed event is about, in the words of `Found.fact`; None for events that nobody could list."""


@runtime_checkable
class Returning(Protocol):
    """Offered by a source with facts that can come true again in the same words, as states without a date can."""

    def returns(self, event: Event) -> bool:
        """Whether the fact of a completed event is one of them: what the API showed when it was asked for it."""


@runtime_checkable
class Subscribing(Protocol):
    """Offered by a source whose API manages webhook subscriptions."""

    def subscriptions(self, api: SourceApi) -> list[Subscription]:
        """All subscriptions of this credential."""

    def subscribe(self, api: SourceApi, url: str) -> Subscription:
        """A new subscription to all kinds that the connector knows, with the first secret of the settings."""

    def unsubscribe(self, api: SourceApi, subscription: Subscription) -> None:
        """Remove one; that it is gone already is no error."""
