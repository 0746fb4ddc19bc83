"""A small HTTP/1.1 server for simulated platforms and targets: threads, keep-alive, and an eye for speed.

`http.server` reads headers through the e-mail parser and writes an answer in several packets; on one core that costs
two thirds of what it can serve. This one reads only what the simulations need. It trusts its clients: for tests and
demonstrations on this machine, never for the internet.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final

_REASONS: Final = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    503: "Service Unavailable",
}
_MAX_BODY: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; header names are lower case, `target` is the path with its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; without `body` it has none.

    `length` is what it says of its length where that is not its body's, and `more` are the pieces that follow the body,
    made as they are sent; the connection closes after both.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    more: Iterable[bytes] = ()

    @property
    def last(self) -> bool:
        """Whether the connection closes after it."""
        said = (value.lower() for name, value in self.headers.items() if name.lower() == "connection")
        return self.length is not None or "close" in said


class Reset:
    """Instead of an answer: the connection is torn down with a TCP reset."""


Answering = Callable[[Asked], Reply | Reset | None]
"""Called from many threads; None closes the connection without an answer."""


class LocalServer:
    """A server on an address of this machine that runs in threads of its own until it is closed."""

    def __init__(self, answer: Answering, host: str = "127.0.0.1", port: int = 0) -> None:
        self._answer = answer
        self._listener = socket.create_server((host, port), backlog=1024)
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name=f"local-server-{self.port}", daemon=True).start()

    @property
    def url(self) -> str:
        """`http://host:port`, without a final slash."""
        return f"http://{self.host}:{self.port}"

    def close(self) -> None:
        """Stop listening and cut all connections."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # Without this an answer waits for the client's acknowledgement of the one before: 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._closed:
                    connection.close()
                    return
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        try:
            while asked := _read(reader, connection):
                reply = self._answer(asked)
                if isinstance(reply, Reset):  # what lingers for no time is reset, not closed
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if not isinstance(reply, Reply):
                    break
                connection.sendall(_written(reply, asked.method))
                for piece in reply.more:
                    connection.sendall(piece)
                if reply.last or asked.headers.get("connection", "").lower() == "close":
                    break
        except (OSError, ValueError):  # the client went away, or does not speak HTTP
            pass
        finally:
            with self._lock:
                self._connections.discard(connection)
            reader.close()
            connection.close()


def _read(reader: BinaryIO, connection: socket.socket) -> Asked | None:
    """The next request of a connection; None at its end. Raises ValueError for what is no request."""
    line = reader.readline(65536)
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline(65536)) not in (b"\r\n", b"\n"):
        if not line:
            raise ValueError("cut off in its headers")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Asked(method, target, headers, _chunks(reader))
    length = int(headers.get("content-length", "0"))
    if length > _MAX_BODY:
        raise ValueError("the body is too large")
    body = reader.read(length) if length else b""
    if len(body) < length:  # a client that was killed has sent nothing, however much of it came
        raise ValueError("cut off in its body")
    return Asked(method, target, headers, body)


def _chunks(reader: BinaryIO) -> bytes:
    body = bytearray()
    while size := int(reader.readline(1024).split(b";")[0], 16):
        body += reader.read(size)
        reader.readline(16)  # when it was cut off the next line is empty, and no number
        if len(body) > _MAX_BODY:
            raise ValueError("the body is too large")
    while reader.readline(65536) not in (b"\r\n", b"\n", b""):
        pass
    return bytes(body)


def _written(reply: Reply, method: str) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status != 204 and reply.status >= 200:
        lines.append(f"Content-Length: {len(reply.body) if reply.length is None else reply.length}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if method == "HEAD" or reply.status == 204 else head + reply.body
