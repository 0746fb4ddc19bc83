"""Edusign beyond its fixtures: the simulated school, equal bodies, hostile ones, and an API whose 200 says little."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bridge.config.connectors import source_connector
from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event, Json
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.signing import sign
from bridge.core.simulation import Call, SignedCall
from bridge.core.source import Challenge, Inbound, Verified
from bridge.flow.process import events_of
from bridge.flow.receive import verify
from connectors.edusign import simulator, source
from connectors.edusign.reading import RULES
from connectors.edusign.simulated_api import API_KEY
from connectors.edusign.stringify import stringify

SECRET = "a-client-secret-of-the-app"
TOKEN = "tok-0123456789abcdef"
NOW = datetime(2026, 1, 20, 9, 30, tzinfo=UTC)
KINDS = sorted(RULES)


@cache
def connector() -> SourceConnector:
    return source_connector(Path(source.__file__).parent, source, simulator)


def settings(entry: Json | None = None, **options: object) -> Settings:
    """A bridge.yaml entry with the manifest's defaults filled in."""
    entry = dict(entry or simulator.settings(SECRET, "https://api.example.test"))
    properties = connector().manifest.options["properties"]
    own = {name: value for name, value in entry.items() if name in properties}
    return Settings(
        name="edusign-main",
        secrets=tuple(entry["secrets"]),
        options={name: schema.get("default") for name, schema in properties.items()} | own | options,
        api=entry["api"],
    )


def arrived(call: SignedCall, at: datetime = NOW, id: str = "d1") -> Inbound:
    return Inbound(id=id, source="edusign-main", received_at=at, headers=call.headers, query=call.query, body=call.body)


def signed(body: Json | bytes, kind: str = "on_course_edited") -> SignedCall:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    return SignedCall(headers={"x-edusign-webhook-type": kind, "x-edusign-hmac": sign(SECRET, raw)}, body=raw)


def proven(inbound: Inbound, configured: Settings) -> Verified:
    result = verify(connector(), inbound, configured)
    assert isinstance(result, Verified)
    return result


def event_of(call: SignedCall, configured: Settings | None = None, at: datetime = NOW) -> Event:
    configured = configured or settings()
    (event,) = events_of(connector(), proven(arrived(call, at), configured), configured)
    return event


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_the_manifest_and_the_code_know_the_same_kinds_and_types() -> None:
    kinds = connector().manifest.kinds
    assert {name: entry.types for name, entry in kinds.items()} == {name: (rule[0],) for name, rule in RULES.items()}


def test_every_default_is_valid_by_its_own_schema() -> None:
    for name, schema in connector().manifest.options["properties"].items():
        assert list(Draft202012Validator(schema).iter_errors(schema["default"])) == [], name


@pytest.mark.parametrize("style", ["app", "school"])
def test_the_simulators_settings_are_valid(style: Any) -> None:
    entry = simulator.settings(TOKEN, "https://api.example.test", style=style)
    manifest = connector().manifest
    own = {name: value for name, value in entry.items() if name not in ("connector", "secrets", "api")}
    assert Draft202012Validator(dict(manifest.options)).is_valid(own)
    assert manifest.api is not None
    assert Draft202012Validator(dict(manifest.api)).is_valid(entry["api"])


@pytest.mark.parametrize("column", ["PASSWORD", "PIN", "NEW_PASSWORD_TOKEN"])
def test_a_sensitive_column_cannot_be_configured_as_an_identifier(column: str) -> None:
    schema = connector().manifest.options["properties"]["identifier_fields"]
    assert not Draft202012Validator(schema).is_valid({column: "sis.secret"})


