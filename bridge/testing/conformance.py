"""The questions that every source has to answer, asked with no test code of the connector's own.

    for question in QUESTIONS:
        assert complaints(connector, question) == []

A manifest may waive a question with a reason (`waivers: {known_answer: "The platform publishes no signed sample."}`);
a waiver for a question that would pass is a complaint itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bridge.core.manifest import SourceConnector
from bridge.testing import (
    conforming_enrichment,
    conforming_events,
    conforming_failures,
    conforming_gathering,
    conforming_proof,
    conforming_simulator,
)


def waivers_name_questions(connector: SourceConnector) -> list[str]:
    """Every waiver is for a question that exists."""
    return [f"there is no question {name}" for name in connector.manifest.waivers if name not in QUESTIONS]


QUESTIONS: Final[Mapping[str, Callable[[SourceConnector], list[str]]]] = {
    question.__name__: question
    for question in (
        conforming_events.name_is_folder,
        waivers_name_questions,
        conforming_events.canonical_types_exist,
        conforming_events.expected_events,
        conforming_events.every_kind_has_a_fixture,
        conforming_events.events_validate,
        conforming_events.same_input_same_events,
        conforming_events.subjects_order_families,
        conforming_events.unknown_kind_named_and_kept,
        conforming_events.known_answer,
        conforming_proof.changed_body_refused,
        conforming_proof.wrong_signature_refused,
        conforming_proof.missing_signature_refused,
        conforming_proof.rotation,
        conforming_proof.hostile_bodies_raise_only_our_errors,
        conforming_proof.no_secrets_in_errors,
        conforming_simulator.simulator_speaks_every_kind,
        conforming_simulator.simulator_repeats_itself,
        conforming_simulator.simulated_day_is_understood,
        conforming_enrichment.calls_are_declared,
        conforming_enrichment.samples_become_full,
        conforming_enrichment.calls_fill_their_fields,
        conforming_failures.absent_as_declared,
        conforming_failures.refused_once_heals,
        conforming_failures.broken_once_heals,
        conforming_failures.outages_wait_and_end,
        conforming_failures.odd_answers_break_nothing,
        conforming_gathering.lists_only_save_calls,
    )
}
"""Every question by the name that a waiver uses; its first line says what it asks."""


def complaints(connector: SourceConnector, question: str) -> list[str]:
    """What a connector has to be told about one question, waivers considered; nothing when all is well."""
    found = QUESTIONS[question](connector)
    if question not in connector.manifest.waivers:
        return found
    return [] if found else [f"the waiver for {question} is stale: the connector passes"]
