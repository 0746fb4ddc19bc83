"""What fixtures of Inspera cannot say: the simulated tenant's webhooks and API tell one story, and nothing breaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.config.connectors import source_connector
from bridge.core.errors import NotGenuine, PayloadError, SourceRefused, SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import sign
from bridge.core.simulation import ApiCall, ApiReply, Call
from bridge.core.source import Challenge, Inbound, SourceApi, Verified
from bridge.flow.process import enriched, events_of
from bridge.testing.offline import Offline
from connectors.inspera import simulator, source
from connectors.inspera.kinds import TYPES
from connectors.inspera.map_print import read_map_print
from connectors.inspera.results import assessment, final_grades

NOW = datetime(2026, 6, 5, 9, 30, 2, tzinfo=UTC)
SECRET = "insp_test_secret"
BASE = "https://campus.inspera.example.test"
CONNECTOR = source_connector(Path(simulator.__file__).parent, source, simulator)
DEFAULTS = {name: entry["default"] for name, entry in CONNECTOR.manifest.options["properties"].items()}


def settings_of(**options: Any) -> Settings:
    entry = simulator.settings(SECRET, BASE)
    assert CONNECTOR.manifest.api is not None
    properties = CONNECTOR.manifest.api["properties"]
    api = {name: entry["default"] for name, entry in properties.items() if "default" in entry} | entry["api"]
    defaults = DEFAULTS | {"aliases": entry["aliases"]}
    return Settings(name="inspera-main", secrets=(SECRET,), options=defaults | options, api=api)


def inbound_of(body: bytes, headers: Mapping[str, str], at: datetime = NOW) -> Inbound:
    lowered = {name.lower(): value for name, value in headers.items()}
    return Inbound(id="d-1", source="inspera-main", received_at=at, headers=lowered, query={}, body=body)


def arrived(platform: simulator.InsperaPlatform, call: Call, attempt: int = 1) -> Verified:
    signed = platform.sign(call, SECRET, attempt=attempt, now=NOW + timedelta(minutes=attempt))
    result = source.verify(inbound_of(signed.body, signed.headers), settings_of())
    verified = result.keep if isinstance(result, Challenge) else result
    assert verified is not None
    return verified


def event_of(platform: simulator.InsperaPlatform, call: Call) -> Event:
    (event,) = events_of(CONNECTOR, arrived(platform, call), settings_of())
    return event


def signed(document: Json) -> Inbound:
    body = json.dumps(document).encode()
    return inbound_of(body, {"X-Inspera-Signature": sign(SECRET, body, "sha1")})


@dataclass(slots=True)
class DirectApi(Offline):
    """A SourceApi that asks a simulated tenant in this process, as the hub does over the wire."""

    platform: simulator.InsperaPlatform
    settings: Settings
    now: datetime = NOW
    kept: dict[str, Payload | None] = field(default_factory=dict)
    wire: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    token: str = ""

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return self._ask("GET", path, None, keep)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        return self._ask("POST", path, body, keep)

    def _ask(self, method: str, path: str, body: Json | None, keep: float) -> Payload | None:
        remembered = f"{method} {path} {json.dumps(body)}"
        if remembered in self.kept:
            return self.kept[remembered]
        own = not path.startswith(("http://", "https://"))
        headers = {"host": "campus.inspera.example.test"} | (
            {"authorization": f"Bearer {self._token()}"} if own else {}
        )
        address = urlsplit(path)
        on_the_wire = ("/api" if own else "") + address.path + (f"?{address.query}" if address.query else "")
        self.wire.append((f"{method} {on_the_wire}", headers))
        reply = self.platform.answer(
            ApiCall(method=method, path=on_the_wire, query={}, headers=headers, form={}, json=body)
        )
        if reply.status in (401, 403):
            raise SourceRefused(f"HTTP {reply.status}")
        if reply.status not in (200, 404):
            raise SourceUnavailable(f"HTTP {reply.status}")
        answer = None if reply.status == 404 else Payload(reply.json)
        if keep and answer is not None:
            self.kept[remembered] = answer
        return answer

    def _token(self) -> str:
        if not self.token:
            reply = ask_for_token(self.platform, self.settings)
            assert reply.status == 200
            self.token = reply.json["access_token"]
        return self.token


def ask_for_token(platform: simulator.InsperaPlatform, settings: Settings) -> ApiReply:
    reached = source.access(settings)
    assert reached is not None
    assert reached.token is not None
    url = reached.token.url.removeprefix(BASE)
    return platform.answer(
        ApiCall(
            method="POST", path=url, query={}, headers=reached.token.headers, form=dict(reached.token.form), json=None
        )
    )


@dataclass(slots=True)
class CannedApi(Offline):
    """A SourceApi with fixed answers, for what a simulated tenant never says."""

    answers: Mapping[str, object]
    settings: Settings = field(default_factory=settings_of)
    now: datetime = NOW
    asked: list[str] = field(default_factory=list)

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        self.asked.append(path)
        return Payload(self.answers[path]) if path in self.answers else None

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        return self.get(path.partition("#")[0])


def until_done(event: Event, api: DirectApi) -> tuple[list[Event], list[float | None]]:
    """Enrichment with the waiting that the hub does, and for how long it was asked to wait."""
    waits: list[float | None] = []
    for _ in range(50):
        try:
            return enriched(CONNECTOR, event, api), waits
        except SourceUnavailable as unavailable:
            waits.append(unavailable.retry_after)
    raise AssertionError("never done")


def test_every_kind_is_sent_signed_read_and_completed() -> None:
    platform = simulator.platform(seed=3)
    for kind in CONNECTOR.manifest.kinds.values():
        event = event_of(platform, platform.sample(kind.name))
        completed, _ = until_done(event, DirectApi(platform, settings_of()))
        assert {each.type for each in completed} == set(kind.types), kind.name
        assert all(each.enrichment == ("full" if kind.calls else "skipped") for each in completed)


def test_an_event_that_no_rule_knows_is_kept_under_its_own_name() -> None:
    platform = simulator.platform()
    event = event_of(platform, platform.sample("contributor_added"))
    assert (event.type, event.sourceevent) == ("source.unmapped", "contributor_added")


def test_a_second_attempt_is_the_same_delivery_and_the_same_event() -> None:
    platform = simulator.platform()
    for kind in CONNECTOR.manifest.kinds:
        call = platform.sample(kind)
        first, second = arrived(platform, call, 1), arrived(platform, call, 2)
        assert first.dedupe_key == second.dedupe_key
        ids = [[event.id for event in events_of(CONNECTOR, each, settings_of())] for each in (first, second)]
        assert ids[0] == ids[1]


def test_a_day_has_no_two_equal_calls_and_is_mostly_papers() -> None:
    platform = simulator.platform()
    calls = list(islice(platform.day(), 3000))
    assert len({arrived(platform, call).dedupe_key for call in calls}) == len(calls)
    assert sum(call.kind == "candidate_submission_delivered" for call in calls) > 2000
    assert {call.kind for call in calls} == set(CONNECTOR.manifest.kinds)


def test_the_same_seed_makes_the_same_day_and_another_seed_another() -> None:
    def day(seed: int) -> list[Call]:
        return list(islice(simulator.platform(seed).day(), 50))

    assert day(7) == day(7)
    assert day(7) != day(8)


def test_confirmed_grades_become_the_grades_that_the_platform_holds() -> None:
    platform = simulator.platform(seed=5, people=60)
    platform.exports.pending = 2
    call = platform.sample("confirm_final_grades")
    sitting = platform.tests[call.body["contextObjectId"]]
    api = DirectApi(platform, settings_of())
    (parent, *children), waits = until_done(event_of(platform, call), api)

    assert waits == [10, 10]
    held = {f"inspera:{user}": str(grade) for user, grade in sitting.grades.items()}
    told = {each.data.person.key: each.data.grade.value for each in children if each.data.person and each.data.grade}
    assert told == held
    assert {each.causationid for each in children} == {parent.id}
    assert len({each.id for each in children}) == len(children)
    assert all(each.data.person and each.data.person.email for each in children)
    # One order for three looks at its status, and the signed address without our credentials.
    assert platform.calls["POST /v1/fileExport/order"] == 1
    assert platform.calls["GET /v1/fileExport/status/{jobId}"] == 3
    assert [("authorization" in headers) for call, headers in api.wire if "/storage/" in call] == [False]
    assert not any("#" in call for call, _ in api.wire)


def test_grades_that_are_confirmed_again_are_exported_again() -> None:
    platform = simulator.platform()
    api = DirectApi(platform, settings_of())
    call = platform.sample("confirm_final_grades")
    again = replace(call, body=call.body | {"timestamp": "2026-06-05T09:29:59Z"})
    before, _ = until_done(event_of(platform, call), api)
    after, _ = until_done(event_of(platform, again), api)
    assert platform.calls["POST /v1/fileExport/order"] == 2
    assert {each.id for each in before}.isdisjoint(each.id for each in after)
    assert {each.subject for each in before} == {each.subject for each in after}


def test_an_export_that_failed_is_ordered_anew_and_three_failures_wait_longer() -> None:
    platform = simulator.platform()
    platform.exports.failing = 1
    api = DirectApi(platform, settings_of())
    completed, _ = until_done(event_of(platform, platform.sample("confirm_final_grades")), api)
    assert completed[0].enrichment == "full"
    assert platform.calls["POST /v1/fileExport/order"] == 2

    platform.exports.failing, platform.exports.pending = 3, 0
    with pytest.raises(SourceUnavailable, match="three times") as raised:
        enriched(CONNECTOR, event_of(platform, platform.sample("confirm_final_grades")), api)
    assert raised.value.retry_after == 300


def test_an_export_is_asked_for_again_soon_however_old_its_event_is() -> None:
    platform = simulator.platform()
    event = event_of(platform, platform.sample("confirm_final_grades"))
    for age in (0, 150, 7200):
        api = DirectApi(platform, settings_of(), now=NOW + timedelta(seconds=age))
        with pytest.raises(SourceUnavailable) as raised:
            enriched(CONNECTOR, event, api)
        assert raised.value.retry_after == 10


def test_what_the_platform_does_not_know_right_away_is_asked_again_and_later_taken_as_gone() -> None:
    platform = simulator.platform()
    for kind in ("confirm_final_grades", "candidate_submission_delivered"):
        call = platform.sample(kind)
        gone = {"contextObjectId": 1} | ({"associatedObjectId": 2} if "associatedObjectId" in call.body else {})
        event = event_of(platform, replace(call, body=call.body | gone))
        early: SourceApi = DirectApi(platform, settings_of(), now=NOW + timedelta(seconds=29))
        with pytest.raises(SourceUnavailable):
            enriched(CONNECTOR, event, early)
        late: SourceApi = DirectApi(platform, settings_of(), now=NOW + timedelta(seconds=30))
        (left,) = enriched(CONNECTOR, event, late)
        assert (left.id, left.type, left.enrichment) == (event.id, event.type, "missing")


def test_a_paper_and_its_grade_have_one_subject() -> None:
    platform = simulator.platform()
    confirmed = platform.sample("confirm_final_grades")
    run = confirmed.body["contextObjectId"]
    call = platform.sample("candidate_submission_delivered")
    whose = {"contextObjectId": run, "associatedObjectId": platform.tests[run].candidates[0]}
    paper = event_of(platform, replace(call, body=call.body | whose))
    grades, _ = until_done(event_of(platform, confirmed), DirectApi(platform, settings_of()))
    assert paper.subject in {each.subject for each in grades}


@pytest.mark.parametrize(
    ("status", "export"),
    [
        ({"exportInfo": {"signedResponseUrl": "/v1/users/1"}}, None),
        ({"exportInfo": {"signedResponseUrl": "https://exports.example.test/1"}}, {"candidates": "ada@example.test"}),
        ({"exportInfo": {"signedResponseUrl": "https://exports.example.test/1"}}, {"other": []}),
        ({"exportInfo": {"signedResponseUrl": ["ada@example.test"]}}, None),
    ],
)
def test_an_answer_of_an_unexpected_shape_is_tried_again_and_never_quoted(status: Json, export: object) -> None:
    answers = {
        "/v1/fileExport/order": {"jobId": 81},
        "/v1/fileExport/status/81": status,
        "https://exports.example.test/1": export,
        "/v1/test/350000000": {"name": "Anatomy"},
    }
    platform = simulator.platform()
    call = platform.sample("confirm_final_grades")
    event = event_of(platform, replace(call, body=call.body | {"contextObjectId": 350000000}))
    api = CannedApi(answers)
    with pytest.raises(SourceUnavailable, match="unexpected shape") as raised:
        source.enrich(event, api)
    assert "ada" not in str(raised.value)
    assert "/v1/users/1" not in api.asked


@pytest.mark.parametrize(
    "callback", ["http://[", "https://evil.example.test/..", "https://evil.example.test/a%2Fb/?x=1"]
)
def test_a_callback_that_is_none_is_never_followed(callback: str) -> None:
    platform = simulator.platform()
    event = event_of(platform, platform.sample("confirm_final_grades"))
    api = CannedApi({"/v1/fileExport/order": {"callbackUrl": callback}})
    with pytest.raises(SourceUnavailable):
        source.enrich(event, api)
    assert api.asked == ["/v1/fileExport/order"]


@pytest.mark.parametrize(
    ("callback", "asked"),
    [
        (f"{BASE}/api/v1/fileExport/status/81", "/v1/fileExport/status/81"),
        (f"{BASE}/api/v2/exports/81?jobId=81", "/v2/exports/81?jobId=81"),
        (f"{BASE}/api/../81", "/v1/fileExport/status/80"),
        (f"{BASE}/api.evil.example.test/v1/81", "/v1/fileExport/status/80"),
        (f"{BASE}/api/v1/81#x", "/v1/fileExport/status/80"),
        ("https://evil.example.test/v1/fileExport/status/81", "/v1/fileExport/status/80"),
    ],
)
def test_a_callback_is_followed_within_the_tenant_s_own_api_alone(callback: str, asked: str) -> None:
    """Clients ask it with their token: github.com/ToolsCollectiveR/insperaNokut, R/get_users.r."""
    platform = simulator.platform()
    event = event_of(platform, platform.sample("confirm_final_grades"))
    api = CannedApi({"/v1/fileExport/order": {"jobId": 80, "callbackUrl": callback}})
    with pytest.raises(SourceUnavailable):
        source.enrich(event, api)
    assert api.asked[:2] == ["/v1/fileExport/order", asked]


def test_results_of_before_there_were_user_ids_name_the_user_as_candidate() -> None:
    """https://inspera.atlassian.net/wiki/pages/viewpage.action?pageId=1737883660: candidateId was "Inspera's internal
    id of the testtaker", with gradeValue; a later revision has both ids."""
    rounds = [{"roundId": 1, "gradeValue": 4.5, "causeOfRound": "ORDINARY"}]
    older = {"candidateId": "40010001", "assessmentRunId": 35199870, "evaluationRounds": rounds}
    [[grade], unreadable] = final_grades(Payload({"candidates": [older]}))
    assert (grade.user, grade.candidate, unreadable) == ("40010001", None, 0)
    [[grade], _] = final_grades(Payload([older | {"userId": "40010002", "candidateId": "10001"}]))
    assert (grade.user, grade.candidate) == ("40010002", "10001")


