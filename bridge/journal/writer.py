"""Appending to a process's own segment: a write and an fdatasync, and the bytes are safe."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Final

from bridge.core.errors import StorageUnavailable
from bridge.core.source import Accepted
from bridge.journal.record import MAGIC, SEAL, encode

SEGMENT_BYTES: Final = 8 * 1024 * 1024
_ZEROS: Final = bytes(1024 * 1024)


class JournalWriter:
    """One process's segment after the other. Threads share it, and one sync serves all that wrote before it began.

    Segments are filled with zeros beforehand, so that a sync has no file size to write down. A segment in which
    anything failed is left as it is and never written again: whether the failed record is in it, nobody knows.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._segment: _Segment | None = None

    def append(self, accepted: Accepted) -> None:
        """Return when the record is on stable storage. Raises StorageUnavailable: then nothing was promised."""
        record = encode(accepted)
        try:
            with self._lock:
                segment = self._segment_for(len(record))
                ticket = segment.write(record)
            try:
                segment.sync(ticket)
            finally:
                with self._lock:
                    segment.leave()
        except OSError as error:
            with self._lock:
                self._retire()
            raise StorageUnavailable(f"the journal cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Leave the segment to the shipper."""
        with self._lock:
            self._retire()

    def _segment_for(self, length: int) -> _Segment:
        segment = self._segment
        if segment is not None and segment.owner != os.getpid():
            segment = self._segment = None  # after a fork: the parent's segment stays the parent's
        if segment is None or not segment.has_room(length):
            self._retire()
            segment = self._segment = _create(self._folder, max(self._segment_bytes, length + 64))
        return segment

    def _retire(self) -> None:
        if self._segment is not None:
            self._segment.retire()
            self._segment = None


class _Segment:
    """A file that this process alone writes. All but `sync` is called under the writer's lock."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.owner = os.getpid()
        self._descriptor = descriptor
        self._size = size
        self._offset = len(MAGIC)
        self._synced = 0
        self._failed = False
        self._inside = 0
        self._retired = False
        self._syncing = threading.Lock()

    def has_room(self, length: int) -> bool:
        return not self._failed and self._offset + length + len(SEAL) <= self._size

    def write(self, record: bytes) -> int:
        """The offset behind the record: the ticket to `sync` with."""
        try:
            if os.pwrite(self._descriptor, record, self._offset) != len(record):
                raise OSError("short write")
        except OSError:
            self._failed = True
            raise
        self._offset += len(record)
        self._inside += 1
        return self._offset

    def sync(self, ticket: int) -> None:
        """Return when everything up to the ticket is on stable storage; often somebody else's sync did it already."""
        with self._syncing:
            if self._synced >= ticket:
                return
            if self._failed:
                raise OSError("an earlier sync failed")
            reach = self._offset
            try:
                os.fdatasync(self._descriptor)
            except OSError:
                self._failed = True
                raise
            self._synced = reach

    def leave(self) -> None:
        self._inside -= 1
        self._close_if_last()

    def retire(self) -> None:
        """No more records; the file is closed, and its lock with it, when the last one inside has left."""
        if self._retired:
            return
        self._retired = True
        if not self._failed:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, SEAL, self._offset)
        self._close_if_last()

    def _close_if_last(self) -> None:
        if self._retired and not self._inside and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _create(folder: Path, size: int) -> _Segment:
    """A new segment, zeros all through. Its lock is held for life: who can get it knows that its writer is gone."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    fresh = folder / f"{name}.new"
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for start in range(0, size, len(_ZEROS)):
            piece = _ZEROS[: min(len(_ZEROS), size - start)]
            if os.pwrite(descriptor, piece, start) != len(piece):
                raise OSError("short write")
        os.pwrite(descriptor, MAGIC, 0)
        os.fsync(descriptor)
        fresh.rename(folder / f"{name}.seg")
        sync_folder(folder)
    except OSError:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    return _Segment(descriptor, size)


def sync_folder(folder: Path) -> None:
    """Make a rename or an unlink in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
