"""Bridges with real processes. A campus is cheap to describe and dear to start: tests of one kind share one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from watching import Make, write_mapping

from bridge.main import registry
from bridge.testing.campus import Campus


@pytest.fixture(scope="module")
def make_campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes campuses with some platforms and some mappings; all end with the module's tests."""
    made: list[Campus] = []

    def make(*sources: str, mappings: dict[str, Any] | Path, **settings: Any) -> Campus:
        folder = tmp_path_factory.mktemp("campus")
        if isinstance(mappings, dict):
            place = folder / "mappings"
            place.mkdir()
            for name, document in mappings.items():
                write_mapping(place, name, document)
            mappings = place
        known = registry().sources
        campus = Campus(
            folder=folder / "bridge", sources={name: known[name] for name in sources}, mappings=mappings, **settings
        )
        campus.__enter__()
        made.append(campus)
        return campus

    yield make
    for campus in made:
        campus.__exit__(None, None, None)
