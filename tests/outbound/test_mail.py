"""Mail over SMTP, with real servers: what goes out, what each answer is, and what cannot be done to whom."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from loopback import talking
from mail_servers import HOST, Box, plain, reciting, serving_mail

from bridge.core.errors import CredentialsRefused, DestinationForbidden, TargetError
from bridge.core.target import Request
from bridge.flow.judge import AnswerLost, NotSent
from bridge.flow.network import NetworkPolicy, Transport
from bridge.outbound.mail import Credentials, Mailer, is_mail
from bridge.outbound.session import Limits

QUICK = Limits(connect=2.0, read=5.0, total=10.0)
BODY = b"From: b@example.org\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n.a line that begins with a dot\r\n..two\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> tuple[Path, Path]:
    return authority.issue(HOST)


def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.fixture
def mailer(authority: Authority) -> Mailer:
    policy = NetworkPolicy(allow_hosts=frozenset({HOST}), transport=Transport(ca_bundle=authority.bundle))
    return Mailer(policy=policy, limits=QUICK, resolve=here)


def in_the_clear(port: int, limits: Limits = QUICK) -> Mailer:
    policy = NetworkPolicy(allow_hosts=frozenset({f"{HOST}:{port}"}))
    return Mailer(policy=policy, limits=limits, resolve=here, require_tls=False)


def mail(port: int, *recipients: str, scheme: str = "smtp", body: bytes = BODY) -> Request:
    to = ",".join(recipients or ("ada@example.org",))
    headers = {"Mail-From": "bridge@example.edu", "Rcpt-To": to, "Idempotency-Key": "k"}
    return Request(method="MAIL", url=f"{scheme}://{HOST}:{port}", headers=headers, body=body)


@pytest.fixture
def box(authority: Authority, certificate: tuple[Path, Path]) -> Iterator[Box]:
    with serving_mail(starttls=authority.server(certificate)) as server:
        yield server


# --- what goes out ----------------------------------------------------------------------------------------------------


def test_a_mail_arrives_byte_for_byte_over_starttls(mailer: Mailer, box: Box) -> None:
    answer = mailer.send(mail(box.port, "ada@example.org", "grace@example.org"))

    assert (answer.status, json.loads(answer.body)) == (250, {"step": "message", "enhanced": "2.0.0", "refused": []})
    [got] = box.mails
    assert (got.sender, got.recipients) == ("bridge@example.edu", ["ada@example.org", "grace@example.org"])
    assert got.body == BODY
    assert got.encrypted
    assert box.hello == ["example.edu"]


def test_tls_from_the_first_byte(mailer: Mailer, authority: Authority, certificate: tuple[Path, Path]) -> None:
    with serving_mail(tls=authority.server(certificate)) as box:
        assert mailer.send(mail(box.port, scheme="smtps")).status == 250
        assert len(box.mails) == 1


def test_a_login_with_a_password(mailer: Mailer, authority: Authority, certificate: tuple[Path, Path]) -> None:
    with serving_mail(starttls=authority.server(certificate), logins={"bridge": "s3cret"}) as box:
        good = mailer.send(mail(box.port), Credentials(username="bridge", secret="s3cret"))
        bad = mailer.send(mail(box.port), Credentials(username="bridge", secret="wrong"))
        none = mailer.send(mail(box.port))

        assert (good.status, bad.status, none.status) == (250, 535, 530)
        assert json.loads(bad.body)["step"] == "login"
        assert [got.login for got in box.mails] == ["bridge"]


def test_a_login_with_a_token(mailer: Mailer, authority: Authority, certificate: tuple[Path, Path]) -> None:
    with serving_mail(starttls=authority.server(certificate), tokens=frozenset({"t0ken"})) as box:
        user = "bridge@example.edu"
        good = mailer.send(mail(box.port), Credentials(username=user, secret="t0ken", is_token=True))
        bad = mailer.send(mail(box.port), Credentials(username=user, secret="old", is_token=True))

        assert (good.status, bad.status) == (250, 535)
        assert [got.login for got in box.mails] == [user]


# --- what each answer is ----------------------------------------------------------------------------------------------


def test_nobody_gets_a_mail_that_the_server_puts_off_for_one(mailer: Mailer, box: Box) -> None:
    box.recipients = {"ada@example.org": "550 5.1.1 ada@example.org is unknown", "grace@example.org": "451 4.7.1 later"}

    answer = mailer.send(mail(box.port, "ada@example.org", "grace@example.org", "alan@example.org"))

    said = {"step": "recipient", "enhanced": "4.7.1", "refused": [550, 451]}
    assert (answer.status, json.loads(answer.body)) == (451, said)
    assert box.mails == []


def test_the_others_get_a_mail_of_which_one_address_is_refused(mailer: Mailer, box: Box) -> None:
    box.recipients = {"ada@example.org": "550 5.1.1 ada@example.org is unknown"}

    answer = mailer.send(mail(box.port, "ada@example.org", "grace@example.org"))

    assert (answer.status, json.loads(answer.body)["refused"]) == (250, [550])
    assert b"ada" not in answer.body
    assert [got.recipients for got in box.mails] == [["grace@example.org"]]


def test_a_mail_for_nobody_is_not_sent(mailer: Mailer, box: Box) -> None:
    box.recipients = {"ada@example.org": "553 5.1.3 no"}

    answer = mailer.send(mail(box.port))

    assert (answer.status, json.loads(answer.body)["step"]) == (553, "recipient")
    assert box.mails == []


@pytest.mark.parametrize("code", [452, 552, 554])
def test_what_the_server_says_of_the_message(mailer: Mailer, box: Box, code: int) -> None:
    box.message = f"{code} 5.3.4 no"

    assert mailer.send(mail(box.port)).status == code


def test_a_server_that_sends_everybody_away() -> None:
    with reciting(plain, greeting=b"554 5.7.1 go away\r\n") as (port, _):
        answer = in_the_clear(port).send(mail(port))

    assert (answer.status, json.loads(answer.body)["step"]) == (554, "greeting")


# --- silence: before the last byte nothing was done, after it nobody knows --------------------------------------------


def after(word: bytes, answer: bytes | None) -> Callable[[bytes], bytes | None]:
    """A plain server, but for lines that begin so."""
    return lambda line: answer if line.strip().upper().startswith(word) else plain(line)


def at_the_end(answer: bytes | None) -> Callable[[bytes], bytes | None]:
    """A plain server, but for what it says to a whole message."""
    return lambda line: answer if line == b".\r\n" else plain(line)


@pytest.mark.parametrize("word", [b"EHLO", b"MAIL", b"RCPT", b"DATA"])
def test_a_connection_that_ends_before_the_message_did_nothing(word: bytes) -> None:
    with reciting(after(word, None)) as (port, _), pytest.raises(NotSent):
        in_the_clear(port).send(mail(port))


def test_a_connection_that_ends_within_the_message_did_nothing() -> None:
    big = b"Subject: x\r\n\r\n" + b"a line of a mail\r\n" * 300_000
    with reciting(after(b"SUBJECT", None)) as (port, _), pytest.raises(NotSent):
        in_the_clear(port).send(mail(port, body=big))


def test_a_connection_that_ends_after_the_message_may_have_done_it() -> None:
    with reciting(at_the_end(None)) as (port, _), pytest.raises(AnswerLost, match="whole mail went out"):
        in_the_clear(port).send(mail(port))


def test_a_server_that_never_answers_a_message_may_have_taken_it() -> None:
    with reciting(at_the_end(b"")) as (port, _), pytest.raises(AnswerLost):
        in_the_clear(port, replace(QUICK, read=0.3)).send(mail(port))


def test_a_greeting_that_drips_is_cut_off_at_the_total_time() -> None:
    def drip(line: bytes) -> bytes | None:
        return b"2"

    began = time.monotonic()
    with reciting(drip, greeting=b"220-" + b"x" * 100) as (port, _), pytest.raises(NotSent):
        in_the_clear(port, Limits(connect=2.0, read=30.0, total=0.4)).send(mail(port))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("handshake", [0.5, 4.0])
def test_a_slow_handshake_gets_no_more_than_the_total_time(
    mailer: Mailer, authority: Authority, certificate: tuple[Path, Path], scheme: str, handshake: float
) -> None:
    context = authority.server(certificate)

    def dawdle(connection: socket.socket) -> None:
        if scheme == "smtp":
            connection.sendall(b"220 mail\r\n")
            for answer in (b"250-mail\r\n250 STARTTLS\r\n", b"220 go on\r\n"):
                connection.recv(1000)
                connection.sendall(answer)
        time.sleep(handshake)
        with context.wrap_socket(connection, server_side=True) as encrypted:
            for _ in range(80):
                encrypted.sendall(b"220-x\r\n")
                time.sleep(0.05)

    began = time.monotonic()
    with talking(dawdle) as server, pytest.raises(NotSent):
        replace(mailer, limits=replace(QUICK, total=0.3)).send(mail(server.port, scheme=scheme))
    assert time.monotonic() - began < 1.5


def test_an_address_that_answers_late_gets_no_more_than_the_total_time() -> None:
    with reciting(plain, greeting=b"220-") as (port, _), deaf("127.0.0.2", port):
        slow = in_the_clear(port, Limits(connect=1.0, read=4.0, total=0.3))
        began = time.monotonic()
        with pytest.raises(NotSent):
            replace(slow, resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"]).send(mail(port))
        assert 0.5 < time.monotonic() - began < 2


@contextmanager
def deaf(address: str, port: int) -> Iterator[None]:
    """A port that takes no more connections and refuses none."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, port))
        yield


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n", b"-ERR unknown command\r\n"])
def test_what_is_no_mail_server_takes_no_mail(greeting: bytes) -> None:
    with reciting(plain, greeting=greeting) as (port, heard):
        with pytest.raises(NotSent):
            in_the_clear(port).send(mail(port))
        assert b"MAIL" not in heard


