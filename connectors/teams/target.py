"""Microsoft Teams by way of a workflow: a message whose attachment is an Adaptive Card.

- The answer, 202, comes before anything is posted. A card that is too large fails within the workflow, where only its
  owner sees it: it is measured here.
- MessageCard, the format of the retired connectors, loses its buttons on this way and is never sent.
- The body is that of the trigger's template (learn.microsoft.com/power-automate/teams/create-flows-teams-channel-chat).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.settings import Settings
from bridge.core.target import Message, Request

_SCHEMA: Final = "http://adaptivecards.io/schemas/adaptive-card.json"


def prepare(message: Message, settings: Settings) -> Request:
    """The card as a workflow takes it. Raises TargetError for one that is larger than `most_bytes`."""
    params = message.params
    card = params["card"] if message.operation == "post_card" else _card(params)
    frame = {"$schema": _SCHEMA, "type": "AdaptiveCard", "version": settings.options["card_version"]}
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": frame | card}
    body = _dump({"type": "message", "attachments": [attachment]})
    if len(body) > settings.options["most_bytes"]:
        raise TargetError("the card has more bytes than most_bytes: Teams would lose it")
    return Request(
        method="POST",
        url=_url(settings.options),
        headers={"Content-Type": "application/json"},
        body=body,
    )


def _card(params: Mapping[str, Any]) -> dict[str, Any]:
    body: list[dict[str, Any]] = [
        {"type": "TextBlock", "text": params["title"], "weight": "bolder", "size": "medium", "wrap": True}
    ]
    if params.get("text"):
        body.append({"type": "TextBlock", "text": params["text"], "wrap": True})
    facts = [
        {"title": name, "value": value if isinstance(value, str) else json.dumps(value)}
        for name, value in (params.get("facts") or {}).items()
        if value is not None
    ]
    if facts:
        body.append({"type": "FactSet", "facts": facts})
    if not params.get("link"):
        return {"body": body}
    return {
        "body": body,
        "actions": [{"type": "Action.OpenUrl", "title": params.get("link_title", "Open"), "url": params["link"]}],
    }


def _url(options: Mapping[str, Any]) -> str:
    url, sig = str(options["url"]), options.get("sig")
    return url if sig is None else f"{url}{'&' if '?' in url else '?'}sig={quote(sig, safe='')}"


def _dump(document: Any) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError:
        raise TargetError("card: expected what JSON and UTF-8 can hold") from None