# --- the simulated school ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_app_webhook_proves_genuine_and_is_understood(kind: str) -> None:
    call = simulator.platform().sample(kind)
    event = event_of(simulator.platform().sign(call, SECRET, attempt=1, now=NOW))
    assert (event.sourceevent, event.type) == (kind, RULES[kind][0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_school_webhook_proves_genuine_by_its_token_and_is_understood(kind: str) -> None:
    platform = simulator.platform()
    call = platform.sign(platform.sample(f"school:{kind}"), TOKEN, attempt=1, now=NOW)
    assert not any(name.startswith("x-edusign") for name in call.headers)
    event = event_of(call, settings(simulator.settings(TOKEN, "https://api.example.test", style="school")))
    assert (event.sourceevent, event.type) == (kind, RULES[kind][0])


def test_both_styles_of_body_give_the_same_people_and_sheets() -> None:
    app, school = simulator.platform(seed=4), simulator.platform(seed=4)
    thin = event_of(app.sign(app.sample("on_student_sign"), SECRET, attempt=1, now=NOW))
    entry = simulator.settings(TOKEN, "https://api.example.test", style="school")
    nested = event_of(school.sign(school.sample("school:on_student_sign"), TOKEN, attempt=1, now=NOW), settings(entry))
    assert thin.state_key == nested.state_key
    assert thin.data.session is not None
    assert nested.data.session is not None
    assert (thin.data.session.title, nested.data.session.title) == (None, "Algèbre")


def test_a_kind_that_edusign_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        simulator.platform().sample("on_nothing")


def test_the_same_seed_gives_the_same_day() -> None:
    def first(seed: int) -> list[Call]:
        return list(itertools.islice(simulator.platform(seed).day(), 400))

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_signatures_dominate_a_day_and_every_kind_comes_up() -> None:
    counts = Counter(call.kind for call in itertools.islice(simulator.platform(people=300).day(), 12_000))
    assert counts["on_student_sign"] > 0.6 * counts.total()
    assert set(counts) == set(KINDS)


# --- equal bodies -----------------------------------------------------------------------------------------------------


def test_a_double_send_is_one_delivery_and_two_edits_are_two_events() -> None:
    call = signed({"type": "on_course_edited", "courseId": "crs1"})
    first, second = (proven(arrived(call, NOW + timedelta(seconds=gap), f"d{gap}"), settings()) for gap in (0, 9))
    assert first.dedupe_key == second.dedupe_key
    assert first.dedupe_window == timedelta(seconds=2)
    assert event_of(call).id != event_of(call, at=NOW + timedelta(seconds=9)).id
    assert event_of(call).id == event_of(call).id
    assert event_of(call).timequality == "received"


def test_with_a_window_of_zero_nothing_is_a_copy() -> None:
    call = signed({"type": "on_course_edited", "courseId": "crs1"})
    off = settings(dedupe_window_seconds=0)
    assert proven(arrived(call, id="d1"), off).dedupe_key != proven(arrived(call, id="d2"), off).dedupe_key


def test_equal_bodies_of_two_kinds_are_no_copies_where_the_kind_is_in_the_header() -> None:
    keys = {
        proven(arrived(signed({"courseId": "crs1"}, kind)), settings()).dedupe_key
        for kind in ("on_course_start", "on_course_end")
    }
    assert len(keys) == 2


# --- proof ------------------------------------------------------------------------------------------------------------


def test_the_proof_names_the_secret_by_number_and_notes_contradicting_headers() -> None:
    call = signed({"type": "on_course_edited", "appId": "app1", "courseId": "crs1"}, kind="on_course_deleted")
    two = replace(settings(), secrets=("the-new-secret", SECRET))
    verified = proven(arrived(call), two)
    assert verified.proof == (
        "secret 2, hmac-sha256 hex in header x-edusign-hmac;"
        " header x-edusign-webhook-type disagrees and was not believed"
    )
    (event,) = events_of(connector(), verified, two)
    assert event.type == "session.rescheduled"


@pytest.mark.parametrize("mode", ["hmac", "url_token", "both"])
def test_no_proof_holds_a_secret_and_none_is_kept_with_the_request(mode: str) -> None:
    call = replace(signed({"type": "on_course_edited", "courseId": "crs1"}), query={"token": TOKEN})
    verified = proven(arrived(call), settings(mode=mode, url_token=TOKEN))
    assert verified.proof
    assert SECRET not in repr(verified)
    assert TOKEN not in repr(verified)


@pytest.mark.parametrize("kind", ["test-install-app", "test-uninstall-app", "app-form-completion"])
def test_a_call_about_the_app_is_answered_and_nothing_of_it_is_kept(kind: str) -> None:
    platform = simulator.platform()
    result = verify(connector(), arrived(platform.sign(platform.sample(kind), SECRET, attempt=1, now=NOW)), settings())
    assert isinstance(result, Challenge)
    assert result.keep is None
    if kind == "app-form-completion":
        assert result.answer == [], "nothing to show on the page"
    else:
        assert isinstance(result.answer, dict)
        assert result.answer["status"] == "success"
    assert API_KEY not in repr(result)


def test_an_install_signed_with_the_secret_that_it_brings_is_refused() -> None:
    platform = simulator.platform()
    call = platform.sample("test-install-app")
    assert isinstance(call.body, dict)
    own = platform.sign(call, call.body["client_secret"], attempt=1, now=NOW)
    with pytest.raises(NotGenuine, match="signature_mismatch"):
        verify(connector(), arrived(own), settings())


def test_an_install_is_let_in_by_the_urls_token_and_an_event_is_not() -> None:
    configured = replace(settings(url_token=TOKEN), secrets=())
    platform = simulator.platform()
    install = platform.sign(platform.sample("test-install-app"), "unknown", attempt=1, now=NOW)
    assert isinstance(verify(connector(), arrived(replace(install, query={"token": TOKEN})), configured), Challenge)
    event = platform.sign(platform.sample("on_student_sign"), "unknown", attempt=1, now=NOW)
    with pytest.raises(NotGenuine, match="no_secret"):
        verify(connector(), arrived(replace(event, query={"token": TOKEN})), configured)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_a_body_laid_out_anew_on_the_way_still_proves_genuine(value: object) -> None:
    original = stringify({"type": "on_course_edited", "value": value})
    headers = {"x-edusign-hmac": sign(SECRET, original)}
    pretty = json.dumps(json.loads(original), indent=3).encode()
    verified = proven(arrived(SignedCall(headers=headers, body=pretty)), settings())
    assert verified.proof.endswith("body re-serialised")


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("1.0", "1"),
        ("-0.0", "0"),
        ("1e21", "1e+21"),
        ("123456789012345680000", "123456789012345680000"),
        ("9007199254740993", "9007199254740992"),
        ("0.000001", "0.000001"),
        ("1e-7", "1e-7"),
        ("1.5e-9", "1.5e-9"),
        ("1e400", "null"),
        ('"a\\/b\\u2028\\u00e9"', '"a/b\u2028é"'),
        ('"\\ud83d\\ude00 \\ud83d \\u001f\\u007f"', '"😀 \\ud83d \\u001f\x7f"'),
        ('{"b":1,"10":2,"a":3,"2":4,"01":5}', '{"2":4,"10":2,"b":1,"a":3,"01":5}'),
    ],
)
def test_json_is_printed_as_node_prints_it(value: str, printed: str) -> None:
    assert stringify(json.loads(value)) == printed.encode()


