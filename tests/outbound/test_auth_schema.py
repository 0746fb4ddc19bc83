"""The option `auth` as a manifest asks for it: what is taken, what is said about mistakes, what is a secret."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from bridge.config.configuration import Reading, read_configuration
from bridge.config.connectors import manifest_problems, target_connector
from bridge.config.schema import editor_schema
from bridge.core.authentication import KINDS, auth_schema
from bridge.core.errors import ConfigurationError
from bridge.core.manifest import TargetConnector
from bridge.main import registry

BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
GOOD: dict[str, dict[str, Any]] = {
    "none": {},
    "basic": {"username": "u", "password": "p"},
    "bearer": {"token": "t"},
    "header": {"name": "X-API-Key", "value": "v"},
    "form": {"field": "wstoken", "token": "t"},
    "hmac": {"secret": "s", "header": "X-Signature"},
    "oauth2_client_credentials": {"token_url": "https://a.example/t", "client_id": "i", "client_secret": "s"},
    "oauth2_client_assertion": {"token_url": "https://a.example/t", "client_id": "i", "private_key": "k"},
    "oauth2_jwt_bearer": {
        "token_url": "https://a.example/t",
        "issuer": "i",
        "subject": "s",
        "audience": "a",
        "private_key": "k",
    },
    "oauth2_refresh_token": {"token_url": "https://a.example/t", "client_id": "i", "refresh_token": "r"},
}
OPTIONAL_SECRETS = {"oauth2_refresh_token": {"client_secret": "s"}}


def connector(folder: Path, auth: str, more: str = "") -> TargetConnector:
    folder = folder / "lms"
    folder.mkdir(exist_ok=True)
    manifest = f"""
name: lms
title: An LMS
about: For tests.
target:
  options:
    url: {{description: Where it is, type: string}}
  required: [url]
  auth: {auth}
{more}
  operations:
    send: {{about: Send, idempotent: true, params: {{type: object}}, request: {{method: POST, url: "https://a.example"}}}}
