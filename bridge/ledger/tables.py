"""The ledger's tables. Times are whole milliseconds since 1970 UTC; JSON is kept as text, bytes as bytes.

    deliveries_in ──▶ events ──▶ messages ──▶ attempts

Rows that are still to be worked on have status `waiting`. All hot queries go through partial indexes on that status, so
their cost does not grow with the number of finished rows.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata: Final = MetaData()

_key = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only a plain INTEGER key
_WAITING: Final = text("status = 'waiting'")
_OPEN: Final = text("ended_ms is null")

deliveries_in: Final = Table(
    "deliveries_in",
    metadata,
    Column("seq", _key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("source", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("headers", Text, nullable=False),
    Column("query", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("proof", Text, nullable=False),
    Column("ignored", Boolean, nullable=False),
    Column("dedupe_key", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("repeats", Integer, nullable=False),
    Column("lane", Text, nullable=False),
    Column("order_key", Text, nullable=False),
    Column("status", Text, nullable=False),  # waiting · done · dead
    Column("due_ms", BigInteger, nullable=False),
    Column("starts", Integer, nullable=False),  # after a worker died: how often its work was begun
    Column("attempts", Integer, nullable=False),
    Column("purpose", Text, nullable=False),  # new · replay (sent again by hand) · completion (once more, for the rest)
    Column("reason", Text),
    Column("finished_ms", BigInteger),
    UniqueConstraint("source", "dedupe_key", "generation"),
    Index("deliveries_waiting_lane", "lane", "seq", sqlite_where=_WAITING, postgresql_where=_WAITING),
    Index("deliveries_waiting_order", "order_key", "seq", sqlite_where=_WAITING, postgresql_where=_WAITING),
    Index("deliveries_waiting_age", "received_ms", sqlite_where=_WAITING, postgresql_where=_WAITING),
)
"""One row per genuine delivery. `generation` counts deliveries with one dedupe key whose windows do not overlap."""

repeats: Final = Table(
    "repeats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("delivery_seq", _key, nullable=False, index=True),
    Column("received_ms", BigInteger, nullable=False),
)
"""A delivery that was recognised as a repeat of another."""

events: Final = Table(
    "events",
    metadata,
    Column("cursor", _key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("delivery_seq", _key, nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("state_key", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("recorded_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("trace", Text, nullable=False),
    Index("events_about", "subject", "time_ms"),
)
"""Canonical events. `trace` is the story of enrichment and matching, for people."""

messages: Final = Table(
    "messages",
    metadata,
    Column("seq", _key, primary_key=True, autoincrement=True),
    Column("key", Text, nullable=False, unique=True),
    Column("event_id", Text, nullable=False, index=True),
    Column("mapping", Text, nullable=False),
    Column("mapping_version", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("order_key", Text, nullable=False),
    Column("state", Boolean, nullable=False),
    Column("latest_only", Boolean, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("sequence", BigInteger),
    Column("status", Text, nullable=False),  # waiting · delivered · superseded · dead · held · discarded
    Column("due_ms", BigInteger, nullable=False),
    Column("starts", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("step", Text, nullable=False),  # map · prepare · deliver: where it is, or where it died
    Column("reason", Text),
    Column("target_id", Text),
    Column("finished_ms", BigInteger),
    Index("messages_waiting_lane", "lane", "seq", sqlite_where=_WAITING, postgresql_where=_WAITING),
    Index("messages_waiting_order", "order_key", "seq", sqlite_where=_WAITING, postgresql_where=_WAITING),
    Index("messages_waiting_age", "created_ms", sqlite_where=_WAITING, postgresql_where=_WAITING),
    Index(
        "messages_for_people",
        "status",
        "seq",
        sqlite_where=text("status in ('dead', 'held')"),
        postgresql_where=text("status in ('dead', 'held')"),
    ),
)
"""One event for one target as a mapping rendered it; `key` is the idempotency key."""

attempts: Final = Table(
    "attempts",
    metadata,
    Column("seq", _key, primary_key=True, autoincrement=True),
    Column("message_key", Text, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("took_ms", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("status", Integer),
    Column("reason", Text, nullable=False),
)
"""Every answer, or its absence, of a target."""

subject_heads: Final = Table(
    "subject_heads",
    metadata,
    Column("order_key", Text, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("sequence", BigInteger),
    Column("message_key", Text, nullable=False),
)
"""The newest state that a target got, per mapping and state key."""

lanes: Final = Table(
    "lanes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("token", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("suspects", Integer, nullable=False),
    Column("not_before_ms", BigInteger, nullable=False, server_default="0"),
)
"""Who works on a lane, and until when. `token` grows with every new owner and fences off the one before; `suspects` is
how many rows are counted when their work begins, after an owner died; nothing is claimed before `not_before_ms`."""

destinations: Final = Table(
    "destinations",
    metadata,
    Column("target", Text, primary_key=True),
    Column("state", Text, nullable=False),  # fine · throttled · refused · failing · gone · paused
    Column("until_ms", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("since_ms", BigInteger),
    Column("settings", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)
"""How targets stand that are, or were, left alone for a while; `settings` is a fingerprint of those it was with."""

journal_positions: Final = Table(
    "journal_positions",
    metadata,
    Column("segment", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""Up to where a journal segment is in the ledger; written in the transaction that brought it there."""

