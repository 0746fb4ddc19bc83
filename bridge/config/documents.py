"""YAML files as plain values that remember their lines, so that every later message can point at one.

YAML 1.2 core schema: `no`, `on` and dates stay words; so does `0123`, which is somebody's id and no number. Keys are
text as they were written. A key that is there twice, a tag, a second document and anything beyond the bounds below are
mistakes. Anchors, aliases and `<<` work.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from bridge.core.errors import Problem

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 50_000
"""Counted after aliases are followed: a few short lines of aliases can stand for billions of values."""

Steps = tuple[str | int, ...]
"""The way to a value: keys and positions."""

_TAG: Final = "tag:yaml.org,2002:"
_NULL: Final = re.compile(r"(?:~|null|Null|NULL|)\Z")
_BOOL: Final = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300})\Z")
_OTHER_BASE: Final = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT: Final = re.compile(
    r"[-+]?(?:(?:(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.)(?:[eE][-+]?[0-9]+)?|[1-9][0-9]*[eE][-+]?[0-9]+)\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One YAML file: `value` is made of dict, list, str, int, float, bool and None; lines count from 1."""

    file: str
    value: Any = field(repr=False)
    lines: Mapping[Steps, int] = field(repr=False)

    def line(self, steps: Steps) -> int | None:
        """The line of a key or list entry, or of the nearest thing around it that is written in the file."""
        while steps and steps not in self.lines:
            steps = steps[:-1]
        return self.lines.get(steps)

    def problem(self, steps: Steps, message: str, hint: str = "") -> Problem:
        return Problem(file=self.file, line=self.line(steps), where=dotted(steps), message=message, hint=hint)


