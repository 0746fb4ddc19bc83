"""Webhooks over real HTTP: what is genuine is kept before the 200, everything else is refused in few words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from web_parts import MAX_BODY, SECRET, Client, Web, build, genuine, signed_bytes

from bridge.core.errors import StorageUnavailable
from bridge.core.simulation import SignedCall
from bridge.core.source import Accepted
from bridge.journal.reader import read, segments
from bridge.journal.writer import JournalWriter
from bridge.ledger.database import Ledger
from bridge.ledger.tables import deliveries_in
from bridge.testing.hostile import BODIES
from bridge.web.keeping import in_journal

PLATFORMS = ("wiseflow", "wise", "edusign", "inspera")
ODD = {
    "empty": "",
    "blanks": "   ",
    "not hex": "zz",
    "not ASCII": "\xe9\xff" * 16,
    "odd length": "abc",
    "long": "a" * 8_000,
    "only padding": "====",
    "a prefix": "sha256=",
    "a comma": "a,b;c",
    "quotes": "\"'",
    "a tab": "a\tb",
}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    yield build(tmp_path, ledger)
    ledger.close()


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with web.served() as client:
        yield client


def ids(web: Web) -> list[str]:
    with web.ledger.read() as connection:
        return list(connection.execute(select(deliveries_in.c.id)).scalars())


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_genuine_call_is_stored_and_answered_with_its_id(web: Web, client: Client, name: str) -> None:
    signed = genuine(name)
    reply = client.post(name, signed)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {"status": "accepted", "id": ids(web)[0]}
    assert list(reply.json) == ["status", "id"]
    with web.ledger.read() as connection:
        assert connection.execute(select(deliveries_in.c.body)).scalar() == signed.body


@pytest.mark.parametrize("name", PLATFORMS)
def test_nothing_of_a_secret_is_kept(web: Web, client: Client, name: str) -> None:
    signed = genuine(name)
    extra = {"Authorization": SECRET, "Cookie": "session=1", "X-Api-Key": "k", "X-Echo": f"it is {SECRET}!"}
    headers = {key: value for key, value in extra.items() if key.lower() not in {h.lower() for h in signed.headers}}
    reply = client.post(name, SignedCall(headers=headers | dict(signed.headers), body=signed.body, query=signed.query))
    assert reply.status == 200
    with web.ledger.read() as connection:
        row = connection.execute(select(deliveries_in)).one()
    assert SECRET not in row.headers + row.query + row.proof + row.dedupe_key
    assert not {"authorization", "cookie", "x-api-key", "x-echo"} & set(json.loads(row.headers))


def test_what_is_wrong_is_not_told_to_who_sent_it(web: Web, client: Client) -> None:
    signed = genuine("wiseflow")
    wrong = [
        {},
        {"Signature": ""},
        {"Signature": "not a signature"},
        {"Signature": "AAAA"},
        {"Signature": signed.headers["Signature"][:-4] + "AAA="},
    ]
    replies = [client.ask("POST", "/hooks/wiseflow", headers, signed.body) for headers in wrong]
    assert {(reply.status, reply.body) for reply in replies} == {(401, b'{"status": "refused"}')}
    assert web.kept == []


def test_a_source_that_is_not_there_and_other_methods(web: Web, client: Client) -> None:
    assert client.post("nobody", genuine("wiseflow")).status == 404
    assert client.ask("GET", "/hooks/wiseflow").status == 405
    assert client.ask("PUT", "/hooks/wiseflow", body=b"{}").status == 405
    assert client.ask("GET", "/hooks/").status == 404
    assert web.kept == []


def test_a_body_that_is_too_long_is_refused_whole(web: Web, client: Client) -> None:
    body = b'{"x":"' + b"x" * MAX_BODY + b'"}'
    signed = signed_bytes("wiseflow", body)
    reply = client.post("wiseflow", signed)
    assert (reply.status, reply.json) == (413, {"status": "too large"})
    assert web.kept == []


def test_a_body_in_pieces_that_is_too_long_is_refused_and_not_cut(web: Web, client: Client) -> None:
    body = b'{"x":"' + b"x" * MAX_BODY + b'"}'
    # Signed is what would be left of it, so that a server that cuts would take it for genuine.
    for signed_part in (body, body[:MAX_BODY]):
        signed = signed_bytes("wiseflow", signed_part)
        pieces = iter([body[start : start + 60_000] for start in range(0, len(body), 60_000)])
        reply = client.ask("POST", "/hooks/wiseflow", signed.headers, pieces)
        assert (reply.status, reply.json) == (413, {"status": "too large"})
    assert web.kept == []


def test_a_body_in_pieces_is_taken_whole(web: Web, client: Client) -> None:
    signed = genuine("wiseflow")
    pieces = iter([signed.body[start : start + 20] for start in range(0, len(signed.body), 20)])
    assert client.ask("POST", "/hooks/wiseflow", signed.headers, pieces).status == 200
    assert web.kept[0].verified.inbound.body == signed.body


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_body_shorter_than_its_length_is_not_taken(web: Web, client: Client, name: str) -> None:
    signed = genuine(name)
    answer = client.cut_off(f"/hooks/{name}", signed.headers | {"Content-Length": len(signed.body) + 10}, signed.body)
    assert b" 400 " in answer
    assert web.kept == []


def test_when_nothing_can_be_kept_the_sender_is_asked_to_come_again(web: Web, client: Client) -> None:
    def full(_accepted: Accepted) -> None:
        raise StorageUnavailable("no space left on device")

    web.keep = full
    reply = client.post("wiseflow", genuine("wiseflow"))
    assert (reply.status, reply.json) == (503, {"status": "try again"})
    assert int(reply.headers["retry-after"]) > 0


def test_a_ledger_that_is_away_is_a_503_and_not_a_500(web: Web, client: Client) -> None:
    with web.ledger.write() as connection:
        connection.exec_driver_sql("alter table deliveries_in rename to gone")
    assert client.post("wiseflow", genuine("wiseflow")).status == 503


def test_in_journal_mode_the_bytes_are_on_disk_before_the_answer(web: Web, client: Client, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path / "journal")
    web.keep = in_journal(writer)
    signed = genuine("edusign")
    reply = client.post("edusign", signed)
    assert reply.status == 200
    [segment] = segments(tmp_path / "journal")
    [(accepted, _)] = read(segment, 0, 2**63 - 1).records
    assert (accepted.verified.inbound.id, accepted.verified.inbound.body) == (reply.json["id"], signed.body)
    writer.close()


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_call_that_only_wants_an_answer_forwards_nothing_new(web: Web, client: Client, name: str) -> None:
    """The same genuine call twice has two ids and is one delivery."""
    signed = genuine(name)
    first, second = client.post(name, signed), client.post(name, signed)
    assert (first.status, second.status) == (200, 200)
    assert first.json["id"] != second.json["id"]
    assert ids(web) == [first.json["id"]]


@pytest.mark.parametrize("name", PLATFORMS)
def test_hostile_bodies_are_taken_or_refused_and_never_an_error(web: Web, client: Client, name: str) -> None:
    for what, body in BODIES.items():
        for signed in (signed_bytes(name, body), SignedCall(headers={}, body=body)):
            reply = client.post(name, signed)
            assert reply.status in (200, 401), what
            assert reply.headers["content-type"] == "application/json"
    if name != "wise":  # its proof is a secret in a header, whatever the body is
        assert len(web.kept) >= len(BODIES) // 2


@pytest.mark.parametrize("name", PLATFORMS)
def test_hostile_headers_are_refused_or_ignored_and_never_an_error(web: Web, client: Client, name: str) -> None:
    signed = genuine(name)
    for header in signed.headers:
        for what, value in ODD.items():
            changed = SignedCall(headers={**signed.headers, header: value}, body=signed.body, query=signed.query)
            assert client.post(name, changed).status in (200, 401), (header, what)


def test_hostile_queries_are_never_an_error(web: Web, client: Client) -> None:
    for query in ("?a=%00", "?%ff=%fe", "?a=1&a=2", "?" + "x" * 5000, "?a[b]=c", "?%"):
        signed = genuine("wiseflow")
        reply = client.ask("POST", f"/hooks/wiseflow{query}", signed.headers, signed.body)
        assert reply.status == 200, query


@pytest.mark.parametrize(
    "path", ["/hooks/..%2f..%2fetc%2fpasswd", "/hooks/%00", "/hooks/a%0d%0ab", "/hooks/" + "a" * 4000]
)
def test_hostile_names_of_sources_are_not_found(client: Client, path: str) -> None:
    assert client.ask("POST", path, body=b"{}").status == 404
