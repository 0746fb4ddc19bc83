"""A platform's API as enrichment sees it: logged in, bounded, written down, and asked once for what is good a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from bridge.core.errors import DestinationForbidden, PayloadError, SourceRefused, SourceUnavailable, TargetError
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import canonical_json, fingerprint
from bridge.core.source import ApiAccess, TokenRequest
from bridge.core.target import Answer, Request
from bridge.flow.judge import NoAnswer
from bridge.outbound.asking import Asking, Passing, asking_of, meaning, shown, with_header
from bridge.outbound.gate import Gate
from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve
from bridge.outbound.kept import Kept, KeptAnswers
from bridge.outbound.session import API_LIMITS, AnswerTooLong, GuardedSession, Limits, Sender
from bridge.outbound.tokens import Token, TokenCache

QUICK_RETRY_SECONDS: Final = 0.2
DEFAULT_TOKEN_LIFE: Final = 300.0
"""Seconds, for a platform that does not say how long its token lives."""

FIRST_PATIENCE: Final = 2.0
BEGUN_PATIENCE: Final = 15.0
LAST_PATIENCE: Final = 60.0
"""How many seconds a call waits for its turn: an event's first one, a later one, and any of an event's last try."""

CONNECTIONS: Final = 64
"""Kept alive for one platform: more than threads ever wait for it."""

DOWNLOAD_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One call for the story of an event. `status` is None when there was no answer; `call` has no query."""

    call: str
    status: int | None
    ms: int
    cached: bool = False

    def to_json(self) -> Json:
        return {"call": self.call, "status": self.status, "ms": self.ms, "cached": self.cached}


def _nothing_known(_subject: str) -> Event | None:
    return None


def _everything_wanted(_field: str) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What all enrichment of one source shares in a process. Safe for threads."""

    settings: Settings
    access: ApiAccess = field(repr=False)
    sender: Sender
    tokens: TokenCache
    kept: KeptAnswers
    gate: Gate | None = None
    """Whose turn it is; None for no limits at all."""
    downloads: Sender | None = None
    """For addresses that the platform gave us, whose answers may be long; None for `sender`."""
    pause: float = QUICK_RETRY_SECONDS
    """Seconds before the quick second try."""

    def client(self, context: Context | None = None) -> HttpSourceApi:
        """A client for one event's enrichment; not to be shared between threads."""
        return HttpSourceApi(platform=self, context=context or Context())


def platform_of(
    settings: Settings,
    access: ApiAccess,
    policy: NetworkPolicy,
    tokens: TokenCache,
    kept: KeptAnswers,
    *,
    gate: Gate | None = None,
    limits: Limits = API_LIMITS,
    resolve: Resolve = system_resolve,
) -> Platform:
    """A source's platform behind its own guarded session; token fetches go through it too, and through the gate."""
    # Addresses that a platform hands out may be anybody's: they do not learn who we are.
    unknown = replace(policy, transport=replace(policy.transport, certificate=None, key=None))
    return Platform(
        settings=settings,
        access=access,
        sender=GuardedSession(policy, limits, resolve=resolve, connections=CONNECTIONS),
        tokens=tokens,
        kept=kept,
        gate=gate,
        downloads=GuardedSession(unknown, replace(limits, body=max(limits.body, DOWNLOAD_BYTES)), resolve=resolve),
    )