figures: Final = Table(
    "figures",
    metadata,
    Column("day", Text, primary_key=True),  # YYYY-MM-DD in UTC
    Column("subject", Text, primary_key=True),  # source:<name> · target:<name>
    Column("figure", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Counts per day, so that no page and no report has to count rows."""

facts: Final = Table(
    "facts",
    metadata,
    Column("source", Text, primary_key=True),
    Column("fact", Text, primary_key=True),
    Column("delivery_seq", _key, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("origin", Text, nullable=False),  # webhook · reconciled
    Column("first_ms", BigInteger, nullable=False),
)
"""What has happened at a platform, in its connector's words, and what told us first: a webhook or a list."""

watermarks: Final = Table(
    "watermarks",
    metadata,
    Column("source", Text, primary_key=True),
    Column("until_ms", BigInteger, nullable=False),
)
"""Up to when a platform's own lists were compared with the facts."""

duties: Final = Table(
    "duties",
    metadata,
    Column("name", Text, primary_key=True),
    Column("due_ms", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("began_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("failures", Integer, nullable=False),
    Column("problem", Text),
)
"""Work that comes round again, for one machine at a time: when it is due, and who is at it until when."""

arrivals: Final = Table(
    "arrivals",
    metadata,
    Column("source", Text, primary_key=True),
    Column("kind", Text, primary_key=True),  # genuine · ignored (verification calls) · reconciled
    Column("hour", BigInteger, primary_key=True),  # whole hours since 1970
    Column("count", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
)
"""How many deliveries came in an hour; the largest `last_seq` of all is up to where the deliveries are counted."""

alerts: Final = Table(
    "alerts",
    metadata,
    Column("seq", _key, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("about", Text, nullable=False),  # silence · subscription · verification
    Column("detail", Text, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("alerts_open", "source", "about", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
)
"""What a person was told about a source; the rows without an end are still so."""

subscriptions: Final = Table(
    "subscriptions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("kinds", Text, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("tried_ms", BigInteger, nullable=False),
    Column("tries", Integer, nullable=False),
)
"""Our webhook subscription at a platform as its API last showed it, and how often since then, and when, somebody who is
no person tried to make it anew."""

feed: Final = Table(
    "feed",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("event", _key, nullable=False, unique=True),  # events.cursor
)
"""The order in which events are offered to those who pull. An event that changes moves to a new position."""

feed_head: Final = Table(
    "feed_head",
    metadata,
    Column("line", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""One row: the newest position. Who adds to the feed holds this row until the commit, so that positions become visible
in their order. `line` is a random name, made with the tables: cursors of another ledger are recognised by it."""

api_tokens: Final = Table(
    "api_tokens",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),  # SHA-256 of the token, in hex
    Column("scopes", Text, nullable=False),  # JSON, as are the next two; an empty list stands for all
    Column("sources", Text, nullable=False),
    Column("types", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("used_ms", BigInteger),  # to the hour
)
"""Who may use the API, and for what."""

credentials: Final = Table(
    "credentials",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", Text, nullable=False),  # empty until there is one
    Column("owner", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
)
"""Refresh tokens that change with every use, encrypted, and who is exchanging one until when. `name` is the fingerprint
of the login and of the refresh token that it began with. Shown nowhere."""

audit: Final = Table(
    "audit",
    metadata,
    Column("seq", _key, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""What people did by hand."""
