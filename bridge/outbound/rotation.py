"""Refresh tokens of which each is good once (Brightspace): the next one is safe before its access token is used.

The configured token is the seed of a chain, and the chain is called after it: another seed begins another chain. What
is kept is encrypted with a key made from the seed, so that the ledger and its backups alone open nothing.

The provider answers before we can write, so a process that dies in between loses the chain: nothing but a new
authorisation helps, and the error says so. Everything else heals: an answer that cannot be written down stays in this
process, its access token unused, until it can; who finds that another was faster takes what that one has kept.
"""

from __future__ import annotations

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.exc import SQLAlchemyError

from bridge.core.errors import CredentialsRefused
from bridge.core.signing import fingerprint
from bridge.ledger.credentials import claim, keep, kept, release
from bridge.ledger.database import Ledger
from bridge.outbound.oauth import Granted, TokenEndpointAway

CLAIM_SECONDS: Final = 60.0
"""Longer than an exchange and its writing can take: who has not finished by then is dead."""

PATIENCE: Final = 10.0
"""Seconds that a worker waits for its turn."""

_POLL: Final = 0.1
WRITES: Final = (0.0, 0.2, 1.0, 3.0)
"""Seconds before each attempt to write down a token that the platform has given already."""


class Rotation:
    """One chain of refresh tokens, shared by all workers of all machines through the ledger. Safe for threads."""

    def __init__(
        self,
        ledger: Ledger,
        auth: Mapping[str, Any],
        *,
        patience: float = PATIENCE,
        writes: tuple[float, ...] = WRITES,
    ) -> None:
        self._ledger = ledger
        self._patience = patience
        self._writes = writes
        self._seed: str = auth["refresh_token"]
        self._name = fingerprint([auth["token_url"], auth["client_id"], self._seed])
        derived = HKDF(SHA256(), length=32, salt=None, info=b"campusbridge refresh token").derive(self._seed.encode())
        self._fernet = Fernet(urlsafe_b64encode(derived))
        self._unwritten: tuple[str, str] | None = None

    def exchanged(self, exchange: Callable[[str], Granted]) -> Granted:
        """What `exchange` gives for the refresh token of the moment, its successor kept.

        Raises what `exchange` raises, and TokenEndpointAway when it is another's turn or the ledger is not there.
        """
        try:
            return self._first_or_second(exchange)
        except SQLAlchemyError as error:
            raise TokenEndpointAway(f"the refresh token cannot be kept safe now ({type(error).__name__})") from None

    def _first_or_second(self, exchange: Callable[[str], Granted]) -> Granted:
        for last in (False, True):
            with self._turn() as standing:
                present = self._opened(standing)
                try:
                    granted = exchange(present)
                except CredentialsRefused:
                    if last or kept(self._ledger, self._name) == standing:
                        raise
                    continue  # somebody whose claim had run out was still at it, and has the next token
                if granted.refresh_token in (None, present) or self._written(standing, str(granted.refresh_token)):
                    return granted
        raise TokenEndpointAway("another worker was faster with the refresh token")

    @contextmanager
    def _turn(self) -> Iterator[str]:
        """The kept secret, while nobody else exchanges it."""
        mine, until = secrets.token_hex(8), time.monotonic() + self._patience
        while (standing := claim(self._ledger, self._name, mine, CLAIM_SECONDS)) is None:
            if time.monotonic() >= until:
                raise TokenEndpointAway("another worker is exchanging the refresh token")
            time.sleep(_POLL)
        try:
            yield self._caught_up(standing)
        finally:
            with suppress(SQLAlchemyError):  # the claim runs out by itself
                release(self._ledger, self._name, mine)

    def _caught_up(self, standing: str) -> str:
        """Write what could not be written the last time, if nobody was there since."""
        if self._unwritten is None:
            return standing
        old, new = self._unwritten
        written = keep(self._ledger, self._name, old, new)
        self._unwritten = None
        return new if written else standing

    def _opened(self, standing: str) -> str:
        if not standing:
            return self._seed
        try:
            return self._fernet.decrypt(standing).decode()
        except InvalidToken:
            raise CredentialsRefused("the kept refresh token cannot be read: authorise anew") from None

    def _written(self, standing: str, successor: str) -> bool:
        closed = self._fernet.encrypt(successor.encode()).decode()
        for number, pause in enumerate(self._writes, start=1):
            time.sleep(pause)
            try:
                return keep(self._ledger, self._name, standing, closed)
            except SQLAlchemyError:
                if number == len(self._writes):
                    self._unwritten = (standing, closed)
                    raise
        return False
