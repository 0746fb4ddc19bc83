"""The toy platform signs its body; ids are numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from bridge.core.errors import NotGenuine, PayloadError, SourceUnavailable
from bridge.core.events import Event
from bridge.core.normalising import canonical
from bridge.core.nouns import Data, Person, Submission
from bridge.core.payload import Payload
from bridge.core.settings import Settings
from bridge.core.signing import fingerprint, matching_secret
from bridge.core.source import ApiAccess, Challenge, Inbound, Notice, SourceApi, TokenRequest, Verified

SETTLING = timedelta(seconds=30)
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
    if settings.api is None:
        return None
    base = str(settings.api["base_url"])
    return ApiAccess(base_url=base, token=TokenRequest(url=f"{base}/login", form={"grant_type": "client_credentials"}))


def enrich(event: Event, api: SourceApi) -> Iterable[Event]:
    try:
        yield _complete(event, api)
    except PayloadError as error:
        raise SourceUnavailable(f"unexpected shape at {error.path}") from None


def _complete(event: Event, api: SourceApi) -> Event:
    path = f"/papers/{event.subject.removeprefix('paper/')}"
    paper = api.get(path)
    if paper is None and api.now - event.recordedtime < SETTLING:
        raise SourceUnavailable("the paper is not there yet")
    author = api.get(f"{path}/author", extra=True)
    if author is not None and not isinstance(author.value, dict):
        api.lack("the author has an unexpected shape")
        author = None
    receipt = api.get(f"{path}/receipt")  # not there any more once the paper was taken back
    person = Person(
        email=paper.object().at("email").maybe_text() if paper else None,
        given_name=author.object().at("givenName").maybe_text() if author else None,
    )
    submission = Submission(
        key=event.data.submission.key if event.data.submission else None,
        submitted_at=receipt.object().at("at").maybe_time() if receipt else None,
    )
    return replace(
        event,
        type="submission.submitted" if receipt else "submission.withdrawn",
        data=replace(event.data, person=person, submission=submission),
        enrichment="missing" if paper is None else "partial" if author is None else "full",
        observedat=api.now,
    )
