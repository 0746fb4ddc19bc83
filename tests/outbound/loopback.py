"""Real servers on 127.0.0.1: one that answers from a function, one that writes exact bytes to the socket."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from bridge.outbound.guard import NetworkPolicy

LOCAL = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:
        pass


@dataclass
class Seen:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    peer: int


@dataclass
class Server:
    url: str
    seen: list[Seen] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serving(answer: Callable[[Request], Response], port: int = 0) -> Iterator[Server]:
    """A threaded HTTP/1.1 server whose answers come from a function."""
    lock = threading.Lock()

    @Request.application
    def application(request: Request) -> Response:
        body = request.get_data()
        with lock:
            server.seen.append(
                Seen(
                    method=request.method,
                    path=request.path,
                    query=request.query_string.decode(),
                    headers={name.lower(): value for name, value in request.headers.items()},
                    body=body,
                    peer=int(request.environ["REMOTE_PORT"]),
                )
            )
        return answer(request)

    http = make_server("127.0.0.1", port, application, threaded=True, request_handler=_Quiet)
    server = Server(f"http://127.0.0.1:{http.port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@contextmanager
def talking(behave: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server that hands every accepted connection to a function, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def one(connection: socket.socket) -> None:
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            behave(connection)
        except OSError:
            pass
        finally:
            connection.close()

    def accept() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def keeping(body: bytes | None = None) -> Iterator[Server]:
    """A server that keeps connections alive and answers with the same body, or with the request's own."""
    seen: list[Seen] = []

    def answer(connection: socket.socket) -> None:
        peer = connection.getpeername()[1]
        while request := read_request(connection):
            sent = request.partition(b"\r\n\r\n")[2]
            seen.append(Seen(method="", path="", query="", headers={}, body=sent, peer=peer))
            back = sent if body is None else body
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(back), back))

    with talking(answer) as server:
        server.seen = seen
        yield server


def read_request(connection: socket.socket) -> bytes:
    """A whole request with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(65536)
        if not block:
            return data
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
