"""Pulling events: what the description says is what happens, on both databases."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from api_parts import SOURCE, Stream, bearer, event, event_id, pulled, store
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from sqlalchemy import event as sql_event
from sqlalchemy import select, text
from web_parts import Client, Reply, Web, build

from bridge.ledger.api_tokens import list_tokens, revoke_token
from bridge.ledger.database import Ledger
from bridge.ledger.feed import WINDOW, Wanted, head_of, offer, read_feed
from bridge.ledger.tables import api_tokens, audit, events, feed, feed_head
from bridge.web.api import Api
from bridge.web.api_cursor import cursor_of
from bridge.web.api_description import description
from bridge.web.api_problems import KINDS

EVENTS = "/api/v1/events"
STREAM = f"{EVENTS}/stream"
ALL = Wanted(types=frozenset(("submission.submitted", "submission.withdrawn", "grade.published")), sources=None)


@pytest.fixture
def web(tmp_path: Path, ledger: Ledger) -> Web:
    made = build(tmp_path, ledger)
    made.api = Api(sources=frozenset(made.sources))
    return made


@pytest.fixture
def client(web: Web) -> Iterator[Client]:
    with web.served() as client:
        yield client


def asker(client: Client, headers: dict[str, str]) -> Callable[[str], Any]:
    def ask(query: str) -> Any:
        reply = client.ask("GET", EVENTS + query, headers)
        assert reply.status == 200, reply.body
        return reply.json

    return ask


def ids(found: list[Any]) -> list[str]:
    return [entry["id"] for entry in found]


# -- the description ------------------------------------------------------------------------------------------------


def test_the_description_is_proper_openapi() -> None:
    OpenAPIV31SpecValidator(description()).validate()


def test_every_route_is_described_and_every_description_is_a_route(web: Web) -> None:
    routes = {
        (re.sub(r"<(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in web.app().url_map.iter_rules()
        if rule.endpoint.startswith("api.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert routes == {(path, method) for path, entry in description()["paths"].items() for method in entry}


def test_the_description_is_served_to_everybody(client: Client) -> None:
    reply = client.ask("GET", "/api/v1/openapi.json")
    assert (reply.status, reply.json) == (200, description())


class Happening:
    """How each documented answer is brought about: (path, status) to a method."""

    def __init__(self, web: Web, stack: ExitStack) -> None:
        self.web, self.stack = web, stack
        self.client = stack.enter_context(web.served())
        store(web.ledger, event(1), event(2), event(3))
        self.headers = bearer(web.ledger)

    def ask(self, path: str, headers: dict[str, str] | None = None) -> Reply:
        return self.client.ask("GET", path, self.headers if headers is None else headers)

    def answer(self, path: str, status: int) -> Reply:
        address = path.replace("{id}", event_id(1))
        if status == 200 and path == STREAM:
            return self._of(Api(stream_seconds=0.2)).ask("GET", path, self.headers)
        if status == 429:
            client = self._of(Api(streams=2))
            first = Stream(client.port, self.headers)
            self.stack.callback(first.close)
            assert first.answer.status == 200
            return client.ask("GET", address, self.headers)
        if status == 503 and path != STREAM:
            self.web.ledger = Ledger("postgresql://nobody@127.0.0.1:1/nothing")
        ways: dict[int, Callable[[], Reply]] = {
            200: lambda: self.ask(address),
            400: lambda: self.ask(f"{address}?colour=blue"),
            401: lambda: self.ask(address, {}),
            403: lambda: self.ask(address, bearer(self.web.ledger, "no scope", scopes=[])),
            404: lambda: self.ask(path.replace("{id}", event_id(99))),
            410: lambda: self.ask(f"{address}?after={cursor_of('00000000', 1)}"),
            503: lambda: self._of(Api(streams=0)).ask("GET", address, self.headers),
        }
        return ways[status]()

    def _of(self, parts: Api) -> Client:
        self.web.api = parts
        return self.stack.enter_context(self.web.served())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (path, int(status))
        for path, entry in description()["paths"].items()
        for operation in entry.values()
        for status in operation["responses"]
    ],
)
def test_every_documented_answer_happens_and_is_as_documented(web: Web, path: str, status: int) -> None:
    with ExitStack() as stack:
        reply = Happening(web, stack).answer(path, status)
        assert reply.status == status, reply.body
        conforms(reply, path)


def conforms(reply: Reply, path: str) -> None:
    """The answer's type, headers and body are those of the description."""
    document = description()
    documented = document["paths"][path]["get"]["responses"][str(reply.status)]
    if "$ref" in documented:
        documented = document["components"]["responses"][documented["$ref"].rpartition("/")[2]]
    [(kind, content)] = documented["content"].items()
    assert reply.headers["content-type"].partition(";")[0] == kind
    for name in documented.get("headers", {}):
        assert name.lower() in reply.headers
    body = reply.json if kind.endswith("json") else reply.body.decode()
    schema = json.loads(json.dumps(content["schema"]).replace('"#/', '"urn:description#/'))
    registry: Registry[Any] = Registry().with_resource(
        "urn:description", Resource.from_contents(document, default_specification=DRAFT202012)
    )
    Draft202012Validator(schema, registry=registry).validate(body)
    if reply.status >= 400:
        assert body["status"] == reply.status
        assert body["type"] in {kind.type for kind in KINDS.values() if kind.status == reply.status}


