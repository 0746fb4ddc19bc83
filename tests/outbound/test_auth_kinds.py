"""What each kind of authentication puts on the wire, byte by byte, and what a token endpoint's answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from token_server import LOCAL, Platform, as_json, form_of, settings

from bridge.core.errors import CredentialsRefused, DestinationForbidden, TargetError
from bridge.core.target import Request
from bridge.flow.judge import NotSent
from bridge.outbound.auth import authorised
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.testing.answering import Reply

FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
SECRET = "s+e/c=r&et"


@pytest.fixture
def platform() -> Iterator[Platform]:
    made = Platform()
    yield made
    made.close()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> str:
    locked = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked).decode()


def send(platform: Platform, auth: dict[str, Any]) -> int:
    return target_sender(settings(auth), LOCAL)(platform.request()).status


# --- without a conversation -------------------------------------------------------------------------------------------


def test_a_form_token_is_the_last_field_and_replaces_the_mappings_own() -> None:
    request = Request(
        method="POST", url="https://m.example", headers=FORM, body=b"wsfunction=f&wstoken=theirs&a%5B0%5D=1"
    )
    made = authorised(request, {"auth": {"kind": "form", "field": "wstoken", "token": "a b"}})
    assert made.body == b"wsfunction=f&a%5B0%5D=1&wstoken=a+b"
    assert (made.url, made.headers) == (request.url, request.headers)


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
def test_a_form_token_is_for_form_bodies_only(headers: dict[str, str]) -> None:
    request = Request(method="POST", url="https://m.example", headers=headers, body=b"{}")
    with pytest.raises(TargetError, match="form body") as caught:
        authorised(request, {"auth": {"kind": "form", "field": "wstoken", "token": "hush"}})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_a_body_is_signed_as_it_goes_out(algorithm: str, encoding: str) -> None:
    body = b'{"a":"\xc3\xa9"}'
    auth = {"kind": "hmac", "secret": "k\u00e9y", "header": "X-Sig", "algorithm": algorithm, "encoding": encoding}
    made = authorised(Request(method="POST", url="https://a.example", body=body), {"auth": auth | {"prefix": "v="}})
    raw = hmac.new("k\u00e9y".encode(), body, getattr(hashlib, algorithm)).digest()
    assert made.headers == {"X-Sig": "v=" + (raw.hex() if encoding == "hex" else base64.b64encode(raw).decode())}
    assert made.body == body


def test_a_signature_is_sha256_in_hex_unless_the_settings_say_otherwise() -> None:
    request = Request(method="POST", url="https://a.example", headers={"x-sig": "forged"}, body=b"x")
    made = authorised(request, {"auth": {"kind": "hmac", "secret": "k", "header": "X-Sig"}})
    assert made.headers == {"X-Sig": hmac.new(b"k", b"x", hashlib.sha256).hexdigest()}


# --- what the token endpoint is asked ---------------------------------------------------------------------------------


def test_client_credentials_in_the_body(platform: Platform) -> None:
    auth = platform.auth(client_secret=SECRET, scope="a b", form={"audience": "https://x/", "client_id": "other"})
    assert send(platform, auth) == 200
    (asked,) = platform.tokens
    assert asked.body == (
        b"grant_type=client_credentials&client_id=id&client_secret=s%2Be%2Fc%3Dr%26et&scope=a+b"
        b"&audience=https%3A%2F%2Fx%2F"
    )
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/x-www-form-urlencoded")
    assert "authorization" not in asked.headers
    assert platform.seen == ["Bearer t1"]


def test_client_credentials_as_basic_stand_in_the_header_alone(platform: Platform) -> None:
    """developer.anthology.com: Blackboard wants key and secret as Basic, and grant_type in the form."""
    assert send(platform, platform.auth(client_secret=SECRET, send="basic")) == 200
    (asked,) = platform.tokens
    assert asked.body == b"grant_type=client_credentials"
    assert asked.headers["authorization"] == f"Basic {base64.b64encode(f'id:{SECRET}'.encode()).decode()}"


def test_a_client_assertion_says_who_it_is_for_five_minutes_at_most(
    platform: Platform, rsa_key: rsa.RSAPrivateKey
) -> None:
    auth = platform.auth("oauth2_client_assertion", private_key=pem(rsa_key), key_id="k1", scope="s1 s2")
    platform.grant = lambda number, asked: as_json({"access_token": f"t{number}", "expires_in": 1})
    assert send(platform, auth) == send(platform, auth) == 200
    forms = [form_of(asked) for asked in platform.tokens]
    assert list(forms[0]) == ["grant_type", "client_assertion_type", "client_assertion", "scope"]
    assert forms[0]["grant_type"] == "client_credentials"
    assert forms[0]["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert forms[0]["scope"] == "s1 s2"
    assert jwt.get_unverified_header(forms[0]["client_assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    claims = [
        jwt.decode(form["client_assertion"], rsa_key.public_key(), ["RS256"], audience=f"{platform.url}/token")
        for form in forms
    ]
    assert set(claims[0]) == {"iss", "sub", "aud", "iat", "exp", "jti"}
    assert claims[0]["iss"] == claims[0]["sub"] == "id"
    assert 0 < claims[0]["exp"] - claims[0]["iat"] <= 300
    assert abs(claims[0]["iat"] - time.time()) < 30
    assert claims[0]["jti"] != claims[1]["jti"]


def test_a_client_assertions_audience_and_algorithm_are_what_the_settings_say(platform: Platform) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    auth = platform.auth(
        "oauth2_client_assertion", private_key=pem(key), audience="https://auth.example", algorithm="ES256"
    )
    assert send(platform, auth) == 200
    sent = form_of(platform.tokens[0])["client_assertion"]
    assert jwt.decode(sent, key.public_key(), ["ES256"], audience="https://auth.example")["aud"]
    assert "kid" not in jwt.get_unverified_header(sent)


def test_a_jwt_bearer_grant_acts_for_a_user_for_three_minutes_at_most(
    platform: Platform, rsa_key: rsa.RSAPrivateKey
) -> None:
    auth = {
        "kind": "oauth2_jwt_bearer",
        "token_url": f"{platform.url}/token",
        "issuer": "client",
        "subject": "bridge@example.edu",
        "audience": "https://login.salesforce.com",
        "private_key": pem(rsa_key).replace("\n", "\\n"),  # as an environment file holds it
    }
    assert send(platform, auth) == 200
    form = form_of(platform.tokens[0])
    assert list(form) == ["grant_type", "assertion"]
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claims = jwt.decode(form["assertion"], rsa_key.public_key(), ["RS256"], audience="https://login.salesforce.com")
    assert {name: claims[name] for name in ("iss", "sub")} == {"iss": "client", "sub": "bridge@example.edu"}
    assert set(claims) == {"iss", "sub", "aud", "exp"}
    assert 0 < claims["exp"] - time.time() <= 180


@pytest.mark.parametrize(
    ("more", "body", "basic"),
    [
        (
            {"client_secret": "hush"},
            b"grant_type=refresh_token&refresh_token=r%2F0&client_id=id&client_secret=hush",
            None,
        ),
        ({}, b"grant_type=refresh_token&refresh_token=r%2F0&client_id=id", None),
        (
            {"client_secret": "hush", "send": "basic"},
            b"grant_type=refresh_token&refresh_token=r%2F0",
            "Basic aWQ6aHVzaA==",
        ),
    ],
)
def test_a_refresh_token_that_stays(platform: Platform, more: dict[str, Any], body: bytes, basic: str | None) -> None:
    assert send(platform, platform.auth("oauth2_refresh_token", refresh_token="r/0", **more)) == 200
    assert platform.tokens[0].body == body
    assert platform.tokens[0].headers.get("authorization") == basic


def test_the_word_in_front_of_a_fetched_token_is_what_the_settings_say(platform: Platform) -> None:
    assert send(platform, platform.auth(scheme="Zoho-oauthtoken")) == 200
    assert platform.seen == ["Zoho-oauthtoken t1"]


@pytest.mark.parametrize("kind", ["broken", "public", "locked", "wrong"])
def test_a_key_that_cannot_sign_is_named_and_not_shown(
    platform: Platform, rsa_key: rsa.RSAPrivateKey, kind: str
) -> None:
    public = rsa_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key = {
        "broken": "-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n",
        "public": public.decode(),
        "locked": pem(rsa_key, b"passphrase"),
        "wrong": pem(ec.generate_private_key(ec.SECP256R1())),
    }[kind]
    with pytest.raises(CredentialsRefused, match=r"auth\.private_key: expected a PEM private key for RS256") as caught:
        send(platform, platform.auth("oauth2_client_assertion", private_key=key))
    assert caught.value.__cause__ is None
    assert platform.tokens == []


# --- what its answers mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (as_json({"error": "invalid_client", "error_description": "hush"}, 401), "401 invalid_client: check client_id"),
        (as_json({"error": "invalid_grant"}, 400), "400 invalid_grant: check client_id and client_secret"),
        (as_json({"error": "invalid_scope"}, 400), "400 invalid_scope: check scope"),
        (as_json({"error": "hush-hush"}, 400), "400: check client_id and client_secret"),
        (as_json({"error": {"code": 7}}, 403), "403: check client_id"),
        (Reply(401, b"<html>hush"), "401: check client_id"),
        (Reply(404), "404: check token_url"),
        (Reply(302, b"", {"Location": "https://elsewhere.example/token"}), "302: check token_url"),
        (as_json({"error": "invalid_code"}), "200 invalid_code: check that the refresh token"),
    ],
)
def test_refused_credentials_say_what_to_check_and_nothing_else(platform: Platform, reply: Reply, reason: str) -> None:
    platform.grant = lambda number, asked: reply
    with pytest.raises(CredentialsRefused) as caught:
        send(platform, platform.auth())
    assert reason in caught.value.reason
    assert "hush" not in caught.value.reason
    assert platform.calls == []


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(503), "the token endpoint answered 503"),
        (Reply(429, b"", {"Retry-After": "120"}), "the token endpoint answered 429"),
        (as_json({"error": "Access Denied", "status": "failure"}, 400), "too many requests"),
        (Reply(200, b"<html>maintenance"), "holds no token"),
        (as_json({"token_type": "Bearer"}), "holds no token"),
        (as_json(["t"]), "holds no token"),
        (as_json({"access_token": "t\r\nX-Evil: 1"}), "holds no token"),
        (None, "the token endpoint: "),
    ],
)
def test_a_token_endpoint_that_is_away_is_no_answer_of_the_target(
    platform: Platform, reply: Reply | None, reason: str
) -> None:
    """Also when the endpoint's own answer is lost: the target has not been asked, so nothing is ambiguous."""
    platform.grant = lambda number, asked: reply
    with pytest.raises(NotSent) as caught:
        send(platform, platform.auth())
    assert reason in caught.value.reason
    assert platform.calls == []