def test_nobody_listens() -> None:
    with reciting(plain) as (port, _):
        pass
    with pytest.raises(NotSent, match="refused"):
        in_the_clear(port).send(mail(port))


# --- encryption -------------------------------------------------------------------------------------------------------


def test_a_server_without_starttls_gets_nothing(mailer: Mailer) -> None:
    with reciting(plain) as (port, heard):
        with pytest.raises(NotSent, match="offers no STARTTLS"):
            mailer.send(mail(port))
        assert b"MAIL" not in heard


def test_one_that_is_named_may_be_spoken_to_in_the_clear() -> None:
    with reciting(plain) as (port, heard):
        answer = in_the_clear(port).send(mail(port))

    assert answer.status == 250
    assert b"\r\n..a line that begins with a dot\r\n...two\r\n.\r\n" in heard


def test_one_that_nobody_named_may_not(authority: Authority) -> None:
    with reciting(plain) as (port, heard):
        mailer = Mailer(policy=NetworkPolicy(), limits=QUICK, resolve=here, require_tls=False)
        with pytest.raises(DestinationForbidden):
            mailer.send(mail(port))
        assert heard == b""


def test_a_password_never_goes_out_in_the_clear() -> None:
    script = after(b"EHLO", b"250-mail\r\n250 AUTH PLAIN LOGIN\r\n")
    with reciting(script) as (port, heard):
        with pytest.raises(TargetError, match="never goes out in the clear"):
            in_the_clear(port).send(mail(port), Credentials(username="bridge", secret="s3cret"))
        assert b"AUTH" not in heard


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_certificate_for_another_name_gets_nothing(mailer: Mailer, authority: Authority, scheme: str) -> None:
    context = authority.server(authority.issue("other.example.test"))
    with (
        serving_mail(**{"smtp": {"starttls": context}, "smtps": {"tls": context}}[scheme]) as box,
        pytest.raises(NotSent, match=r"TLS: .*ostname"),
    ):
        mailer.send(mail(box.port, scheme=scheme))
    assert box.mails == []


