"""What WISEflow's fixtures cannot say: simulator and connector agree, hostile input does no harm."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from bridge.config.connectors import source_connector
from bridge.core.errors import BridgeError, NotGenuine, PayloadError, SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import sign
from bridge.core.simulation import ApiCall, ApiReply, SignedCall
from bridge.core.source import Inbound, Verified
from bridge.flow.process import events_of
from bridge.testing.offline import Offline
from connectors.wiseflow import marks, simulator, source
from connectors.wiseflow.grading import own_entry
from connectors.wiseflow.simulated_limits import Limits
from connectors.wiseflow.simulator import CREDENTIALS, Dialect, Platform

CONNECTOR = source_connector(Path(simulator.__file__).parent, source, simulator)
DEFAULTS = {name: entry["default"] for name, entry in CONNECTOR.manifest.options["properties"].items()}
SECRET = "a-secret-for-tests"
NOW = datetime(2026, 6, 5, 9, 30, tzinfo=UTC)
API = {"base_url": "http://api.example.test/v1", "client_id": "id", "client_secret": "key", "client_name": "tests"}


def settings_with(**options: Any) -> Settings:
    return Settings(name="wiseflow-main", secrets=(SECRET,), options=DEFAULTS | options, api=API)


SETTINGS = settings_with()
NAMELESS = settings_with(person_details=False)


@dataclass(slots=True, kw_only=True)
class CannedApi(Offline):
    """A SourceApi with one answer for everything."""

    settings: Settings
    now: datetime
    answer: object

    def get(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        keep: float = 0,
        since: datetime | None = None,
        extra: bool = False,
    ) -> Payload | None:
        return None if self.answer is None else Payload(self.answer)

    def post(self, path: str, body: Json, *, keep: float = 0, extra: bool = False) -> Payload | None:
        raise AssertionError("nothing is posted")


def ask(platform: Platform, path: str, headers: Mapping[str, str], query: Mapping[str, str] | None = None) -> ApiReply:
    call = ApiCall(method="GET", path=path, query=query or {}, headers=headers, form={}, json=None)
    return platform.answer(call)


def token_of(platform: Platform, **form: str) -> str:
    client = {"client_id": CREDENTIALS.client_id, "client_secret": CREDENTIALS.client_secret}
    form = {"grant_type": "client_credentials"} | client | form
    reply = platform.answer(ApiCall(method="POST", path="/oauth2/token", query={}, headers={}, form=form, json=None))
    return str(reply.json["access_token"]) if reply.status == 200 else f"refused: {reply.json['error']}"


def inbound(signed: SignedCall, at: datetime = NOW) -> Inbound:
    lowered = {name.lower(): value for name, value in signed.headers.items()}
    return Inbound(id="1", source="wiseflow-main", received_at=at, headers=lowered, query={}, body=signed.body)


def own_call(body: object, **headers: str) -> Inbound:
    """A call with a body of our own making, signed as WISEflow signs."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = sign(SECRET, raw, "sha256", "base64")
    return inbound(SignedCall(headers={"Signature": signature} | headers, body=raw))


def one_event(request: Inbound, settings: Settings = SETTINGS) -> Event:
    [event] = events_of(CONNECTOR, source.verify(request, settings), settings)
    return event


def mark_event(action: str = "created") -> Event:
    payload = {"submissionId": 1, "flowId": 2, "userId": 3, "participantId": 4}
    body = {"action": action, "event": "final.mark", "licenseId": 5, "eventPayload": payload, "sequenceNumber": 6}
    return one_event(own_call(body))


# --- the simulated platform and the connector agree -------------------------------------------------------------------