def test_a_token_url_that_the_policy_forbids_is_not_asked(platform: Platform) -> None:
    with pytest.raises(DestinationForbidden):
        target_sender(settings(platform.auth()), NetworkPolicy())(Request(method="GET", url="https://192.0.2.1/"))
    assert platform.tokens == []


def test_one_failed_fetch_stands_for_the_next_messages_too(platform: Platform) -> None:
    platform.grant = lambda number, asked: as_json({"error": "invalid_client"}, 401)
    sender = target_sender(settings(platform.auth()), LOCAL)
    for _ in range(5):
        with pytest.raises(CredentialsRefused, match="invalid_client"):
            sender(platform.request())
    assert len(platform.tokens) == 1


# --- where the API is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["instance_url", "api_domain"])
def test_a_request_goes_to_the_host_that_the_token_names(platform: Platform, key: str) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": "t1", key: platform.url})
    elsewhere = Request(method="POST", url="http://login.example/services/data/v60.0?x=1", body=b"{}")
    sender = target_sender(settings(platform.auth(use_instance_url=True)), LOCAL)
    assert sender(elsewhere).status == 200
    assert platform.calls[0].target == "/services/data/v60.0?x=1"
    assert sender(elsewhere).status == 200  # the address is kept beside the token
    assert len(platform.tokens) == 1


def test_the_host_that_a_token_names_is_not_taken_unless_the_settings_want_it(platform: Platform) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": "t1", "instance_url": "http://192.0.2.1"})
    assert send(platform, platform.auth()) == 200


@pytest.mark.parametrize("named", [None, "", "not an address", "ftp://x.example", "//x.example"])
def test_a_token_without_its_address_is_refused_where_one_is_wanted(platform: Platform, named: str | None) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": "t1", "instance_url": named})
    with pytest.raises(CredentialsRefused, match="instance_url"):
        send(platform, platform.auth(use_instance_url=True))


def test_the_host_that_a_token_names_is_under_the_policy_and_keeps_tls(platform: Platform) -> None:
    platform.grant = lambda number, asked: as_json({"access_token": "t1", "instance_url": "http://169.254.169.254"})
    sender = target_sender(settings(platform.auth(use_instance_url=True)), LOCAL)
    with pytest.raises(DestinationForbidden):
        sender(platform.request())
    with pytest.raises(TargetError, match="TLS"):
        sender(Request(method="POST", url="https://login.example/x"))
