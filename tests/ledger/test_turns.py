"""SQLite's writers queue at a file, and a file that cannot be had, or whose holder was killed, stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from bridge.ledger.database import Ledger

HOLDER = """
import sys, time
from bridge.ledger.database import Ledger
ledger = Ledger(sys.argv[1])
with ledger.write() as connection:
    connection.exec_driver_sql("select 1")
    print("mine", flush=True)
    time.sleep(60)
"""


def written(ledger: Ledger) -> bool:
    with ledger.write() as connection:
        return connection.exec_driver_sql("select 1").scalar() == 1


def test_a_writer_that_is_killed_in_its_turn_gives_it_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bridge.db"
    ledger = Ledger(url)
    assert written(ledger)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert written(ledger)
    ledger.close()


def test_a_fork_holds_no_turn_of_its_parent(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/bridge.db")
    assert written(ledger)
    assert not [name for name in os.listdir("/proc/self/fd") if _opened(name).endswith("-turn")]
    ledger.close()


def test_without_its_file_sqlite_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "bridge.db-turn").mkdir()  # cannot be opened as a file
    ledger = Ledger(f"sqlite:///{tmp_path}/bridge.db")
    assert written(ledger)
    assert written(ledger)
    ledger.close()


def _opened(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return ""
