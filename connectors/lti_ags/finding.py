"""What a message is about, found on the platform: the line item, the learner, the result that it holds."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final
from urllib.parse import quote

from bridge.core.errors import TargetError
from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Answer, Ask, Message, Request
from connectors.lti_ags.wire import (
    LINE_ITEM,
    LINE_ITEMS,
    MEMBERS,
    RESULTS,
    below,
    document_of,
    here,
    next_page,
    object_of,
    posted,
    told,
    whole,
    with_query,
)

_NO_JSON: Final = {"status": "2xx", "not_json": True, "as": "retry", "reason": "the platform's answer is no JSON"}
_ANSWERED: Final = (_NO_JSON,)
_READABLE: Final = (_NO_JSON, {"status": [400, 401, 403, 404, 405, 406, 415, 501], "as": "ok"})
"""A tool need not have the scope to read results, and a platform need not offer them."""

Asking = Generator[Ask, Answer, Any]


def takes_back(message: Message) -> bool:
    """Whether a message empties a mark."""
    nothing = message.operation == "sync_score" and message.params["score_given"] is None
    return nothing or message.operation == "clear_score"


def line_item(message: Message, settings: Settings) -> Asking:
    """The address of the line item; None where there is none and none is to be made."""
    params = message.params
    if params.get("line_item"):
        return here(params["line_item"], settings, "line_item")
    url = _listing("line_items", params, settings)
    wish = {"resource_id": params["resource_id"]} | ({"tag": params["tag"]} if params.get("tag") else {})
    found = yield from _matching(url, wish, settings)
    if found:
        return found[0]
    if takes_back(message):
        return None
    if not params.get("label") or not params.get("score_maximum"):
        raise TargetError("label, score_maximum: expected both, since the line item has to be made")
    item = {
        "scoreMaximum": whole(params["score_maximum"]),
        "label": params["label"],
        "resourceId": params["resource_id"],
        "tag": params.get("tag"),
        "startDateTime": params.get("starts_at"),
        "endDateTime": params.get("ends_at"),
    }
    item = {name: value for name, value in item.items() if value is not None}
    conflict = ({"status": 409, "as": "retry", "reason": "the platform cannot make the line item just now"},)
    answer = yield Ask(request=posted(message, url, LINE_ITEM, item, "line-item"), answers=conflict)
    made = object_of(answer).get("id")
    # Another worker may have made one at the same time: all of them take the first, and each removes its own.
    found = yield from _matching(url, wish, settings)
    if not found and not isinstance(made, str):
        raise TargetError("the platform's answer does not name the line item that it has made")
    if found and isinstance(made, str) and made in found[1:]:
        yield Ask(request=Request(method="DELETE", url=told(made, settings, "id")), answers=({"as": "ok"},))
    return found[0] if found else told(str(made), settings, "id")


def _matching(url: str, wish: Mapping[str, str], settings: Settings) -> Asking:
    """The addresses of all line items with this resource id and tag, those that were made first in front."""
    entries = yield from _listed(with_query(url, wish), LINE_ITEMS, settings)
    found = [
        told(entry["id"], settings, "id")
        for entry in entries
        if entry.get("resourceId") == wish["resource_id"]
        and (entry.get("tag") or None) == wish.get("tag")  # Moodle writes "" for none
        and isinstance(entry.get("id"), str)
    ]
    return sorted(found, key=lambda address: (len(address), address))


def user_of(message: Message, settings: Settings) -> Asking:
    """The learner's id on the platform, looked up among the course's members where a mapping does not know it."""
    params = message.params
    if params.get("user"):
        return params["user"]
    number, email = params.get("sourced_id"), (params.get("email") or "").casefold()
    if not number and not email:
        raise TargetError("user, sourced_id, email: expected one of them")
    members = yield from _listed(_listing("members", params, settings), MEMBERS, settings)
    same_number = [entry for entry in members if number and entry.get("lis_person_sourcedid") == number]
    same_email = [entry for entry in members if email and str(entry.get("email") or "").casefold() == email]
    ids = [entry.get("user_id") for entry in same_number or same_email]
    match list({str(user) for user in ids if isinstance(user, str | int)}):
        case [user]:
            return user
        case []:
            raise TargetError("sourced_id, email: no member of the course has them, or the tool may not see them")
    raise TargetError("sourced_id, email: several members of the course have them")


def result_of(line_item: str, user: str, settings: Settings) -> Asking:
    """Whether the platform shows results, and what it holds for somebody; empty for nothing.

    Canvas shows its LTI id of somebody, also who was asked for by number, and the asked one's result only
    (github.com/instructure/canvas-lms, app/serializers/lti/ims/results_serializer.rb).
    """
    url = with_query(below(line_item, "results"), {"user_id": user})
    request = Request(method="GET", url=url, headers={"Accept": RESULTS})
    answer = yield Ask(request=request, answers=_READABLE, harmless=True)
    entries = document_of(answer) if answer.status < 300 else None
    if not isinstance(entries, list):
        return False, {}
    entries = [entry for entry in entries if isinstance(entry, dict)]
    mine = [entry for entry in entries if str(entry.get("userId")) == user]
    if not mine and len(entries) == 1 and settings.options.get("platform") == "canvas":
        mine = entries
    return True, mine[0] if mine else {}


def _listed(url: str, media_type: str, settings: Settings) -> Asking:
    """All entries of a list, page by page."""
    entries: list[Json] = []
    page = with_query(url, {"limit": str(settings.options.get("page_size", 100))})
    for _ in range(settings.options.get("most_pages", 50)):
        request = Request(method="GET", url=page, headers={"Accept": media_type})
        answer = yield Ask(request=request, answers=_ANSWERED, harmless=True)
        document = document_of(answer)
        found = document.get("members") if isinstance(document, dict) else document
        if not isinstance(found, list):
            raise TargetError("the platform's answer is not the list that was asked for")
        entries += [entry for entry in found if isinstance(entry, dict)]
        following = next_page(answer.headers.get("link", ""))
        if following is None:
            return entries
        page = told(following, settings, "Link", page)
    raise TargetError("most_pages: the platform's list has more pages")


def _listing(name: str, params: Json, settings: Settings) -> str:
    """The address of a course's line items or members."""
    if params.get(name):
        return here(params[name], settings, name)
    pattern, course = settings.options.get(name), params.get("course")
    if not pattern or not course or course in (".", ".."):
        raise TargetError(f"{name}: expected its address, or a course and {name} in the settings")
    return here(pattern.replace("{course}", quote(course, safe="")), settings, name)