def test_other_methods_are_refused_as_a_problem(client: Client) -> None:
    for address in (EVENTS, f"{EVENTS}/x", STREAM, "/api/v1/openapi.json"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            reply = client.ask(method, address)
            assert (reply.status, reply.headers["content-type"]) == (405, "application/problem+json")
            assert "GET" in reply.headers["allow"]


def test_other_addresses_are_a_problem_too(client: Client) -> None:
    for address in ("/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/events/a/b", "/api/v1/events/"):
        reply = client.ask("GET", address)
        assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")
    assert client.ask("GET", "/nothing").headers["content-type"].startswith("text/html")


# -- pages ----------------------------------------------------------------------------------------------------------


def test_pages_follow_each_other_without_gap_or_repeat(web: Web, client: Client) -> None:
    store(web.ledger, *(event(number) for number in range(1, 8)))
    ask = asker(client, bearer(web.ledger))
    first = ask("?limit=3")
    assert (ids(first["events"]), first["more"]) == ([event_id(number) for number in (1, 2, 3)], True)
    assert first["events"][0] == event(1).to_json()
    second = ask(f"?limit=3&after={first['next']}")
    third = ask(f"?limit=3&after={second['next']}")
    assert ids(second["events"] + third["events"]) == [event_id(number) for number in (4, 5, 6, 7)]
    assert (second["more"], third["more"]) == (True, False)


def test_a_cursor_at_the_end_stays_good_and_finds_what_comes_later(web: Web, client: Client) -> None:
    store(web.ledger, event(1))
    ask = asker(client, bearer(web.ledger))
    end = ask("")["next"]
    assert ask(f"?after={end}") == {"events": [], "next": end, "more": False}
    store(web.ledger, event(2))
    assert ids(ask(f"?after={end}")["events"]) == [event_id(2)]


def test_newest_stands_for_what_comes_from_now_on(web: Web, client: Client) -> None:
    store(web.ledger, event(1))
    ask = asker(client, bearer(web.ledger))
    page = ask("?after=newest")
    store(web.ledger, event(2))
    assert (page["events"], ids(ask(f"?after={page['next']}")["events"])) == ([], [event_id(2)])


def test_types_and_sources_are_filtered_as_mappings_do(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2, "grade.published"), event(3, "source.tick"))
    store(web.ledger, event(4, "grade.updated"), source="inspera")
    ask = asker(client, bearer(web.ledger))
    assert ids(ask("")["events"]) == [event_id(number) for number in (1, 2, 4)]
    assert ids(ask("?type=grade.*")["events"]) == [event_id(number) for number in (2, 4)]
    assert ids(ask("?type=edu.grade.updated.v1,submission.*")["events"]) == [event_id(number) for number in (1, 4)]
    assert ids(ask("?type=source.*&type=grade.published")["events"]) == [event_id(number) for number in (2, 3)]
    assert ids(ask("?source=inspera&type=grade.*")["events"]) == [event_id(4)]
    assert ids(ask("?source=inspera,wiseflow")["events"]) == [event_id(number) for number in (1, 2, 4)]


def test_a_filter_that_matches_nothing_still_moves_the_cursor(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2))
    page = asker(client, bearer(web.ledger))("?type=grade.*")
    assert page["events"] == []
    store(web.ledger, event(3, "grade.published"))
    assert ids(asker(client, bearer(web.ledger, "b"))(f"?type=grade.*&after={page['next']}")["events"]) == [event_id(3)]


