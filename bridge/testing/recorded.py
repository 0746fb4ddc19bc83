"""A platform's API with odd answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from bridge.core.contracts import Settings
from bridge.core.events import Json
from bridge.core.payload import Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class StubbornApi:
    """Answers what a fixture says, however odd, and 404 to everything else."""

    settings: Settings
    now: datetime
    answers: Mapping[str, Any]

    def get(self, path: str, query: Mapping[str, str] | None = None, *, keep: float = 0) -> Payload | None:
        return self._answer(f"GET {path}" + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: Json, *, keep: float = 0) -> Payload | None:
        return self._answer(f"POST {path}")

    def _answer(self, call: str) -> Payload | None:
        answer = self.answers.get(call, {"status": 404})
        return None if answer.get("status", 200) == 404 else Payload(answer.get("json"))
