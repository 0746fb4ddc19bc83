"""One entry of bridge.yaml, as a connector gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One source or target of bridge.yaml. `options` is checked against the manifest's schema, defaults filled in."""

    name: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    api: Mapping[str, Any] | None = field(default=None, repr=False)
