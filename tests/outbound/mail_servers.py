"""Real mail servers on 127.0.0.1: aiosmtpd with TLS and logins, and one that follows a script to the letter."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "mail.example.test"


@dataclass
class Mail:
    """What came: the envelope, the bytes, who had logged in, and whether it came over TLS."""

    sender: str | None
    recipients: list[str]
    body: bytes
    login: Any
    encrypted: bool


@dataclass
class Box:
    """A mail server's memory. `recipients` and `message` are what it answers, where that is no plain yes."""

    port: int
    recipients: Mapping[str, str] = field(default_factory=dict)
    message: str = "250 2.0.0 queued"
    mails: list[Mail] = field(default_factory=list)
    hello: list[str] = field(default_factory=list)

    async def recipient(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: Any) -> str:
        answer = self.recipients.get(address, "250 2.1.5 OK")
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def data(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.message.startswith("2"):
            body = envelope.original_content or b""
            login = session.auth_data if session.authenticated else None
            self.hello.append(str(session.host_name))
            self.mails.append(Mail(envelope.mail_from, list(envelope.rcpt_tos), body, login, bool(session.ssl)))
        return self.message


async def _xoauth2(tokens: frozenset[str], server: SMTP, args: list[bytes]) -> AuthResult:
    """A login with a token; a wrong one gets a challenge first, as at Gmail and Exchange Online."""
    user, _, bearer = b64decode(args[1]).strip(b"\x01").removeprefix(b"user=").partition(b"\x01auth=Bearer ")
    if bearer.decode() in tokens:
        return AuthResult(success=True, auth_data=user.decode())
    await server.challenge_auth('{"status":"401"}')
    return AuthResult(success=False, handled=False)


@contextmanager
def serving_mail(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    logins: Mapping[str, str] | None = None,
    tokens: frozenset[str] = frozenset(),
) -> Iterator[Box]:
    """aiosmtpd at a free port."""

    def accepts(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        if isinstance(data, LoginPassword):
            name = data.login.decode()
            good = (logins or {}).get(name) == data.password.decode()
            return AuthResult(success=good, auth_data=name, handled=False)
        return AuthResult(success=False, handled=False)

    box = Box(_free_port())
    wants = logins is not None or bool(tokens)
    hooks = {"handle_RCPT": box.recipient, "handle_DATA": box.data, "auth_XOAUTH2": partial(_xoauth2, tokens)}
    server = Controller(
        SimpleNamespace(**hooks),
        hostname="127.0.0.1",
        port=box.port,
        ssl_context=tls,
        server_hostname=None,
        tls_context=starttls,
        require_starttls=starttls is not None,
        authenticator=accepts if wants else None,
        auth_required=wants,
        auth_require_tls=starttls is not None,
        auth_exclude_mechanism=[] if tokens else ["XOAUTH2"] if logins else ["LOGIN", "PLAIN", "XOAUTH2"],
    )
    server.start()
    try:
        yield box
    finally:
        server.stop()


@contextmanager
def reciting(script: Callable[[bytes], bytes | None], greeting: bytes = b"220 mail\r\n") -> Iterator[tuple[int, bytes]]:
    """A server that answers each line with what the script says: None closes, b"" says nothing. The port, and what it
    was told.
    """
    heard = bytearray()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(greeting)
            for line in self.rfile:
                heard.extend(line)
                answer = script(line)
                if answer is None:
                    return
                self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server.server_address[1], heard
        server.shutdown()
        thread.join()


def plain(line: bytes) -> bytes | None:
    """The script of a server that takes every mail, without any extension."""
    word = line.strip().upper()
    match word[:4]:
        case b"EHLO":
            return b"250 mail\r\n"
        case b"MAIL" | b"RCPT" | b"RSET":
            return b"250 OK\r\n"
        case b"DATA":
            return b"354 go on\r\n"
        case b"QUIT":
            return b"221 bye\r\n"
    return b"250 queued\r\n" if word == b"." else b""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
