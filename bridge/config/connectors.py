"""Reads connector manifests and puts them together with the connectors' code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from bridge.core.contracts import Simulator, Source, Target
from bridge.core.errors import ConfigurationError, Problem
from bridge.core.manifest import SourceConnector, TargetConnector, source_manifest, target_manifest


def source_connector(folder: Path, code: Source, simulator: Simulator) -> SourceConnector:
    """A source from its folder and modules. Raises ConfigurationError for a manifest with mistakes."""
    document = read_manifest(folder)
    return SourceConnector(
        name=document["name"],
        title=document["title"],
        about=document["about"],
        folder=folder,
        manifest=source_manifest(document["source"]),
        code=code,
        simulator=simulator,
    )


def target_connector(folder: Path, code: Target | None) -> TargetConnector:
    """A target from its folder and, where it has one, its module. Raises ConfigurationError as above."""
    document = read_manifest(folder)
    return TargetConnector(
        name=document["name"],
        title=document["title"],
        about=document["about"],
        folder=folder,
        manifest=target_manifest(document["target"]),
        code=code,
    )


def read_manifest(folder: Path) -> Mapping[str, Any]:
    """`manifest.yaml` of a folder, checked against the schema and against the folder's name."""
    path = folder / "manifest.yaml"
    document = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    problems = [
        Problem(file=str(path), line=None, where=error.json_path, message=error.message)
        for error in _validator().iter_errors(document)
    ]
    if not problems and document["name"] != folder.name:
        problems.append(Problem(file=str(path), line=None, where="name", message=f"must be {folder.name}"))
    if problems:
        raise ConfigurationError(problems)
    checked: Mapping[str, Any] = document
    return checked


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(resources.files("bridge.core").joinpath("manifest.schema.json").read_text()))
