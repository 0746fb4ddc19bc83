"""A platform's API as enrichment sees it: logged in, bounded, written down, and asked once for what is good a while."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode, urlsplit

from bridge.core.contracts import Answer, ApiAccess, Request, Settings, TokenRequest
from bridge.core.errors import DestinationForbidden, PayloadError, SourceRefused, SourceUnavailable, TargetError
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.signing import canonical_json, fingerprint
from bridge.flow.judge import NoAnswer, wait_asked_for
from bridge.outbound.guard import NetworkPolicy, Resolve, system_resolve
from bridge.outbound.kept import Kept, KeptAnswers
from bridge.outbound.session import API_LIMITS, AnswerTooLong, GuardedSession, Limits, Sender
from bridge.outbound.tokens import Token, TokenCache

QUICK_RETRY_SECONDS: Final = 0.2
DEFAULT_TOKEN_LIFE: Final = 300.0
"""Seconds, for a platform that does not say how long its token lives."""

_ABSOLUTE: Final = re.compile(r"https?://", re.IGNORECASE)


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
    access: ApiAccess
    sender: Sender
    tokens: TokenCache
    kept: KeptAnswers

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
    limits: Limits = API_LIMITS,
    resolve: Resolve = system_resolve,
) -> Platform:
    """A source's platform behind its own guarded session; token fetches go through it too."""
    session = GuardedSession(policy, limits, resolve=resolve)
    return Platform(settings=settings, access=access, sender=session, tokens=tokens, kept=kept)


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
    """Why `extra` calls of a last try have no answer."""

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
            self._note(f"GET {_shown(path)}", 200, time.monotonic(), cached=True)
            return offered
        asking = _asking(self.platform.access, "GET", path, query=query)
        return self._answered(asking, keep=keep, since=since, extra=extra)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        """The same for a POST of JSON. It only ever asks: it may be sent twice."""
        asking = _asking(self.platform.access, "POST", path, body=canonical_json(body))
        return self._answered(asking, keep=keep, extra=extra)

    def change(self, method: str, path: str, body: Json | None = None) -> Payload | None:
        """The same for a call that changes something: sent once, whatever becomes of it (a refused token aside)."""
        sent = None if body is None else canonical_json(body)
        answer = self._once(_asking(self.platform.access, method, path, body=sent))
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

    def _answered(self, asking: _Asking, *, keep: float, since: datetime | None = None, extra: bool) -> Payload | None:
        try:
            answer = self._kept(asking, keep, since)
        except SourceUnavailable as error:
            if not (extra and self.context.last_try):
                raise
            self.lacking.append(error.reason)
            return None
        return None if answer is None else Payload(answer.value)

    def _kept(self, asking: _Asking, keep: float, since: datetime | None) -> Kept | None:
        if keep <= 0:
            return self._asked(asking)
        began = time.monotonic()
        request = asking.request
        key = fingerprint([self.settings.name, request.method, request.url, request.body, repr(asking.login)])
        answer, there = self.platform.kept.get(key, keep, lambda: self._asked(asking), since)
        if there:
            self._note(asking.call, 404 if answer is None else 200, began, cached=True)
        return answer

    def _asked(self, asking: _Asking) -> Kept | None:
        """The answer after one quick second try, for what a moment may heal."""
        try:
            return self._once(asking)
        except SourceRefused:
            raise
        except SourceUnavailable as error:
            if error.retry_after is not None or not isinstance(error, _Passing):
                raise
        time.sleep(QUICK_RETRY_SECONDS)
        return self._once(asking)

    def _once(self, asking: _Asking) -> Kept | None:
        token = self.platform.access.token if asking.login else None
        answer = self._sent(asking.request, asking.call, token)
        if answer.status == 401 and token is not None:
            answer = self._sent(asking.request, asking.call, token)
        return _meaning(answer, self.now)

    def _sent(self, request: Request, call: str, token: TokenRequest | None) -> Answer:
        """One request. A token that is refused is forgotten, so that the next request has a new one."""
        if token is None:
            return self._timed(request, call)
        cache, source = self.platform.tokens, self.settings.name
        value = cache.get(source, token, lambda: self._token(token))
        answer = self._timed(_with_header(request, "Authorization", f"Bearer {value}"), call)
        if answer.status == 401:
            cache.drop(source, token, value)
        return answer

    def _token(self, token: TokenRequest) -> Token:
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded", **token.headers}
        body = urlencode(dict(token.form)).encode()
        answer = self._timed(
            Request(method="POST", url=token.url, headers=headers, body=body), f"POST {_shown(token.url)}"
        )
        if answer.status in (400, 401, 403):
            raise SourceRefused(f"the token endpoint answered {answer.status}: check the credentials")
        kept = _meaning(answer, self.now)
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

    def _timed(self, request: Request, call: str) -> Answer:
        began = time.monotonic()
        try:
            answer = self.platform.sender.send(request)
        except AnswerTooLong as error:
            self._note(call, None, began)
            raise SourceUnavailable(error.reason) from None
        except NoAnswer as silence:
            self._note(call, None, began)
            raise _Passing(silence.reason) from None
        except (DestinationForbidden, TargetError) as error:
            self._note(call, None, began)
            raise SourceUnavailable(str(error)) from None
        self._note(call, answer.status, began)
        return answer

    def _note(self, call: str, status: int | None, began: float, *, cached: bool = False) -> None:
        took = round((time.monotonic() - began) * 1000)
        self.records.append(CallRecord(call=call, status=status, ms=took, cached=cached))


class _Passing(SourceUnavailable):
    """Something that may be over in a moment."""


def _meaning(answer: Answer, now: datetime) -> Kept | None:
    status = answer.status
    if status == 404:
        return None
    if status in (401, 403):
        raise SourceRefused(f"the platform's API answered {status}: check credentials and rights")
    if 200 <= status < 300:
        if not answer.body.strip():
            return Kept(None, 0)
        try:
            return Kept(Payload.parse(answer.body).value, len(answer.body))
        except PayloadError:
            raise _Passing(f"the platform's API answered {status} without JSON") from None
    if status == 429:
        raise SourceUnavailable("the platform's API answered 429", retry_after=wait_asked_for(answer, now))
    if status >= 500:
        wait = wait_asked_for(answer, now, resets=False)
        raise _Passing(f"the platform's API answered {status}", retry_after=wait)
    raise SourceUnavailable(f"the platform's API answered {status}")


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request, what it is called in the story, and whether it is logged in."""

    request: Request
    call: str
    login: bool


def _asking(
    access: ApiAccess, method: str, path: str, *, query: Mapping[str, str] | None = None, body: bytes | None = None
) -> _Asking:
    headers: dict[str, str] = {"Accept": "application/json"}
    absolute = _ABSOLUTE.match(path) is not None
    if absolute:
        url = path
    else:
        if any(step.lower().replace("%2e", ".") in (".", "..") for step in path.partition("?")[0].split("/")):
            raise SourceUnavailable("a path may not climb with . or ..")
        url = f"{access.base_url.rstrip('/')}/{path.lstrip('/')}"
        headers |= access.headers
    if query:
        url += ("&" if urlsplit(url).query else "?") + urlencode(query)
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = Request(method=method, url=url, headers=headers, body=body or b"")
    return _Asking(request, f"{method} {_shown(path)}", login=not absolute)


def _with_header(request: Request, name: str, value: str) -> Request:
    return replace(request, headers={**request.headers, name: value})


def _shown(path: str) -> str:
    """A path for people; what stands behind `?` may be a signature or somebody's address."""
    return path.partition("?")[0].partition("#")[0]
