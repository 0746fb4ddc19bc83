"""LTI 1.3 Advantage, Assignment and Grade Services 2.0 (imsglobal.org/spec/lti-ags/v2p0): one API, many opinions.

- A line item's address may have a query (Moodle's has): `/scores` belongs in front of it.
- Lists come in pages, the next one named in the `Link` header; filters are a wish that a platform may ignore.
- Whoever posts a score says when it was given, and an older one is refused: by Moodle with 409, by Canvas with 400 and
  a text. Moodle compares whole seconds and refuses equal ones, and it dates a mark that was emptied with its own clock:
  what was given after a revocation, but before Moodle learnt of that, looks outdated to it. Hence `sync_score`.
- Canvas adds the comment to the submission once more with every score that it takes, and makes a new submission of it
  unless told not to.
- A mark is emptied by a score without `scoreGiven`; Canvas and Moodle do so for every gradingProgress but FullyGraded.

Sources: github.com/instructure/canvas-lms, app/controllers/lti/ims/scores_controller.rb; github.com/moodle/moodle,
mod/lti/service/gradebookservices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from bridge.core.events import Json
from bridge.core.settings import Settings
from bridge.core.target import Ask, Conversation, Message, Outcome, Verdict
from connectors.lti_ags.finding import line_item, result_of, takes_back, user_of
from connectors.lti_ags.wire import SCORE, moment_of, posted, score_url, written

CANVAS_SUBMISSION: Final = "https://canvas.instructure.com/lti/submission"

_GIVEN: Final = ("Completed", "FullyGraded")
_TAKEN_BACK: Final = ("Submitted", "NotReady")
_DELETED: Final = ("Initialized", "NotReady")
_HANDED_IN: Final = ("Submitted", "PendingManual")
"""activityProgress and gradingProgress; what Blackboard deletes a grade for is documented (docs.anthology.com, LTI 1.3,
AGS: scores).
"""

_OUTDATED: Final = ({"status": 409}, {"status": 400, "body_regex": "before last updated timestamp"})
"""The manifest calls these superseded."""

_LOOKED_INTO: Final = tuple({**rule, "as": "ok"} for rule in _OUTDATED)
_ONCE_MORE: Final = tuple({**rule, "as": "retry", "reason": "the platform's clock is ahead"} for rule in _OUTDATED)


def converse(messages: Sequence[Message], settings: Settings) -> Conversation:
    """Find what a message is about and about whom, and post it. Raises TargetError."""
    [message] = messages
    item = yield from line_item(message, settings)
    if message.operation == "ensure_line_item":
        return [Outcome(verdict=Verdict.OK, reason="", target_id=item)]
    if item is None:
        return [Outcome(verdict=Verdict.DUPLICATE, reason="there is no such line item, so no score either")]
    user = yield from user_of(message, settings)
    return (yield from _posted(message, settings, item, _score(message, settings, user)))


def _score(message: Message, settings: Settings, user: str) -> Json:
    params = message.params
    score: Json = {"userId": user}
    activity, grading = _progress(message, settings)
    if (activity, grading) == _GIVEN:
        score |= {"scoreGiven": params["score_given"], "scoreMaximum": params["score_maximum"]}
    if params.get("comment"):
        score["comment"] = params["comment"]
    moment = moment_of(params.get("timestamp") or message.event["time"])
    score |= {"timestamp": written(moment), "activityProgress": activity, "gradingProgress": grading}
    if settings.options.get("platform") == "canvas":
        score[CANVAS_SUBMISSION] = _submission(message, moment)
    return score


def _progress(message: Message, settings: Settings) -> tuple[str, str]:
    match message.operation:
        case "report_progress":
            return message.params["activity"], message.params["grading"]
        case "report_submission":
            return _HANDED_IN
    if not takes_back(message):
        return _GIVEN
    return _DELETED if settings.options.get("platform") == "blackboard" else _TAKEN_BACK


def _submission(message: Message, moment: datetime) -> Json:
    # github.com/instructure/canvas-lms, app/controllers/lti/ims/scores_controller.rb: preserve_score.
    kept = {"preserve_score": True} if message.params.get("keep_mark") else {}
    if message.operation != "report_submission":
        return {"new_submission": False, **kept}
    submission = {
        "new_submission": True,
        "submission_type": message.params.get("submission_type") or "external_tool",
        "submission_data": message.params.get("submission_data"),
        "submitted_at": written(moment),
        **kept,
    }
    return {name: value for name, value in submission.items() if value is not None}


def _posted(message: Message, settings: Settings, item: str, score: Json) -> Conversation:
    url, looking = score_url(item), settings.options["stale"] == "check"
    if "comment" in score and message.attempt > 1:  # what came of the try before is not always known
        _, held = yield from result_of(item, score["userId"], settings)
        if _says_the_same(held, score):
            return [Outcome(verdict=Verdict.DUPLICATE, reason="the platform has this score and comment already")]
    answer = yield Ask(request=posted(message, url, SCORE, score), answers=_LOOKED_INTO if looking else ())
    if answer.status < 300:
        return [None]
    readable, held = yield from result_of(item, score["userId"], settings)
    if readable and _says_the_same(held, score):
        return [Outcome(verdict=Verdict.DUPLICATE, reason="the platform holds this score already")]
    later = _later(score, held, message)
    if later is None:
        return [Outcome(verdict=Verdict.SUPERSEDED, reason="the platform holds a newer score")]
    yield Ask(request=posted(message, url, SCORE, {**score, "timestamp": written(later)}), answers=_ONCE_MORE)
    return [None]


def _later(score: Json, held: Json, message: Message) -> datetime | None:
    """A time that the platform takes, for a score that it wrongly calls outdated; None where it is right.

    One mapping's messages about one subject go out in their order. So with `sync_score`, which gives and takes back,
    the one that goes out last is the newest, whatever the platform thinks of its time. Other operations may be older
    than what another mapping sent: theirs are newer only if both are of one second.
    """
    given = moment_of(score["timestamp"])
    stamp = held.get("timestamp")  # Moodle's own addition
    dated = moment_of(stamp) if isinstance(stamp, str) else None
    if message.operation == "sync_score":
        given = max(given, message.sent_at, dated or given)
    elif dated is None or _second(dated) != _second(given):
        return None
    return _second(given) + timedelta(seconds=1)


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def _says_the_same(held: Json, score: Json) -> bool:
    """Whether a result is what a score says; platforms convert to the line item's own maximum, and round."""
    if "comment" in score and held.get("comment") != score["comment"]:
        return False
    result, maximum = held.get("resultScore"), held.get("resultMaximum") or 1
    if not isinstance(result, int | float) or not isinstance(maximum, int | float):
        return "scoreGiven" not in score
    if "scoreGiven" not in score:
        return False
    return math.isclose(result / maximum, score["scoreGiven"] / score["scoreMaximum"], abs_tol=1e-5)
