"""Reading segments, of living and of dead processes, without ever taking a half-written record for a whole one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final

from bridge.core.source import Accepted
from bridge.journal.record import MAGIC, resume, scan

_HEADER_BYTES: Final = 12
_PIECE: Final = 1024 * 1024
_MAKING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records of one segment from an offset on; `finished` means that nobody will ever add to it.

    `more` means that records may stand behind these which this reading did not reach; then there is at least one here.
    `damaged` counts torn places in a finished segment behind which whole records stood: more than a power cut does.
    """

    segment: str
    records: tuple[tuple[Accepted, int], ...]
    finished: bool
    more: bool
    damaged: int = 0


def segments(folder: Path) -> list[Path]:
    """All segments, oldest first."""
    return sorted(folder.glob("*.seg")) if folder.is_dir() else []


def read(path: Path, offset: int, until: int) -> Found:
    """What stands in a segment behind `offset` and came in before the monotonic time `until` (in nanoseconds).

    The limit keeps the order between processes: a record that is later than the moment at which reading began waits
    for the next round, because an earlier one may stand in a segment that was read before it.
    """
    abandoned = _abandoned(path)  # asked first: what a dead process wrote is all there by now
    offset = max(offset, len(MAGIC))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = os.pread(file.fileno(), _HEADER_BYTES, offset)
        if any(data):
            data = os.pread(file.fileno(), _PIECE, offset)
            if scan(data, offset).ending == "cut" and not scan(data, offset).records:  # larger than a piece
                data = os.pread(file.fileno(), size - offset, offset)
    piece = scan(data, offset)
    whole = piece.ending != "cut" or offset + len(data) >= size
    if not abandoned:
        early = tuple(takewhile(lambda entry: entry[0].clock <= until, piece.records))
        sealed = piece.ending == "sealed" and len(early) == len(piece.records)
        cut = not whole and len(early) == len(piece.records)
        return Found(segment=path.name, records=early, finished=sealed, more=cut)
    behind = piece.records[-1][1] - offset if piece.records else 0
    torn = piece.ending == "torn"
    if piece.ending == "cut" and whole:  # no record reaches beyond its file: a length that says so is damaged
        torn = any(data[behind:])
    if torn and not piece.records:
        return _behind_torn(path, offset)
    done = whole and not torn
    return Found(segment=path.name, records=piece.records, finished=done, more=not done)


def _behind_torn(path: Path, offset: int) -> Found:
    """A dead process's segment from a torn place on. Its last write was cut short, unless whole records follow."""
    data = path.read_bytes()[offset:]
    skip = resume(data)
    if skip is None:
        return Found(segment=path.name, records=(), finished=True, more=False)
    records = scan(data[skip:], offset + skip).records
    return Found(segment=path.name, records=records, finished=False, more=True, damaged=1)


def _abandoned(path: Path) -> bool:
    """Whether the process that wrote a segment is gone: its lock can be had."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def remove_unfinished(folder: Path) -> None:
    """Remove what processes left that were killed while they made a segment: nothing was ever promised of it."""
    for path in folder.glob("*.new"):
        with contextlib.suppress(OSError):  # its maker finished it meanwhile, or it costs room and nothing else
            if time.time() - path.stat().st_mtime > _MAKING_SECONDS and _abandoned(path):
                path.unlink()


@contextmanager
def sole_reader(folder: Path) -> Iterator[bool]:
    """True while no other process of this host ships this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "shipper.lock").open("w") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def note_shipped(folder: Path, positions: Mapping[str, int]) -> None:
    """Leave word how far the ledger has got, for figures that must not hang on the database. Only a hint: on a full
    disk there is none.
    """
    fresh = folder / "shipped.json.new"
    with contextlib.suppress(OSError):
        fresh.write_text(json.dumps(dict(positions)), "utf-8")
        fresh.rename(folder / "shipped.json")


def oldest_record(folder: Path) -> float | None:
    """When (in seconds since 1970) the oldest record came in that is not known to be in the ledger."""
    try:
        positions = json.loads((folder / "shipped.json").read_text("utf-8"))
    except (OSError, ValueError):
        positions = {}
    oldest: float | None = None
    for path in segments(folder):
        with contextlib.suppress(FileNotFoundError):  # shipped and deleted meanwhile
            records = read(path, positions.get(path.name, 0), time.monotonic_ns()).records
            if records:
                arrived = records[0][0].verified.inbound.received_at.timestamp()
                oldest = arrived if oldest is None else min(oldest, arrived)
    return oldest