def test_a_test_is_read_by_the_names_of_its_record_and_by_those_of_the_search() -> None:
    """https://inspera.atlassian.net/wiki/spaces/KB/pages/3105259521/Search+test+API has other words than clients."""
    times = {"startTime": "2018-02-28T09:00:00Z", "endTime": "2018-03-31T10:00:00Z"}
    searched = {"assessmentRunId": 28020726, "assessmentRunTitle": "All uploads varieties", "externalId": "X-1"} | times
    record = {"name": "All uploads varieties", "externalTestId": "X-1"} | times
    assert assessment("28020726", Payload(searched)) == assessment("28020726", Payload(record))
    assert assessment("28020726", Payload(searched)).title == "All uploads varieties"


def test_without_the_right_to_read_users_nobody_is_asked_for() -> None:
    platform = simulator.platform()
    settings = settings_of()
    assert settings.api is not None
    api = DirectApi(platform, replace(settings, api={**settings.api, "read_users": False}))
    (paper,), _ = until_done(event_of(platform, platform.sample("candidate_submission_delivered")), api)
    assert paper.enrichment == "full"
    assert platform.calls["GET /v1/users/{userId}"] == 0


def test_the_key_goes_into_a_header_unless_the_query_is_asked_for() -> None:
    platform, settings = simulator.platform(), settings_of()
    assert settings.api is not None
    reached = source.access(settings)
    assert reached is not None
    assert reached.token is not None
    assert simulator.API_KEY not in reached.token.url
    assert ask_for_token(platform, settings).json["expires_in"] == 3600
    in_query = replace(settings, api={**settings.api, "key_in": "query", "api_key": simulator.API_KEY})
    assert ask_for_token(platform, in_query).status == 200
    older = source.access(in_query)
    assert older is not None
    assert older.token is not None
    # As older clients do, with an empty body: github.com/ToolsCollectiveR/InspeRaAssign.
    assert dict(parse_qsl(urlsplit(older.token.url).query)).keys() == {"code", "grant_type", "client_id"}
    assert (dict(older.token.form), dict(older.token.headers)) == ({}, {})
    assert source.access(replace(settings, api=None)) is None


