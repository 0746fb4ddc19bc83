"""One of several processes that store events in PostgreSQL, slowly and with accidents, until its standard input ends.

It pauses at random between the statements and just before the commit, and some commits end in an error. What it
committed, it says at the end: one line `<event id> <version>` for the newest version of each event.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from api_parts import START, event, store
from sqlalchemy import event as sql_event

from bridge.core.events import Event
from bridge.ledger.database import Ledger


class Accident(Exception):
    """What goes wrong in the middle of a transaction."""


def main(url: str, number: int) -> None:
    chance = random.Random(number)
    ledger = Ledger(url)
    committed: dict[str, Event] = {}
    made = number * 1_000_000

    def pause(*_: Any) -> None:
        time.sleep(chance.choice((0.0, 0.001, 0.005, 0.03)))

    def before_commit(*_: Any) -> None:
        pause()
        if chance.random() < 0.15:
            raise Accident

    sql_event.listen(ledger.engine, "before_cursor_execute", lambda *_: time.sleep(chance.choice((0.0, 0.0, 0.002))))
    sql_event.listen(ledger.engine, "commit", before_commit)
    while not select.select([sys.stdin], [], [], 0)[0]:
        late = bool(committed) and chance.random() < 0.2
        if late:  # known events are completed, and so offered once more
            known = chance.sample(sorted(committed), min(2, len(committed)))
            batch = [_newer(committed[id]) for id in known]
        else:
            batch = [event(made + position) for position in range(chance.randint(1, 8))]
            made += len(batch)
        while not _stored(ledger, batch, "completion" if late else "new"):
            pass
        committed |= {entry.id: entry for entry in batch}
    ledger.close()
    for entry in committed.values():
        print(entry.id, _version(entry))
    sys.stdout.flush()
    os._exit(0)


def _stored(ledger: Ledger, batch: list[Event], purpose: str) -> bool:
    try:
        store(ledger, *batch, purpose=purpose)
    except Accident:
        return False
    return True


def _newer(entry: Event) -> Event:
    return replace(entry, observedat=(entry.observedat or START) + timedelta(seconds=1))


def _version(entry: Event) -> int:
    return 0 if entry.observedat is None else int((entry.observedat - START).total_seconds())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
