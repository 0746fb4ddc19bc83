"""Reads WISEflow's lists page by page, and only those that are worth their pages.

The OpenAPI description 1.34 has pages of 100 participants and flows. It declares no paging for submissions, and yet
their answer has a `pagination`; for assessments there is neither, and the answer is a bare array. Pages are asked for
all the same, in case there are any: a list that comes as a whole is one page, however long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from bridge.core.errors import PayloadError
from bridge.core.payload import Payload
from bridge.core.source import SourceApi
from connectors.wiseflow.calls import odd, unwrap

Entry = Mapping[str, Any]

PAGE: Final = 100
ASSESSMENTS_PAGE: Final = 50
"""A guess, for a list that says nothing about pages: 50 is the smallest page of any list that does (assessors)."""
_MOST_PAGES: Final = 10_000
"""Beyond any exam: a total that is no total must not make calls without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list and how it is read. A page older than `since` is asked for again; `start` says where to begin.

    Workers that want the same list at the same time begin at different pages, and so read it together.
    """

    path: str
    page: int = PAGE
    keep: float = 0
    since: datetime | None = None
    start: int = 0


def worth_reading(api: SourceApi, listing: Listing, *, saves: float, likely: int = 0) -> Iterator[list[Entry]] | None:
    """The pages of a list, or None where reading them takes as many calls as it saves.

    The first page tells how many there are; `likely` is how many entries there are where a list does not say.
    """
    first = _page(api, listing, 0)
    step = len(first.entries)
    total = first.total if first.total is not None else max(step, likely if step == listing.page else 0)
    offsets = range(step, total, step) if step else range(0)
    if len(offsets) + 1 >= saves or len(offsets) > _MOST_PAGES:
        return None
    return _from(api, listing, first.entries, offsets)


def pages(api: SourceApi, listing: Listing) -> Iterator[list[Entry]]:
    """All pages of a list, one after the other; a list that does not say how long it is ends with a shorter page."""
    offset, seen = 0, None
    for _ in range(_MOST_PAGES):
        page = _page(api, listing, offset)
        if not page.entries or page.entries[0] == seen:  # the offset was not understood
            return
        yield page.entries
        offset, seen = offset + len(page.entries), page.entries[0]
        more = offset < page.total if page.total is not None else len(page.entries) == listing.page
        if not more:
            return


def entries_of(answer: Payload) -> list[Entry]:
    """The objects of a list, wrapped or not. Raises SourceUnavailable for another shape."""
    found = unwrap(answer)
    value = found.value if found is not None else []
    if not isinstance(value, list):
        raise odd(PayloadError(answer.path, "a list"))
    return [entry for entry in value if isinstance(entry, dict)]


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[Entry]
    total: int | None


def _from(api: SourceApi, listing: Listing, first: list[Entry], offsets: range) -> Iterator[list[Entry]]:
    yield first
    for turn in range(len(offsets)):
        yield _page(api, listing, offsets[(listing.start + turn) % len(offsets)]).entries


def _page(api: SourceApi, listing: Listing, offset: int) -> _Page:
    query = {"offset": str(offset), "limit": str(listing.page)}
    answer = api.get(listing.path, query, keep=listing.keep, since=listing.since)
    if answer is None:
        return _Page([], 0)
    return _Page(entries_of(answer), answer.at("pagination", "total").maybe_integer())