@pytest.mark.parametrize(
    ("query", "kind", "parameter"),
    [
        ("?limit=0", "bad-parameter", "limit"),
        ("?limit=1001", "bad-parameter", "limit"),
        ("?limit=ten", "bad-parameter", "limit"),
        ("?limit=1&limit=2", "bad-parameter", "limit"),
        ("?type=grades.*", "bad-parameter", "type"),
        ("?source=nobody", "bad-parameter", "source"),
        ("?page=2", "bad-parameter", None),
        ("?after=17", "bad-cursor", "after"),
        ("?after=%C3%A9", "bad-cursor", "after"),
        ("?after=AAAAAAAAAAAAAAAAAAAA", "bad-cursor", "after"),
    ],
)
def test_what_cannot_be_used_is_named_and_not_repeated(
    web: Web, client: Client, query: str, kind: str, parameter: str | None
) -> None:
    reply = client.ask("GET", EVENTS + query, bearer(web.ledger))
    assert (reply.status, reply.json["type"]) == (400, KINDS[kind].type)
    assert reply.json.get("parameter") == parameter
    conforms(reply, EVENTS)


def test_a_cursor_ahead_of_the_feed_is_refused_instead_of_skipping_events(web: Web, client: Client) -> None:
    store(web.ledger, event(1))
    head = head_of(web.ledger)
    reply = client.ask("GET", f"{EVENTS}?after={cursor_of(head.line, head.position + 1)}", bearer(web.ledger))
    assert (reply.status, reply.json["type"]) == (410, KINDS["lost-cursor"].type)


def test_one_event_is_shown_as_it_is_now(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2, "grade.published"))
    reply = client.ask("GET", f"{EVENTS}/{event_id(1)}", bearer(web.ledger))
    assert (reply.status, reply.json) == (200, event(1).to_json())
    assert reply.headers["content-type"].startswith("application/cloudevents+json")
    grades = bearer(web.ledger, "grades", types=["grade.*"])
    assert client.ask("GET", f"{EVENTS}/{event_id(1)}", grades).status == 404


@pytest.mark.parametrize("id", ["%00", f"{event_id(1)}%00", "%ED%A0%BD", "%F0%9F%98%80", "x" * 5000])
def test_an_id_that_no_event_can_have_is_not_found(web: Web, client: Client, id: str) -> None:
    store(web.ledger, event(1))
    reply = client.ask("GET", f"{EVENTS}/{id}", bearer(web.ledger))
    assert (reply.status, reply.json["type"]) == (404, KINDS["not-found"].type)


def test_no_page_and_no_stream_is_shared_with_other_origins_or_kept_by_caches(web: Web, client: Client) -> None:
    reply = client.ask("GET", EVENTS, bearer(web.ledger) | {"Origin": "https://elsewhere.example"})
    assert reply.headers["cache-control"] == "no-store"
    assert not [name for name in reply.headers if name.startswith("access-control")]


# -- order ----------------------------------------------------------------------------------------------------------


def test_an_event_that_was_completed_is_offered_once_more_at_a_new_place(web: Web, client: Client) -> None:
    store(web.ledger, event(1, enrichment="partial"), event(2))
    ask = asker(client, bearer(web.ledger))
    end = ask("")["next"]
    store(web.ledger, event(1, enrichment="full"), purpose="completion")
    late = ask(f"?after={end}")
    assert [(entry["id"], entry["enrichment"]) for entry in late["events"]] == [(event_id(1), "full")]
    assert ids(pulled(ask)) == [event_id(2), event_id(1)]


def test_a_replay_that_changes_nothing_offers_nothing(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2))
    ask = asker(client, bearer(web.ledger))
    end = ask("")["next"]
    store(web.ledger, event(1), purpose="replay")
    assert ask(f"?after={end}") == {"events": [], "next": end, "more": False}
    assert ids(pulled(ask)) == [event_id(1), event_id(2)]


