"""The target of the measurements: notes when which message arrives, and answers 200.

python bench/arrivals.py PORT    `GET /__bench__/arrivals` answers {path: [monotonic nanoseconds, …]}, and
`GET /__bench__/state` how many different paths came and when the last new one did; `POST /__bench__/reset` forgets.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from bridge.testing.answering import Asked, LocalServer, Reply

_arrived: dict[str, list[int]] = {}
_last = 0
_lock = threading.Lock()
_DONE = Reply(200, b'{"ok":true}', {"Content-Type": "application/json"})


def answer(asked: Asked) -> Reply:
    global _last  # noqa: PLW0603  the state of this process, under its lock
    now = time.monotonic_ns()
    with _lock:
        if asked.target.startswith("/__bench__/"):
            return _control(asked.target.rpartition("/")[2])
        times = _arrived.setdefault(asked.target, [])
        if not times:
            _last = now
        times.append(now)
    return _DONE


def _control(name: str) -> Reply:
    if name == "reset":
        _arrived.clear()
        return _DONE
    document = _arrived if name == "arrivals" else {"different": len(_arrived), "last_ns": _last}
    return Reply(200, json.dumps(document).encode(), {"Content-Type": "application/json"})


if __name__ == "__main__":
    LocalServer(answer, port=int(sys.argv[1]))
    threading.Event().wait()
