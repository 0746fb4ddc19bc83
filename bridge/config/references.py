"""`${NAME}` and `${file:/path}` in bridge.yaml: secrets stay outside the file, and none is ever empty or shown.

`$${` stands for a plain `${`. There are no defaults: an unset variable stops the start and is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.config.documents import Document, Steps
from bridge.core.errors import Problem

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MAX_SECRET: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A document's value with every reference filled in. `unknown` are the places whose reference failed.

    `referred` are the places that hold one, so that a secret written out in the file can be told from one that is not.
    """

    value: Any = field(repr=False)
    unknown: frozenset[Steps]
    referred: frozenset[Steps]
    problems: tuple[Problem, ...]


def resolve(document: Document, environ: Mapping[str, str], folder: Path) -> Resolved:
    """Fill in all references; `folder` is where relative `${file:…}` paths begin. Keys are left as they are."""
    resolving = _Resolving(document=document, environ=environ, folder=folder)
    value = resolving.value(document.value, ())
    return Resolved(
        value=value,
        unknown=frozenset(resolving.unknown),
        referred=frozenset(resolving.referred),
        problems=tuple(resolving.problems),
    )


@dataclass(slots=True, kw_only=True)
class _Resolving:
    document: Document
    environ: Mapping[str, str]
    folder: Path
    unknown: set[Steps] = field(default_factory=set)
    referred: set[Steps] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def value(self, value: Any, steps: Steps) -> Any:
        if isinstance(value, dict):
            return {key: self.value(entry, (*steps, key)) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.value(entry, (*steps, position)) for position, entry in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda match: self._one(match, steps), value)
        return value

    def _one(self, match: re.Match[str], steps: Steps) -> str:
        if match[0] == "$${":
            return "${"
        self.referred.add(steps)
        found = self._lookup(match[1], closed=bool(match[2]))
        if isinstance(found, str):
            return found
        self.unknown.add(steps)
        message, hint = found
        self.problems.append(self.document.problem(steps, message, hint))
        return ""

    def _lookup(self, name: str, *, closed: bool) -> str | tuple[str, str]:
        """The value, or what is wrong and what to do. A value never becomes part of a message."""
        if not closed:
            return "a reference without its closing }", "write $${ for a plain ${"
        if name.startswith("file:"):
            return self._file(name.removeprefix("file:"))
        if not _NAME.match(name):
            return "not a reference", "write ${NAME} or ${file:/path}, and $${ for a plain ${"
        value = self.environ.get(name)
        if value is None:
            return f"the environment variable {name} is not set", f"set {name}, or take this entry out"
        if not value.strip():
            return f"the environment variable {name} is empty", f"set {name}, or take this entry out"
        return value

    def _file(self, name: str) -> str | tuple[str, str]:
        path = self.folder / name
        try:
            with path.open("rb") as stream:
                text = stream.read(_MAX_SECRET + 1).decode("utf-8")
        except UnicodeDecodeError:
            return f"the file {path} is not UTF-8", ""
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path"
            return f"the file {path} cannot be read: {why}", ""
        if len(text) > _MAX_SECRET:
            return f"the file {path} is larger than {_MAX_SECRET // 1024} KiB", ""
        text = text.removesuffix("\n").removesuffix("\r")
        return text if text.strip() else (f"the file {path} is empty", "")
