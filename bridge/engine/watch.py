"""Notices that a platform has stopped sending: its subscription is gone, or there is a silence that it never had.

Everything found is told once, as a log line of level error, and stands in the ledger until it is over: `/metrics`,
`/readyz` and `campusbridge doctor` read it there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.engine.bugs import place_of
from bridge.engine.duties import Duty
from bridge.engine.line import SourceLine
from bridge.engine.subscriptions import Desk, carry_out, desk_of, listed, plan_for, seen
from bridge.flow.silence import IMPROBABLE, rhythm_seconds, silence
from bridge.flow.subscribing import hook_url
from bridge.ledger.alerts import Alert, keep
from bridge.ledger.database import Ledger
from bridge.ledger.duties import ask_for, reconciling
from bridge.ledger.silence import count_arrivals, habit, verifications
from bridge.ledger.subscriptions import Remembered, may_try, remembered

SUBSCRIPTIONS_EVERY: Final = timedelta(minutes=15)
"""So that a dropped subscription is noticed, and made anew, within the hour, one or two failed rounds included."""

SILENCE_EVERY: Final = timedelta(minutes=5)
AFTER_START: Final = timedelta(minutes=2)
"""What came while nobody ran is in the ledger by then, and the web process answers."""

UNSEEN: Final = timedelta(hours=1)
"""How long the platform's list may be out of reach before that is worth a word."""

LATE: Final = 1.125
"""Verification calls are missed after their usual pause and an eighth of it: 9 hours for Inspera's 8."""

_WHO: Final = "watch"
_CHECKS: Final = 22  # a week of calls every 8 hours
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """What the watch looks at. `sources` are those that take webhooks; `public_url` may be unknown."""

    ledger: Ledger
    sources: Mapping[str, SourceLine]
    public_url: str | None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def watching_duties(watching: Watching) -> list[Duty]:
    """The watch as duties of the sweeper: the first look comes soon after a start."""
    return [
        Duty(
            name="watch:subscriptions",
            every=SUBSCRIPTIONS_EVERY,
            work=lambda _stopping: _ended(watch_subscriptions(watching)),
            after_start=AFTER_START,
        ),
        Duty(
            name="watch:silence",
            every=SILENCE_EVERY,
            work=lambda _stopping: _ended(watch_silence(watching)),
            after_start=AFTER_START,
        ),
    ]


def _ended(_found: list[Alert]) -> None:
    """A duty gives nothing back: what was found stands in the ledger."""


def watch_once(watching: Watching) -> list[Alert]:
    """Both looks; what is not as it should be. Nothing is raised but what the ledger raises."""
    return watch_subscriptions(watching) + watch_silence(watching)


def watch_silence(watching: Watching) -> list[Alert]:
    """Sources that are silent when they never were, by their own past weeks."""
    now = watching.now()
    count_arrivals(watching.ledger, now)
    found = [alert for name in watching.sources if (alert := _silent(watching.ledger, name, now)) is not None]
    _tell(watching, found, [(name, "silence") for name in watching.sources], now)
    return found


def _silent(ledger: Ledger, source: str, now: datetime) -> Alert | None:
    known = habit(ledger, source)
    found = silence(known.hours, known.last, now) if known is not None else None
    if found is None or not found.improbable:
        return None
    detail = (
        f"nothing since {_time(found.last)}: in its last {found.weeks} weeks something came in {found.busy:.1f} of "
        f"these hours, and such a silence had a chance below 1 in {1 / IMPROBABLE:.0f}"
    )
    return Alert(source=source, about="silence", detail=detail)


def watch_subscriptions(watching: Watching) -> list[Alert]:
    """Subscriptions that are gone or switched off, and are made anew here; verification calls that stay away."""
    now = watching.now()
    count_arrivals(watching.ledger, now)
    found: list[Alert] = []
    certain: list[tuple[str, str]] = []
    for name, source in watching.sources.items():
        look = _look(watching, source, now)
        alerts = list(look.alerts)
        if not look.asked and (late := _unverified(watching.ledger, name, now)) is not None:
            alerts.append(late)
        found += alerts
        certain += [(name, "verification")] + ([(name, "subscription")] if look.certain else [])
    _tell(watching, found, certain, now)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """`asked` when the platform has answered; not `certain` when an alert that stands has to stay as it is."""

    alerts: tuple[Alert, ...] = ()
    asked: bool = True
    certain: bool = True


def _look(watching: Watching, source: SourceLine, now: datetime) -> _Look:
    desk = desk_of(source, hook_url(watching.public_url, source.name)) if watching.public_url else None
    if desk is None:
        return _Look(asked=False)
    before = remembered(watching.ledger, source.name)
    try:
        return _asked(watching.ledger, desk, before, now)
    except SourceRefused as error:
        reason, at_once = error.reason, True
    except SourceUnavailable as error:
        reason, at_once = error.reason, False
    except Exception as error:  # noqa: BLE001  a connector's bug: the other sources are looked at all the same
        reason, at_once = place_of(error), True
    if before is None:  # nothing of ours is known to be there, and perhaps a person made it without the API
        return _Look(asked=False)
    if not at_once and now - before.seen < UNSEEN:
        return _Look(asked=False, certain=False)
    detail = f"the platform's list cannot be read, it was last in order at {_time(before.seen)}: {reason}"
    return _Look(asked=False, alerts=(Alert(source=source.name, about="subscription", detail=detail),))


def _asked(ledger: Ledger, desk: Desk, before: Remembered | None, now: datetime) -> _Look:
    there = listed(desk)
    plan = plan_for(desk, before, there)
    if plan.because is None:
        seen(ledger, desk, there, now)
        return _Look()
    if before is None:  # never seen in order: whether there should be one is for a person to say
        return _Look()
    if before.url != desk.url:
        detail = f"web.public_url has changed: run campusbridge subscriptions sync {desk.source}"
    elif not may_try(ledger, desk.source, now):
        return _Look(certain=False)  # somebody else is at it, or has just tried
    else:
        detail = f"{plan.because}; {_made_anew(ledger, desk, before, now)}"
    return _Look(alerts=(Alert(source=desk.source, about="subscription", detail=detail),))


def _made_anew(ledger: Ledger, desk: Desk, before: Remembered, now: datetime) -> str:
    try:
        carry_out(ledger, desk, plan_for(desk, before, listed(desk)), who=_WHO, now=now)
    except SourceUnavailable as error:
        return f"it could not be made anew: {error.reason}"
    with ledger.write() as connection:
        ask_for(connection, [reconciling(desk.source)])  # what happened meanwhile is in the platform's lists
    return f"made anew at {_time(now)}"


def _unverified(ledger: Ledger, source: str, now: datetime) -> Alert | None:
    """Calls by which a platform checks our address come at a rhythm, and end before it drops the subscription."""
    moments = verifications(ledger, source, latest=_CHECKS)
    rhythm = rhythm_seconds(moments)
    if rhythm is None or (now - moments[0]).total_seconds() <= rhythm * LATE:
        return None
    detail = (
        f"the platform checked our address every {rhythm / 3600:.1f} hours, and has not since {_time(moments[0])}: "
        "the subscription may be gone, and its API cannot be asked"
    )
    return Alert(source=source, about="verification", detail=detail)


def _tell(watching: Watching, found: list[Alert], certain: list[tuple[str, str]], now: datetime) -> None:
    told = keep(watching.ledger, found, certain, watching.sources, now)
    for alert in told.new:
        _log.error("alert", source=alert.source, about=alert.about, detail=alert.detail)
    for alert in told.over:
        _log.info("alert_over", source=alert.source, about=alert.about)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
