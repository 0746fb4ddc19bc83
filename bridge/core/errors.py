"""Every error of the hub, named by what happens next.

    BridgeError
    ├── ConfigurationError    the start stops, or the last good configuration stays; carries all problems at once
    ├── NotGenuine            the delivery is refused with 401; `reason` is a slug for metrics, never for the sender
    ├── PayloadError          the delivery is kept as `source.unmapped` and can be replayed after a fix
    ├── SourceUnavailable     enrichment waits and tries again until its deadline
    │   └── SourceRefused     the same, and somebody should look: the platform refuses our credentials
    ├── MappingError          this message becomes a dead letter; the event's other mappings go on
    ├── TargetError           this message becomes a dead letter: it cannot be made into a request
    ├── CredentialsRefused    this message waits, and somebody should look: the target refuses our credentials
    ├── DestinationForbidden  the guard will not open this connection; the message becomes a dead letter
    └── StorageUnavailable    the sender gets 503 and `Retry-After`: nothing was promised

Messages say where and what was expected, never the value that was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BridgeError(Exception):
    """Base of all errors that the hub raises itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration file: where, what was expected, and what to do."""

    file: str
    line: int | None
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        where = f" {self.where}:" if self.where else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{where} {self.message}{hint}"


class ConfigurationError(BridgeError):
    """The configuration cannot be used; `problems` has at least one entry."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class NotGenuine(BridgeError):
    """The delivery could not be proven to come from the platform. `reason` is a slug such as `signature_mismatch`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class PayloadError(BridgeError):
    """The body does not have the expected shape at `path`."""

    def __init__(self, path: str, expected: str) -> None:
        self.path = path
        self.expected = expected
        super().__init__(f"{path}: expected {expected}")


class SourceUnavailable(BridgeError):
    """The platform's API gave no usable answer now; `retry_after` in seconds if it said when."""

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(reason)


class SourceRefused(SourceUnavailable):
    """The platform's API refuses our credentials or rights."""


class MappingError(BridgeError):
    """A mapping could not be rendered for an event. `field` is the path inside `with`, or `when`."""

    def __init__(self, mapping: str, field: str, reason: str) -> None:
        self.mapping = mapping
        self.field = field
        self.reason = reason
        super().__init__(f"mapping {mapping}, {field}: {reason}")


class TargetError(BridgeError):
    """A message cannot be made into a request for its target."""


class CredentialsRefused(BridgeError):
    """No access token is to be had for a target with these credentials; `reason` names what to check."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class DestinationForbidden(BridgeError):
    """The guard of outgoing connections refuses this address."""


class StorageUnavailable(BridgeError):
    """The bytes could not be made safe."""
