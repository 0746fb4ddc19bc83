"""Calls about the app itself, not about teaching: install, uninstall, and the pages ("actions") of the app.

developers.edusign.com/docs/actions-documentation shows them with the same headers and HMAC as the webhooks. Their types
there are those of the test button; whether real calls say `install-app` is not documented, so the lists are options.
"""

from __future__ import annotations

from typing import Final

from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.source import Challenge
from connectors.edusign.shapes import soft_text

_ANSWER: Final = {"status": "success"}
_WEBHOOKS: Final = ("on_", "cron_")


def lifecycle_call(kind: str, body: Payload, settings: Settings) -> Challenge | None:
    """The answer to a call about the app, or None for an event. Nothing of such a call is kept.

    An install's body holds the Client Secret and an API key of the school; secrets come into the hub by configuration
    only, so somebody has to copy them.
    """
    options = settings.options
    if (soft_text(body.at("type")) or "").startswith(_WEBHOOKS):
        return None  # by its own signed word an event, known or not: never lost for what else it holds
    if kind in options["uninstall_types"]:
        return Challenge(
            reason="app uninstalled at Edusign: its webhooks stop here until it is installed again",
            answer=_ANSWER | {"message": "uninstalled"},
        )
    if kind in options["install_types"] or body.at("client_secret").exists or body.at("parametersValues").exists:
        return Challenge(
            reason="app installed at Edusign; nothing of this call was kept: copy the Client Secret from the app's page"
            " into the source's secrets, and an API key into its api block",
            answer=_ANSWER | {"message": "installed"},
        )
    if kind in options["action_types"] or (body.at("ACTION").exists and body.at("LOCATION").exists):
        return Challenge(reason="a page of the app was opened at Edusign; no event", answer=[])
    return None
