"""What bridge.yaml says about outgoing calls, and what of it is refused in saving."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from config_fakes import connectors

from bridge.config.configuration import Reading, read_configuration
from bridge.config.network import called
from bridge.core.authentication import KINDS
from bridge.flow.network import Proxy, Transport

GOOD = """\
version: 1
sources:
  exams:
    connector: exam
    secrets: ["${S}"]
    api: {client_id: abc, client_secret: "${S}"}
targets:
  crm:
    connector: crm
    url: https://crm.example.org
"""


def read(folder: Path, text: str) -> Reading:
    (folder / "bridge.yaml").write_text(text, "utf-8")
    sources, targets = connectors(folder)
    return read_configuration(folder / "bridge.yaml", sources=sources, targets=targets, environ={"S": "s" * 20})


def roads(reading: Reading) -> tuple[Transport, Transport]:
    assert reading.configuration is not None, [str(problem) for problem in reading.problems]
    return reading.configuration.sources["exams"].transport, reading.configuration.targets["crm"].transport


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ca.pem and ca.key that belong together, locked.key with a passphrase, other.key, and text.pem."""
    for words in (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -subj /CN=ca",
        "ec -in ca.key -aes128 -passout pass:hush -out locked.key",
        "ecparam -name prime256v1 -genkey -noout -out other.key",
    ):
        subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "text.pem").write_text("no certificate at all\n")
    return tmp_path


def test_without_a_word_calls_go_straight_and_believe_the_system(tmp_path: Path) -> None:
    assert roads(read(tmp_path, GOOD)) == (Transport(), Transport())


def test_a_general_road_is_everybodys_and_null_is_none(files: Path) -> None:
    text = (
        GOOD
        + "    proxy: null\n    client_certificate: {certificate: ca.pem, key: ca.key}\n"
        + 'network: {proxy: {url: "http://proxy.example:3128", username: u, password: "${S}"}, ca_bundle: ca.pem}\n'
    )
    source, target = roads(read(files, text))
    proxy = Proxy(url="http://proxy.example:3128", username="u", password="s" * 20)
    assert source == Transport(proxy=proxy, ca_bundle=files / "ca.pem")
    assert target == Transport(ca_bundle=files / "ca.pem", certificate=files / "ca.pem", key=files / "ca.key")
    assert "s" * 20 not in repr(source)


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("ca_bundle: none.pem", "ca_bundle"),
        ("ca_bundle: text.pem", "ca_bundle"),
        ("ca_bundle: .", "ca_bundle"),
        ("client_certificate: {certificate: none.pem}", "client_certificate"),
        ("client_certificate: {certificate: ca.pem}", "client_certificate"),
        ("client_certificate: {certificate: ca.pem, key: other.key}", "client_certificate"),
        ("client_certificate: {certificate: ca.pem, key: locked.key}", "client_certificate"),
        ("client_certificate: {key: ca.key}", "client_certificate"),
        ('proxy: {url: "http://127.0.0.1:3128"}', "proxy.url"),
        ('proxy: {url: "http://proxy.example:25"}', "proxy.url"),
        ('proxy: {url: "http://u:p@proxy.example:3128"}', "proxy.url"),
        ('proxy: {url: "https://proxy.example:3128"}', "proxy.url"),
        ('proxy: {url: "socks5://proxy.example:3128"}', "proxy.url"),
        ("proxy: http://proxy.example:3128", "proxy"),
    ],
)
def test_a_road_that_cannot_be_taken_is_refused_with_its_line(files: Path, line: str, where: str) -> None:
    for text, place, number in (
        (GOOD + f"    {line}\n", "targets.crm", 11),
        (GOOD + f"network:\n  {line}\n", "network", 12),
    ):
        problems = read(files, text).problems
        assert [(problem.where, problem.line) for problem in problems] == [(f"{place}.{where}", number)]
        assert "hush" not in str(problems[0])


def test_a_proxys_password_that_is_written_out_is_a_warning(tmp_path: Path) -> None:
    reading = read(tmp_path, GOOD + '    proxy: {url: "http://proxy.example:3128", username: u, password: plainly}\n')
    assert [(warning.where, warning.line) for warning in reading.warnings] == [("targets.crm.proxy.password", 11)]


def test_every_address_to_call_is_found_wherever_a_schema_puts_it() -> None:
    schema: dict[str, Any] = {
        "properties": {
            "url": {"type": "string"},
            "base_url": {"type": "string"},
            "endpoint": {"type": "string", "format": "uri"},
            "hook": {"type": "string", "pattern": "^https?://x"},
            "statements": {"type": "string", "x-url": True},
            "activity_url": {"type": "string", "format": "uri", "x-url": False},
            "about": {"type": "string"},
            "auth": {"oneOf": [{"properties": {"kind": {"const": "none"}}}]},
            "mirrors": {"type": "array", "items": {"type": "string", "format": "uri"}},
            "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    }
    schema["properties"]["auth"]["oneOf"] += [{"properties": dict(about)} for _, about in KINDS.values()]
    value: dict[str, Any] = {
        **dict.fromkeys(schema["properties"], "http://x.example/"),
        "auth": {"kind": "oauth2_client_credentials", "token_url": "http://x.example/", "client_id": "http://x/"},
        "mirrors": ["http://x.example/", "http://x.example/"],
        "headers": {"callback_url": "http://x.example/"},
    }
    assert [steps for steps, _ in called(schema, value, ())] == [
        ("url",),
        ("base_url",),
        ("endpoint",),
        ("hook",),
        ("statements",),
        ("auth", "token_url"),
        ("mirrors", 0),
        ("mirrors", 1),
    ]