def test_tokens_are_refused_in_the_platform_s_own_words() -> None:
    platform, settings = simulator.platform(), settings_of()
    assert settings.api is not None
    wrong = ask_for_token(platform, replace(settings, api={**settings.api, "api_key": "another"}))
    assert (wrong.status, wrong.json) == (401, {"error": "invalid_grant"})
    assert (
        platform.answer(
            ApiCall(method="POST", path="/authenticate/token/", query={}, headers={}, form={}, json=None)
        ).status
        == 400
    )
    platform.conflicts = 1
    conflict = ask_for_token(platform, settings)
    assert (conflict.status, conflict.json["error"]) == (409, "Multiple tokens for user")

    api = DirectApi(platform, settings)
    run = next(iter(platform.tests))
    assert api.get(f"/v1/test/{run}") is not None
    platform.forget_tokens()
    with pytest.raises(SourceRefused):
        api.get(f"/v1/test/{run}")


def test_a_signed_address_is_refused_with_credentials_or_a_changed_query() -> None:
    platform = simulator.platform()
    platform.exports.pending = 0
    api = DirectApi(platform, settings_of())
    ordered = api.post("/v1/fileExport/order", {"parameters": {"assessmentRunId": next(iter(platform.tests))}})
    assert ordered is not None
    status = api.get(f"/v1/fileExport/status/{ordered.at('jobId').text()}")
    assert status is not None
    url = status.at("exportInfo", "signedResponseUrl").text()
    for path, headers, expected in (
        (url, {}, 200),
        (url, {"authorization": f"Bearer {api.token}"}, 400),
        (url.partition("?")[0], {}, 403),
    ):
        reply = platform.answer(ApiCall(method="GET", path=path, query={}, headers=headers, form={}, json=None))
        assert reply.status == expected


