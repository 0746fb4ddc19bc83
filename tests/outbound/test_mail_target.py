"""The target email from a message to a mail server: what a mapping says, the login, and what cannot be sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from loopback import serving
from mail_servers import HOST, Box, plain, reciting, serving_mail
from werkzeug.wrappers import Request as HttpRequest
from werkzeug.wrappers import Response

from bridge.config.configuration import read_configuration
from bridge.config.validation import with_defaults
from bridge.core.settings import Settings
from bridge.core.target import Message, Outcome, Verdict
from bridge.engine.talk import talk
from bridge.flow.network import NetworkPolicy, Transport
from bridge.main import registry
from bridge.outbound.target import target_sender

SOURCES = "version: 1\nsources:\n  s: {connector: wiseflow, secrets: [a-secret-of-sixteen]}\n"
EMAIL = registry().targets["email"]


@dataclass
class Post:
    """The target email with its way to a mail server."""

    port: int
    bundle: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    scheme: str = "smtp"

    def send(self, key: str = "k-1", **params: Any) -> Outcome:
        given = {"url": f"{self.scheme}://{HOST}:{self.port}", "from": "Bridge <bridge@example.edu>", **self.settings}
        options = with_defaults(EMAIL.manifest.options, given)
        policy = NetworkPolicy(allow_hosts=frozenset({HOST, "127.0.0.1"}), transport=Transport(ca_bundle=self.bundle))
        settings = Settings(name="email", options=options)
        send = target_sender(settings, policy, resolve=lambda host, port: ["127.0.0.1"])
        message = Message(
            key=key,
            mapping="m",
            mapping_version="1",
            target="email",
            operation="send",
            params={"to": "ada@example.org", "subject": "Grüße", "text": "Hello\n.dot\n", **params},
            event={},
            attempt=1,
            sent_at=datetime.now(UTC),
        )
        return talk(EMAIL, [message], settings, send).outcomes[0]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def box(authority: Authority) -> Iterator[Box]:
    with serving_mail(starttls=authority.server(authority.issue(HOST))) as made:
        yield made


@pytest.fixture
def post(box: Box, authority: Authority) -> Post:
    return Post(box.port, authority.bundle)


def test_a_mail_says_what_the_mapping_says_and_that_a_machine_wrote_it(box: Box, post: Post) -> None:
    outcome = post.send(to=["ada@example.org", "grace@example.org"], html="<p>Hello</p>")

    assert outcome.verdict is Verdict.OK
    [got] = box.mails
    mail = message_from_bytes(got.body, policy=default)
    assert (got.sender, got.recipients) == ("bridge@example.edu", ["ada@example.org", "grace@example.org"])
    assert (mail["Subject"], mail["From"], mail["To"]) == (
        "Grüße", "Bridge <bridge@example.edu>", "ada@example.org, grace@example.org",
    )  # fmt: skip
    assert (mail["Message-ID"], mail["Auto-Submitted"]) == ("<k-1@example.edu>", "auto-generated")
    assert mail.get_body(("plain",)).get_content() == "Hello\r\n.dot\r\n"
    assert mail.get_body(("html",)).get_content() == "<p>Hello</p>\r\n"


def test_the_same_message_has_the_same_id_each_time(box: Box, post: Post) -> None:
    for key in ("k-1", "k-1", "k-2"):
        assert post.send(key).verdict is Verdict.OK

    ids = [message_from_bytes(got.body, policy=default)["Message-ID"] for got in box.mails]
    assert ids == ["<k-1@example.edu>", "<k-1@example.edu>", "<k-2@example.edu>"]


@pytest.mark.parametrize(
    ("recipient", "message", "verdict"),
    [
        ("550 5.1.1 no such user", "", Verdict.PERMANENT),
        ("450 4.2.0 greylisted", "", Verdict.RETRY),
        ("421 4.7.0 too many connections", "", Verdict.THROTTLED),
        ("", "451 4.3.0 later", Verdict.RETRY),
        ("", "552 5.3.4 too large", Verdict.PERMANENT),
        ("", "554 5.7.1 spam", Verdict.PERMANENT),
    ],
)
def test_what_the_server_says_is_what_becomes_of_it(
    box: Box, post: Post, recipient: str, message: str, verdict: Verdict
) -> None:
    box.recipients = {"ada@example.org": recipient} if recipient else {}
    box.message = message or box.message

    outcome = post.send()

    assert outcome.verdict is verdict
    assert "ada" not in outcome.reason
    assert box.mails == []


def test_a_mail_that_went_to_some_is_left_to_a_person(box: Box, post: Post) -> None:
    box.recipients = {"ada@example.org": "550 5.1.1 no such user"}

    outcome = post.send(to=["ada@example.org", "grace@example.org"])

    assert outcome.verdict is Verdict.PERMANENT
    assert "not to every address" in outcome.reason
    assert [got.recipients for got in box.mails] == [["grace@example.org"]]


@pytest.mark.parametrize(("on_ambiguous", "verdict"), [("hold", Verdict.AMBIGUOUS), ("retry", Verdict.RETRY)])
def test_a_mail_that_nobody_answered_is_sent_again_only_where_that_was_wanted(
    on_ambiguous: str, verdict: Verdict
) -> None:
    def script(line: bytes) -> bytes | None:
        return None if line == b".\r\n" else plain(line)

    with reciting(script) as (port, _):
        post = Post(port, settings={"require_tls": False, "on_ambiguous": on_ambiguous})
        assert post.send().verdict is verdict


@pytest.mark.parametrize(
    "params",
    [
        {"subject": "a\r\nBcc: eve@evil.example"},
        {"subject": "a\nb"},
        {"to": "ada@example.org\r\nRCPT TO:<eve@evil.example>"},
        {"to": ["ada@example.org,eve@evil.example"]},
        {"to": "Ada <ada@example.org>"},
        {"to": []},
        {"text": "\ud800"},
    ],
)
def test_what_could_become_another_header_or_command_never_goes_out(params: dict[str, Any]) -> None:
    with reciting(plain) as (port, heard):
        outcome = Post(port, settings={"require_tls": False}).send(**params)

        assert outcome.verdict is Verdict.PERMANENT
        assert "evil" not in outcome.reason
        assert heard == b""


def test_a_wrong_password_is_for_a_person_to_look_at(authority: Authority) -> None:
    tls = authority.server(authority.issue(HOST))
    with serving_mail(starttls=tls, logins={"bridge": "s3cret"}) as box:
        auth = {"kind": "basic", "username": "bridge", "password": "s3cret"}
        assert Post(box.port, authority.bundle, {"auth": auth}).send().verdict is Verdict.OK
        wrong = Post(box.port, authority.bundle, {"auth": {**auth, "password": "no"}}).send()

    assert wrong.verdict is Verdict.AUTH
    assert [got.login for got in box.mails] == ["bridge"]


def test_a_login_with_a_token_of_the_token_endpoint(authority: Authority) -> None:
    def token(request: HttpRequest) -> Response:
        return Response('{"access_token": "t0ken", "expires_in": 3600}', mimetype="application/json")

    tls = authority.server(authority.issue(HOST))
    with serving(token) as endpoint, serving_mail(starttls=tls, tokens=frozenset({"t0ken"})) as box:
        auth = {
            "kind": "oauth2_client_credentials",
            "token_url": f"{endpoint.url}/token",
            "client_id": "bridge",
            "client_secret": "s3cret",
        }
        outcome = Post(box.port, authority.bundle, {"auth": auth, "mailbox": "shared@example.edu"}).send()

        assert outcome.verdict is Verdict.OK
        assert [got.login for got in box.mails] == ["shared@example.edu"]


def test_a_server_that_offers_no_starttls_gets_nothing_unless_that_was_wanted() -> None:
    with reciting(plain) as (port, heard):
        assert Post(port).send().verdict is Verdict.RETRY
        assert b"MAIL" not in heard
        assert Post(port, settings={"require_tls": False}).send().verdict is Verdict.OK


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("smtp://mail.example.org:587", ""),
        ("smtps://mail.example.org", ""),
        ("mail.example.org:587", "smtp://host:587"),
        ("https://mail.example.org", "smtp://host:587"),
        ("smtp://bridge:s3cret@mail.example.org", "smtp://host:587"),
        ("smtp://localhost", "leads to this very host"),
        ("smtps://[::1]:465", "loopback"),
        ("smtp://0x7f.1:25", "loopback"),
        ("smtp://10.1.2.3:25", "network.allow_private"),
        ("smtp://169.254.169.254", "metadata"),
        ("smtp://mail.example.org:6379", "another protocol"),
        ("smtp://mail.example.org:99999", "cannot be read"),
    ],
)
def test_settings_say_where_mail_goes(tmp_path: Path, url: str, said: str) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text(f"{SOURCES}targets:\n  email: {{connector: email, url: '{url}', from: b@example.edu}}\n")

    reading = read_configuration(file, sources=registry().sources, targets=registry().targets)

    assert len(reading.problems) == (1 if said else 0)
    assert all("targets.email.url" in str(problem) and said in str(problem) for problem in reading.problems)
