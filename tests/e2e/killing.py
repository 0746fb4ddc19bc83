"""kill -9 for every part of a bridge, one after the other, while webhooks come in."""

from __future__ import annotations

import time

from watching import account_for, eventually, killed, reborn, wait_for

from bridge.engine.embedded import running
from bridge.testing.campus import Campus, Day

_PARTS = ("web", "shipper", "worker-1", "redis", "worker-2", "sweeper")


def survive(campus: Campus, *, rounds: int, pause: float, rate: float, patience: float) -> dict[str, int]:
    """Kill every part `rounds` times, `pause` seconds apart, at `rate` webhooks a second; then draw up the account.

    Fails unless each part came back, and everything came to its end without standing still for `patience` seconds: how
    long it takes in all hangs on the machine, that work is taken up again does not.
    """
    lasting = rounds * len(_PARTS) * (pause + 0.5) + 2
    senders = campus.senders(Day(calls=int(rate * lasting), rate=rate))
    for sender in senders.values():
        sender.start()
    time.sleep(1.0)
    for _ in range(rounds):
        before = campus.pids()
        for name in _PARTS:
            killed(campus, name)
            time.sleep(pause)
        for name, pid in before.items():
            if name != "supervisor":
                eventually(lambda name=name, pid=pid: reborn(campus, name, pid), seconds=20, about=f"{name} is back")
    wait_for(senders.values(), seconds=lasting + 60)
    assert campus.finished(patience), f"something is stuck: {campus.run('deliveries', 'list').stdout}"
    assert campus.pids().keys() == {"supervisor", "web", "shipper", "worker-1", "worker-2", "sweeper"}
    eventually(lambda: running(campus.data / "redis"), seconds=5, about="the embedded server is back")
    return account_for(campus, senders)
