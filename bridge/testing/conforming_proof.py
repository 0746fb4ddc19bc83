"""Conformance questions about `verify`, and about what reaches errors and proofs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from bridge.core.errors import BridgeError, NotGenuine, PayloadError, SourceUnavailable
from bridge.core.manifest import SourceConnector
from bridge.core.settings import Settings
from bridge.core.source import Challenge, Inbound, Verified
from bridge.flow.process import enriched, events_of
from bridge.flow.receive import verify
from bridge.testing.event_schema import faults
from bridge.testing.fixtures import Fixture, read_fixtures
from bridge.testing.hostile import (
    BODIES,
    Caught,
    StubbornApi,
    hostile_forms,
    json_of,
    origin,
    places,
    shown,
    value_at,
    wire,
    with_value,
)

_WRONG: Final = "not-the-secret-0123456789abcdef0"
_NEW: Final = "another-good-secret-0123456789ab"
_EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
# What every client sends, whoever it is.
_PLAIN_HEADERS: Final = frozenset({"host", "content-type", "content-length", "accept", "accept-encoding"})
_ODD_HEADERS: Final = (
    "",
    " ",
    "x",
    "=",
    "é" * 20,
    "\udcff",
    "0" * 10_000,
    "[]",
    "t=,v1=",
    "Bearer ",
    "-1",
    "NaN",
    "null",
)


def changed_body_refused(connector: SourceConnector) -> list[str]:
    """No value of a body can be changed unnoticed; not asked of platforms that do not sign the body."""
    if not connector.manifest.signed_body:
        return []
    complaints = []
    for fixture in genuine(connector):
        if accepted(connector, fixture.inbound, replace(fixture.settings, secrets=())):
            continue  # these settings ask for no signature, for instance because a token in the address is the proof
        for change, body in _changed(fixture.inbound.body):
            if accepted(connector, replace(fixture.inbound, body=body), fixture.settings):
                complaints.append(f"{fixture.name}: accepted with {change}")
    return complaints


def wrong_signature_refused(connector: SourceConnector) -> list[str]:
    """What another secret made is refused, and so is everything when no secret is set."""
    complaints = []
    for fixture in genuine(connector):
        for secrets in ((_WRONG,), (_WRONG, _NEW), ("",), ()):
            settings = _with_secrets(fixture.settings, secrets)
            if accepted(connector, fixture.inbound, settings):
                complaints.append(f"{fixture.name}: accepted with {len(secrets)} secrets, none of them right")
    return complaints


def missing_signature_refused(connector: SourceConnector) -> list[str]:
    """A request without the headers and the query that make it this platform's is refused."""
    complaints = []
    for fixture in genuine(connector):
        headers = {name: value for name, value in fixture.inbound.headers.items() if name in _PLAIN_HEADERS}
        if accepted(connector, replace(fixture.inbound, headers=headers, query={}), fixture.settings):
            complaints.append(f"{fixture.name}: accepted without any header of its own")
    return complaints


def rotation(connector: SourceConnector) -> list[str]:
    """The old and the new secret both verify, whichever comes first, and the proof tells which of them it was."""
    complaints, asked = [], 0
    for fixture in genuine(connector):
        secrets = fixture.settings.secrets
        mine = next(
            (one for one in secrets if accepted(connector, fixture.inbound, _only(fixture.settings, one))), None
        )
        if mine is None:
            continue
        asked += 1
        first = accepted(connector, fixture.inbound, replace(fixture.settings, secrets=(mine, _NEW)))
        second = accepted(connector, fixture.inbound, replace(fixture.settings, secrets=(_NEW, mine)))
        if first is None or second is None:
            complaints.append(f"{fixture.name}: refused when its secret is one of two")
        elif first.proof == second.proof:
            complaints.append(f"{fixture.name}: the proof does not say which secret matched")
        elif first.dedupe_key != second.dedupe_key:
            complaints.append(f"{fixture.name}: the dedupe key changes with the place of the secret")
    return complaints if asked else ["no fixture verifies with a secret"]


