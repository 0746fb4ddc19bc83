"""Finds a payment or an invoice in the institute's transactions: there is no asking for one by its id.

The list is paged through in a window around the event, first its hour, then its month, because a payment that was made
by hand may bear an earlier date. Seen in clients, undocumented: which of a transaction's dates the window is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.events import Event, stamp
from bridge.core.nouns import Artifact, Data, Payment
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import SourceApi
from connectors.wise.asking import KEEP_SUBJECT, institute, pages, settle
from connectors.wise.gaps import together
from connectors.wise.nouns import maybe_id, money
from connectors.wise.readings import invoice_reference

PAYMENTS: Final = "PAYMENT,OFFLINE_PAYMENT"
INVOICES: Final = "INVOICE"
_MOST_PAGES: Final = 20
"""Beyond a thousand transactions a window is not searched: the event stays partial."""
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


def transaction_of(event: Event, api: SourceApi) -> Data | None:
    """The event's data with what its transaction says; None when it is not to be found. Raises SourceUnavailable."""
    payment = event.data.payment
    if institute(api.settings) is None or payment is None:
        return None
    for number, window in enumerate(windows(event.time)):
        if number:
            settle(event, api, "transaction")
        found = _matching(event, islice(transactions(event, api, window), _MOST_PAGES))
        if found is not None:
            return _completed(event.data, payment, found, api.settings)
    settle(event, api, "transaction")
    return None


def transactions(event: Event, api: SourceApi, window: tuple[datetime, datetime]) -> Iterator[list[Payload]]:
    """The pages of a window with an event's kind of transactions, read after the event had come."""
    types = INVOICES if event.subject.startswith("invoice/") else PAYMENTS
    return pages(
        api,
        f"/institutes/{institute(api.settings)}/fees/transactions",
        transactions_query(types, *window),
        "transactions",
        keep=KEEP_SUBJECT,
        since=event.recordedtime,
        extra=True,
    )


def windows(moment: datetime) -> list[tuple[datetime, datetime]]:
    """Where to look, the likely place first; events of one hour look in the same windows, which are kept a while."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    return [(hour - _HOUR, hour + 2 * _HOUR), (day - 31 * _DAY, day + 2 * _DAY)]


def transactions_query(types: str, start: datetime, end: datetime) -> Mapping[str, str]:
    return {
        "type": types,
        "status": "CHARGED,PENDING_CONFIRMATION",
        "populateParticipant": "true",
        "populateClassroom": "true",
        "startDate": stamp(start),
        "endDate": stamp(end),
    }


def _matching(event: Event, listed: Iterator[list[Payload]]) -> Payload | None:
    """The entry that the event is about; of several instalments of that name the one that was charged then."""
    charged_at = event.data.payment.charged_at if event.data.payment is not None else None
    second: Payload | None = None
    for entry in (entry for page in listed for entry in page):
        if event.subject.partition("/")[2] not in references(entry):
            continue
        if charged_at is None or entry.at("chargedAt").maybe_time() == charged_at:
            return entry
        second = second or entry
    return second


def references(entry: Payload) -> set[str]:
    """The names that an entry may go by in a webhook: its own id, or for an invoice what it is for."""
    try:
        natural = invoice_reference(entry, class_of(entry), student_of(entry))
        return {name for name in (maybe_id(entry), natural) if name}
    except PayloadError:
        return set()


def class_of(entry: Payload) -> Payload:
    return entry.first("metadata.classId", "classId", "classroom")


def student_of(entry: Payload) -> Payload:
    return entry.first("student", "studentId", "participant")


def _completed(data: Data, payment: Payment, entry: Payload, settings: Settings) -> Data:
    amount, currency = money(entry.at("amount"), settings)
    listed = Payment(
        amount_minor=amount,
        currency=currency,
        status=entry.at("status").maybe_text(),
        charged_at=entry.at("chargedAt").maybe_time(),
        instalment=entry.at("metadata", "index").maybe_integer(),
    )
    # When something was charged is what happened; its amount and status are what is so now.
    known = together(replace(listed, charged_at=payment.charged_at or listed.charged_at), payment)
    return replace(data, payment=known, artifact=_document(entry) or data.artifact)


def _document(entry: Payload) -> Artifact | None:
    """The invoice under its number, which the webhook does not give."""
    number = entry.first("invoiceNumber", "metadata.invoiceNumber").maybe_text()
    identifier = maybe_id(entry.first("invoiceId", "metadata.invoiceId", "_id"))
    if number is None:
        return None
    return Artifact(key=f"wise:{identifier}" if identifier else None, kind="document", title=number)