def test_offering_costs_two_statements_for_a_whole_batch(ledger: Ledger) -> None:
    statements: list[str] = []
    sql_event.listen(ledger.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    store(ledger, *(event(number) for number in range(50)))
    assert sum("feed" in statement for statement in statements) == 2
    assert "feed" in statements[-1]


def test_who_freezes_before_the_commit_holds_up_the_others_for_half_a_minute_at_most(postgresql_database: str) -> None:
    ledger = Ledger(postgresql_database)
    ledger.upgrade()
    store(ledger, event(1))
    asked = text("select current_setting('idle_in_transaction_session_timeout')")
    with ledger.write() as connection:
        offer(connection, [event_id(1)])
        assert connection.execute(asked).scalar() == "30s"
    with ledger.read() as connection:
        assert connection.execute(asked).scalar() == "0"
    ledger.close()


def test_a_gap_that_deleted_events_left_is_crossed_in_a_few_pages(ledger: Ledger) -> None:
    store(ledger, event(1))
    with ledger.write() as connection:
        connection.execute(feed_head.update().values(position=50 * WINDOW))
    store(ledger, event(2))
    with ledger.write() as connection:
        connection.execute(feed.delete().where(feed.c.position == 1))
    pages = [read_feed(ledger, ALL, after=0, limit=10)]
    while pages[-1].more:
        pages.append(read_feed(ledger, ALL, after=pages[-1].next, limit=10))
    assert [entry.position for page in pages for entry in page.entries] == [50 * WINDOW + 1]
    assert len(pages) <= 3


def test_one_page_looks_at_no_more_than_a_window(ledger: Ledger) -> None:
    store(ledger, event(1))
    with ledger.write() as connection:
        connection.execute(feed_head.update().values(position=WINDOW))
    store(ledger, event(2), event(3, "grade.published"))
    grades = Wanted(types=frozenset(["grade.published"]), sources=None)
    first = read_feed(ledger, grades, after=0, limit=10)
    assert (list(first.entries), first.next, first.more) == ([], WINDOW, True)
    assert [entry.position for entry in read_feed(ledger, grades, after=first.next, limit=10).entries] == [WINDOW + 2]


# -- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash_only(ledger: Ledger) -> None:
    token = bearer(ledger)["Authorization"].removeprefix("Bearer ")
    with ledger.read() as connection:
        [row] = connection.execute(select(api_tokens)).all()
        written = connection.execute(select(audit.c.action, audit.c.object)).all()
    assert not any(token in str(value) for value in row)
    assert len(token) >= 46
    assert [tuple(entry) for entry in written] == [("tokens.create", "warehouse")]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer cb_wrong", "Bearer \x80", "cb_wrong"])
def test_without_a_good_token_nothing_is_told(web: Web, client: Client, value: str) -> None:
    store(web.ledger, event(1))
    for address in (EVENTS, STREAM, f"{EVENTS}/{event_id(1)}"):
        reply = client.ask("GET", address, {"Authorization": value})
        assert reply.status == 401
        assert reply.headers["www-authenticate"].startswith('Bearer realm="campusbridge"')
        conforms(reply, EVENTS)


def test_an_expired_and_a_revoked_token_are_as_unknown_as_any(web: Web, client: Client) -> None:
    expired = bearer(web.ledger, "expired", lifetime=timedelta(seconds=-1))
    revoked = bearer(web.ledger, "revoked")
    assert client.ask("GET", EVENTS, revoked).status == 200
    assert revoke_token(web.ledger, "revoked", who="a test")
    replies = [client.ask("GET", EVENTS, headers) for headers in (expired, revoked, {"Authorization": "Bearer x"})]
    assert [reply.status for reply in replies] == [401] * 3
    assert len({reply.body for reply in replies}) == 1
    assert not revoke_token(web.ledger, "revoked", who="a test")


def test_a_token_sees_only_its_sources_and_types(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2, "grade.published"))
    store(web.ledger, event(3, "grade.published"), source="inspera")
    headers = bearer(web.ledger, sources=[SOURCE], types=["grade.*"])
    ask = asker(client, headers)
    assert ids(ask("")["events"]) == [event_id(2)]
    assert ids(ask("?type=grade.published,submission.*")["events"]) == [event_id(2)]
    for query in ("?source=inspera", "?source=nobody", "?type=submission.*", "?type=source.*"):
        assert client.ask("GET", EVENTS + query, headers).status == 403
    assert client.ask("GET", f"{EVENTS}/{event_id(3)}", headers).status == 404


