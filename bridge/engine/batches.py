"""A lane's batch: rows of one order key one after the other, different keys at the same time, the lease kept alive."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

from sqlalchemy import Row

MAX_STARTS: Final = 5
"""A row whose work was begun this often and never came to an end kills its worker: it becomes a dead letter."""

_COMMIT_SECONDS: Final = 0.5
_R = TypeVar("_R")
_T = TypeVar("_T")


def chains(rows: Iterable[Row[Any]]) -> list[list[Row[Any]]]:
    """Rows by order key, each chain in order."""
    by_key: dict[str, list[Row[Any]]] = {}
    for row in rows:
        by_key.setdefault(row.order_key, []).append(row)
    return list(by_key.values())


def parcels(
    rows: Iterable[list[Row[Any]]], belongs: Callable[[Row[Any]], tuple[Hashable, int]]
) -> Iterator[list[Row[Any]]]:
    """Rows that may go together, from chains: of each chain only the first that is left, so nothing overtakes.

    `belongs` says with whom a row may go, and how many of them at most.
    """
    left = [deque(chain) for chain in rows]
    while left:
        open_: dict[Hashable, list[Row[Any]]] = {}
        for chain in left:
            row = chain.popleft()
            company, most = belongs(row)
            parcel = open_.setdefault(company, [])
            parcel.append(row)
            if len(parcel) >= most:
                yield open_.pop(company)
        yield from open_.values()
        left = [chain for chain in left if chain]


def run_chains(
    pool: ThreadPoolExecutor | None,
    width: int,
    batch: Sequence[list[_R]],
    work: Callable[[list[_R]], Iterable[_T]],
    commit: Callable[[list[_T]], None],
) -> None:
    """Work on all chains, `width` at a time, and commit results as they come in, every half second at the latest.

    Without a pool the lane's own thread does it all: for work that never waits. `commit` is called with an empty list
    too when nothing came in: it renews the lease, so that a lane whose target hangs stays with its owner.
    """
    todo = deque(batch)
    done: deque[_T] = deque()
    stopped = threading.Event()

    def run(seconds: float = math.inf) -> None:
        end = time.monotonic() + seconds
        while todo and time.monotonic() < end:
            try:
                chain = todo.popleft()
            except IndexError:  # another thread was faster
                return
            for result in work(chain):
                done.append(result)
                if stopped.is_set():
                    return

    if pool is None:
        while todo:
            run(_COMMIT_SECONDS)
            commit(_taken(done))
        return
    running = {pool.submit(run) for _ in range(min(width, len(batch)))}
    try:
        while running:
            finished, running = wait(running, timeout=_COMMIT_SECONDS)
            for future in finished:
                future.result()
            commit(_taken(done))
    finally:
        todo.clear()  # after a failure, or with the lease lost, nothing new is begun
        stopped.set()
        wait(running)  # the lane is given back next: nothing of it may go out after that


def _taken(done: deque[_T]) -> list[_T]:
    return [done.popleft() for _ in range(len(done))]
