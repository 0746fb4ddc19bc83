"""The process stage: deliveries become events, events become messages."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from importlib import resources
from typing import Any

import orjson
import structlog
from jsonschema_rs import Draft202012Validator
from sqlalchemy import Row

from bridge.core.errors import MappingError, SourceUnavailable
from bridge.core.events import Event, Json
from bridge.core.manifest import SourceConnector
from bridge.core.source import Gathering, Inbound, Verified
from bridge.engine.batches import MAX_STARTS, chains, run_chains
from bridge.engine.bugs import place_of
from bridge.engine.line import Line, SourceLine, TracedApi
from bridge.engine.messages import dead_message, message_for
from bridge.engine.metrics import ENRICHED, EVENTS, RECONCILED
from bridge.flow.process import deadline_of, enriched, events_of, given_up, retry_delay, waited
from bridge.flow.reconcile import facts_of, is_reconciled, marked, returns
from bridge.ledger.database import milliseconds, moment
from bridge.ledger.lanes import BATCH, Lease, waiting
from bridge.ledger.processing import DeadDelivery, NewEvent, NewMessage, PostponedDelivery, Processed, finish
from bridge.ledger.reading import knows_more, newest_about
from bridge.outbound.source_api import Context

COMPLETED_WITHIN = timedelta(hours=72)
"""How long the rest of an event is asked for when a mapping requires it."""

COMPLETION_PAUSE = timedelta(minutes=1)
AT_LEAST = timedelta(minutes=1)
"""How long a platform's API is asked for an event that is older than its deadline when its turn comes."""

_NOT_CONFIGURED = timedelta(minutes=1)
_log = structlog.get_logger(__name__)

Worked = Processed | PostponedDelivery | DeadDelivery


@dataclass(frozen=True, slots=True)
class ProcessStage:
    """Works on deliveries of one lane; `width` subjects of it are enriched at the same time."""

    line: Line
    pools: Mapping[str, ThreadPoolExecutor]
    width: int = 8
    batch: int = BATCH

    def work(self, lease: Lease, rows: Sequence[Row[Any]]) -> None:
        """Process a batch and commit it. Raises LeaseLost."""
        source = lease.lane.split(":")[1]
        if source not in self.line.sources:
            why = f"source {source} is not in bridge.yaml"
            self._commit(lease, [_postponed(row, _NOT_CONFIGURED, why) for row in rows])
            return
        line = self.line.sources[source]
        context = Context(
            known=partial(newest_about, self.line.ledger, line.name), wants=partial(self.line.wants, line)
        )
        self._gather(line, lease, rows, context)
        run_chains(
            self.pools[source] if line.api is not None else None,  # without an API there is nothing to wait for
            self.width,
            chains(rows),
            partial(self._chain, _Batch(line, context)),
            partial(self._commit, lease),
        )

    def _gather(self, source: SourceLine, lease: Lease, rows: Sequence[Row[Any]], context: Context) -> None:
        """Read lists that many events of this batch are completed from, where that saves calls; what they need of them
        is in the context then.
        """
        code, client = source.connector.code, source.api
        if client is None or not isinstance(code, Gathering) or len(rows) == 1:
            return
        more = waiting(self.line.ledger, f"process:{source.name}:") if len(rows) == self.batch else len(rows)
        listed: defaultdict[str, list[Event]] = defaultdict(list)
        try:
            for event in (event for row in rows for event in _events(source, _verified(row))):
                listed[code.listed_with(event)].append(event)
        except Exception as error:  # noqa: BLE001  a connector's bug: it shows where the delivery is processed
            _log.error("not_gathered", source=source.name, reason=place_of(error))
            return

        def read(events: list[Event]) -> list[None]:
            try:
                code.gather(events, client(context), round(more * len(events) / len(rows)))
            except SourceUnavailable as error:
                _log.info("not_gathered", source=source.name, reason=error.reason)
            except Exception as error:  # noqa: BLE001  a connector's bug: each event is asked for by itself, and shows it
                _log.error("not_gathered", source=source.name, reason=place_of(error))
            return []

        together = [events for events in listed.values() if len(events) > 1]
        run_chains(self.pools[source.name], self.width, together, read, lambda _: self._commit(lease, []))

    def _chain(self, batch: _Batch, rows: list[Row[Any]]) -> list[Worked]:
        """One subject's deliveries in order; those behind one that has to wait stay where they are."""
        results: list[Worked] = []
        for row in rows:
            results.append(self._one(batch, row))
            if isinstance(results[-1], PostponedDelivery):
                break
        return results

    def _one(self, batch: _Batch, row: Row[Any]) -> Worked:
        if row.starts >= MAX_STARTS:
            return DeadDelivery(seq=row.seq, source=row.source, reason=f"its worker died {row.starts} times")
        try:
            return self._processed(row, batch)
        except SourceUnavailable as error:
            return _postponed(row, retry_delay(row.attempts + 1, error.retry_after), error.reason)
        except Exception as error:  # noqa: BLE001  a connector's bug: the bytes are kept, a replay follows the fix
            reason = place_of(error)
            _log.error("not_processed", delivery=row.id, source=row.source, reason=reason)
            return DeadDelivery(seq=row.seq, source=row.source, reason=reason)

    def _processed(self, row: Row[Any], batch: _Batch) -> Worked:
        source, age = batch.source, datetime.now(UTC) - moment(row.received_ms)
        completing = row.purpose == "completion"
        stored: list[NewEvent] = []
        messages: list[NewMessage] = []
        incomplete = False
        verified = _verified(row)
        for event in _events(source, verified):
            limit = COMPLETED_WITHIN if completing else deadline_of(source.connector, event, source.deadline)
            # What is replayed, or comes late after an outage of ours, is not given up at the first bad moment.
            patience = limit if row.purpose == "replay" else min(limit, AT_LEAST)
            last_try = age >= limit and waited(row.attempts) >= patience
            context = replace(batch.context, last_try=last_try)
            api = source.api(context) if source.api is not None else None
            results, story = completed(source.connector, event, api, last_try=last_try)
            if all(result.enrichment == "missing" for result in results):  # what is known stays
                if completing:
                    continue
                if row.purpose == "replay" and knows_more(self.line.ledger, row.seq):
                    reason = "the platform's API is away: the event stays as it is known, replay it again later"
                    return DeadDelivery(seq=row.seq, source=row.source, reason=reason)
            for result in marked(results, verified):
                document = result.to_json()
                new_messages, matching, waits = self._messages(result, document, source.name)
                trace = {
                    "enrichment": story | {"result": result.enrichment, "waits": row.attempts},
                    "mappings": matching,
                }
                facts = facts_of(source.connector.code, result, verified)
                again = returns(source.connector.code, result)
                stored.append(
                    NewEvent(
                        event=result,
                        document=document,
                        source=source.name,
                        trace=trace,
                        facts=facts,
                        returns=again,
                    )
                )
                messages.extend(new_messages)
                incomplete |= waits
        again = incomplete and source.api is not None and age < COMPLETED_WITHIN
        if again and completing:
            return _postponed(row, retry_delay(row.attempts + 1, None), "a mapping requires: full")
        return Processed(
            seq=row.seq,
            source=row.source,
            events=stored,
            messages=messages,
            purpose=row.purpose,
            reconciled=is_reconciled(verified),
            again_ms=milliseconds(datetime.now(UTC) + COMPLETION_PAUSE) if again else None,
        )

    def _messages(self, event: Event, document: Json, source: str) -> tuple[list[NewMessage], list[Json], bool]:
        """The messages of all matching mappings, why the others do not match, and whether one waits for the rest.

        One broken mapping stops no other.
        """
        problem = _schema_problem(document)
        if problem:
            raise ValueError(f"the event is not valid: {problem}")
        orjson.dumps(document)  # what cannot be stored stops its own delivery, and not the whole batch
        messages: list[NewMessage] = []
        story: list[Json] = []
        waits = False
        for mapping in self.line.mappings():
            target = self.line.targets.get(mapping.target)
            if target is None:
                story.append({"mapping": mapping.name, "matched": False, "why": f"no target {mapping.target}"})
                continue
            try:
                decision = mapping.consider(document, source)
                waits |= decision.waits
                if decision.matches:
                    messages.append(message_for(event, document, mapping, target, source))
            except MappingError as error:
                _log.error("mapping_failed", mapping=mapping.name, field=error.field, event_id=event.id)
                messages.append(dead_message(event, mapping, target, error))
                story.append(
                    {"mapping": mapping.name, "matched": True, "why": f"failed at {error.field}: {error.reason}"}
                )
                continue
            story.append({"mapping": mapping.name, "matched": decision.matches, "why": decision.why})
        return messages, story, waits

    def _commit(self, lease: Lease, results: list[Worked]) -> None:
        processed = [result for result in results if isinstance(result, Processed)]
        lanes = finish(
            self.line.ledger,
            lease,
            processed,
            [result for result in results if isinstance(result, PostponedDelivery)],
            [result for result in results if isinstance(result, DeadDelivery)],
        )
        self.line.wake(lanes)
        for result in processed:
            for new in result.events:
                EVENTS.labels(new.source, new.event.type).inc()
                ENRICHED.labels(new.source, new.event.enrichment).inc()
                if result.reconciled:
                    RECONCILED.labels(new.source).inc()