"""
    (folder / "manifest.yaml").write_text(manifest)
    return target_connector(folder, None)


def read(folder: Path, auth: object, offered: str, more: str = "") -> Reading:
    given = "" if auth is None else f", auth: {json.dumps(auth)}"
    path = folder / "bridge.yaml"
    path.write_text(
        "version: 1\nsources:\n  e: {connector: edusign, secrets: ['${SECRET}']}\n"
        f"targets:\n  t: {{connector: lms, url: 'https://a.example'{given}}}\n"
    )
    targets = {"lms": connector(folder, offered, more)}
    environ = {"SECRET": "x" * 40}
    return read_configuration(path, sources=registry().sources, targets=targets, environ=environ)


def test_the_schema_of_manifests_knows_the_same_kinds() -> None:
    schema = json.loads(resources.files("bridge.core").joinpath("manifest.schema.json").read_text("utf-8"))
    assert schema["$defs"]["auth_kind"]["enum"] == list(KINDS) == list(GOOD)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_takes_its_keys_and_names_those_that_are_missing_or_wrong(tmp_path: Path, kind: str) -> None:
    offered = json.dumps(list(KINDS))
    assert read(tmp_path, {"kind": kind, **GOOD[kind]}, offered).problems == ()
    for missing in GOOD[kind]:
        rest = {key: value for key, value in GOOD[kind].items() if key != missing}
        problems = read(tmp_path, {"kind": kind, **rest}, offered).problems
        assert [problem.message for problem in problems] == [f"the key '{missing}' is missing"]
    problems = read(tmp_path, {"kind": kind, **GOOD[kind], "tokn": "hush"}, offered).problems
    assert [problem.message for problem in problems] == ["unknown key 'tokn'"]


def test_a_kind_that_the_connector_does_not_offer_is_refused(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"kind": "basic", **GOOD["basic"]}, "[none, bearer]").problems
    assert (problem.where, problem.message) == ("targets.t.auth.kind", "expected one of none, bearer")


@pytest.mark.parametrize("kind", KINDS)
def test_every_secret_that_is_written_out_is_a_warning(tmp_path: Path, kind: str) -> None:
    auth = {"kind": kind, **GOOD[kind], **OPTIONAL_SECRETS.get(kind, {})}
    warnings = read(tmp_path, auth, json.dumps(list(KINDS))).warnings
    told = {entry.where.rpartition(".")[2] for entry in warnings if "a secret is written out" in entry.message}
    secrets = {"password", "value", "secret", "client_secret", "private_key", "refresh_token"}
    assert told == (secrets | ({"token"} if kind in ("bearer", "form") else set())) & set(auth)


def test_what_a_manifest_sets_need_not_be_given(tmp_path: Path) -> None:
    offered = "[none, {kind: form, field: wstoken}, {kind: bearer, scheme: Zoho-oauthtoken}]"
    for auth, filled in (
        ({"kind": "form", "token": "t"}, {"field": "wstoken"}),
        ({"kind": "form", "token": "t", "field": "own"}, {"field": "own"}),
        ({"kind": "bearer", "token": "t"}, {"scheme": "Zoho-oauthtoken"}),
        ({"kind": "none"}, {}),
    ):
        reading = read(tmp_path, auth, offered)
        assert reading.configuration is not None, reading.problems
        assert reading.configuration.targets["t"].settings.options["auth"] == {**auth, **filled}


def test_defaults_are_filled_into_the_kind_that_is_chosen(tmp_path: Path) -> None:
    auth = {"kind": "oauth2_client_credentials", **GOOD["oauth2_client_credentials"]}
    reading = read(tmp_path, auth, "[basic, oauth2_client_credentials]")
    assert reading.configuration is not None
    filled = reading.configuration.targets["t"].settings.options["auth"]
    assert filled == {**auth, "send": "body", "scheme": "Bearer", "token_seconds": 900, "use_instance_url": False}


def test_auth_is_required_where_the_manifest_says_so(tmp_path: Path) -> None:
    assert read(tmp_path, None, "[bearer]").problems == ()
    (problem,) = read(tmp_path, None, "[bearer]", "  auth_required: true").problems
    assert problem.message == "the key 'auth' is missing"
    assert problem.hint == "How to log in: bearer (token)"


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("[none, {kind: basic, usrname: x}]", "unknown key 'usrname'"),
        ("[{kind: bearer, scheme: 'two words'}]", "does not have the expected form"),
        ("[none, basic, {kind: basic, username: x}]", "this kind is offered twice"),
    ],
)
def test_what_a_manifest_sets_of_a_kind_is_checked(tmp_path: Path, auth: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connector(tmp_path, auth)
    assert [problem.message for problem in caught.value.problems] == [message]


@pytest.mark.parametrize("auth", ["[digest]", "[]", "[{field: x}]", "basic"])
def test_a_manifest_may_only_name_kinds_that_there_are(tmp_path: Path, auth: str) -> None:
    with pytest.raises(ConfigurationError):
        connector(tmp_path, auth)


def test_a_manifest_may_not_describe_auth_twice(tmp_path: Path) -> None:
    connector(tmp_path, "[basic]")
    path = tmp_path / "lms" / "manifest.yaml"
    path.write_text(path.read_text().replace("    url: {desc", "    auth: {description: x}\n    url: {desc"))
    assert manifest_problems(path.parent)


def test_the_schema_for_editors_takes_references_in_every_kind(tmp_path: Path) -> None:
    schema = editor_schema(registry().sources, {"lms": connector(tmp_path, json.dumps(list(KINDS)))})
    Draft202012Validator.check_schema(schema)
    editor = Draft202012Validator(schema)
    for kind, keys in GOOD.items():
        auth = {"kind": kind, **dict.fromkeys(keys, "${NAME}")}
        target = {"connector": "lms", "url": "${URL}", "auth": auth}
        document = {"version": 1, "sources": {"e": {"connector": "edusign"}}, "targets": {"t": target}}
        assert list(editor.iter_errors(document)) == []
        document["targets"]["t"]["auth"]["tokn"] = "x"
        assert list(editor.iter_errors(document))


def test_shipped_connectors_describe_auth_from_the_one_definition() -> None:
    offered = {name: entry.manifest.options["properties"].get("auth") for name, entry in registry().targets.items()}
    described = {name: auth for name, auth in offered.items() if auth is not None}
    assert {"http", "n8n", "cloudevents", "power_automate"} <= set(described)
    for name, auth in described.items():
        kinds = [branch["properties"]["kind"]["const"] for branch in auth["oneOf"]]
        assert len(kinds) == len(set(kinds)), name
        for branch, kind in zip(auth["oneOf"], kinds, strict=True):
            (own,) = auth_schema([kind])["oneOf"]
            assert set(branch["properties"]) == set(own["properties"]), name


def test_every_setting_of_every_kind_is_described() -> None:
    assert [
        f"{kind}.{key}"
        for kind, (_, keys) in KINDS.items()
        for key, entry in keys.items()
        if "description" not in entry
    ] == []


def test_the_page_has_an_example_of_every_kind_and_all_are_good() -> None:
    page = (Path(__file__).parents[2] / "docs" / "authentication.md").read_text("utf-8")
    found = [YAML(typ="safe").load(text) for block in BLOCK.findall(page) for text in re.split(r"\n(?=auth:)", block)]
    schema = Draft202012Validator(auth_schema(KINDS))
    assert {entry["auth"]["kind"] for entry in found} == set(KINDS)
    assert [error.message for entry in found for error in schema.iter_errors(entry["auth"])] == []