@given(
    body=st.binary(max_size=300) | JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    signature=st.text(max_size=80),
    kind=st.text(max_size=30),
    token=st.text(max_size=30),
    mode=st.sampled_from(["hmac", "url_token", "both"]),
)
def test_hostile_requests_raise_only_refusals(body: bytes, signature: str, kind: str, token: str, mode: str) -> None:
    inbound = Inbound(
        id="d1",
        source="edusign-main",
        received_at=NOW,
        headers={"x-edusign-hmac": signature, "x-edusign-webhook-type": kind},
        query={"token": token},
        body=body,
    )
    with pytest.raises(NotGenuine):
        verify(connector(), inbound, settings(mode=mode, url_token=TOKEN))


@cache
def event_schema() -> Any:
    schema = resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8")
    return jsonschema_rs.Draft202012Validator(json.loads(schema), validate_formats=True)


IDS = st.dictionaries(
    st.sampled_from(
        [
            "type",
            "appId",
            "courseId",
            "course",
            "student",
            "studentId",
            "teacherId",
            "groupId",
            "email",
            "survey",
            "url",
        ]
    ),
    JSON_VALUES
    | st.just("a\nb")
    | st.dictionaries(st.sampled_from(["ID", "NAME", "START", "EMAIL", "API_ID"]), JSON_VALUES),
)


@given(body=IDS, kind=st.sampled_from(KINDS))
def test_whatever_a_genuine_body_holds_it_becomes_an_event_or_a_payload_error(body: Json, kind: str) -> None:
    configured = settings(naive_timezone="Europe/Paris")
    inbound = arrived(signed(body | {"type": kind}))
    try:
        (notice,) = source.parse(proven(inbound, configured), configured)
        event = source.normalise(notice, configured)
    except PayloadError:
        return
    assert event.type == RULES[kind][0]
    assert [error.message for error in event_schema().iter_errors(event.to_json())] == []
