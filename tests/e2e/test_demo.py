"""The demonstration is a test of everything: it ends with an account that adds up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge.main", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_day_of_webhooks_ends_with_an_account_in_which_nothing_is_lost(tmp_path: Path) -> None:
    ended = demo("--events", "400", "--json", "--folder", str(tmp_path / "demo"), "--port", "0")
    assert ended.returncode == 0, ended.stderr
    account = json.loads(ended.stdout)
    assert account["lost"] == 0
    assert account["dead"] == 0
    assert account["rejected"] > 0
    assert account["duplicates"] > 0
    assert account["events"] > 0
    assert account["delivered"] > 0
    assert account["sent"] == account["accepted"] + account["rejected"]


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work", "utf-8")
    ended = demo("--events", "1", "--json", "--folder", str(tmp_path))
    assert ended.returncode == 1
    assert "name another folder" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
