"""Reads Wise's people, classes, sessions and money, alike in webhooks and in answers of the API.

`classId` and `userId` are a text in one place and an object in another, so every id goes through `wise_id`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from bridge.core.errors import PayloadError
from bridge.core.nouns import Course, Identifier, Person, Session
from bridge.core.payload import Payload
from bridge.core.settings import Settings

# Really 24 hex digits. The body is not signed and ids go into paths, so nothing with a meaning there may pass.
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")

# ISO 4217, List One: currencies whose smallest unit is not a hundredth.
_ODD_EXPONENTS: Final = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_EXPONENTS: Final = {code: exponent for exponent, codes in _ODD_EXPONENTS.items() for code in codes.split()}
_MOST_DIGITS: Final = 15

_NOT_HELD: Final = frozenset({"UPCOMING", "CANCELLED", "MISSED"})


def maybe_id(value: Payload) -> str | None:
    """The id of a thing that is given as its id or as an object with `_id`; None when missing."""
    inner = value.at("_id") if isinstance(value.value, Mapping) else value
    identifier = inner.maybe_text()
    if identifier is not None and not _ID.fullmatch(identifier):
        raise PayloadError(inner.path, "an id")
    return identifier


def wise_id(value: Payload) -> str:
    """The same for an id that must be there."""
    identifier = maybe_id(value)
    if identifier is None:
        raise PayloadError(value.path, "an id")
    return identifier


def person(who: Payload, settings: Settings, role: str | None = None) -> Person | None:
    """A user of Wise, from an object or a mere user id. Some have a phone number and no e-mail address."""
    identifier = maybe_id(who)
    if identifier is None:
        return None
    given, family = names(who.at("name").maybe_text(), settings)
    schemes = {"wise.userId": identifier, "wise.phoneNumber": who.at("phoneNumber").maybe_text()}
    return Person(
        key=f"wise:{identifier}",
        role=role,
        email=who.at("email").maybe_text(),
        given_name=given,
        family_name=family,
        identifiers=tuple(Identifier(scheme=scheme, value=value) for scheme, value in schemes.items() if value),
    )


def names(name: str | None, settings: Settings) -> tuple[str | None, str | None]:
    """Given and family name out of Wise's one name, cut as the option `names` says."""
    words = (name or "").split()
    if not words:
        return None, None
    if len(words) == 1 or settings.options["names"] == "whole":
        return " ".join(words), None
    if settings.options["names"] == "family_first":
        return " ".join(words[1:]), words[0]
    return " ".join(words[:-1]), words[-1]


def course(classroom: Payload) -> Course | None:
    """A class, from an object or a mere class id. Its classNumber is a number to join with, no id."""
    identifier = maybe_id(classroom)
    if identifier is None:
        return None
    return Course(
        key=f"wise:{identifier}",
        title=classroom.at("name").maybe_text(),
        identifiers=(Identifier(scheme="wise.classId", value=identifier),),
    )


def session(identifier: str, value: Payload) -> Session:
    """A session of the timetable. In an update a missing key means "unchanged", which None says as well."""
    return Session(
        key=f"wise:{identifier}",
        title=value.at("title").maybe_text(),
        scheduled_start=value.at("scheduledStartTime").maybe_time(),
        scheduled_end=value.at("scheduledEndTime").maybe_time(),
        actual_start=began(value),
        actual_end=ended(value),
        status=value.at("meetingStatus").maybe_text(),
    )


def began(value: Payload) -> datetime | None:
    """When a session's meeting began. Until it does, `start_time` is the planned start (Wise's own request collection
    "Wise APIs", whose sessions in the state UPCOMING have one; a MISSED one is never held)."""
    return value.first("start_time", "startTime").maybe_time() if _may_have_been_held(value) else None


def ended(value: Payload) -> datetime | None:
    """When a session's meeting ended; None for one that was not held."""
    return value.first("end_time", "endTime").maybe_time() if _may_have_been_held(value) else None


def _may_have_been_held(value: Payload) -> bool:
    return (value.at("meetingStatus").maybe_text() or "").upper() not in _NOT_HELD


def recording_name(session_id: str, film: Payload) -> str | None:
    """What a recording is known by; None without a part. Parts are counted anew in a meeting that is begun again,
    which is `sessionIndex` (seen in sessions of the API; both count from 1)."""
    part, meeting = film.at("partIndex").maybe_text(), film.at("sessionIndex").maybe_text()
    if part is None:
        return None
    return f"{session_id}.{part}" if meeting in (None, "", "0", "1") else f"{session_id}.{meeting}.{part}"


def is_cancelled(status: str | None, settings: Settings) -> bool:
    """Whether a meetingStatus is one of those that the option `cancelled_statuses` names."""
    return (status or "").upper() in {entry.upper() for entry in settings.options["cancelled_statuses"]}


def money(amount: Payload, settings: Settings) -> tuple[int | None, str | None]:
    """Minor units and currency of `{value, currency}`, whatever the option `amount_unit` says Wise counts in."""
    if not amount.present:
        return None, None
    currency = amount.at("currency").text().upper()
    return _minor(amount.at("value"), currency, settings), currency


def _minor(value: Payload, currency: str, settings: Settings) -> int:
    exponent = settings.options["currency_exponents"].get(currency, _EXPONENTS.get(currency, 2))
    shift = {"minor": 0, "hundredth": exponent - 2, "major": exponent}[settings.options["amount_unit"]]
    minor = number(value).scaleb(shift)
    if minor != int(minor):
        raise PayloadError(value.path, "a whole number of the currency's smallest unit")
    return int(minor)


def number(value: Payload) -> Decimal:
    """An exact number, also when it came quoted; what no institute can mean is refused."""
    try:
        exact = Decimal(str(value.value))
    except ArithmeticError:
        raise PayloadError(value.path, "a number") from None
    if not exact.is_finite() or exact.adjusted() > _MOST_DIGITS:
        raise PayloadError(value.path, "a number within reason")
    return exact