DIALECTS = {
    "as documented": (Dialect(), {}),
    "prefixed": (Dialect(header_prefix="X-WISEflow-"), {}),
    "printed sample": (Dialect(id_key="Id", nested_envelope=True, quoted_numbers=True, milliseconds=True), {}),
    "hex": (
        Dialect(signature_mode="hmac-sha256:raw-body:hex"),
        {"signature_modes": ["hmac-sha256:raw-body:hex"]},
    ),
    "base64 of the body": (
        Dialect(signature_mode="hmac-sha256:base64-body:base64"),
        {"signature_modes": ["hmac-sha256:base64-body:base64"]},
    ),
    "canonical JSON": (
        Dialect(signature_mode="hmac-sha256:canonical-json:base64"),
        {"signature_modes": ["hmac-sha256:raw-body:base64", "hmac-sha256:canonical-json:base64"]},
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", CONNECTOR.manifest.kinds)
def test_a_simulated_call_of_every_kind_is_genuine_and_understood(kind: str, dialect: str) -> None:
    spoken, options = DIALECTS[dialect]
    platform = simulator.platform(seed=3, people=20, dialect=spoken)
    signed = platform.sign(platform.sample(kind), SECRET, attempt=1, now=NOW)

    event = one_event(inbound(signed), settings_with(**options))

    assert event.sourceevent == kind
    assert event.type in CONNECTOR.manifest.kinds[kind].types
    assert (event.source, event.time, event.sequence) == ("urn:edu:wiseflow:lic-123", NOW, 1)


@pytest.mark.parametrize("mode", ["raw-body:hex", "base64-body:base64", "canonical-json:base64"])
def test_a_signature_in_a_mode_that_is_not_turned_on_is_refused(mode: str) -> None:
    platform = simulator.platform(dialect=Dialect(signature_mode=f"hmac-sha256:{mode}"))
    signed = platform.sign(platform.sample("paper.submission"), SECRET, attempt=1, now=NOW)
    with pytest.raises(NotGenuine, match="signature_m"):
        source.verify(inbound(signed), SETTINGS)


def test_a_platform_has_no_other_kinds() -> None:
    with pytest.raises(KeyError):
        simulator.platform().sample("paper.burned")


def test_two_attempts_at_one_call_are_one_delivery_and_one_event() -> None:
    platform = simulator.platform()
    call = platform.sample("final.mark")
    first = platform.sign(call, SECRET, attempt=1, now=NOW)
    second = platform.sign(call, SECRET, attempt=2, now=NOW + timedelta(minutes=15))
    requests = [inbound(first), inbound(second, NOW + timedelta(minutes=15))]

    one, other = (source.verify(request, SETTINGS) for request in requests)

    assert first.body != second.body
    assert one.dedupe_key == other.dedupe_key
    assert one.dedupe_window >= timedelta(hours=24)
    assert one_event(requests[0]).id == one_event(requests[1]).id


def test_handing_in_again_after_a_withdrawal_is_no_repeat() -> None:
    payload = {"submissionId": 1, "flowId": 2, "userId": 3, "participantId": 4, "isHandedIn": True}
    body = {"action": "created", "event": "paper.submission", "licenseId": 5, "eventPayload": payload}
    with_sequence = [own_call(body | {"sequenceNumber": number}) for number in (7, 9)]
    with_trace_only = [own_call(body, **{"trace-id": trace}) for trace in ("a", "b")]
    for calls in (with_sequence, with_trace_only):
        assert len({source.verify(call, SETTINGS).dedupe_key for call in calls}) == 2
        assert len({one_event(call).id for call in calls}) == 2


def test_without_sequence_number_and_trace_equal_payloads_are_one_delivery() -> None:
    payload = {"submissionId": 1, "flowId": 2, "userId": 3, "participantId": 4, "isHandedIn": True}
    body = {"action": "created", "event": "paper.submission", "licenseId": 5, "eventPayload": payload}
    calls = [own_call(body | {"id": call, "callTime": 1780651800 + call}) for call in (1, 2)]
    assert len({source.verify(call, SETTINGS).dedupe_key for call in calls}) == 1
    assert len({one_event(call).id for call in calls}) == 1
    later = replace(calls[0], received_at=NOW + timedelta(days=3))
    assert one_event(later).id != one_event(calls[0]).id


def test_the_same_seed_gives_the_same_day() -> None:
    def bodies(seed: int) -> list[Json]:
        return [call.body for call in islice(simulator.platform(seed=seed, people=50).day(), 300)]

    assert bodies(4) == bodies(4)
    assert bodies(4) != bodies(5)


def test_hand_ins_make_up_most_of_a_day_and_every_kind_comes() -> None:
    kinds = Counter(call.kind for call in islice(simulator.platform().day(), 5000))
    assert set(kinds) == set(CONNECTOR.manifest.kinds)
    assert kinds["paper.submission"] > 3000


def test_a_day_can_be_asked_about_while_it_goes_on() -> None:
    platform = simulator.platform(people=30)
    replies: list[int] = []

    def read() -> None:
        headers = {"x-api-key": CREDENTIALS.api_key}
        replies.extend(ask(platform, "/flows/7464798/submissions", headers).status for _ in range(200))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    calls = list(islice(platform.day(), 1000))
    for reader in readers:
        reader.join()
    assert replies == [200] * 600
    assert [call.body["sequenceNumber"] for call in calls] == list(range(1, 1001))


# --- the present truth ------------------------------------------------------------------------------------------------


def test_a_mark_that_the_api_does_not_show_yet_is_not_revoked_at_once() -> None:
    event = mark_event()
    nothing = {"participantId": 4, "grade": None, "adminGrade": None, "participants": [{"id": 4, "finalGrade": None}]}
    for answer, age in ((nothing, 29), (None, 14)):
        with pytest.raises(SourceUnavailable):
            source.enrich(event, CannedApi(settings=NAMELESS, now=NOW + timedelta(seconds=age), answer=answer))

    [late] = source.enrich(event, CannedApi(settings=NAMELESS, now=NOW + timedelta(seconds=31), answer=nothing))
    assert (late.type, late.sourceaction) == ("grade.revoked", "created")
    [lost] = source.enrich(event, CannedApi(settings=NAMELESS, now=NOW + timedelta(seconds=31), answer=None))
    assert (lost.type, lost.enrichment) == ("grade.published", "missing")


def test_a_revocation_waits_for_nothing_when_the_mark_is_gone() -> None:
    nothing = {"participantId": 4, "grade": None, "participants": [{"id": 4, "finalGrade": None}]}
    [event] = source.enrich(mark_event("deleted"), CannedApi(settings=NAMELESS, now=NOW, answer=nothing))
    assert event.type == "grade.revoked"


@pytest.mark.parametrize(
    "answer",
    [
        {"grade": {"label": "ada@example.test"}},
        {"status": {}, "participants": {"id": "ada@example.test"}},
        {"success": False, "data": "ada@example.test"},
    ],
)
def test_an_answer_of_another_shape_is_waited_out_and_never_quoted(answer: object) -> None:
    with pytest.raises(SourceUnavailable, match=r"unexpected shape: GET /\S+ \$") as caught:
        source.enrich(mark_event(), CannedApi(settings=SETTINGS, now=NOW + timedelta(hours=1), answer=answer))
    assert "ada@" not in str(caught.value)


def test_an_odd_answer_beside_the_mark_does_not_hold_up_the_mark() -> None:
    odd = {"grade": "10", "participants": [], "gradingScaleId": ["ada@example.test"], "name": {"of": "the exam"}}
    [event] = source.enrich(mark_event(), CannedApi(settings=NAMELESS, now=NOW, answer=odd))
    assert event.enrichment == "partial"
    assert event.data.grade is not None
    assert (event.data.grade.label, event.data.grade.scale) == ("10", None)
    assert "ada@" not in str(event.to_json())


LIST = {"id": 7, "name": "7", "list": {"options": [{"grade": "12", "value": "7"}, {"grade": "7", "value": 5}]}}
NUMBERS = {"id": 8, "name": "%", "input": {"min": 0, "max": 100, "modifier": 100, "decimals": 2}}
STORED = {"id": 8, "name": "%", "input": {"min": 0, "max": "10000", "modifier": "100"}}
PLAIN = {"id": 9, "name": "points", "input": {"min": None, "max": None, "modifier": None}}


@pytest.mark.parametrize(
    ("raw", "scale", "value_first", "stored_bounds", "expected"),
    [
        ("7", LIST, False, False, ("5", "7", None, None)),
        ("7", LIST, True, False, ("7", "12", None, None)),
        ("5", LIST, False, False, ("5", "7", None, None)),
        ("bestået", LIST, False, False, ("bestået", "bestået", None, None)),
        ("89.99", NUMBERS, False, False, ("8999", "89.99", 89.99, 100.0)),
        ("89,99", NUMBERS, False, False, ("8999", "89,99", 89.99, 100.0)),
        ("8999", NUMBERS, False, False, ("8999", "89.99", 89.99, 100.0)),
        ("50", NUMBERS, True, False, ("50", "0.5", 0.5, 100.0)),
        ("8999", STORED, False, True, ("8999", "89.99", 89.99, 100.0)),
        ("17", PLAIN, False, False, ("17", "17", 17.0, None)),
        ("NaN", PLAIN, False, False, ("NaN", "NaN", None, None)),
        ("1e999999", PLAIN, False, False, ("1e999999", "1e999999", None, None)),
        ("²", PLAIN, False, False, ("²", "²", None, None)),
    ],
)
def test_marks_are_read_by_their_scale(
    raw: str, scale: Json, value_first: bool, stored_bounds: bool, expected: tuple[object, ...]
) -> None:
    mark = marks.read_mark(raw, Payload(scale), value_first=value_first, stored_bounds=stored_bounds)
    assert (mark.value, mark.label, mark.score, mark.maximum) == expected


def test_nobody_passes_unless_somebody_said_which_marks_do() -> None:
    mark = marks.Mark(value="2", label="00", scale="7")
    assert marks.passes(mark, None) is None
    assert marks.passes(mark, {"A-F": ["A"]}) is None
    assert marks.passes(mark, {"7": ["02"]}) is False
    assert marks.passes(replace(mark, label="02"), {"7": ["02"]}) is True


# --- the API ----------------------------------------------------------------------------------------------------------


def test_access_is_by_client_credentials_or_by_a_static_token() -> None:
    both = Settings(name="w", api=API | {"base_url": "https://a.example/v1/", "api_key": "k", "license_id": "9"})
    by_client = source.access(both)
    assert by_client is not None
    assert by_client.token is not None
    assert by_client.base_url == "https://a.example/v1"
    assert by_client.token.url == "https://a.example/v1/oauth2/token"
    assert by_client.token.form["grant_type"] == "client_credentials"
    assert by_client.headers == {"X-Client-Name": "tests", "x-wiseflow-license-id": "9"}

    by_key = source.access(Settings(name="w", api={"base_url": "https://a.example/v1", "api_key": "k"}))
    assert by_key is not None
    assert by_key.token is None
    assert by_key.headers == {"X-Client-Name": "campus-bridge", "x-api-key": "k"}
    assert source.access(Settings(name="w")) is None


def test_the_simulated_api_refuses_as_wiseflow_does() -> None:
    platform = simulator.platform()
    assert ask(platform, "/license/info", {}).text == "Unauthorized"
    assert ask(platform, "/license/info", {"authorization": "Bearer made-up"}).status == 401
    assert token_of(platform, client_secret="wrong") == "refused: invalid_client"
    assert token_of(platform, grant_type="password") == "refused: unsupported_grant_type"

    key = {"x-api-key": CREDENTIALS.api_key}
    assert "flowTypes" in ask(platform, "/v1/license/info", key).json
    old, new = ask(platform, "/flow/1", key), ask(platform, "/flows/1/metadata", key)
    assert (old.status, old.text) == (404, "")
    assert (new.status, new.json["success"], new.json["error"]["code"]) == (404, False, 404)
    assert ask(platform, "/nowhere", key).status == 404

    platform.api.throttled = 1
    throttled = ask(platform, "/license/info", key)
    assert (throttled.status, throttled.headers["Retry-After"]) == (429, "1")
    assert ask(platform, "/license/info", key).headers["RateLimit-Limit"] == "200"

    platform.api.limits = Limits(on=True, clock=lambda: 0.0)
    answers = [ask(platform, "/license/info", key) for _ in range(250)]
    assert Counter(answer.status for answer in answers) == {200: 200, 429: 50}
    assert platform.limits.exceeded == 50
    assert answers[-1].headers["Retry-After"] == "1"
    assert (answers[0].headers["X-RateLimit-Minute-Limit"], answers[-1].headers["RateLimit-Remaining"]) == ("5000", "0")
    platform.limits.on = False

    platform.api.token_calls = 2
    bearer = {"authorization": f"Bearer {token_of(platform)}"}
    assert [ask(platform, "/license/info", bearer).status for _ in range(3)] == [200, 200, 401]


def test_lists_of_the_simulated_api_come_in_pages() -> None:
    platform = simulator.platform()
    key = {"x-api-key": CREDENTIALS.api_key}
    page = ask(platform, "/flows/7464798/participants", key, {"offset": "30", "limit": "25"}).json
    assert page["pagination"] == {"limit": 25, "offset": 30, "total": 40}
    assert len({entry["participantId"] for entry in page["data"]}) == 10
    for query in ({"limit": "101"}, {"limit": "0"}, {"offset": "-1"}, {"limit": "all"}):
        assert ask(platform, "/flows/7464798/participants", key, query).status == 400


def test_the_simulated_api_answers_as_its_description_has_it() -> None:
    """The OpenAPI description 1.34: what is wrapped, what is bare, what has pages, and what an answer does not have."""
    platform = simulator.platform()
    key = {"x-api-key": CREDENTIALS.api_key}
    scales = ask(platform, "/license/grading-scales", key).json
    assert (scales["success"], scales["error"]) == (True, None)
    assert [entry["participantId"] for entry in ask(platform, "/flow/7464798/assessments", key, {"limit": "5"}).json]
    assert len(ask(platform, "/flow/7464798/assessments", key, {"limit": "5"}).json) == 40
    assert "pagination" not in ask(platform, "/flows/7464798/external-sources", key).json
    assert not {"id", "licenseId"} & ask(platform, "/license/info", key).json.keys()
    assert ask(platform, "/flows/1/submissions", key).text == ""
    platform.world.open_flow(1)
    other = next(reversed(platform.world.flows.values()))
    foreign = ask(platform, f"/flows/7464798/submissions/{other.papers[0].id}", key)
    assert (foreign.status, foreign.json["error"]["message"]) == (403, "Submission is not associated with flow")
    found = platform.answer(
        ApiCall(method="POST", path="/flows/search", query={}, headers=key, form={}, json={"metadata": {}})
    )
    assert {entry["type"] for entry in found.json["data"]} == {"FLOWassign"}


@pytest.mark.parametrize("entry", [{"id": 16842}, {"participantId": 16842}, {"id": 7, "participantId": 16842}])
def test_a_participants_entry_is_found_by_either_name_of_its_number(entry: dict[str, int]) -> None:
    """The description lists `id` in a submission's participants and requires `participantId`."""
    submission = Payload({"id": 1, "participants": [{"id": 16843, "userId": 1}, entry]})
    assert own_entry(submission, "16842") is not None
    assert own_entry(submission, "7") is None


def test_the_simulated_settings_are_what_the_manifest_allows() -> None:
    entry = simulator.settings(SECRET, "http://127.0.0.1:9/v1")
    options = {name for name in entry if name not in ("connector", "secrets", "api")}
    assert options <= set(CONNECTOR.manifest.options["properties"])
    assert CONNECTOR.manifest.api is not None
    assert set(entry["api"]) <= set(CONNECTOR.manifest.api["properties"])


# --- hostile input ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*CONNECTOR.manifest.kinds, "PAPER_SUBMITTED", "x", ""]) | JSON
KEYS = ["submissionId", "flowId", "userId", "participantId", "isHandedIn", "action", "updatedBy", "asRole", "state"]
KEYS += ["externalSources", "callTime", "sequenceNumber", "explanationRequestId", "assessorId", "assignmentId"]
CALLS = st.fixed_dictionaries(
    {"event": NAMES, "eventPayload": st.dictionaries(st.sampled_from(KEYS), JSON | st.integers(1, 99)) | JSON},
    optional={
        "action": st.sampled_from(["created", "updated", "deleted"]) | JSON,
        "licenseId": st.integers() | JSON,
        "callTime": JSON,
        "sequenceNumber": JSON,
        "id": JSON,
    },
)


def goes_through(request: Inbound, settings: Settings) -> None:
    """The line raises nothing but its own errors, and they never say what was in the request."""
    try:
        verified = source.verify(request, settings)
    except NotGenuine:
        return
    assert isinstance(verified, Verified)
    for event in events_of(CONNECTOR, verified, settings):
        assert event.to_json()["id"]


@effort(max_examples=150, deadline=None)
@given(body=st.binary(), headers=st.dictionaries(st.sampled_from(["signature", "event-type", "trace-id"]), st.text()))
def test_arbitrary_requests_raise_only_our_own_errors(body: bytes, headers: dict[str, str]) -> None:
    request = Inbound(id="1", source="w", received_at=NOW, headers=headers, query={}, body=body)
    with pytest.raises(NotGenuine):
        source.verify(request, settings_with(signature_modes=DIALECTS["canonical JSON"][1]["signature_modes"]))


@effort(max_examples=300, deadline=None)
@given(call=CALLS | JSON, event_type=st.text(), window=st.sampled_from([0, 10800]))
def test_arbitrary_genuine_calls_raise_only_our_own_errors(call: object, event_type: str, window: int) -> None:
    goes_through(own_call(call, **{"event-type": event_type}), settings_with(replay_window_seconds=window))


@effort(max_examples=150, deadline=None)
@given(
    answer=JSON | st.dictionaries(st.sampled_from(["grade", "participants", "status", "list", "emails", "id"]), JSON)
)
def test_arbitrary_answers_of_the_api_raise_only_source_unavailable(answer: object) -> None:
    api = CannedApi(settings=SETTINGS, now=NOW + timedelta(hours=1), answer=answer)
    try:
        [event] = source.enrich(mark_event(), api)
    except SourceUnavailable:
        return
    assert event.to_json()["id"]


def test_errors_name_places_and_never_values() -> None:
    secret_value = "ada@example.test"
    payload = {"submissionId": secret_value, "flowId": 1, "participantId": 2}
    verified = source.verify(own_call({"event": "final.mark", "action": "created", "eventPayload": payload}), SETTINGS)
    [notice] = source.parse(verified, SETTINGS)
    with pytest.raises(PayloadError) as caught:
        source.normalise(notice, SETTINGS)
    assert issubclass(PayloadError, BridgeError)
    assert secret_value not in str(caught.value)
    assert SECRET not in repr(SETTINGS) + verified.proof
