"""Tests of many minutes: they run only when this folder is named, as `make soak` does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from watching import Make, campuses


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The rest of the suite takes a minute; this takes ten."""
    here = Path(__file__).parent
    named = any(Path(argument.partition("::")[0]).resolve().is_relative_to(here) for argument in config.args)
    return None if named or not collection_path.is_relative_to(here) else True


@pytest.fixture(scope="module")
def make_campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes campuses with some platforms and some mappings; all end with the module's tests."""
    with campuses(lambda: tmp_path_factory.mktemp("campus")) as make:
        yield make
