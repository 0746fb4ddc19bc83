"""A lane's batch: rows of one order key one after the other, different keys at the same time, the lease kept alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

from sqlalchemy import Row

MAX_STARTS: Final = 5
"""A row whose work was begun this often and never came to an end kills its worker: it becomes a dead letter."""

_COMMIT_SECONDS: Final = 0.5
_T = TypeVar("_T")


def chains(rows: Iterable[Row[Any]]) -> list[list[Row[Any]]]:
    """Rows by order key, each chain in order."""
    by_key: dict[str, list[Row[Any]]] = {}
    for row in rows:
        by_key.setdefault(row.order_key, []).append(row)
    return list(by_key.values())


def run_chains(
    pool: ThreadPoolExecutor,
    batch: Sequence[list[Row[Any]]],
    work: Callable[[list[Row[Any]]], list[_T]],
    commit: Callable[[list[_T]], None],
) -> None:
    """Work on all chains in the pool, and commit results as they come in, every half second at the latest.

    `commit` is called with an empty list too when nothing came in: it renews the lease, so that a lane whose target
    hangs stays with its owner.
    """
    pending: set[Future[list[_T]]] = {pool.submit(work, chain) for chain in batch}
    done: list[_T] = []
    last = time.monotonic()
    while pending:
        finished, pending = wait(pending, timeout=_COMMIT_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            done.extend(future.result())
        if not pending or time.monotonic() - last >= _COMMIT_SECONDS:
            commit(done)
            done, last = [], time.monotonic()