ANSWERED: Final = 2
"""For how many fixtures of a kind the platform's API answers oddly: what enrichment reads hangs on the kind."""


def hostile_bodies_raise_only_our_errors(connector: SourceConnector) -> list[str]:
    """From whatever comes over the wire follow only refusals, PayloadErrors, or events that are valid."""
    complaints: list[str] = []
    fixtures = genuine(connector)
    for fixture in fixtures[:1]:
        for name, body in BODIES.items():
            complaints += _survives(connector, fixture, body, name)
    asked: Counter[tuple[str, ...]] = Counter()
    for turn, fixture in enumerate(fixtures):
        kinds = tuple(str(event["sourceevent"]) for event in fixture.expected.get("events", []))
        forms = hostile_forms(json_of(fixture.inbound.body), turn if asked[kinds] else None)
        asked[kinds] += 1
        for name, inbound in _odd_requests(fixture.inbound):
            complaints += _verifies_calmly(connector, inbound, fixture.settings, f"{fixture.name} with {name}")
        for name, document in forms:
            complaints += _survives(connector, fixture, wire(document), f"{fixture.name} with {name}")
        if asked[kinds] <= ANSWERED:
            complaints += _hostile_answers(connector, fixture, turn)
    return complaints


def no_secrets_in_errors(connector: SourceConnector) -> list[str]:
    """No secret, and no e-mail address of a fixture, is in the text of an error or of a proof."""
    complaints = []
    for fixture in read_fixtures(connector):
        forbidden = _secret_texts(fixture.settings) | set(
            _EMAIL.findall(fixture.inbound.body.decode("utf-8", "replace"))
        )
        for text in _texts(connector, fixture):
            if any(secret in text for secret in forbidden):
                complaints.append(f"{fixture.name}: a secret or an e-mail address is in an error or a proof")
                break
    return complaints


def genuine(connector: SourceConnector) -> list[Fixture]:
    """The fixtures whose requests are proven."""
    return [fixture for fixture in read_fixtures(connector) if accepted(connector, fixture.inbound, fixture.settings)]


def accepted(connector: SourceConnector, inbound: Inbound, settings: Settings) -> Verified | None:
    """What is proven of a request, or None; an error that is not a refusal counts as None here."""
    with Caught():
        result = verify(connector, inbound, settings)
        return result.keep if isinstance(result, Challenge) else result
    return None


def _only(settings: Settings, secret: str) -> Settings:
    return replace(settings, secrets=(secret,))


def _with_secrets(settings: Settings, secrets: tuple[str, ...]) -> Settings:
    """Other secrets, and another token in the address where there is one: it is a proof too."""
    options = dict(settings.options)
    if options.get("url_token"):
        options["url_token"] = _WRONG
    return replace(settings, secrets=secrets, options=options)


def _changed(body: bytes) -> Iterator[tuple[str, bytes]]:
    document = json_of(body)
    if document is None:
        yield "another body", body + b"x"
        return
    for steps in places(document):
        value = value_at(document, steps)
        if isinstance(value, str):
            yield f"another text at {shown(steps)}", wire(with_value(document, steps, value + "x"))
        elif isinstance(value, bool):
            yield f"the opposite at {shown(steps)}", wire(with_value(document, steps, not value))
        elif isinstance(value, int | float):
            yield f"another number at {shown(steps)}", wire(with_value(document, steps, value + 1))
        elif isinstance(value, dict):
            yield f"one more key at {shown(steps)}", wire(with_value(document, steps, value | {"added": 1}))


