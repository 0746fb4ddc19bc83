"""The mappings that come with the product: they compile, pass their own tests, and ask for what connectors offer."""

from __future__ import annotations

import json
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

import connectors
from bridge.core.events import Json
from bridge.core.vocabulary import TYPES
from bridge.flow.blank import inline_event
from bridge.flow.mapping import Mapping, compile_mapping, run_tests

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "mappings").glob("*.yaml"))

NAMES = {
    "crm": "http", "lms": "http", "lrs": "http", "sis": "webhook", "alerts": "webhook", "events": "cloudevents",
    "zap": "zapier", "flow": "power_automate",
}  # fmt: skip
"""What these names stand for in the descriptions; other targets are called as their connectors are."""


def load(path: Path) -> Dictionary[str, Any]:
    document: Dictionary[str, Any] = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    return document


def compiled(path: Path) -> Mapping:
    return compile_mapping(path.stem, load(path))


def fixture(name: str) -> Sequence[Json]:
    connector, _, stem = name.partition("/")
    path = ROOT / "connectors" / connector / "fixtures" / f"{stem}.json"
    if not path.is_file():
        raise LookupError(name)
    expected = json.loads(path.read_text("utf-8"))
    events: list[Json] = expected.get("enriched") or expected["events"]
    return events


def params_of(target: str, operation: str) -> Json:
    manifest = load(ROOT / "connectors" / NAMES.get(target, target) / "manifest.yaml")
    params: Json = manifest["target"]["operations"][operation]["params"]
    return params


def test_there_are_mappings_for_every_kind_of_target() -> None:
    assert len(FILES) >= 10
    targets = {compiled(path).target for path in FILES}
    assert {NAMES.get(target, target) for target in targets} == set(connectors.TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_mapping_passes_its_tests(path: Path) -> None:
    mapping = compiled(path)
    problems = run_tests(mapping, fixture, params_of(mapping.target, mapping.operation))
    assert [f"{problem.where}: {problem.message} {problem.hint}" for problem in problems] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_mapping_says_what_it_is_for_and_tests_both_ways(path: Path) -> None:
    mapping = compiled(path)
    connector = NAMES.get(mapping.target, mapping.target)
    assert f"Target {mapping.target}: connector {connector}" in mapping.description.replace("\n", " ")
    assert any(test.get("expect") not in (None, "skipped") for test in mapping.tests)
    schema = json.loads(resources.files("bridge.config").joinpath("mapping.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(load(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_thinnest_event_of_each_type_is_skipped_or_gives_valid_parameters(path: Path) -> None:
    mapping = compiled(path)
    validator = Draft202012Validator(params_of(mapping.target, mapping.operation))
    for name in TYPES:
        event = inline_event({"type": name})
        if mapping.consider(event, "s").matches:
            validator.validate(mapping.render(event, "s", {"key": "k"}))


def test_every_fixture_of_every_connector_can_be_sent_or_is_skipped() -> None:
    mappings = [compiled(path) for path in FILES]
    sent = 0
    for path in sorted((ROOT / "connectors").glob("*/fixtures/*.json")):
        if path.with_suffix(".http").exists():
            expected = json.loads(path.read_text("utf-8"))
            for event in (*expected.get("events", ()), *expected.get("enriched", ())):
                for mapping in mappings:
                    if mapping.consider(event, event["tenant"]).matches:
                        mapping.render(event, event["tenant"], {"key": "k"})
                        sent += 1
    assert sent > 200
