"""Mappings that change while the bridge runs, against real files."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from config_fakes import connectors

from bridge.config.configuration import load_configuration
from bridge.config.live import LAST_GOOD, LiveMappings, Snapshot
from bridge.config.mappings import Load, loader

TICK = "version: 1\nevents: [grade.*]\ntarget: crm\noperation: upsert_contact\nwith: {key: %s}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mappings").mkdir()
    return tmp_path


@pytest.fixture
def load(tmp_path: Path) -> Load:
    text = "version: 1\nsources: {e: {connector: exam, secrets: [x]}}\ntargets: {crm: {connector: crm, url: 'https://a.b'}}\n"
    (tmp_path / "bridge.yaml").write_text(text, "utf-8")
    sources, targets = connectors(tmp_path)
    configuration = load_configuration(tmp_path / "bridge.yaml", sources=sources, targets=targets, environ={})
    return loader(configuration, sources, targets)


@pytest.fixture
def live(folder: Path, load: Load) -> LiveMappings:
    return started(folder, load)


def started(folder: Path, load: Load, every: float = 0.0) -> LiveMappings:
    return LiveMappings(folder=folder / "mappings", data=folder / "data", load=load, every=every)


def write(folder: Path, name: str, key: str) -> None:
    (folder / "mappings" / f"{name}.yaml").write_text(TICK % key, "utf-8")


def keys(snapshot: Snapshot) -> dict[str, str]:
    return {name: mapping.document["with"]["key"] for name, mapping in snapshot.mappings.items()}


def settled(live: LiveMappings) -> Snapshot:
    """Two looks: a change counts once two in a row see the same."""
    live.current()
    return live.current()


def test_what_is_there_at_the_start_is_in_use_at_once(folder: Path, live: LiveMappings) -> None:
    write(folder, "a", "one")
    assert keys(live.current()) == {"a": "one"}


def test_new_changed_and_deleted_files_are_taken_up(folder: Path, live: LiveMappings) -> None:
    write(folder, "a", "one")
    live.current()
    write(folder, "a", "two")
    write(folder, "b", "three")
    assert keys(settled(live)) == {"a": "two", "b": "three"}
    (folder / "mappings" / "a.yaml").unlink()
    assert keys(settled(live)) == {"b": "three"}
    assert not (folder / "data" / LAST_GOOD / "a.yaml").exists()


def test_a_broken_file_leaves_the_last_good_one_in_use_until_it_is_mended(folder: Path, live: LiveMappings) -> None:
    write(folder, "a", "one")
    write(folder, "b", "other")
    live.current()
    write(folder, "a", "'{{ event.nonsense }}'")
    snapshot = settled(live)
    assert keys(snapshot) == {"a": "one", "b": "other"}
    assert (snapshot.held, snapshot.missing) == ({"a"}, frozenset())
    assert [(Path(problem.file).name, problem.line) for problem in snapshot.problems] == [("a.yaml", 5)]
    write(folder, "a", "three")
    mended = settled(live)
    assert keys(mended)["a"] == "three"
    assert (mended.held, mended.problems) == (frozenset(), ())


def test_a_failed_test_keeps_a_new_version_out(folder: Path, live: LiveMappings) -> None:
    write(folder, "a", "one")
    live.current()
    text = TICK % "two" + "tests:\n  - event: exam/graded#1\n    expect: {key: three}\n"
    (folder / "mappings" / "a.yaml").write_text(text, "utf-8")
    snapshot = settled(live)
    assert keys(snapshot) == {"a": "one"}
    assert [problem.line for problem in snapshot.problems] == [8]


def test_a_restart_with_a_broken_file_uses_the_last_good_copy(folder: Path, load: Load, live: LiveMappings) -> None:
    write(folder, "a", "one")
    live.current()
    (folder / "mappings" / "a.yaml").write_text("version: 1\nevents: [gra", "utf-8")
    write(folder, "b", "{{")
    snapshot = started(folder, load).current()
    assert keys(snapshot) == {"a": "one"}
    assert (snapshot.held, snapshot.missing) == ({"a"}, {"b"})
    assert {Path(problem.file).name for problem in snapshot.problems} == {"a.yaml", "b.yaml"}


def test_a_file_that_was_deleted_while_nothing_ran_does_not_come_back(
    folder: Path, load: Load, live: LiveMappings
) -> None:
    write(folder, "a", "one")
    write(folder, "b", "two")
    live.current()
    (folder / "mappings" / "a.yaml").unlink()
    assert keys(started(folder, load).current()) == {"b": "two"}
    write(folder, "a", "[")
    assert started(folder, load).current().missing == {"a"}


def test_the_blink_in_which_an_editor_swaps_a_file_is_no_deletion(folder: Path, live: LiveMappings) -> None:
    path = folder / "mappings" / "a.yaml"
    write(folder, "a", "one")
    live.current()
    path.rename(folder / "mappings" / "a.yaml~")
    assert keys(live.current()) == {"a": "one"}
    write(folder, "a", "two")
    assert keys(settled(live)) == {"a": "two"}


def test_a_file_that_is_still_being_written_waits(folder: Path, live: LiveMappings) -> None:
    write(folder, "a", "one")
    live.current()
    write(folder, "a", "half")
    assert keys(live.current()) == {"a": "one"}
    write(folder, "a", "whole text")
    assert keys(live.current()) == {"a": "one"}
    assert keys(live.current()) == {"a": "whole text"}


def test_a_folder_that_vanishes_takes_no_mapping_with_it(folder: Path, load: Load, live: LiveMappings) -> None:
    write(folder, "a", "one")
    live.current()
    (folder / "mappings").rename(folder / "away")
    snapshot = [live.current() for _ in range(3)][-1]
    assert keys(snapshot) == {"a": "one"}
    assert "cannot be read" in snapshot.problems[0].message
    assert keys(started(folder, load).current()) == {"a": "one"}
    (folder / "away").rename(folder / "mappings")
    back = settled(live)
    assert (keys(back), back.problems) == ({"a": "one"}, ())


def test_a_folder_that_was_never_there_holds_no_mappings(tmp_path: Path, load: Load) -> None:
    snapshot = LiveMappings(folder=tmp_path / "none", data=tmp_path / "data", load=load).current()
    assert (snapshot.mappings, snapshot.problems) == ({}, ())


def test_the_folder_is_looked_at_only_every_so_often(folder: Path, load: Load) -> None:
    live = started(folder, load, every=30)
    first = live.current()
    write(folder, "a", "one")
    assert [live.current() for _ in range(3)] == [first] * 3
    began = time.perf_counter()
    for _ in range(10_000):
        live.current()
    assert time.perf_counter() - began < 1


def test_every_change_is_told_once(folder: Path, load: Load) -> None:
    told: list[Snapshot] = []
    live = LiveMappings(folder=folder / "mappings", data=folder / "data", load=load, every=0, on_change=told.append)
    for _ in range(3):
        live.current()
    write(folder, "a", "{{")
    for _ in range(4):
        live.current()
    write(folder, "a", "one")
    for _ in range(4):
        live.current()
    assert [(len(snapshot.mappings), len(snapshot.problems) > 0) for snapshot in told] == [
        (0, False), (0, True), (1, False),
    ]  # fmt: skip


def test_a_disk_that_takes_no_copy_is_named_and_the_mapping_is_used_all_the_same(
    folder: Path, live: LiveMappings
) -> None:
    (folder / "data").write_text("in the way", "utf-8")
    write(folder, "a", "one")
    snapshot = live.current()
    assert keys(snapshot) == {"a": "one"}
    assert "cannot be kept" in snapshot.problems[0].message


def test_many_threads_see_whole_snapshots_while_files_change(folder: Path, load: Load) -> None:
    live = started(folder, load, every=0.005)
    write(folder, "a", "k0")
    live.current()
    stop = threading.Event()
    faults: list[str] = []

    def reader() -> None:
        while not stop.is_set():
            snapshot = live.current()
            if set(snapshot.mappings) != {"a"} or snapshot.held:
                faults.append("a snapshot without the mapping")

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 15):
        draft = folder / "mappings" / ".a.draft"
        draft.write_text(TICK % f"k{number}", "utf-8")
        os.replace(draft, folder / "mappings" / "a.yaml")
        time.sleep(0.01)
    deadline = time.monotonic() + 5
    while keys(live.current()) != {"a": "k14"} and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert faults == []
    assert keys(live.current()) == {"a": "k14"}
