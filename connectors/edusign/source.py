"""Edusign. Thin bodies of ids in two styles (app: ids at the top; school: nested objects), no time and no event id.

The HMAC covers the body and nothing else: type, app, school and language in the headers are not authenticated.
There is no retry (developers.edusign.com/docs/webhooks-2): what is refused or lost here never comes again.
Two edits of one course have byte-identical bodies and signatures, so equal bodies are only copies within seconds.
An Edusign "course" is one class session with its attendance sheet; a "training" is what others call a course.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from bridge.core.errors import NotGenuine, PayloadError
from bridge.core.events import Event, stamp
from bridge.core.normalising import canonical
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint
from bridge.core.source import ApiAccess, Challenge, Found, Inbound, Notice, SourceApi, Verified
from connectors.edusign import enrichment, facts, gathering, happenings
from connectors.edusign.lifecycle import lifecycle_call
from connectors.edusign.proof import signature_proof, token_proof
from connectors.edusign.reading import RULES
from connectors.edusign.shapes import moment, soft_text


def verify(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    """HMAC of the body, the URL's token, or both, as the option `mode` says.

    Calls about the app itself (install, uninstall, actions) need only one of the two: at the first install nobody here
    can know the app's secret yet. Raises NotGenuine.
    """
    options = settings.options
    if not settings.secrets and not options["url_token"]:
        raise NotGenuine("no_secret")
    signature, token = signature_proof(inbound, settings), token_proof(inbound, settings)
    wanted = {"hmac": [signature], "url_token": [token], "both": [signature, token]}[options["mode"]]
    lacking = [proof.words for proof in wanted if not proof.holds]
    if not signature.holds and not token.holds:
        raise NotGenuine(lacking[0])
    body = _body(inbound)
    challenge = lifecycle_call(_kind(body, inbound, settings), body, settings)
    if challenge is not None:
        return challenge
    if lacking:
        raise NotGenuine(lacking[0])
    seconds = options["dedupe_window_seconds"]
    copy_of: list[str | bytes] = [_kind(body, inbound, settings), inbound.body]
    if seconds <= 0:
        copy_of.append(inbound.id)  # nothing is a copy of anything
    return Verified(
        inbound=inbound,
        proof="; ".join([*(proof.words for proof in wanted), *_contradictions(body, inbound, settings)]),
        dedupe_key=fingerprint(copy_of),
        dedupe_window=timedelta(seconds=seconds),
    )


def parse(verified: Verified, settings: Settings) -> list[Notice]:
    """One delivery is one native event. Edusign does not say when; only what was found in its lists has a date."""
    inbound = verified.inbound
    payload = Payload.parse(inbound.body).object()
    kind = _kind(payload, inbound, settings)
    return [
        Notice(
            kind=settings.options["kind_aliases"].get(kind, kind) if kind else payload.at("type").text(),
            payload=payload,
            tenant=settings.options["school_id"] or settings.name,
            # Nothing in the body tells two edits of one object apart, only when they came.
            key=stamp(inbound.received_at),
            occurred_at=moment(payload.at(facts.DATE), settings),
            received_at=inbound.received_at,
        )
    ]


def normalise(notice: Notice, settings: Settings) -> Event:
    """One canonical event, or PayloadError where the id is missing that the event is about."""
    type, read = RULES[notice.kind]
    subject, data = read(notice, settings)
    return canonical(notice, settings, provider="edusign", type=type, subject=subject, data=data)


def access(settings: Settings) -> ApiAccess | None:
    """Bearer with an API key, another secret than the webhooks' (developers.edusign.com/docs/api-reference)."""
    if settings.api is None:
        return None
    return ApiAccess(
        base_url=settings.api["base_url"].rstrip("/"),
        headers={"Authorization": f"Bearer {settings.api['api_key']}", "Accept": "application/json"},
    )


def enrich(event: Event, api: SourceApi) -> Iterable[Event]:
    """A thin body completed, see `enrichment`."""
    return enrichment.enriched(event, api)


def listed_with(event: Event) -> str:
    """All together: students are asked for by their ids, sheets by their days."""
    return ""


def gather(events: Sequence[Event], api: SourceApi, waiting: int) -> None:
    """Students and sheets of many events with few calls, see `gathering`."""
    gathering.gather(events, api, waiting)


def happened(since: datetime, api: SourceApi) -> Iterator[Found]:
    """What the lists say has happened, see `happenings`."""
    return happenings.happened(since, api)


def fact(event: Event) -> str | None:
    """What a completed event is about, as `happened` would say it."""
    return facts.fact(event)


# --- what a body is called --------------------------------------------------------------------------------------------


def _body(inbound: Inbound) -> Payload:
    try:
        return Payload.parse(inbound.body)
    except PayloadError:
        return Payload(None)  # genuine and unreadable: kept, and `parse` says what is wrong with it


def _kind(body: Payload, inbound: Inbound, settings: Settings) -> str:
    """The body's own `type`; the header's only where the body has none, as in calls about the app."""
    return soft_text(body.at("type")) or inbound.headers.get(settings.options["type_header"].lower(), "").strip()


def _contradictions(body: Payload, inbound: Inbound, settings: Settings) -> Iterable[str]:
    """Headers that say something else than the body. The body is what was signed, so it counts, and this is noted."""
    options = settings.options
    for header, told in (
        (options["type_header"].lower(), soft_text(body.at("type"))),
        ("x-edusign-app-id", soft_text(body.at("appId"))),
        ("x-edusign-school-id", options["school_id"]),
    ):
        if inbound.headers.get(header) and told and inbound.headers[header].strip() != told:
            yield f"header {header} disagrees and was not believed"
    if not body.at("type").present and inbound.headers.get(options["type_header"].lower()):
        yield "the kind stands in an unsigned header only"
