"""`init`: what it writes passes `check`, and nobody's file is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_fakes import ExamCode, ExamSimulator
from jsonschema import Draft202012Validator

import connectors as shipped
from bridge.config.check import check
from bridge.config.connectors import source_connector, target_connector
from bridge.config.documents import read_document
from bridge.config.starter import write_starter
from bridge.core.manifest import SourceConnector, TargetConnector

ENVIRON = {
    "WISEFLOW_SECRET": "a",
    "WISEFLOW_CLIENT_ID": "b",
    "WISEFLOW_CLIENT_SECRET": "c",
    "TARGET_URL": "https://crm.example.org/api",
    "TARGET_TOKEN": "d",
}

Both = tuple[dict[str, SourceConnector], dict[str, TargetConnector]]


@pytest.fixture(scope="module")
def both() -> Both:
    """The two connectors that the starter names, as they are shipped: their manifests and fixtures, no code."""
    folder = Path(shipped.__file__).parent
    source = source_connector(folder / "wiseflow", ExamCode(), ExamSimulator())
    return {"wiseflow": source}, {"http": target_connector(folder / "http", None)}


def test_the_starter_passes_check_once_its_variables_are_set(tmp_path: Path, both: Both) -> None:
    write_starter(tmp_path, sources=both[0], targets=both[1])
    report = check(tmp_path / "bridge.yaml", sources=both[0], targets=both[1], environ=ENVIRON)
    assert [str(problem) for problem in report.all_problems] == []
    assert report.warnings == ()
    assert [(mapping.name, mapping.tests) for mapping in report.mappings] == [("first", 2)]


def test_without_its_variables_the_starter_names_every_one_of_them(tmp_path: Path, both: Both) -> None:
    write_starter(tmp_path, sources=both[0], targets=both[1])
    report = check(tmp_path / "bridge.yaml", sources=both[0], targets=both[1], environ={})
    assert {problem.message for problem in report.problems} == {
        f"the environment variable {name} is not set" for name in ENVIRON
    }
    text = (tmp_path / "bridge.yaml").read_text("utf-8")
    assert all(f"#   {name}=" in text for name in ENVIRON)


def test_what_is_there_is_never_overwritten(tmp_path: Path, both: Both) -> None:
    (tmp_path / "bridge.yaml").write_text("mine", "utf-8")
    result = write_starter(tmp_path, sources=both[0], targets=both[1])
    assert (tmp_path / "bridge.yaml").read_text("utf-8") == "mine"
    assert result.kept == (tmp_path / "bridge.yaml",)
    assert tmp_path / "mappings" / "first.yaml" in result.written
    assert (tmp_path / "mappings" / "first.yaml").read_text("utf-8") != ""


def test_editors_find_the_schema_that_the_first_line_names_and_it_takes_the_file(tmp_path: Path, both: Both) -> None:
    write_starter(tmp_path, sources=both[0], targets=both[1])
    for name in ("bridge.yaml", "mappings/first.yaml"):
        path = tmp_path / name
        first = path.read_text("utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        schema = json.loads((path.parent / first.partition("$schema=")[2]).read_text("utf-8"))
        Draft202012Validator.check_schema(schema)
        document, problems = read_document(path)
        assert document is not None
        assert problems == []
        assert list(Draft202012Validator(schema).iter_errors(document.value)) == []


def test_the_commented_defaults_are_the_real_ones(tmp_path: Path, both: Both) -> None:
    """Each commented setting, taken in, changes nothing (but the public address, which has no default)."""
    write_starter(tmp_path, sources=both[0], targets=both[1])
    path = tmp_path / "bridge.yaml"
    plain = check(path, sources=both[0], targets=both[1], environ=ENVIRON).configuration
    head, _, tail = path.read_text("utf-8").partition("# What follows are the defaults")
    lines = [line for line in tail.splitlines()[1:] if "public_url" not in line and "allow_hosts" not in line]
    settings = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# Calls")]
    path.write_text(head + "\n".join(line for line in settings if line != "network:") + "\n", "utf-8")
    report = check(path, sources=both[0], targets=both[1], environ=ENVIRON)
    assert [str(problem) for problem in report.all_problems] == []
    assert report.configuration == plain