def test_an_export_of_one_candidate_holds_that_candidate_alone() -> None:
    platform = simulator.platform()
    run, sitting = next(iter(platform.tests.items()))
    api = DirectApi(platform, settings_of())
    result = api.get(f"/v1/candidates/allResults/{run}/{sitting.candidates[0]}")
    assert result is not None
    assert result.at("userId").text() == str(sitting.candidates[0])
    assert api.get(f"/v1/candidates/allResults/{run}/1") is None


def dedupe_key_of(document: Json) -> str:
    result = source.verify(signed(document), settings_of())
    assert isinstance(result, Verified)
    return result.dedupe_key


def test_two_happenings_are_told_apart_and_one_is_recognised_however_it_is_written() -> None:
    happening = {"event": "x", "marketplaceId": 1, "contextObjectId": 5, "timestamp": "2026-06-05T09:30:00Z"}
    written_otherwise = {**dict(reversed(list(happening.items()))), "contextObjectId": "5", "triggeringUserId": 7}
    assert dedupe_key_of(happening) == dedupe_key_of(written_otherwise)
    others = (
        {"timestamp": "2026-06-05T09:30:01Z"},
        {"extraInfo": {"type": "String", "value": "a"}},
        {"associatedObjectId": 1},
        {"contextObjectType": "USER"},
    )
    keys = {dedupe_key_of(happening | other) for other in others}
    assert len(keys) == len(others)
    assert dedupe_key_of(happening) not in keys


