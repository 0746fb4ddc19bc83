"""The byte form of one accepted delivery, and of a segment of them.

    segment  MAGIC, records, zeros up to its full size (or a seal where the writer moved on)
    record   mark (4) · length of payload (4) · CRC-32 of payload (4) · payload
    payload  length of head (4) · head as JSON · body as it came

All integers are little-endian. A length of zero where a mark should stand means that nothing was written there yet.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import orjson

from bridge.core.source import Accepted, Inbound, Verified

MAGIC: Final = b"CBJ1\n\0\0\0"
SEAL: Final = b"SEAL"
_MARK: Final = b"\xcbREC"
_HEADER: Final = struct.Struct("<4sII")
_HEAD: Final = struct.Struct("<I")


def encode(accepted: Accepted) -> bytes:
    """One record."""
    verified = accepted.verified
    inbound = verified.inbound
    head = orjson.dumps(
        {
            "id": inbound.id,
            "source": inbound.source,
            "received": inbound.received_at.timestamp(),
            "headers": dict(inbound.headers),
            "query": dict(inbound.query),
            "proof": verified.proof,
            "dedupe_key": verified.dedupe_key,
            "dedupe_window": verified.dedupe_window.total_seconds(),
            "ignored": accepted.ignored,
            "clock": accepted.clock,
        }
    )
    payload = _HEAD.pack(len(head)) + head + inbound.body
    return _HEADER.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def decode(payload: bytes) -> Accepted:
    """The inverse of `encode` for a payload whose checksum was right."""
    (length,) = _HEAD.unpack_from(payload)
    head = orjson.loads(payload[_HEAD.size : _HEAD.size + length])
    inbound = Inbound(
        id=head["id"],
        source=head["source"],
        received_at=datetime.fromtimestamp(head["received"], UTC),
        headers=head["headers"],
        query=head["query"],
        body=payload[_HEAD.size + length :],
    )
    verified = Verified(
        inbound=inbound,
        proof=head["proof"],
        dedupe_key=head["dedupe_key"],
        dedupe_window=timedelta(seconds=head["dedupe_window"]),
    )
    return Accepted(verified=verified, ignored=head["ignored"], clock=head["clock"])


Ending = Literal["open", "sealed", "torn", "cut"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What stands in a piece of a segment: records, each with the offset behind it, and how the piece ends.

    open: nothing was written there yet · sealed: the writer moved on · torn: neither a record nor nothing ·
    cut: the piece ends in the middle of something.
    """

    records: tuple[tuple[Accepted, int], ...]
    ending: Ending


def scan(data: bytes, base: int) -> Scan:
    """The records in `data`, which begins at offset `base` of a segment and at a record boundary."""
    records: list[tuple[Accepted, int]] = []
    position = 0
    ending: Ending = "cut"
    while position + _HEADER.size <= len(data):
        mark, length, checksum = _HEADER.unpack_from(data, position)
        if mark != _MARK:
            ending = "sealed" if mark == SEAL else "torn" if any(mark) or length or checksum else "open"
            break
        start = position + _HEADER.size
        payload = data[start : start + length]
        if len(payload) < length:
            break
        if zlib.crc32(payload) != checksum:
            ending = "torn"
            break
        position = start + length
        records.append((decode(payload), base + position))
    else:
        if data.startswith(SEAL, position):
            ending = "sealed"
    return Scan(records=tuple(records), ending=ending)


def resume(data: bytes) -> int | None:
    """Where, in data that begins at a torn place, a whole record stands again."""
    position = data.find(_MARK, 1)
    while 0 <= position <= len(data) - _HEADER.size:
        if scan(data[position:], 0).records:
            return position
        position = data.find(_MARK, position + 1)
    return None
