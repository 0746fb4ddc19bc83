"""`campusbridge up`: what it starts lives as long as it does, and no longer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from watching import Make, alive, ask, children, eventually, family, kill, killed, reborn

from bridge.engine.embedded import running
from bridge.testing.campus import Campus

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def campus(make_campus: Make) -> Campus:
    """A bridge without mappings; every test starts it, and leaves it ended."""
    return make_campus("edusign", mappings={}, targets={})


def started(campus: Campus) -> set[int]:
    campus.start_bridge()
    eventually(lambda: running(campus.data / "redis"), seconds=20, about="the embedded server runs")
    pids = family(campus)
    assert len(pids) >= 8  # supervisor, gunicorn and its workers, shipper, two workers, sweeper, the server
    assert all(alive(pid) for pid in pids)
    return pids


def test_sigterm_leaves_no_process_behind(campus: Campus) -> None:
    pids = started(campus)
    began = time.monotonic()
    campus.stop_bridge(signal.SIGTERM)
    eventually(lambda: not [pid for pid in pids if alive(pid)], seconds=20, about="all have ended")
    assert time.monotonic() - began < 20
    assert campus.pids() == {}


def test_kill_9_of_the_supervisor_ends_the_others_too(campus: Campus) -> None:
    pids = started(campus)
    campus.stop_bridge(signal.SIGKILL)
    eventually(lambda: not [pid for pid in pids if alive(pid)], seconds=20, about="all have ended")


def test_each_process_that_dies_is_started_again(campus: Campus) -> None:
    started(campus)
    before = campus.pids()
    for name in before.keys() - {"supervisor"}:
        killed(campus, name)
    for name in before.keys() - {"supervisor"}:
        eventually(lambda name=name: reborn(campus, name, before[name]), seconds=15, about=f"{name} is back")
    assert campus.pids()["supervisor"] == before["supervisor"]
    eventually(lambda: _ready(campus), seconds=15, about="it takes webhooks again")
    workers = children(campus.pids()["web"])
    kill(workers[:1])
    eventually(
        lambda: set(children(campus.pids()["web"])) - set(workers), seconds=10, about="gunicorn's worker is back"
    )
    campus.stop_bridge()


def test_a_bridge_ends_with_the_process_that_wanted_it(campus: Campus) -> None:
    program = "import subprocess, sys, os, time; subprocess.Popen([*sys.argv[1:], str(os.getpid())]); time.sleep(60)"
    command = [sys.executable, "-m", "bridge.main", "--config", str(campus.configuration), "up", "--end-with"]
    parent = subprocess.Popen([sys.executable, "-c", program, *command], stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _ready(campus), seconds=30, about="it takes webhooks")
        pids = family(campus)
    finally:
        parent.kill()
        parent.wait()
    eventually(lambda: not [pid for pid in pids if alive(pid)], seconds=20, about="all have ended")


def _ready(campus: Campus) -> bool:
    try:
        return ask(f"{campus.url}/healthz", timeout=2).status == 200
    except OSError:
        return False