def test_without_event_or_time_only_equal_bytes_are_a_repeat() -> None:
    assert dedupe_key_of({"event": "x", "title": "a"}) != dedupe_key_of({"event": "x", "title": "b"})
    assert dedupe_key_of({"event": "x", "title": "a"}) == dedupe_key_of({"event": "x", "title": "a"})


def test_the_manifest_and_the_code_name_the_same_kinds() -> None:
    kinds = CONNECTOR.manifest.kinds
    assert {kind.name: kind.types[0] for kind in kinds.values()} == dict(TYPES)
    aliases = CONNECTOR.manifest.options["properties"]["aliases"]
    assert set(aliases["additionalProperties"]["enum"]) == set(kinds)


def test_the_defaults_are_valid_settings() -> None:
    assert CONNECTOR.manifest.api is not None
    jsonschema.Draft202012Validator.check_schema(dict(CONNECTOR.manifest.options))
    jsonschema.validate(DEFAULTS, CONNECTOR.manifest.options)
    jsonschema.validate(settings_of().api, CONNECTOR.manifest.api)


@pytest.mark.parametrize("text", ["{", "{a", "{a=", "{a=1", "{a=1}}", "a=1}", "{" + "a={" * 20, "", "\xff"])
def test_a_broken_map_print_is_refused(text: str) -> None:
    with pytest.raises(PayloadError):
        read_map_print(text.encode("latin-1"))


