"""JSON from strangers is read with its path, and what has another shape is refused without showing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.errors import PayloadError
from bridge.core.payload import MAX_DEPTH, Payload
from bridge.testing.hostile import BODIES, VALUES

READERS: dict[str, Callable[[Payload], Any]] = {
    "text": Payload.text,
    "integer": Payload.integer,
    "number": Payload.number,
    "flag": Payload.flag,
    "time": Payload.time,
    "object": Payload.object,
    "items": lambda payload: list(payload.items()),
}


def test_walking_down_never_fails_and_remembers_the_way() -> None:
    payload = Payload({"a": [{"b": 1}]})
    assert payload.at("a", 0, "b").integer() == 1
    missing = payload.at("a", 5, "x", "y")
    assert (missing.exists, missing.present, missing.value) == (False, False, None)
    with pytest.raises(PayloadError, match=r"^\$\.a\[5\]\.x\.y: expected text$"):
        missing.text()


def test_null_is_there_but_not_present() -> None:
    payload = Payload({"a": None, "b": ""})
    assert (payload.at("a").exists, payload.at("a").present) == (True, False)
    assert payload.at("b").maybe_text() is None


def test_the_first_that_is_present_wins_and_else_the_first_is_named() -> None:
    payload = Payload({"a": "", "b": {"c": "x"}})
    assert payload.first("a", "b.c").text() == "x"
    assert payload.first("n.o", "a").path == "$.n.o"


@pytest.mark.parametrize(
    ("reader", "value", "wanted"),
    [
        ("text", 65253469, "65253469"),
        ("text", "é", "é"),
        ("integer", " 12 ", 12),
        ("integer", "-3", -3),
        ("integer", 4.0, 4),
        ("integer", 2**63 - 1, 2**63 - 1),
        ("integer", "-9223372036854775808", -(2**63)),
        ("number", 3, 3.0),
        ("flag", "TRUE", True),
        ("flag", 0, False),
        ("flag", "1", True),
        ("time", "2026-06-05T09:30:00+02:00", datetime(2026, 6, 5, 7, 30, tzinfo=UTC)),
        ("time", "2026-06-05T09:30:00", datetime(2026, 6, 5, 9, 30, tzinfo=UTC)),
        ("time", 1780651800, datetime(2026, 6, 5, 9, 30, tzinfo=UTC)),
        ("time", 1780651800000, datetime(2026, 6, 5, 9, 30, tzinfo=UTC)),
        ("time", "1780651800", datetime(2026, 6, 5, 9, 30, tzinfo=UTC)),
    ],
)
def test_what_platforms_send_is_read_as_it_is_meant(reader: str, value: Any, wanted: Any) -> None:
    found = READERS[reader](Payload(value))
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        ("text", True),
        ("text", ""),
        ("text", 1.5),
        ("text", {}),
        ("text", "a\x00b"),
        ("text", "a\ud800b"),
        ("integer", True),
        ("integer", "1.5"),
        ("integer", "９"),
        ("integer", "9" * 5000),
        ("integer", 2**63),
        ("integer", "9223372036854775808"),
        ("integer", -(2**63) - 1),
        ("integer", 10**25),
        ("integer", 1e25),
        ("integer", 1.5),
        ("number", "1"),
        ("number", 10**400),
        ("flag", 2),
        ("flag", "yes"),
        ("time", "0000-00-00"),
        ("time", "soon"),
        ("time", 10**30),
        ("time", "9999-12-31T23:59:59-23:00"),
        ("time", None),
        ("object", []),
        ("items", {}),
    ],
)
def test_another_shape_is_refused_and_never_shown(reader: str, value: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        READERS[reader](Payload(value, "$.place"))
    assert str(caught.value).startswith("$.place: expected ")
    if isinstance(value, str) and len(value) > 3:
        assert value not in str(caught.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", VALUES.values(), ids=list(VALUES))
def test_hostile_values_raise_nothing_but_payload_errors(reader: str, value: Any) -> None:
    with suppress(PayloadError):
        READERS[reader](Payload(value))
    Payload(value).maybe_time()


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
def test_hostile_bodies_are_json_or_refused(body: bytes) -> None:
    with suppress(PayloadError):
        assert Payload.parse(body).path == "$"


def test_nesting_is_allowed_up_to_the_limit_and_no_further() -> None:
    assert Payload.parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).exists
    with pytest.raises(PayloadError, match="nesting of at most"):
        Payload.parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_brackets_inside_texts_are_no_nesting() -> None:
    text = '["{\\"' * 500
    assert Payload.parse(json.dumps({"a": text, "b": "\\"}).encode()).at("a").text() == text


def test_a_byte_order_mark_is_left_out() -> None:
    assert Payload.parse(b'\xef\xbb\xbf{"a":1}').at("a").integer() == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_comes_back_as_it_was(value: Any) -> None:
    assert Payload.parse(json.dumps(value).encode()).value == value


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(body: bytes) -> None:
    try:
        Payload.parse(body)
    except PayloadError:
        return
    json.loads(body.decode("utf-8-sig"))
