"""How Assignment and Grade Services are spoken: media types, addresses, times, requests."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode, urljoin, urlsplit, urlunsplit

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Message, Request

LINE_ITEM: Final = "application/vnd.ims.lis.v2.lineitem+json"
LINE_ITEMS: Final = "application/vnd.ims.lis.v2.lineitemcontainer+json"
SCORE: Final = "application/vnd.ims.lis.v1.score+json"
RESULTS: Final = "application/vnd.ims.lis.v2.resultcontainer+json"
MEMBERS: Final = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"

_NEXT: Final = re.compile(r'<([^>]*)>(?:\s*;[^,]*?)?;\s*rel\s*=\s*"?[^",;]*\bnext(?![a-z0-9_-])', re.IGNORECASE)


def score_url(line_item: str) -> str:
    """Where the scores of a line item are posted: `/scores` in front of any query."""
    return below(line_item, "scores")


def next_page(link: str) -> str | None:
    """The address of the next page in a `Link` header (RFC 8288), None on the last one.

    Moodle writes typographic quotes, which come as the Latin-1 of their UTF-8, and &amp; (github.com/moodle/moodle,
    mod/lti/service/gradebookservices/classes/local/resources/lineitems.php and results.php).
    """
    found = _NEXT.search(link)
    return found.group(1).replace("&amp;", "&") if found else None


# --- addresses and times ----------------------------------------------------------------------------------------------


def here(url: str, settings: Settings, where: str, at: str = "") -> str:
    """An address on the platform, seen from `at`. A token that went anywhere else would be given away."""
    base = settings.options["base_url"]
    try:
        joined = urljoin(at or f"{base}/", url)
    except ValueError:
        joined = ""
    if _origin(joined) != _origin(base):
        raise TargetError(f"{where}: expected an address at the base_url of the settings")
    return joined


def told(url: str, settings: Settings, where: str, at: str = "") -> str:
    """An address that the platform itself gave.

    Canvas gives them at its account's main domain, whichever of its domains was asked: the path counts
    (github.com/instructure/canvas-lms, app/controllers/lti/ims/line_items_controller.rb).
    """
    if settings.options.get("platform") != "canvas" or _origin(url)[1] is None:
        return here(url, settings, where, at)
    parts = urlsplit(url)
    return here(urlunsplit(("", "", parts.path, parts.query, "")), settings, where)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def below(url: str, step: str) -> str:
    """The address one step further down, any query staying behind."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{step}", parts.query, ""))


def with_query(url: str, query: Mapping[str, str]) -> str:
    """The address with these besides any query that it has."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def moment_of(text: str) -> datetime:
    """A time in UTC. Raises TargetError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TargetError("timestamp: expected an RFC 3339 time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def written(moment: datetime) -> str:
    """With milliseconds, and with +00:00, as in the specification's own examples."""
    return moment.isoformat(timespec="milliseconds")


def whole(number: float) -> float:
    """Without a fraction of zero: a Blackboard column's maximum is an integer (docs.anthology.com, AGS: columns)."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def posted(message: Message, url: str, media_type: str, document: Json, part: str = "") -> Request:
    """A POST; `part` tells apart what one message has to post, since a key stands for one effect."""
    key = f"{message.key}-{part}" if part else message.key
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return Request(method="POST", url=url, headers={"Content-Type": media_type, "Idempotency-Key": key}, body=body)


def document_of(answer: Answer) -> Any:
    """The body as JSON, null when it is none."""
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


def object_of(answer: Answer) -> Json:
    """The body as an object, empty when it is none."""
    document = document_of(answer)
    return document if isinstance(document, dict) else {}
