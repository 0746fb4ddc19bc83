"""How the tests look at running bridges: waiting with an end, families of processes, figures, the account."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML

from bridge.engine.embedded import running
from bridge.ledger.reading import closing
from bridge.main import registry
from bridge.testing.campus import Campus
from bridge.testing.report import missing
from bridge.testing.sender import Sender

_T = TypeVar("_T")
Make = Callable[..., Campus]
"""Makes campuses: names of platforms, then `mappings` (a folder, or documents by name) and Campus's own arguments."""


@contextmanager
def campuses(base: Callable[[], Path]) -> Iterator[Make]:
    """Makes campuses, each in a folder that `base` gives; all end together."""
    with ExitStack() as stack:

        def make(*sources: str, mappings: dict[str, Any] | Path, **settings: Any) -> Campus:
            folder = base()
            if isinstance(mappings, dict):
                place = folder / "mappings"
                place.mkdir()
                for name, document in mappings.items():
                    write_mapping(place, name, document)
                mappings = place
            chosen = {name: connector for name, connector in registry().sources.items() if name in sources}
            campus = Campus(folder=folder / "bridge", sources=chosen, mappings=mappings, **settings)
            return stack.enter_context(campus)

        yield make


def write_mapping(folder: Path, name: str, document: Any) -> None:
    """A mapping's file, put there at one stroke; `document` is YAML as a text or a value."""
    draft = folder / f".{name}.new"
    with draft.open("w", encoding="utf-8") as stream:
        if isinstance(document, str):
            stream.write(document)
        else:
            YAML().dump(document, stream)
    draft.replace(folder / f"{name}.yaml")


def eventually(what: Callable[[], _T], *, seconds: float, about: str = "") -> _T:
    """The first true answer. Fails the test after some seconds without one."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {about or what}"
        time.sleep(0.05)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(question: str | urllib.request.Request, *, timeout: float = 15.0) -> Answered:
    """An answer, whatever its status. Raises OSError without one."""
    try:
        with urllib.request.urlopen(question, timeout=timeout) as answer:  # noqa: S310  our own address on loopback
            return Answered(status=answer.status, headers=dict(answer.headers), text=answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answered(status=error.code, headers=dict(error.headers), text=error.read().decode())


def oldest(campus: Campus, stage: str) -> float | None:
    """A stage's oldest unfinished row, as /metrics says: its age in seconds."""
    name = f'bridge_oldest_unfinished_seconds{{stage="{stage}"}} '
    lines = ask(f"{campus.url}/metrics").text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), None)


# --- processes --------------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in file.read_text().split()]
        except OSError:
            continue
    return found


def family(campus: Campus) -> set[int]:
    """Every process of a bridge: the supervisor, what it started, gunicorn's workers, the embedded server."""
    pids = set(campus.pids().values())
    pids |= {child for pid in pids for child in children(pid)}
    server = running(campus.data / "redis")
    return pids | ({server} if server else set())


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def killed(campus: Campus, name: str) -> None:
    """kill -9 for one of the bridge's parts. "web" is gunicorn's master with all its workers."""
    if name == "redis":
        pid = running(campus.data / "redis")
        kill([pid] if pid else [])
        return
    pid = campus.pids()[name]
    kill([pid, *children(pid)] if name == "web" else [pid])


def reborn(campus: Campus, name: str, before: int) -> bool:
    now = campus.pids().get(name, before)
    return now != before and alive(now)


# --- the account ------------------------------------------------------------------------------------------------------


def account_for(campus: Campus, senders: Mapping[str, Sender]) -> dict[str, int]:
    """Fails unless everything that was promised was kept. Gives some figures, for tests that want more than that.

    Every id that was answered with 200 is in the ledger, processed or as a repeat; every message is delivered,
    superseded or dead with a reason; the target saw what counts as delivered, each under its key and with one body.
    """
    accepted = frozenset().union(*(sender.accepted_ids() for sender in senders.values()))
    book = closing(campus.ledger)
    state = campus.target.state()
    lost = missing(accepted, book, campus.target.keys())
    assert accepted
    assert {about: names[:5] for about, names in lost.items() if names} == {}
    assert set(book.messages.values()) <= {"delivered", "superseded"}, dead_letters(campus)
    assert state["without_key"] == 0
    assert state["changed"] == 0
    assert sum(sender.account().forgeries_taken for sender in senders.values()) == 0
    return {
        "accepted": len(accepted),
        "delivered": sum(status == "delivered" for status in book.messages.values()),
        "repeated": state["repeated"],
        "gave_up": sum(sender.account().gave_up for sender in senders.values()),
    }


def dead_letters(campus: Campus) -> list[dict[str, Any]]:
    listed = campus.run("deliveries", "list", "--status", "dead", "--json")
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def wait_for(senders: Iterable[Sender], *, seconds: float) -> None:
    """Until everything is sent."""
    deadline = time.monotonic() + seconds
    for sender in senders:
        sender.wait(max(0.1, deadline - time.monotonic()))
        assert not sender.running, "the senders did not come to their end"
