"""Mappings that are taken up while the bridge runs. A broken file never replaces the last good one, not even across a
restart: every version that loads well is copied to `<data>/mappings-last-good/`.

A change counts once two checks in a row see the same state of a file, so that neither a file that is being written
nor the blink of an eye in which an editor swaps it is taken for what somebody meant.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.config.mappings import Load, mapping_files, read_mapping
from bridge.core.errors import Problem
from bridge.flow.mapping import Mapping as CompiledMapping

LAST_GOOD: Final = "mappings-last-good"

_Signature = tuple[int, int, int, int]
_UNSEEN: Final[_Signature] = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The mappings in use and what is wrong with their files.

    `held` are those whose file is broken and that run on their last good version; `missing` those that have none.
    """

    mappings: Mapping[str, CompiledMapping]
    problems: tuple[Problem, ...] = ()
    held: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class _File:
    """What is known of one file: the state that was applied, the mapping in use and the file's problems."""

    signature: _Signature
    mapping: CompiledMapping | None
    broken: bool
    problems: tuple[Problem, ...]


@dataclass(slots=True, kw_only=True)
class LiveMappings:
    """The mappings of a folder as they are now; safe to ask from many threads.

    `load` makes a mapping of a file's bytes. `every` is the seconds between two looks at the folder. `on_change` is
    told every new snapshot, the first one included, in the thread that found it.
    """

    folder: Path
    data: Path
    load: Load
    every: float = 2.0
    on_change: Callable[[Snapshot], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _snapshot: Snapshot | None = field(default=None, init=False, repr=False)
    _due: float = field(default=0.0, init=False, repr=False)
    _files: dict[str, _File] = field(default_factory=dict, init=False, repr=False)
    _seen: dict[str, _Signature] = field(default_factory=dict, init=False, repr=False)

    def current(self) -> Snapshot:
        """The mappings in use. Looks at the folder at most once in `every` seconds; never raises for what is in it."""
        snapshot = self._snapshot
        if snapshot is not None and (time.monotonic() < self._due or not self._lock.acquire(blocking=False)):
            return snapshot
        if snapshot is None:
            self._lock.acquire()
        try:
            if self._snapshot is None or time.monotonic() >= self._due:
                self._look()
                self._due = time.monotonic() + self.every
            return self._snapshot or Snapshot(mappings={})
        finally:
            self._lock.release()

    def _look(self) -> None:
        trouble: tuple[Problem, ...] = ()
        first = self._snapshot is None
        try:
            paths = mapping_files(self.folder)
            now = {name: signature for name, path in paths.items() if (signature := _signature(path)) is not None}
        except OSError as error:
            # A folder that cannot be read says nothing about its files: what is in use stays in use.
            paths = self._copies() if first else {}
            now = dict.fromkeys(paths, _UNSEEN) if first else dict(self._seen)
            trouble = self._unreadable(error) if now or self._files else ()
        for name, signature in now.items():
            known = self._files.get(name)
            if (known is None or known.signature != signature) and (first or self._seen.get(name) == signature):
                self._files[name] = self._taken_up(name, paths[name], signature, known)
        for name in [name for name in self._files if name not in now and name not in self._seen]:
            del self._files[name]
            self._forget(name)
        if first:
            for name in self._copies().keys() - now.keys():
                self._forget(name)
        self._seen = now
        self._publish(trouble)

    def _taken_up(self, name: str, path: Path, signature: _Signature, known: _File | None) -> _File:
        """A file's new version, or, where it is broken, the one before it: from memory, else from the copy."""
        loaded, raw = read_mapping(name, path, self.load)
        if loaded.mapping is not None:
            trouble = self._keep(name, raw)
            return _File(signature=signature, mapping=loaded.mapping, broken=False, problems=trouble)
        before = known.mapping if known is not None else self._last_good(name)
        return _File(signature=signature, mapping=before, broken=True, problems=loaded.problems)

    def _last_good(self, name: str) -> CompiledMapping | None:
        """The copy of the last good version. Its tests were passed when it was taken up; they are not asked again."""
        try:
            raw = self._copy(name).read_bytes()
        except OSError:
            return None
        return self.load(name, raw, file=str(self._copy(name)), tested=False).mapping

    def _keep(self, name: str, raw: bytes) -> tuple[Problem, ...]:
        """Copy a good version; a crash leaves the old copy or the new one, never half of it."""
        copy = self._copy(name)
        try:
            if copy.exists() and copy.read_bytes() == raw:
                return ()
            copy.parent.mkdir(parents=True, exist_ok=True)
            draft = copy.with_name(f".{name}.{os.getpid()}.tmp")
            with draft.open("wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(copy)
        except OSError as error:
            message = f"the last good version cannot be kept: {error.strerror}"
            return (Problem(file=str(copy), line=None, where="", message=message),)
        return ()

    def _forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._copy(name).unlink(missing_ok=True)

    def _copy(self, name: str) -> Path:
        return self.data / LAST_GOOD / f"{name}.yaml"

    def _copies(self) -> dict[str, Path]:
        try:
            return mapping_files(self.data / LAST_GOOD)
        except OSError:
            return {}

    def _unreadable(self, error: OSError) -> tuple[Problem, ...]:
        message = f"the folder cannot be read: {error.strerror}"
        hint = "the last good mappings stay in use"
        return (Problem(file=str(self.folder), line=None, where="", message=message, hint=hint),)

    def _publish(self, trouble: tuple[Problem, ...]) -> None:
        """Make a snapshot of what is known, and tell of it if it differs from the one before."""
        files = sorted(self._files.items())
        snapshot = Snapshot(
            mappings={name: file.mapping for name, file in files if file.mapping is not None},
            problems=trouble + tuple(problem for _, file in files for problem in file.problems),
            held=frozenset(name for name, file in files if file.broken and file.mapping is not None),
            missing=frozenset(name for name, file in files if file.mapping is None),
        )
        if snapshot != self._snapshot:
            self._snapshot = snapshot
            if self.on_change is not None:
                self.on_change(snapshot)


def _signature(path: Path) -> _Signature | None:
    """What changes whenever a file does; None for a file that is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