def test_the_use_of_a_token_is_noted_to_the_hour(web: Web, client: Client) -> None:
    headers = bearer(web.ledger)
    assert [row.used_ms for row in list_tokens(web.ledger)] == [None]
    statements: list[str] = []
    client.ask("GET", EVENTS, headers)
    sql_event.listen(web.ledger.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    client.ask("GET", EVENTS, headers)
    [used] = [row.used_ms for row in list_tokens(web.ledger)]
    assert used % 3_600_000 == 0
    assert not [statement for statement in statements if statement.startswith("UPDATE")]


def test_wrong_tokens_are_counted_in_the_log_without_their_values(web: Web, client: Client) -> None:
    with structlog.testing.capture_logs() as lines:
        for number in range(20):
            client.ask("GET", EVENTS, {"Authorization": f"Bearer secret-{number}"})
    told = [line for line in lines if line["event"] == "api_tokens_refused"]
    assert [line["count"] for line in told] == [1]
    assert "secret-" not in str(lines)


# -- streams --------------------------------------------------------------------------------------------------------


def test_a_stream_gives_what_is_there_and_then_what_comes(web: Web, client: Client) -> None:
    store(web.ledger, event(1), event(2))
    stream = Stream(client.port, bearer(web.ledger))
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    assert stream.answer.headers["X-Accel-Buffering"] == "no"
    found = stream.events()
    assert next(found) == event(1).to_json()
    assert next(found)["id"] == event_id(2)
    store(web.ledger, event(3))
    assert next(found)["id"] == event_id(3)
    stream.close()


def test_a_stream_resumes_behind_the_last_id_whatever_its_address_says(web: Web, client: Client) -> None:
    headers = bearer(web.ledger)
    store(web.ledger, event(1), event(2), event(3))
    first = Stream(client.port, headers)
    next(first.events())
    first.close()
    second = Stream(client.port, headers, f"?after={first.last}", last=first.last)
    assert next(second.events())["id"] == event_id(2)
    second.close()
    third = Stream(client.port, headers, f"?after={first.last}", last=second.last)
    assert next(third.events())["id"] == event_id(3)
    third.close()


def test_a_stream_and_a_page_share_their_cursors_and_filters(web: Web, client: Client) -> None:
    headers = bearer(web.ledger)
    store(web.ledger, event(1), event(2, "grade.published"), event(3, "grade.published"))
    stream = Stream(client.port, headers, "?type=grade.*")
    next(stream.events())
    stream.close()
    assert ids(asker(client, headers)(f"?after={stream.last}")["events"]) == [event_id(3)]


def test_a_stream_ends_by_itself_with_a_proper_end(web: Web) -> None:
    web.api = Api(stream_seconds=0.3)
    store(web.ledger, event(1))
    with web.served() as client:
        stream = Stream(client.port, bearer(web.ledger))
        blocks = list(stream.blocks())
        assert [block for block in blocks if "data" in block]
        assert blocks[-1] == {"": "reconnect"}


def test_a_consumer_that_hangs_up_gives_its_place_back(web: Web) -> None:
    web.api = Api(streams=2)
    headers = bearer(web.ledger)
    with web.served() as client:
        for _ in range(4):
            stream = Stream(client.port, headers)
            assert stream.answer.status in (200, 429)
            stream.close()
            until_free(client, headers)


def until_free(client: Client, headers: dict[str, str]) -> None:
    for _ in range(100):
        stream = Stream(client.port, headers)
        stream.close()
        if stream.answer.status == 200:
            return
        time.sleep(0.05)
    raise AssertionError("the place was not given back")


def test_places_are_for_all_tokens_together_and_for_each(web: Web) -> None:
    web.api = Api(streams=3)
    with web.served() as client, ExitStack() as stack:
        statuses = []
        for name in ("a", "a", "b", "b", "c", "d"):
            headers = bearer(web.ledger, f"{name}{len(statuses)}")
            stream = Stream(client.port, headers)
            stack.callback(stream.close)
            statuses.append(stream.answer.status)
        assert statuses == [200, 200, 200, 503, 503, 503]


def test_a_head_request_keeps_no_place(web: Web) -> None:
    web.api = Api(streams=1)
    headers = bearer(web.ledger)
    with web.served() as client:
        for _ in range(3):
            assert client.ask("HEAD", STREAM, headers).body == b""
            until_free(client, headers)


def test_the_stored_order_is_the_order_of_the_feed(ledger: Ledger) -> None:
    store(ledger, event(5), event(2), event(9))
    with ledger.read() as connection:
        query = select(events.c.id).join(feed, feed.c.event == events.c.cursor).order_by(feed.c.position)
        assert list(connection.execute(query).scalars()) == [event_id(number) for number in (5, 2, 9)]
