"""kill -9 of any process loses nothing of what was answered 200."""

from __future__ import annotations

import pytest
from killing import survive
from watching import Make

from bridge.config.shipped import shipped_mappings

pytestmark = pytest.mark.e2e


def test_kill_9_of_each_process_in_a_burst_loses_nothing(make_campus: Make) -> None:
    campus = make_campus("edusign", "wise", "wiseflow", mappings=shipped_mappings())
    campus.start_bridge()
    figures = survive(campus, rounds=1, pause=1.5, rate=100, patience=30)
    assert figures["accepted"] > 500
    assert figures["delivered"] > 500
