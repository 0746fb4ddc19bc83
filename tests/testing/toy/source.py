"""The toy platform signs its body; ids are numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from bridge.core.contracts import ApiAccess, Challenge, Inbound, Notice, Settings, SourceApi, Verified
from bridge.core.errors import NotGenuine, PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.normalising import canonical
from bridge.core.nouns import Data, Person, Submission
from bridge.core.payload import Payload
from bridge.core.signing import fingerprint, matching_secret

TYPES = {"hand-in": "submission.submitted", "take-back": "submission.withdrawn"}


def verify(inbound: Inbound, settings: Settings) -> Verified | Challenge:
    if not any(settings.secrets):
        raise NotGenuine("no_secret")
    position = matching_secret(
        [s for s in settings.secrets if s], inbound.body, inbound.headers.get("x-toy-signature", "")
    )
    if position is None:
        raise NotGenuine("signature_mismatch")
    return Verified(
        inbound=inbound,
        proof=f"secret {position}, hmac-sha256 hex",
        dedupe_key=fingerprint([inbound.body]),
        dedupe_window=timedelta(days=1),
    )


def parse(verified: Verified, settings: Settings) -> Iterable[Notice]:
    body = Payload.parse(verified.inbound.body).object()
    yield Notice(
        kind=body.at("kind").text(),
        payload=body,
        tenant=settings.options["tenant"],
        key=body.at("id").text(),
        occurred_at=body.at("at").maybe_time(),
        received_at=verified.inbound.received_at,
    )


def normalise(notice: Notice, settings: Settings) -> Event:
    paper = notice.payload.at("paper").text()
    return canonical(
        notice,
        settings,
        provider="toy",
        type=TYPES[notice.kind],
        subject=f"paper/{paper}",
        data=Data(submission=Submission(key=paper)),
    )


def access(settings: Settings) -> ApiAccess | None:
    return ApiAccess(base_url=str(settings.api["base_url"])) if settings.api else None


def enrich(event: Event, api: SourceApi) -> Iterable[Event]:
    answer = api.get(f"/papers/{event.subject.removeprefix('paper/')}")
    try:
        email = answer.object().at("email").maybe_text() if answer else None
    except PayloadError as error:
        raise SourceUnavailable(f"unexpected shape at {error.path}") from None
    person = Person(email=email) if email else None
    yield replace(
        event, data=replace(event.data, person=person), enrichment="full" if email else "missing", observedat=api.now
    )
