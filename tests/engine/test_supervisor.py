"""What watches over the others ends when it is told to, and for no other reason."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engine_parts import soon

PROGRAM = """
import os
import sys
import time
from pathlib import Path

from bridge.cli.context import set_up_logging
from bridge.config.values import LogConfig
from bridge.engine.supervisor import Program, Supervisor

def dies():
    with open(sys.argv[1] + "/starts", "a") as starts:
        starts.write(f"{os.getppid()}\\n")
    raise RuntimeError("a bug")

set_up_logging(LogConfig(level="info", format="json"), "up")
Supervisor([Program(name="dies", run=dies)], Path(sys.argv[1]) / "processes.json").run()
"""

SHORT = """
import os
import resource
import signal
import sys
import time
from pathlib import Path

from bridge.cli.context import set_up_logging
from bridge.config.values import LogConfig
from bridge.engine.supervisor import Program, Supervisor

def lives():
    os.write(1, b"it lives\\n")
    time.sleep(60)

set_up_logging(LogConfig(level="info", format="json"), "up")
most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_NPROC, (most, most)))
resource.setrlimit(resource.RLIMIT_NPROC, (0, most))
if os.geteuid() == 0:  # for root there is no limit
    os.setuid(65534)
Supervisor([Program(name="lives", run=lives)], Path("/nowhere/processes.json")).run()
"""


@pytest.mark.parametrize("log", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written_ends_neither_the_supervisor_nor_keeps_a_child_in_its_loop(
    tmp_path: Path, log: str
) -> None:
    reading, stderr = os.pipe()
    os.close(reading)
    if log == "full disk":
        os.close(stderr)
        stderr = os.open("/dev/full", os.O_WRONLY)
    supervisor = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path], stderr=stderr)
    os.close(stderr)
    starts = tmp_path / "starts"
    try:
        assert soon(lambda: starts.exists() and starts.read_text().count("\n") >= 2)
        assert set(starts.read_text().split()) == {str(supervisor.pid)}
        assert supervisor.poll() is None
        supervisor.send_signal(signal.SIGTERM)
        assert soon(lambda: supervisor.poll() is not None)
    finally:
        supervisor.kill()
        supervisor.wait()
    assert not (tmp_path / "processes.json").exists(), "it ended in good order"


def test_a_program_for_which_the_machine_has_no_process_left_is_started_when_it_has() -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SHORT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert supervisor.stderr is not None
        assert supervisor.stdout is not None
        said = json.loads(supervisor.stderr.readline())
        assert (said["event"], said["name"], said["again_in"]) == ("not_started", "lives", 1.0)
        supervisor.send_signal(signal.SIGUSR1)
        began = time.monotonic()
        assert supervisor.stdout.readline() == "it lives\n"
        assert time.monotonic() - began < 10
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(20) == 0
    finally:
        supervisor.kill()
        supervisor.communicate()
