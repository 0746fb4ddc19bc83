"""What an unexpected error leaves in the log: where it happened, and no value of what it happened to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# The value is put together, so that the line of code in a traceback does not spell it.
PROGRAM = """
import sys
import structlog
from bridge.cli.context import set_up_logging
from bridge.config.values import LogConfig

set_up_logging(LogConfig(level="info", format=sys.argv[1]), "worker-1")

def at_work(body):
    student = body.decode()
    raise RuntimeError("a bug")

try:
    at_work(bytes.fromhex("6164614065786d"))
except RuntimeError as error:
    structlog.get_logger("test").error("lane_failed", exc_info=error)
"""
STUDENT = bytes.fromhex("6164614065786d").decode()


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_says_where_and_shows_no_value_of_a_variable(format: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, format], capture_output=True, text=True, check=True, timeout=60
    )

    assert "at_work" in done.stderr
    assert "a bug" in done.stderr
    assert STUDENT not in done.stderr
    assert "\x1b[" not in done.stderr  # no colours in a file


UNWRITABLE = """
import structlog
from bridge.cli.context import set_up_logging
from bridge.config.values import LogConfig

set_up_logging(LogConfig(level="info", format="json"), "web")
log = structlog.get_logger("test")
for number in range(1000):
    log.warning("refused", number=number)
print("went on")
"""


@pytest.mark.parametrize("place", ["full disk", "closed pipe"])
def test_a_log_that_cannot_be_written_stops_nobody_who_logs(place: str) -> None:
    reading, stderr = os.pipe()
    os.close(reading)
    if place == "full disk":
        os.close(stderr)
        stderr = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-c", UNWRITABLE], stdout=subprocess.PIPE, stderr=stderr, text=True, check=False, timeout=60
    )
    os.close(stderr)
    assert done.stdout == "went on\n"