def _odd_requests(inbound: Inbound) -> Iterator[tuple[str, Inbound]]:
    for name in inbound.headers:
        yield (
            f"no {name}",
            replace(inbound, headers={key: inbound.headers[key] for key in inbound.headers if key != name}),
        )
        for odd in _ODD_HEADERS:
            yield f"an odd {name}", replace(inbound, headers=dict(inbound.headers) | {name: odd})
    for name in inbound.query:
        for odd in _ODD_HEADERS:
            yield f"an odd query {name}", replace(inbound, query=dict(inbound.query) | {name: odd})


def _verifies_calmly(connector: SourceConnector, inbound: Inbound, settings: Settings, what: str) -> list[str]:
    with Caught() as caught:
        verify(connector, inbound, settings)
    if caught.error is None or isinstance(caught.error, NotGenuine):
        return []
    return [f"{what}: verify raised {origin(caught.error)}"]


def _survives(connector: SourceConnector, fixture: Fixture, body: bytes, what: str) -> list[str]:
    """A body through verify as it is, and through the rest as if it had been signed."""
    inbound = replace(fixture.inbound, body=body)
    complaints = _verifies_calmly(connector, inbound, fixture.settings, what)
    proven = accepted(connector, fixture.inbound, fixture.settings)
    if proven is None:
        return complaints
    with Caught() as caught:
        for event in events_of(connector, replace(proven, inbound=inbound), fixture.settings):
            complaints += [f"{what}: an event is not valid: {fault}" for fault in faults(event.to_json())]
    if caught.error is not None:
        complaints.append(f"{what}: raised {origin(caught.error)}")
    return complaints


def _hostile_answers(connector: SourceConnector, fixture: Fixture, turn: int) -> list[str]:
    """Whatever the platform's API answers, enrichment gives valid events or waits."""
    complaints: list[str] = []
    proven = accepted(connector, fixture.inbound, fixture.settings)
    answers: Mapping[str, Any] = fixture.expected.get("api", {})
    if proven is None:
        return complaints
    events = events_of(connector, proven, fixture.settings)
    for call, answer in answers.items():
        for name, document in hostile_forms(answer.get("json"), turn):
            what = f"{fixture.name} with {name} in the answer to {call}"
            changed = {**answers, call: {"json": document}}
            api = StubbornApi(settings=fixture.settings, now=fixture.inbound.received_at, answers=changed)
            with Caught() as caught:
                for event in events:
                    for result in enriched(connector, event, api):
                        complaints += [f"{what}: an event is not valid: {fault}" for fault in faults(result.to_json())]
            if caught.error is not None and not isinstance(caught.error, SourceUnavailable):
                complaints.append(f"{what}: enrich raised {origin(caught.error)}")
    return complaints


def _texts(connector: SourceConnector, fixture: Fixture) -> Iterator[str]:
    """Texts of errors and proofs that come of a fixture and of damaged copies of it."""
    proven = accepted(connector, fixture.inbound, fixture.settings)
    requests = [fixture.inbound, replace(fixture.inbound, body=fixture.inbound.body[:-1])]
    requests += [inbound for _, inbound in _odd_requests(fixture.inbound)]
    for inbound in requests:
        with Caught() as caught:
            result = verify(connector, inbound, fixture.settings)
            yield result.reason if isinstance(result, Challenge) else result.proof
        if caught.error is not None:
            yield f"{caught.error} {caught.error!r}"
    if proven is None:
        return
    for _, document in hostile_forms(json_of(fixture.inbound.body), turn=0):
        inbound = replace(fixture.inbound, body=wire(document))
        with Caught() as caught:
            for notice in connector.code.parse(replace(proven, inbound=inbound), fixture.settings):
                connector.code.normalise(notice, fixture.settings)
        if isinstance(caught.error, BridgeError | PayloadError):
            yield f"{caught.error} {caught.error!r}"


def _secret_texts(settings: Settings) -> set[str]:
    texts = set(settings.secrets)
    for name, value in (dict(settings.options) | dict(settings.api or {})).items():
        if isinstance(value, str) and re.search(r"token|secret|password|key$|credential", name):
            texts.add(value)
    return {text for text in texts if len(text) >= 6}
