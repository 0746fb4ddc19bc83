"""The connectors: one line each. mypy checks every module against its protocol."""

from __future__ import annotations

from typing import Final

from bridge.core.contracts import Simulator, Source, Target

SOURCES: Final[dict[str, tuple[Source, Simulator]]] = {}

TARGETS: Final[dict[str, Target | None]] = {}