def test_a_server_without_logins_is_for_a_person_to_look_at(mailer: Mailer, box: Box) -> None:
    with pytest.raises(CredentialsRefused):
        mailer.send(mail(box.port), Credentials(username="bridge", secret="s3cret"))


# --- where to, and to whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("smtp://mail.example.org:25", ["127.0.0.1"]),
        ("smtps://mail.example.org", ["93.184.215.14", "10.0.0.5"]),
        ("smtp://mail.example.org", ["169.254.169.254"]),
        ("smtp://127.0.0.1:587", ["127.0.0.1"]),
        ("smtp://2130706433:587", ["127.0.0.1"]),
        ("smtp://localhost:587", ["127.0.0.1"]),
        ("smtp://mail.example.org:6379", ["93.184.215.14"]),
        ("smtp://[::1]:25", ["::1"]),
    ],
)
def test_a_place_that_is_not_allowed_is_never_called(url: str, addresses: list[str]) -> None:
    mailer = Mailer(policy=NetworkPolicy(), limits=QUICK, resolve=lambda host, port: addresses)
    with pytest.raises(DestinationForbidden):
        mailer.send(replace(mail(25), url=url))


def test_a_name_is_looked_up_once_and_what_was_judged_is_called() -> None:
    looked_up = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        looked_up.append(host)
        return ["127.0.0.1"] if len(looked_up) == 1 else ["169.254.169.254"]

    with reciting(plain) as (port, heard):
        mailer = replace(in_the_clear(port), resolve=rebinding)
        assert mailer.send(mail(port)).status == 250
        assert heard.startswith(b"ehlo example.edu\r\n")
    assert looked_up == [HOST]


@pytest.mark.parametrize(
    "recipients",
    [
        "",
        "ada@example.org>\r\nRCPT TO:<eve@evil.example",
        "ada@example.org\r\nDATA",
        "ada@example.org\n",
        "ada",
        "Ada <ada@example.org>",
        "adä@example.org",
    ],
)
def test_an_address_that_is_none_is_never_said_to_a_server(mailer: Mailer, recipients: str) -> None:
    request = replace(mail(25), headers={"Mail-From": "b@example.org", "Rcpt-To": recipients})
    with pytest.raises(TargetError):
        mailer.send(request)


def test_the_address_tells_what_is_a_mail() -> None:
    def of(url: str) -> Any:
        return is_mail(Request(method="POST", url=url))

    assert of("smtp://mail.example.org")
    assert of("smtps://mail.example.org")
    assert not of("https://smtp.example.org")