_WORDS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
_VALUES = st.recursive(
    st.one_of(_WORDS, st.sampled_from([0, "0", "verification", "2026-06-05T09:30:00Z", "9999-12-31T23:59:59Z", "{x"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=6,
)
_TYPES_OF_OBJECTS = st.sampled_from(
    ["ASSESSMENT_RUN", "USER", "QUESTION", "MARKETPLACE", "CANDIDATE", "USER_ASSESSMENT"]
)
_BODIES = st.fixed_dictionaries(
    {"event": st.one_of(st.sampled_from([*TYPES, "user_deleted", "any_other"]), _VALUES)},
    optional={
        "marketplaceId": _VALUES,
        "contextObjectId": st.one_of(st.integers(0, 10**9), _VALUES),
        "contextObjectType": st.one_of(_TYPES_OF_OBJECTS, _VALUES),
        "associatedObjectId": st.one_of(st.integers(1, 10**9), _VALUES),
        "associatedObjectType": st.one_of(_TYPES_OF_OBJECTS, _VALUES),
        "triggeringUserId": _VALUES,
        "triggeringUserName": _VALUES,
        "timestamp": _VALUES,
        "extraInfo": st.one_of(
            st.fixed_dictionaries(
                {"type": st.one_of(st.sampled_from(["Date", "JSON", "scoreDisplayMode"]), _VALUES), "value": _VALUES},
                optional={"previousValue": _VALUES},
            ),
            _VALUES,
        ),
    },
)


def take_through(inbound: Inbound, settings: Settings) -> None:
    """Everything up to the canonical event; what it raises is the hub's own, or the test fails."""
    try:
        result = source.verify(inbound, settings)
    except NotGenuine:
        return
    verified = result.keep if isinstance(result, Challenge) else result
    if verified is None:
        return
    for event in events_of(CONNECTOR, verified, settings):
        json.dumps(event.to_json()).encode()


@given(_BODIES, st.booleans(), st.booleans())
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_signed_body_breaks_anything(document: Json, map_print: bool, window: bool) -> None:
    settings = settings_of(map_print=map_print, replay_window_hours=24 if window else 0)
    take_through(signed(document), settings)


@given(st.binary(max_size=300), st.text(max_size=80), st.booleans(), st.booleans())
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_bytes_and_no_header_break_anything(body: bytes, signature: str, good: bool, map_print: bool) -> None:
    settings = settings_of(map_print=map_print, signature_modes=["sha1:hex", "sha256:base64"])
    header = sign(SECRET, body, "sha1") if good else signature
    take_through(inbound_of(body, {"X-Inspera-Signature": header}), settings)