def dotted(steps: Steps) -> str:
    """`("sources", "x", "secrets", 0)` becomes `sources.x.secrets[0]`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_document(path: Path, *, shown: str | None = None) -> tuple[Document | None, list[Problem]]:
    """A file as a document, or None and why not. `shown` is the name used in messages, by default the path.

    A document that comes with problems (keys that are there twice) is good enough to look for more of them.
    """
    file = shown or str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None, [Problem(file=file, line=None, where="", message="there is no such file")]
    except OSError as error:
        return None, [Problem(file=file, line=None, where="", message=f"cannot be read: {error.strerror}")]
    return parse_document(raw, file=file)


def parse_document(raw: bytes, *, file: str) -> tuple[Document | None, list[Problem]]:
    """Bytes as a document, as `read_document` does."""
    if len(raw) > MAX_BYTES:
        return None, [Problem(file=file, line=None, where="", message=f"is larger than {MAX_BYTES // 1024} KiB")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return None, [Problem(file=file, line=line, where="", message="is not UTF-8", hint="save the file as UTF-8")]
    # The round-trip scanner would leave marks (U+0007) where it could fold a text again; the safe one leaves none.
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    yaml.composer.warn_double_anchors = False  # a name may be used again; the warning would print both lines
    try:
        node = yaml.compose(text)
    except (YAMLError, ValueError, OverflowError) as error:  # the latter two: an escape beyond Unicode, "\UFFFFFFFF"
        return None, [_not_yaml(error, text, file)]
    reading = _Reading(file=file)
    value = reading.value(node, ()) if node is not None else None
    return Document(file=file, value=value, lines=reading.lines), reading.problems


def _not_yaml(error: Exception, text: str, file: str) -> Problem:
    """Why the parser stopped, in words that hold nothing of the file but its punctuation: secrets stand there too."""
    if isinstance(error, ReaderError):
        before = text.count("\n", 0, error.position)
        return Problem(file=file, line=before + 1, where="", message="not YAML: a control character")
    mark = (error.problem_mark or error.context_mark) if isinstance(error, MarkedYAMLError) else None
    words = str(error.problem or "") if isinstance(error, MarkedYAMLError) else ""
    unknown = words if words and _QUOTES_NOTHING.fullmatch(words) else "cannot be read"
    message, hint = next((known[1:] for known in _WORDS if known[0] in words), (f"not YAML: {unknown}", _QUOTES))
    return Problem(file=file, line=None if mark is None else mark.line + 1, where="", message=message, hint=hint)


_QUOTES_NOTHING: Final = re.compile(r"""(?:[^'"]|'(?:[^\w'"]|<[a-z ]+>)'|"'")*""")
"""ruamel's words about punctuation and its own kinds of tokens; between quotes there is no letter, no digit."""
_QUOTES: Final = "texts that hold ': ', ' #' or begin with one of {}[]*&!|>@%` need quotes"
_TAGGED: Final = ("a tag (!…) has no meaning here", "a text that begins with ! needs quotes")
_BACKSLASH: Final = "in double quotes a backslash is written twice, in single quotes once"
_WORDS: Final = (
    ("'\\t'", "not YAML: a tab", "indent with spaces"),
    ("tag handle", *_TAGGED),
    ("found unknown escape", "not YAML: \\ and a letter that means nothing", _BACKSLASH),
    ("expected escape", "not YAML: \\ and too few digits", _BACKSLASH),
    ("indentation indicators", "not YAML: a text beside | or >", "a text that begins with | or > needs quotes"),
    ("found undefined alias", "an alias without its anchor", "a text that begins with * needs quotes"),
    ("found another document", "a second document", "keep one to a file"),
    ("maximum depth", f"nested deeper than {MAX_DEPTH} levels", ""),
    (
        "but got '{'",
        "not YAML: a brace inside a list or mapping",
        'a text with braces needs quotes here: "${NAME}", "{{ … }}"',
    ),
)


@dataclass(slots=True, kw_only=True)
class _Reading:
    """Turns ruamel's nodes into plain values; nothing of ruamel leaves this module."""

    file: str
    lines: dict[Steps, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    open: set[int] = field(default_factory=set)
    values: int = 0

    def value(self, node: Node, steps: Steps) -> Any:
        self.values += 1
        self.lines.setdefault(steps, node.start_mark.line + 1)
        if self.values > MAX_VALUES:
            if self.values == MAX_VALUES + 1:
                self._problem(node, steps, f"more than {MAX_VALUES} values")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, steps)
        if id(node) in self.open:
            self._problem(node, steps, "an alias that holds itself")
            return None
        self.open.add(id(node))
        result = self._sequence(node, steps) if isinstance(node, SequenceNode) else self._mapping(node, steps)
        self.open.discard(id(node))
        return result

    def _sequence(self, node: SequenceNode, steps: Steps) -> list[Any]:
        self._refuse_tag(node, steps, "seq")
        return [self.value(entry, (*steps, position)) for position, entry in enumerate(node.value)]

    def _mapping(self, node: Node, steps: Steps) -> dict[str, Any]:
        self._refuse_tag(node, steps, "map")
        entries: dict[str, Any] = {}
        merged: list[MappingNode] = []
        for key, value in node.value if isinstance(node, MappingNode) else ():
            if not isinstance(key, ScalarNode):
                self._problem(key, steps, "a key must be text", 'a template needs quotes: "{{ … }}"')
            elif key.value == "<<" and not key.style:
                merged += self._merged(value, steps)
            elif key.value in entries:
                first = self.lines[(*steps, key.value)]
                self._problem(key, (*steps, key.value), "this key is there twice", f"first in line {first}")
            else:
                self.lines.setdefault((*steps, key.value), key.start_mark.line + 1)
                entries[key.value] = self.value(value, (*steps, key.value))
        for other in merged:
            inherited = self.value(other, steps)
            entries = {**inherited, **entries} if isinstance(inherited, dict) else entries
        return entries

    def _merged(self, node: Node, steps: Steps) -> list[MappingNode]:
        """What `<<` names: one mapping or a list of them, of which the first wins."""
        candidates = node.value if isinstance(node, SequenceNode) else [node]
        found = [entry for entry in candidates if isinstance(entry, MappingNode)]
        if len(found) != len(candidates):
            self._problem(node, steps, "<< needs a mapping or a list of mappings")
        return found

    def _scalar(self, node: ScalarNode, steps: Steps) -> Any:
        text: str = node.value
        tag = (node.tag or "").removeprefix(_TAG)
        if tag not in {"str", "int", "float", "bool", "null", "timestamp", "value", "merge"}:
            self._problem(node, steps, *_TAGGED)
            return None
        return text if node.style or tag == "str" else _plain(text)

    def _refuse_tag(self, node: Node, steps: Steps, expected: str) -> None:
        if (node.tag or "") != _TAG + expected:
            self._problem(node, steps, *_TAGGED)

    def _problem(self, node: Node, steps: Steps, message: str, hint: str = "") -> None:
        line = node.start_mark.line + 1
        self.problems.append(Problem(file=self.file, line=line, where=dotted(steps), message=message, hint=hint))


def _plain(text: str) -> Any:
    """An unquoted scalar by the core schema; numbers that JSON cannot hold stay text."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text)
    if _OTHER_BASE.match(text):
        return int(text, 0)
    number = float(text) if _FLOAT.match(text) else math.inf
    return number if math.isfinite(number) else text
