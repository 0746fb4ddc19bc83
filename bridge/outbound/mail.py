"""The way out to a mail server: one message over SMTP, guarded and bounded in time as every request is.

A Request is a mail where its address is smtp:// (STARTTLS) or smtps:// (TLS from the first byte): its headers
`Mail-From` and `Rcpt-To`, addresses with commas between them, are the envelope, its body is the message (RFC 5322, its
lines end with CRLF). The answer's status is the server's code (RFC 5321), its body a JSON object with the `step` that
was answered, the `enhanced` code (RFC 3463) where there is one, and the codes of the recipients that were `refused`.
The server's own words are left out: they repeat addresses.

A mail goes straight, never over a proxy of HTTP.
"""

from __future__ import annotations

import json
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from bridge.core.errors import CredentialsRefused, TargetError
from bridge.core.target import Answer, Request
from bridge.flow.judge import AnswerLost, NotSent
from bridge.flow.network import NetworkPolicy, check_mail_server
from bridge.outbound.guard import Resolve, checked_addresses, system_resolve
from bridge.outbound.session import TARGET_LIMITS, Limits, tls_context

_PARTING_SECONDS: Final = 2.0
_CUT_AGAIN_SECONDS: Final = 0.2
_ENHANCED: Final = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}\b")
_DOTS: Final = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who logs in: with a password (PLAIN, LOGIN, CRAM-MD5), or with an access token (XOAUTH2)."""

    username: str
    secret: str = field(repr=False)
    is_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailer:
    """Sends mails, each over a connection of its own; from any number of threads.

    Without `require_tls` a server that offers no STARTTLS is spoken to in the clear, if `allow_hosts` of the policy
    names it: whoever stands between could else take the offer out. A login never goes out in the clear.
    """

    policy: NetworkPolicy
    limits: Limits = TARGET_LIMITS
    resolve: Resolve = system_resolve
    require_tls: bool = True

    def send(self, request: Request, credentials: Credentials | None = None) -> Answer:
        """One mail, to all recipients that the server takes; to none as long as it puts one off (4xx).

        Raises NotSent up to the last byte of the message and AnswerLost after it, DestinationForbidden,
        CredentialsRefused and TargetError.
        """
        host, port, encrypted = check_mail_server(request.url, self.policy)
        sender, recipients = _envelope(request)
        hello = sender.rpartition("@")[2]
        try:
            addresses = checked_addresses(host, port, self.policy, self.resolve)
        except OSError:
            raise NotSent(f"{host} could not be resolved") from None
        try:
            trust = tls_context(self.policy.transport)
            server = _Pinned(host, addresses, self.limits, trust if encrypted else None, hello)
            with _ending(server, self.limits.total):
                code, words = server.connect(host, port)
                if code != 220:
                    return _answer(code, words, "greeting")
                if not encrypted:
                    encrypted = self._secured(server, trust, f"{host}:{port}", host)
                if credentials is not None:
                    _log_in(server, credentials, encrypted)
                return _handed_over(server, sender, recipients, request.body)
        except smtplib.SMTPResponseException as refused:
            return _answer(refused.smtp_code, refused.smtp_error, "login" if _is_login(refused) else "greeting")
        except (smtplib.SMTPException, OSError) as error:
            raise NotSent(_words(host, error)) from None

    def _secured(self, server: smtplib.SMTP, trust: ssl.SSLContext, *names: str) -> bool:
        server.ehlo_or_helo_if_needed()
        if server.has_extn("starttls"):
            server.starttls(context=trust)
            return True
        if self.require_tls:
            raise NotSent("the mail server offers no STARTTLS")
        if not self.policy.allow_hosts.intersection(names):
            raise TargetError("require_tls: false needs the mail server by its name in network.allow_hosts")
        return False


def is_mail(request: Request) -> bool:
    """Whether a request is one for a mail server."""
    return request.url.startswith(("smtp://", "smtps://"))


class _Pinned(smtplib.SMTP):
    """A conversation with the first judged address that answers; smtplib opens its socket in a method made for that."""

    def __init__(
        self, host: str, addresses: Sequence[str], limits: Limits, trust: ssl.SSLContext | None, hello: str
    ) -> None:
        super().__init__(local_hostname=hello, timeout=limits.connect)
        self._host = host  # what the certificate has to say, after STARTTLS too
        self._addresses = addresses
        self._limits = limits
        self._trust = trust
        self.line: socket.socket | None = None
        """The connection once more, for whoever ends it: TLS takes `sock` away while it shakes hands."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        failure: OSError = TimeoutError()
        for address in self._addresses:
            try:
                sock = socket.create_connection((address, port), timeout / len(self._addresses))
            except OSError as error:
                failure = error
                continue
            sock.settimeout(self._limits.read)
            self.line = sock.dup()
            return sock if self._trust is None else self._trust.wrap_socket(sock, server_hostname=host)
        raise failure