def credential_of(access: ApiAccess) -> str:
    """A fingerprint of whom the platform takes us for: what budgets and kept answers belong to."""
    token = None if access.token is None else [access.token.url, dict(access.token.form), dict(access.token.headers)]
    return fingerprint([canonical_json([access.base_url, dict(access.headers), token])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an enrichment knows beside the platform: this bridge's newest events, what its mappings look at, the list
    entries that were read for its batch, and whether there is no other try.
    """

    last_try: bool = False
    known: Callable[[str], Event | None] = _nothing_known
    wants: Callable[[str], bool] = _everything_wanted
    offered: dict[str, Payload] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class HttpSourceApi:
    """The SourceApi of one event's enrichment, with a record of every call."""

    platform: Platform
    context: Context = field(default_factory=Context)
    records: list[CallRecord] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    """Why `extra` calls have no answer, and will have none."""

    @property
    def settings(self) -> Settings:
        return self.platform.settings

    @property
    def now(self) -> datetime:
        return datetime.now(UTC)

    def calls(self) -> list[Json]:
        """What was asked so far: `call` ("GET /flow/1"), `status`, `ms`, `cached`."""
        return [record.to_json() for record in self.records]

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        """The JSON of a 2xx, None for a 404; a path that begins with http(s):// is fetched as it is, not logged in.

        Raises SourceRefused for 401 and 403, SourceUnavailable for everything else.
        """
        offered = self.context.offered.get(path) if query is None else None
        if offered is not None:
            self._note(f"GET {shown(path)}", 200, time.monotonic(), cached=True)
            return offered
        asking = asking_of(self.platform.access, "GET", path, query=query)
        return self._answered(asking, keep=keep, since=since, extra=extra)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        """The same for a POST of JSON. It only ever asks: it may be sent twice."""
        asking = asking_of(self.platform.access, "POST", path, body=canonical_json(body))
        return self._answered(asking, keep=keep, extra=extra)

    def change(self, method: str, path: str, body: Json | None = None) -> Payload | None:
        """The same for a call that changes something: sent once, whatever becomes of it (a refused token aside)."""
        sent = None if body is None else canonical_json(body)
        answer = self._once(asking_of(self.platform.access, method, path, body=sent))
        return None if answer is None else Payload(answer.value)

    def offer(self, path: str, answer: Payload) -> None:
        """Let `get` find an entry of a list that was read."""
        self.context.offered[path] = answer

    def known(self, subject: str) -> Event | None:
        """The newest event about a subject that this bridge has."""
        return self.context.known(subject)

    def wants(self, field: str) -> bool:
        """Whether anybody looks at a field of the event."""
        return self.context.wants(field)

    def lack(self, reason: str, *, for_good: bool = False) -> None:
        """An `extra` call's answer is none: raises SourceUnavailable, but not `for_good` nor on the last try."""
        if not (for_good or self.context.last_try):
            raise SourceUnavailable(reason)
        self.lacking.append(reason)

    def _answered(self, asking: Asking, *, keep: float, since: datetime | None = None, extra: bool) -> Payload | None:
        try:
            answer = self._kept(asking, keep, since)
        except SourceUnavailable as error:
            if not (extra and self.context.last_try):
                raise
            self.lacking.append(error.reason)
            return None
        return None if answer is None else Payload(answer.value)

    def _kept(self, asking: Asking, keep: float, since: datetime | None) -> Kept | None:
        if keep <= 0:
            return self._asked(asking)
        began = time.monotonic()
        request = asking.request
        whose = credential_of(self.platform.access) if asking.login else ""
        key = fingerprint([whose, request.method, request.url, request.body])
        answer, there = self.platform.kept.get(key, keep, lambda: self._asked(asking), since)
        if there:
            self._note(asking.call, 404 if answer is None else 200, began, cached=True)
        return answer

    def _asked(self, asking: Asking) -> Kept | None:
        """The answer after one quick second try, for what a moment may heal."""
        try:
            return self._once(asking)
        except SourceRefused:
            raise
        except SourceUnavailable as error:
            if error.retry_after is not None or not isinstance(error, Passing):
                raise
        time.sleep(self.platform.pause)
        return self._once(asking)

    def _once(self, asking: Asking) -> Kept | None:
        token = self.platform.access.token if asking.login else None
        if not asking.login:
            answer = self._timed(asking.request, asking.call, self._download)
        else:
            answer = self._sent(asking.request, asking.call, token)
        if answer.status == 401 and token is not None:
            answer = self._sent(asking.request, asking.call, token)
        return meaning(answer, self.now)

    def _sent(self, request: Request, call: str, token: TokenRequest | None) -> Answer:
        """One request. A token that is refused is forgotten, so that the next request has a new one."""
        if token is None:
            return self._timed(request, call, self._in_turn)
        cache, source = self.platform.tokens, self.settings.name
        value = cache.get(source, token, lambda: self._token(token))
        answer = self._timed(with_header(request, "Authorization", f"Bearer {value}"), call, self._in_turn)
        if answer.status == 401:
            cache.drop(source, token, value)
        return answer

    def _token(self, token: TokenRequest) -> Token:
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", **token.headers}
        body = urlencode(dict(token.form)).encode()
        request = Request(method="POST", url=token.url, headers=headers, body=body)
        answer = self._timed(request, f"POST {shown(token.url)}", self._in_turn)
        if answer.status in (400, 401, 403):
            raise SourceRefused(f"the token endpoint answered {answer.status}: check the credentials")
        kept = meaning(answer, self.now)
        if kept is None:
            raise SourceRefused("the token endpoint is not there: check its address")
        try:
            document = Payload(kept.value).object()
            life = document.at("expires_in").maybe_integer()
            return Token(
                value=document.at("access_token").text(), expires_in=DEFAULT_TOKEN_LIFE if life is None else life
            )
        except PayloadError as error:
            raise SourceUnavailable(f"the token endpoint's answer: {error}") from None

    def _in_turn(self, request: Request) -> Answer:
        gate, sender = self.platform.gate, self.platform.sender
        if gate is None:
            return sender.send(request)
        begun = any(not record.cached for record in self.records)
        patience = LAST_PATIENCE if self.context.last_try else BEGUN_PATIENCE if begun else FIRST_PATIENCE
        return gate.send(sender, request, patience=patience, begun=begun)

    def _download(self, request: Request) -> Answer:
        """A signed address is another server's: it has no part in the platform's budget, nor in its breaker."""
        return (self.platform.downloads or self.platform.sender).send(request)

    def _timed(self, request: Request, call: str, send: Callable[[Request], Answer]) -> Answer:
        began = time.monotonic()
        try:
            answer = send(request)
        except AnswerTooLong as error:
            self._note(call, None, began)
            raise SourceUnavailable(error.reason) from None
        except NoAnswer as silence:
            self._note(call, None, began)
            raise Passing(silence.reason) from None
        except (DestinationForbidden, TargetError) as error:
            self._note(call, None, began)
            raise SourceUnavailable(str(error)) from None
        self._note(call, answer.status, began)
        return answer

    def _note(self, call: str, status: int | None, began: float, *, cached: bool = False) -> None:
        took = round((time.monotonic() - began) * 1000)
        self.records.append(CallRecord(call=call, status=status, ms=took, cached=cached))
