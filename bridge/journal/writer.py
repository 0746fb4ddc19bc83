"""Appending to a process's own segment: one write and one fdatasync, and the bytes are safe."""

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

from bridge.core.contracts import Accepted
from bridge.core.errors import StorageUnavailable
from bridge.journal.record import MAGIC, SEAL, encode

SEGMENT_BYTES: Final = 8 * 1024 * 1024
_ZEROS: Final = bytes(1024 * 1024)


class JournalWriter:
    """One process's segment. Safe to share between threads; after a fork every process gets a segment of its own.

    Segments are filled with zeros beforehand, so that a sync has no file size to write down. A segment in which
    anything failed is left as it is and never written again: whether the failed record is in it, nobody knows.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._owner = 0
        self._descriptor = -1
        self._offset = 0

    def append(self, accepted: Accepted) -> None:
        """Return when the record is on stable storage. Raises StorageUnavailable: then nothing was promised."""
        record = encode(accepted)
        with self._lock:
            try:
                self._make_room(len(record))
                written = os.pwrite(self._descriptor, record, self._offset)
                if written != len(record):
                    raise OSError("short write")
                os.fdatasync(self._descriptor)
            except OSError as error:
                self._abandon()
                raise StorageUnavailable(f"the journal cannot be written: {error.strerror or error}") from error
            self._offset += len(record)

    def close(self) -> None:
        """Leave the segment to the shipper."""
        with self._lock:
            self._seal()

    def _make_room(self, length: int) -> None:
        if self._owner != os.getpid():
            self._descriptor = -1  # the parent's segment stays the parent's
        if self._descriptor >= 0 and self._offset + length + len(SEAL) <= self._segment_bytes:
            return
        self._seal()
        self._open(max(self._segment_bytes, len(MAGIC) + length + len(SEAL)))

    def _open(self, size: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{socket.gethostname()}-{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(2)}"
        fresh = self._folder / f"{name}.new"
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held for life: who gets it knows that we are gone
            for start in range(0, size, len(_ZEROS)):
                os.pwrite(descriptor, _ZEROS[: min(len(_ZEROS), size - start)], start)
            os.pwrite(descriptor, MAGIC, 0)
            os.fsync(descriptor)
            fresh.rename(self._folder / f"{name}.seg")
            sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        self._owner, self._descriptor, self._offset = os.getpid(), descriptor, len(MAGIC)

    def _seal(self) -> None:
        if self._descriptor >= 0 and self._owner == os.getpid():
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, SEAL, self._offset)
            self._abandon()

    def _abandon(self) -> None:
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = -1


def sync_folder(folder: Path) -> None:
    """Make a rename or an unlink in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