@contextmanager
def _ending(server: _Pinned, seconds: float) -> Iterator[None]:
    """However slowly a server drips, the conversation is over after so many seconds; and it ends with QUIT."""

    over = threading.Event()

    def cut() -> None:
        pause = seconds
        while not over.wait(pause):
            pause = _CUT_AGAIN_SECONDS  # it may still be connecting, and an address that answers comes next
            if server.line is not None:
                with suppress(OSError):
                    server.line.shutdown(socket.SHUT_RDWR)

    end = threading.Thread(target=cut, daemon=True)
    end.start()
    try:
        yield
    finally:
        if (sock := server.sock) is not None:
            with suppress(OSError, smtplib.SMTPException):
                sock.settimeout(_PARTING_SECONDS)
                server.quit()
        over.set()
        end.join()
        server.close()
        if server.line is not None:
            server.line.close()


def _log_in(server: smtplib.SMTP, credentials: Credentials, encrypted: bool) -> None:
    if not encrypted:
        raise TargetError("auth: a login never goes out in the clear")
    server.ehlo_or_helo_if_needed()
    try:
        if credentials.is_token:
            # developers.google.com/workspace/gmail/imap/xoauth2-protocol; Exchange Online has the same.
            words = f"user={credentials.username}\x01auth=Bearer {credentials.secret}\x01\x01"
            server.auth("XOAUTH2", lambda challenge=None: words if challenge is None else "")
        else:
            server.login(credentials.username, credentials.secret)
    except (smtplib.SMTPResponseException, smtplib.SMTPServerDisconnected):
        raise
    except smtplib.SMTPException:  # smtplib found no way that both sides know
        raise CredentialsRefused("the mail server takes no login of this kind") from None
    except UnicodeError:
        raise TargetError("auth: expected a username and a password of ASCII characters") from None


def _handed_over(server: smtplib.SMTP, sender: str, recipients: Sequence[str], message: bytes) -> Answer:
    """The mail itself, from MAIL to what the server says after the last byte."""
    server.ehlo_or_helo_if_needed()
    code, words = server.mail(sender, [f"SIZE={len(message)}"] if server.has_extn("size") else [])
    if code // 100 != 2:
        return _answer(code, words, "sender")
    replies = [server.rcpt(recipient) for recipient in recipients]
    refused = [(code, words) for code, words in replies if code // 100 != 2]
    later = [(code, words) for code, words in refused if code // 100 == 4]
    if later or len(refused) == len(replies):
        return _answer(*(later or refused)[0], "recipient", [code for code, _ in refused])
    code, words = server.docmd("DATA")
    if code != 354:
        return _answer(code, words, "data")
    server.send(_DOTS.sub(b"..", message.removesuffix(b"\r\n")) + b"\r\n.\r\n")
    try:
        code, words = server.getreply()
    except smtplib.SMTPException:
        raise AnswerLost("the whole mail went out and the server did not answer") from None
    if not 200 <= code <= 599:
        raise AnswerLost("the whole mail went out and the answer was not one of SMTP")
    return _answer(code, words, "message", [code for code, _ in refused])


def _answer(code: int, words: bytes | str, step: str, refused: Sequence[int] = ()) -> Answer:
    if not 200 <= code <= 599:
        raise NotSent("the server does not answer as a mail server does")
    found = _ENHANCED.match(words if isinstance(words, bytes) else words.encode())
    said = {"step": step, "enhanced": found[0].decode() if found else None, "refused": list(refused)}
    return Answer(status=code, headers={}, body=json.dumps(said).encode())


def _envelope(request: Request) -> tuple[str, list[str]]:
    sender = request.headers.get("Mail-From", "")
    recipients = [entry for entry in request.headers.get("Rcpt-To", "").split(",") if entry]
    for address in (sender, *recipients):
        if not re.fullmatch(r"[!-~]+@[!-~]+", address) or set(address) & set("<>"):
            raise TargetError("expected addresses of ASCII characters, as in name@example.org")
    if not recipients:
        raise TargetError("expected somebody to send to")
    return sender, recipients


def _is_login(error: smtplib.SMTPResponseException) -> bool:
    return isinstance(error, smtplib.SMTPAuthenticationError)


def _words(host: str, error: Exception) -> str:
    """The kind of a failure; the server's own words may hold anything."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS: the handshake failed"
    if isinstance(error, TimeoutError):
        return f"no connection to {host}: timed out"
    if isinstance(error, ConnectionRefusedError):
        return f"no connection to {host}: refused"
    return f"the mail could not be sent ({type(error).__name__})"
