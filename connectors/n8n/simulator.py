"""A workflow of n8n that starts with the Webhook node: one method, one header, and registrations that get lost."""

from __future__ import annotations

from typing import Any, Final

from bridge.core.events import Json
from bridge.core.simulation import ApiCall, ApiReply

_PATH: Final = "grades"
_HEADER: Final = "X-Bridge-Key"
_VALUE: Final = "n8n-header-value"
_MOST_BYTES: Final = 16 * 1024 * 1024  # N8N_PAYLOAD_SIZE_MAX


class N8n:
    """One active workflow. Without `registered` its address is not known; `listening` is a click in the editor.

    With `failing` it answers when its last node finishes, and that fails; `starting` is before n8n's migrations are
    through, `open_door` a node that asks for a header and has none to compare it with.
    """

    def __init__(self) -> None:
        self.starting = False
        self.open_door = False
        self.registered = True
        self.listening = False
        self.failing = False
        self._runs: list[Any] = []

    def answer(self, call: ApiCall) -> ApiReply:
        if self.starting:
            return ApiReply(text="n8n is starting up. Please wait")
        if (refused := self._refused(call)) is not None:
            return refused
        if call.path.startswith("/webhook-test/"):
            self.listening = False  # a test address answers once for each click
        self._runs.append(call.json)
        if self.failing:
            return ApiReply(status=500, json={"message": "Error in workflow"})
        return ApiReply(json={"message": "Workflow was started"})

    def _refused(self, call: ApiCall) -> ApiReply | None:
        test = call.path == f"/webhook-test/{_PATH}" and self.listening
        if not (test or (call.path == f"/webhook/{_PATH}" and self.registered)):
            return _not_registered(call)
        if call.method != "POST":
            words = f"This webhook is not registered for {call.method} requests. Did you mean to make a POST request?"
            return ApiReply(status=404, json={"code": 404, "message": words})
        if len(call.body) > _MOST_BYTES:
            return ApiReply(status=500, json={"code": 0, "message": "There was a problem executing the workflow"})
        if call.json is None:
            return ApiReply(status=422, json={"code": 422, "message": "Failed to parse request body"})
        if self.open_door:
            return ApiReply(status=500, text="No authentication data defined on node!")
        wrong = call.headers.get(_HEADER.lower()) != _VALUE
        return ApiReply(status=403, text="Authorization data is wrong!") if wrong else None

    def effects(self) -> Json:
        return {"runs": self._runs}


def _not_registered(call: ApiCall) -> ApiReply:
    """The words of packages/cli/src/errors/response-errors/webhook-not-found.error.ts in github.com/n8n-io/n8n."""
    path = call.path.rpartition("/")[2]
    live = "The workflow must be active for a production URL to run successfully."
    click = "Click the 'Execute workflow' button on the canvas, then try again."
    return ApiReply(
        status=404,
        json={
            "code": 404,
            "message": f'The requested webhook "{call.method} {path}" is not registered.',
            "hint": click if call.path.startswith("/webhook-test/") else live,
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
