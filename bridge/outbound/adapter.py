"""The guard inside `requests`: an adapter whose connections open only to checked addresses and end in time.

Subclassing is how urllib3 and http.client want it; nothing else here does. What happens before the last byte of a
request was handed to the system raises NotSent, what happens after it raises AnswerLost, and so the difference never
has to be guessed.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
import time
from base64 import b64encode
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

_BLOCK: Final = 64 * 1024
_LINE: Final = 64 * 1024
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\r\n]*)?\r\n")


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
        self._classes = _pool_classes(self._door)
        self.poolmanager.pool_classes_by_scheme = self._classes

    def proxy_manager_for(self, proxy: Any, **proxy_kwargs: Any) -> Any:
        """Connections to a proxy go through the door as well; the proxy opens those behind it by its own rules."""
        manager = super().proxy_manager_for(proxy, ssl_context=self._trust, **proxy_kwargs)
        # Set on every call: whoever finds a manager that another thread has just made must not use it without.
        manager.pool_classes_by_scheme = self._classes
        return manager

    def proxy_headers(self, proxy: Any) -> dict[str, str]:
        known = self._door.policy.transport.proxy
        if known is None or known.username is None:
            return {}
        pair = f"{known.username}:{known.password or ''}".encode()
        return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}

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

    def connect(self) -> None:
        self._begin()
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._sent = False
        self._begin()
        super().request(*args, **kwargs)
        self._sent = True

    def send(self, data: Any) -> None:
        """Bytes, block by block, so that a server that hardly reads cannot hold us longer than the total time."""
        if self.sock is None or not isinstance(data, bytes):
            super().send(data)
            return
        pause = Timeout.resolve_default_timeout(self.timeout) or self.door.total
        view = memoryview(data)
        for start in range(0, len(view), _BLOCK):
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(min(left, pause))
            super().send(view[start : start + _BLOCK])

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()
        except (OSError, HTTPException, HTTPError) as error:
            if _is_about_our_certificate(error):
                raise NotSent("TLS: the server wants another client certificate") from None
            silence = AnswerLost if self._sent else NotSent
            raise silence(_words(error)) from None
        if response.status < 200:
            # The final answer would come next and be taken for that of the next request on this connection.
            raise AnswerLost(f"HTTP {response.status}, which is no final answer")
        self._used = time.monotonic()
        return response

    def _begin(self) -> None:
        """The time starts; what is read from now on, a proxy's answer to CONNECT too, has to end in it."""
        self._until = time.monotonic() + self.door.total
        # http.client asks for a class but only ever calls it.
        vars(self)["response_class"] = partial(_bounded_response, until=self._until)


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


class _Response(HTTPResponse):
    """An answer whose chunks have the sizes of RFC 9112, 7.1, and not whatever `int` reads as a number.

    http.client takes -1 for a size and then reads to the end of the connection, all of it into memory.
    """

    def _read_next_chunk_size(self) -> int:
        size = _CHUNK_SIZE.fullmatch(self.fp.readline(_LINE))
        if size is None:
            raise ValueError  # what http.client expects, and makes IncompleteRead of
        return int(size[1], 16)


def _bounded_response(sock: socket.socket, *args: Any, until: float, **kwargs: Any) -> HTTPResponse:
    response = _Response(sock, *args, **kwargs)
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


def _is_about_our_certificate(error: Exception) -> bool:
    """TLS 1.3 says so only after the request, which the server has then not read."""
    reason = str(error.reason) if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)


def _words(error: Exception) -> str:
    """The kind of a failure; the text of urllib3's errors may hold a URL, and a URL may be a secret."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"the connection was lost ({type(error).__name__})"
