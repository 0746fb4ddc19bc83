"""The guard inside `requests`: an adapter whose connections open only to checked addresses and end in time.

Subclassing is how urllib3 wants it; nothing else here does. What happens before the last byte of a request was handed
to the system raises NotSent, what happens after it raises AnswerLost, and so the difference never has to be guessed.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from typing import Any, ClassVar, Final

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection
from urllib3.util.timeout import Timeout

from bridge.flow.judge import AnswerLost, NotSent
from bridge.outbound.guard import NetworkPolicy, Resolve, checked_addresses

IDLE_SECONDS: Final = 1.5
"""An idle connection is not used again after this: gunicorn drops its own after 2 s, Node and Apache after 5 s, and a
request that meets the dropping cannot be told from one that was acted on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What every connection of one destination keeps to; `total` is seconds from the request to its last byte."""

    policy: NetworkPolicy
    resolve: Resolve
    total: float


class GuardedAdapter(HTTPAdapter):
    """A transport whose every new connection goes through a door. It retries nothing and follows nothing."""

    def __init__(self, door: Door, connections: int, trust: ssl.SSLContext) -> None:
        self._door = door
        self._trust = trust
        super().__init__(pool_connections=4, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._trust, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _pool_classes(self._door)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: the context verifies. The inherited method reads the whole bundle anew for every connection."""


class _Guarded(HTTPConnection):
    door: ClassVar[Door]
    _until: float = 0.0
    _sent: bool = False
    _used: float = 0.0

    def _new_conn(self) -> socket.socket:
        """A socket to the first checked address that answers; the connect timeout is for all of them together."""
        until = time.monotonic() + (Timeout.resolve_default_timeout(self.timeout) or 0.0)
        try:
            addresses = checked_addresses(self._dns_host, self.port, self.door.policy, self.door.resolve)
        except OSError:
            raise NotSent(f"{self.host} could not be resolved") from None
        reason = "timed out"
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                return create_connection((address, self.port), left, socket_options=self.socket_options)
            except OSError as error:
                reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or "refused"
        raise NotSent(f"no connection to {self.host}: {reason}")

    @property
    def is_connected(self) -> bool:
        return time.monotonic() - self._used < IDLE_SECONDS and super().is_connected

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._sent = False
        self._until = time.monotonic() + self.door.total
        super().request(*args, **kwargs)
        self._sent = True

    def getresponse(self) -> Any:
        # http.client asks for a class but only ever calls it.
        vars(self)["response_class"] = partial(_bounded_response, until=self._until)
        try:
            response = super().getresponse()
        except (OSError, HTTPException, HTTPError) as error:
            silence = AnswerLost if self._sent else NotSent
            raise silence(_words(error)) from None
        self._used = time.monotonic()
        return response


class _GuardedTls(_Guarded, HTTPSConnection):
    pass


class _Bounded(io.RawIOBase):
    """A socket's stream that never waits past a moment, however slowly the other side drips."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket, until: float) -> None:
        self._stream = stream
        self._sock = sock
        self._until = until
        self._pause = sock.gettimeout() or 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, self._pause))
        count: int | None = self._stream.readinto(buffer)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def _bounded_response(sock: socket.socket, *args: Any, until: float, **kwargs: Any) -> HTTPResponse:
    response = HTTPResponse(sock, *args, **kwargs)
    response.fp = io.BufferedReader(_Bounded(response.fp.detach(), sock, until))
    return response


def _pool_classes(door: Door) -> dict[str, type[HTTPConnectionPool | HTTPSConnectionPool]]:
    """Pools for one door; urllib3 makes connections from a class, so the door is an attribute of the class."""

    class Plain(_Guarded):
        pass

    class Tls(_GuardedTls):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    Plain.door = Tls.door = door
    return {"http": PlainPool, "https": TlsPool}


def _words(error: Exception) -> str:
    """The kind of a failure; the text of urllib3's errors may hold a URL, and a URL may be a secret."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"the connection was lost ({type(error).__name__})"
