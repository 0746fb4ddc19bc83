"""Flows and the workflows of Teams, which are of one kind: switched off, and with two logins at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from target_sending import TARGETS, Way, told

from bridge.core.target import Verdict
from bridge.testing.simulated_target import SimulatedTargetServer
from connectors.power_automate.simulator import PowerAutomate
from connectors.teams.simulator import Teams


def sent(name: str, folder: Path, *, on: bool = True, **more: Any) -> tuple[Verdict, str, Any]:
    connector = TARGETS[name]
    assert connector.simulator is not None
    with SimulatedTargetServer(connector.simulator) as server:
        assert isinstance(server.system, PowerAutomate | Teams)
        server.system.on = on
        [outcome] = Way(connector, server.url, server.settings() | more, folder).send(told(connector)[0].keyed("one"))
        return outcome.verdict, outcome.reason, [entry for entries in server.effects().values() for entry in entries]


@pytest.mark.parametrize("name", ["power_automate", "teams"])
def test_what_is_switched_off_waits_for_a_person(name: str, tmp_path: Path) -> None:
    verdict, reason, effects = sent(name, tmp_path, on=False)
    assert (verdict, effects) == (Verdict.GONE, [])
    assert "switched off" in reason


def test_a_token_beside_the_password_in_the_address_is_one_login_too_many(tmp_path: Path) -> None:
    verdict, reason, effects = sent("power_automate", tmp_path, sig="s1gnature")
    assert (verdict, effects) == (Verdict.AUTH, [])
    assert "take one of them out" in reason