@dataclass(frozen=True, slots=True)
class _Batch:
    """What the chains of one batch share."""

    source: SourceLine
    context: Context


def completed(
    connector: SourceConnector, event: Event, api: TracedApi | None, *, last_try: bool
) -> tuple[list[Event], Json]:
    """The event enriched, with the story of the calls. Raises SourceUnavailable unless this is the last try."""
    reason = ""
    try:
        results = enriched(connector, event, api)
    except SourceUnavailable as error:
        if not last_try:
            raise
        results, reason = [given_up(event)], error.reason
    if api is not None and api.lacking:
        results = [
            replace(result, enrichment="partial") if result.enrichment == "full" else result for result in results
        ]
        reason = reason or "; ".join(api.lacking)
    return results, {"calls": api.calls() if api is not None else [], "reason": reason}


def _events(source: SourceLine, verified: Verified) -> list[Event]:
    return marked(events_of(source.connector, verified, source.settings), verified)


def _verified(row: Row[Any]) -> Verified:
    inbound = Inbound(
        id=row.id,
        source=row.source,
        received_at=moment(row.received_ms),
        headers=orjson.loads(row.headers),
        query=orjson.loads(row.query),
        body=row.body,
    )
    return Verified(inbound=inbound, proof=row.proof, dedupe_key=row.dedupe_key, dedupe_window=timedelta(0))


def _postponed(row: Row[Any], pause: timedelta, reason: str) -> PostponedDelivery:
    spread = pause * random.uniform(1.0, 1.25)
    due = milliseconds(datetime.now(UTC) + spread)
    return PostponedDelivery(seq=row.seq, order_key=row.order_key, due_ms=due, reason=reason)


@cache
def _validator() -> Draft202012Validator:
    schema = resources.files("bridge.core").joinpath("event.schema.json").read_text("utf-8")
    return Draft202012Validator(orjson.loads(schema), validate_formats=True)


def _schema_problem(document: Json) -> str | None:
    """Where an event breaks the schema, without its values."""
    if _validator().is_valid(document):
        return None
    error = next(iter(_validator().iter_errors(document)))
    return "/".join(str(step) for step in error.instance_path) or "$"
