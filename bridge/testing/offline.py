"""What the suite's stand-ins for a platform's API have in common: they know nothing but the answers they were given."""

from __future__ import annotations

from bridge.core.errors import SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.payload import Payload


class Offline:
    """The parts of a SourceApi that need a bridge around it, as they are where there is none."""

    def change(self, method: str, path: str, body: Json | None = None) -> Payload | None:
        raise AssertionError(f"nobody expected {method} {path}")

    def offer(self, path: str, answer: Payload) -> None:
        """Nobody waits for it."""

    def known(self, subject: str) -> Event | None:
        return None

    def wants(self, field: str) -> bool:
        return True

    def lack(self, reason: str, *, for_good: bool = False) -> None:
        if not for_good:
            raise SourceUnavailable(reason)
