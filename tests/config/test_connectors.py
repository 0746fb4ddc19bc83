"""Manifests: what is wrong with one is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_fakes import CRM_MANIFEST

from bridge.config.connectors import manifest_problems, read_manifest, target_connector
from bridge.core.errors import ConfigurationError, Problem


def manifest(folder: Path, text: str, name: str = "crm") -> Path:
    (folder / name).mkdir()
    (folder / name / "manifest.yaml").write_text(text, "utf-8")
    return folder / name


def problems(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(folder)
    return caught.value.problems


def test_a_manifest_becomes_a_connector(tmp_path: Path) -> None:
    connector = target_connector(manifest(tmp_path, CRM_MANIFEST), None)
    assert connector.manifest.concurrency == 3
    assert connector.manifest.options["required"] == ["url"]
    assert connector.manifest.operations["delete_contact"].destructive
    assert manifest_problems(connector.folder) == []


def test_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    text = CRM_MANIFEST.replace("concurrency: 3", "concurency: 3").replace("idempotent: true", "idempotent: yes", 1)
    found = problems(manifest(tmp_path, text))
    assert [(problem.line, problem.message) for problem in found] == [
        (10, "unknown key 'concurency'"),
        (14, "expected true or false, found a text"),
    ]
    assert found[0].hint == "did you mean concurrency?"


def test_the_name_is_the_folders(tmp_path: Path) -> None:
    assert problems(manifest(tmp_path, CRM_MANIFEST, "other"))[0].message == "expected the folder's name, other"


def test_a_folder_without_a_manifest_is_a_problem(tmp_path: Path) -> None:
    assert problems(tmp_path)[0].message == "there is no such file"


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("default: eu", "default: uk"), 9, "expected one of eu, us"),
        (("required: [url]", "required: [url, key]"), 6, "'key' is required but not described"),
        (("token: {", "retry: {"), 8, "this key is one of the hub's own"),
        (("type: string, minLength: 1", "type: text"), 20, "not valid JSON Schema"),
    ],
)
def test_a_closer_look_finds_settings_that_cannot_work(
    tmp_path: Path, change: tuple[str, str], line: int, message: str
) -> None:
    assert change[0] in CRM_MANIFEST
    found = manifest_problems(manifest(tmp_path, CRM_MANIFEST.replace(*change, 1)))
    assert [(problem.line, problem.message) for problem in found] == [(line, message)]
