"""Bridges with real processes. A campus is cheap to describe and dear to start: tests of one kind share one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from watching import Make, campuses


@pytest.fixture(scope="module")
def make_campus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes campuses with some platforms and some mappings; all end with the module's tests."""
    with campuses(lambda: tmp_path_factory.mktemp("campus")) as make:
        yield make
