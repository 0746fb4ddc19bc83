"""What has to be made and removed at a platform so that one subscription of ours sends everything, and only one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from bridge.core.source import Subscription


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`because` says why a new subscription is needed; None when none is. What is removed is removed after that."""

    because: str | None
    remove: tuple[Subscription, ...]

    @property
    def nothing(self) -> bool:
        return self.because is None and not self.remove


def hook_url(public_url: str, source: str) -> str:
    """Where a platform has to send to."""
    return f"{public_url.rstrip('/')}/hooks/{source}"


def is_at(subscription: Subscription, url: str) -> bool:
    """Whether a subscription sends to this address; what stands behind `?`, such as a token, makes no other one."""
    return _address(subscription.url) == _address(url)


def planned(
    listed: Sequence[Subscription],
    url: str,
    *,
    kinds: Collection[str] = (),
    former_url: str | None = None,
    rotate: bool = False,
) -> Plan:
    """What is to be done about the subscriptions that a platform lists, in the order in which they were made.

    `kinds` are those that ours had when it was last seen; `former_url` is where it sent to then. With `rotate` a new
    one is made however good the present one is.
    """
    ours = [entry for entry in listed if is_at(entry, url)]
    former = [entry for entry in listed if former_url is not None and is_at(entry, former_url) and entry not in ours]
    needed = _needed([entry for entry in ours if entry.active])
    lost = set() if any(not entry.kinds for entry in needed) else set(kinds) - _kinds(needed)
    because = None
    if not ours:
        because = "it is not in the platform's list"
    elif not needed:
        because = "it is not active, or not complete, in the platform's list"
    elif lost:
        because = f"it lacks kinds that it had: {', '.join(sorted(lost))}"
    elif rotate:
        because = "it is to be replaced"
    superfluous = ours if because is not None else [entry for entry in ours if entry not in needed]
    return Plan(because=because, remove=(*superfluous, *former))


def _needed(active: Sequence[Subscription]) -> list[Subscription]:
    """The newest ones that bring every kind between them: some platforms have a subscription for each kind."""
    everything = [entry for entry in active if not entry.kinds]
    if everything:
        return everything[-1:]
    needed: list[Subscription] = []
    for entry in reversed(active):
        if not set(entry.kinds) <= _kinds(needed):
            needed.append(entry)
    for entry in tuple(needed):
        others = [other for other in needed if other != entry]
        if set(entry.kinds) <= _kinds(others):
            needed = others
    return needed


def _kinds(subscriptions: Collection[Subscription]) -> set[str]:
    return {kind for entry in subscriptions for kind in entry.kinds}


def _address(url: str) -> tuple[str, str | None, int | None, str]:
    """Scheme, host, port and path as servers compare them. A platform's text may be no URL at all."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return ("", None, None, url)
    return (parts.scheme, parts.hostname, port, parts.path.rstrip("/"))
