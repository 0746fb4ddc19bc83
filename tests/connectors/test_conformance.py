"""Every source that the product ships answers every question of the conformance suite."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bridge.config.connectors import source_connector
from bridge.core.manifest import SourceConnector
from bridge.testing.conformance import QUESTIONS, complaints
from connectors import SOURCES

FOLDER = Path(__file__).parents[2] / "connectors"


@cache
def connector(name: str) -> SourceConnector:
    code, simulator = SOURCES[name]
    return source_connector(FOLDER / name, code, simulator)


def test_there_are_sources_to_ask() -> None:
    assert SOURCES


def test_every_folder_with_a_source_is_registered() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/source.py")} == set(SOURCES)


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", SOURCES)
def test_source_conforms(name: str, question: str) -> None:
    found = complaints(connector(name), question)
    shown = "\n  ".join(found[:20])
    assert not found, f"{len(found)} complaints about {name}, {question}:\n  {shown}"


@pytest.mark.parametrize("name", SOURCES)
def test_a_waiver_that_is_not_needed_is_a_complaint(name: str) -> None:
    one = connector(name)
    waived = replace(one, manifest=replace(one.manifest, waivers={"name_is_folder": "no reason that would hold"}))
    assert complaints(waived, "name_is_folder")


@pytest.mark.parametrize("name", SOURCES)
def test_a_waiver_for_no_question_is_a_complaint(name: str) -> None:
    one = connector(name)
    waived = replace(one, manifest=replace(one.manifest, waivers={"no_such_question": "no reason that would hold"}))
    assert complaints(waived, "waivers_name_questions")
