"""A workflow of n8n that starts with the Webhook node: one method, one header, and registrations that get lost."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_PATH: Final = "grades"
_HEADER: Final = "X-Bridge-Key"
_VALUE: Final = "n8n-header-value"


class N8n:
    """One active workflow. Without `registered` its address is not known; `listening` is a click in the editor.

    With `failing` it answers when its last node finishes, and that fails.
    """

    def __init__(self) -> None:
        self.registered = True
        self.listening = False
        self.failing = False
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        test = call.path == f"/webhook-test/{_PATH}" and self.listening
        if call.method != "POST" or not (test or (call.path == f"/webhook/{_PATH}" and self.registered)):
            return _not_registered(call)
        if call.headers.get(_HEADER.lower()) != _VALUE:
            return ApiReply(status=403, text="Authorization data is wrong!")
        if test:
            self.listening = False  # a test address answers once for each click
        self._runs.append(call.json)
        if self.failing:
            return ApiReply(status=500, json={"message": "Error in workflow"})
        return ApiReply(json={"message": "Workflow was started"})

    def effects(self) -> Json:
        return {"runs": self._runs}


def _not_registered(call: ApiCall) -> ApiReply:
    """The words of packages/cli/src/webhooks in github.com/n8n-io/n8n."""
    path = call.path.rpartition("/")[2]
    return ApiReply(
        status=404,
        json={
            "code": 404,
            "message": f'The requested webhook "{call.method} {path}" is not registered.',
            "hint": "The workflow must be active for a production URL to run successfully.",
        },
    )


def target() -> N8n:
    return N8n()


def settings(url: str) -> Json:
    return {
        "connector": "n8n",
        "url": f"{url}/webhook/{_PATH}",
        "auth": {"kind": "header", "name": _HEADER, "value": _VALUE},
    }
