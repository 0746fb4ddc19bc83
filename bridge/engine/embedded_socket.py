"""Where the embedded server listens, and how it is asked whether it is well."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path
from typing import Final, Literal

# Linux takes 107 bytes and a NUL for the path of a socket, macOS 103.
_LONGEST: Final = 100

State = Literal["up", "loading", "stuck", "down"]


def known_socket(folder: Path) -> str | None:
    """The socket of a folder: inside it, or, where that path is too long, the short one that was written down."""
    if _fits(folder):
        return str(folder / "redis.sock") if folder.is_dir() else None
    try:
        address = Path((folder / "socket").read_text("utf-8"))
    except OSError:
        return None
    # A copy of the folder also copies what is written down there.
    return str(address) if address.name == _short_name(folder) and address.parent.is_dir() else None


def choose_socket(folder: Path) -> str:
    """As above, chosen for the first time. Raises OSError when there is no place for it."""
    if _fits(folder):
        return str(folder / "redis.sock")
    address = _private_folder() / _short_name(folder)
    (folder / "socket").write_text(str(address), "utf-8")
    return str(address)


def state_of(address: str) -> State:
    """What the server of a socket says when asked; "stuck" when it says nothing for two seconds."""
    answer = ask(address, b"PING\r\n", b"\r\n")
    if answer is None:
        return "down"
    if not answer:
        return "stuck"
    # Any other complaint, of too many clients for instance, comes from a server that is there.
    return "loading" if answer.startswith(b"-LOADING") else "up"


def ask(address: str, question: bytes, until: bytes, *, seconds: float = 2.0) -> bytes | None:
    """The beginning of the answer to a command; b"" if there is none in time, None if nobody listens."""
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(address)
        except OSError:
            return None
        try:
            connection.sendall(question)
            while until not in answer and len(answer) < 65536 and (more := connection.recv(4096)):
                answer += more
        except OSError:
            return b""
    return answer


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / "redis.sock")) <= _LONGEST


def _short_name(folder: Path) -> str:
    return f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"


def _private_folder() -> Path:
    """A folder with a short path that belongs to this user and that nobody else can enter."""
    for parent in (Path("/", "run"), Path("/", "tmp"), Path(tempfile.gettempdir())):
        folder = parent / f"campusbridge-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
        except OSError:
            continue
        # Somebody else may have made it first, to read along.
        if folder.is_dir() and not folder.is_symlink() and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return folder
    raise OSError(0, "no folder with a short path for its socket, neither in /run nor in /tmp")
