"""The account of a run: what was promised to the platforms, set against the ledger and against what a target saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.ledger.reading import Closing
from bridge.testing.account import Account
from bridge.testing.sender import Sender


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The account of a day. `lost` counts what was accepted and cannot be accounted for; it has to be 0.

    `sent` requests, `accepted` those answered 200, `rejected` those refused, `duplicates` recognised repeats, `events`
    canonical events, `delivered` different messages as the target itself counted them, `superseded` states that a newer
    one overtook, `dead` letters, `unanswered` calls that the platforms gave up: nobody had promised them anything.
    """

    sent: int
    accepted: int
    rejected: int
    duplicates: int
    events: int
    delivered: int
    superseded: int
    dead: int
    lost: int
    unanswered: int
    repeated_deliveries: int
    seconds: float
    by_source: Mapping[str, Account]


def report_of(senders: Mapping[str, Sender], book: Closing, taken: Mapping[str, int], *, seconds: float) -> Report:
    """The account; `taken` is how often the target took each idempotency key."""
    accounts = {name: sender.account() for name, sender in senders.items()}
    accepted = frozenset().union(*(sender.accepted_ids() for sender in senders.values()))
    return Report(
        sent=sum(account.sent for account in accounts.values()),
        accepted=len(accepted) + sum(account.ignored for account in accounts.values()),
        rejected=sum(account.forgeries_refused for account in accounts.values()),
        duplicates=len(book.repeats),
        events=book.events,
        delivered=len(taken),
        superseded=sum(status == "superseded" for status in book.messages.values()),
        dead=sum(status == "dead" for status in book.messages.values()),
        lost=sum(len(names) for names in missing(accepted, book, taken).values()),
        unanswered=sum(account.gave_up for account in accounts.values()),
        repeated_deliveries=sum(count - 1 for count in taken.values()),
        seconds=round(seconds, 1),
        by_source=accounts,
    )


def missing(accepted: frozenset[str], book: Closing, taken: Mapping[str, int]) -> dict[str, list[str]]:
    """What cannot be accounted for: accepted deliveries that the ledger does not know or has not finished, messages
    that nobody has decided about, and messages that count as delivered and that the target never saw.
    """
    return {
        "deliveries": [name for name in accepted if book.deliveries.get(name) != "done" and name not in book.repeats],
        "undecided": [key for key, status in book.messages.items() if status in ("waiting", "held")],
        "never seen": [key for key, status in book.messages.items() if status == "delivered" and key not in taken],
    }
