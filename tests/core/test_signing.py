"""Signatures: published examples, several secrets, every malformed one a mismatch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.signing import canonical_json, decode, digest, fingerprint, matching_secret, matching_text, sign

FOX = b"The quick brown fox jumps over the lazy dog"


def test_published_examples() -> None:
    """RFC 4231, test case 2, and the well-known examples of HMAC with the key `key`."""
    case_two = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert digest("Jefe", b"what do ya want for nothing?").hex() == case_two
    assert sign("key", FOX) == "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    assert sign("key", FOX, "sha1") == "de7c9b85b8b78aa6bc8a7a36f70a90701c9db4d9"
    assert sign("key", FOX, "sha256", "base64") == "97yD9DBThCSxMpjmqm+xQ+9NWaFJRhdZl0edvC0aPNg="


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_the_secret_that_signed_is_named_by_its_place(algorithm: str, encoding: str) -> None:
    how = {"algorithm": algorithm, "encoding": encoding}
    signature = sign("new", b"body", algorithm, encoding)  # type: ignore[arg-type]
    assert matching_secret(["old", "new", "new"], b"body", signature, **how) == 2  # type: ignore[arg-type]
    assert matching_secret(["old", "other"], b"body", signature, **how) is None  # type: ignore[arg-type]
    assert matching_secret(["new"], b"body ", signature, **how) is None  # type: ignore[arg-type]
    assert matching_secret([], b"body", signature, **how) is None  # type: ignore[arg-type]


def test_signatures_are_compared_as_bytes_not_as_texts() -> None:
    assert matching_secret(["s"], b"b", " " + sign("s", b"b").upper() + " ") == 1
    unpadded = sign("s", b"b", encoding="base64").rstrip("=")
    assert matching_secret(["s"], b"b", unpadded, encoding="base64") == 1


@pytest.mark.parametrize("bad", ["", " ", "zz", "abc", "é" * 32, "\x00", "=" * 8, "a" * 10_000, "\ud800", "sha256=00"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_malformed_signature_is_a_mismatch(bad: str, encoding: str) -> None:
    assert matching_secret(["secret"], b"body", bad, encoding=encoding) is None  # type: ignore[arg-type]


@given(st.text(), st.binary(max_size=50))
def test_no_text_is_a_signature_by_chance_and_none_raises(given_text: str, body: bytes) -> None:
    assert matching_secret(["secret"], body, given_text) is None
    assert matching_secret(["secret"], body, given_text, encoding="base64") is None


@pytest.mark.parametrize("given_text", ["", "other", "secre", "secret ", "\ud800", "é"])
def test_a_secret_sent_as_it_is_must_be_the_whole_secret(given_text: str) -> None:
    assert matching_text(["old", "secret"], given_text) is None
    assert matching_text(["old", "secret"], "secret") == 2


def test_decoding_gives_bytes_or_nothing() -> None:
    assert decode("00ff", "hex") == b"\x00\xff"
    assert decode("AP8", "base64") == decode("AP8=", "base64") == b"\x00\xff"
    assert decode("0", "hex") is None


def test_equal_values_have_one_canonical_form() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == canonical_json({"a": "é", "b": 1}) == '{"a":"é","b":1}'.encode()
    assert canonical_json("\ud800")


@given(st.lists(st.text(max_size=5), max_size=5), st.lists(st.text(max_size=5), max_size=5))
def test_different_parts_have_different_fingerprints(left: list[str], right: list[str]) -> None:
    assert (fingerprint(left) == fingerprint(right)) is (left == right)
