"""`connector fixtures` and `connector conformance`, on a copy of a real connector's fixtures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.core.manifest import Registry, SourceConnector
from bridge.main import registry, web_app

KEPT = ("final-mark", "settings")


@pytest.fixture
def source(tmp_path: Path) -> SourceConnector:
    """WISEflow's connector with one fixture in a folder of its own."""
    real = registry().sources["wiseflow"]
    shutil.copytree(real.folder, tmp_path / "wiseflow", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (tmp_path / "wiseflow" / "fixtures").iterdir():
        if file.stem not in KEPT:
            file.unlink()
    return replace(real, folder=tmp_path / "wiseflow")


def run(source: SourceConnector, *arguments: str) -> Result:
    known = Registry(sources={"wiseflow": source}, targets={})
    return CliRunner().invoke(campusbridge, ["connector", *arguments], obj=Context(registry=known, web_app=web_app))


def expectation(source: SourceConnector) -> Path:
    return source.folder / "fixtures" / "final-mark.json"


def test_a_fixture_that_comes_to_what_it_says_is_as_expected(source: SourceConnector) -> None:
    result = run(source, "fixtures", "wiseflow")

    assert result.exit_code == 0, result.output
    assert "as expected" in result.output
    assert "grade." in result.output


def test_kinds_without_a_fixture_are_named(source: SourceConnector) -> None:
    result = run(source, "fixtures", "wiseflow")

    assert "paper.submission" in result.stderr
    assert "final.mark" not in result.stderr


def test_a_fixture_that_says_something_else_fails_until_it_is_written(source: SourceConnector) -> None:
    file = expectation(source)
    right = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps(right | {"events": []}), "utf-8")

    failed = run(source, "fixtures", "wiseflow")
    assert failed.exit_code == 1
    assert "differs: events" in failed.output

    assert run(source, "fixtures", "wiseflow", "--write").exit_code == 0
    assert json.loads(file.read_text("utf-8"))["events"] == right["events"]
    assert run(source, "fixtures", "wiseflow").exit_code == 0


def test_an_answer_that_the_recorded_api_lacks_is_named(source: SourceConnector) -> None:
    file = expectation(source)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"api": {}}), "utf-8")

    for arguments in (["fixtures", "wiseflow"], ["fixtures", "wiseflow", "--write"]):
        result = run(source, *arguments)
        assert result.exit_code == 1
        assert "no answer for GET" in " ".join(result.output.split())


def test_conformance_prints_complaints_and_fails(source: SourceConnector) -> None:
    file = expectation(source)
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"events": []}), "utf-8")

    result = run(source, "conformance", "wiseflow")

    assert result.exit_code == 1
    assert "FAILED  expected_events" in result.output
    assert "passed  name_is_folder" in result.output


def test_an_unknown_source_is_answered_with_those_that_exist(source: SourceConnector) -> None:
    result = run(source, "conformance", "moodle")

    assert result.exit_code == 1
    assert "there are wiseflow" in result.output
