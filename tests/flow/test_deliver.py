"""What happens to a message after an answer: how long it is tried, and whose fault it was."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from bridge.core.target import Outcome, Verdict
from bridge.flow.deliver import Next, Patience, after

PATIENCE = Patience(first_delay=timedelta(seconds=5), max_delay=timedelta(hours=1), longest=timedelta(hours=72))
NOT_ITS_FAULT = [Verdict.THROTTLED, Verdict.AUTH, Verdict.GONE]


def next_of(verdict: Verdict, *, hours: float, retry_after: float | None = None) -> Next:
    outcome = Outcome(verdict=verdict, reason="because", retry_after=retry_after)
    return after(outcome, attempt=3, age=timedelta(hours=hours), patience=PATIENCE, rng=Random(1))


@pytest.mark.parametrize("verdict", NOT_ITS_FAULT)
@pytest.mark.parametrize("hours", [1, 71.99, 73, 10_000])
@pytest.mark.parametrize("retry_after", [None, 2.0, 90.0, 43_200.0])
def test_what_the_target_asks_of_everyone_makes_no_message_die_of_age(
    verdict: Verdict, hours: float, retry_after: float | None
) -> None:
    step = next_of(verdict, hours=hours, retry_after=retry_after)
    assert (step.fate, step.counts, step.reason) == ("waiting", False, "because")
    assert timedelta(seconds=retry_after or 1.0) <= step.pause <= timedelta(seconds=max(retry_after or 0, 3600) + 5)


@pytest.mark.parametrize("hours", [1, 71.9])
def test_a_try_that_came_to_nothing_is_followed_by_another_one_for_as_long_as_patience_lasts(hours: float) -> None:
    step = next_of(Verdict.RETRY, hours=hours)
    assert (step.fate, step.counts) == ("waiting", True)
    assert step.pause <= timedelta(hours=72 - hours)


@pytest.mark.parametrize(("hours", "retry_after"), [(72, None), (73, 2.0), (71, 7200.0)])
def test_a_message_that_nobody_takes_in_time_is_given_up(hours: float, retry_after: float | None) -> None:
    step = next_of(Verdict.RETRY, hours=hours, retry_after=retry_after)
    assert (step.fate, step.reason) == ("dead", "given up after 3 tries: because")


@pytest.mark.parametrize(
    ("verdict", "fate"),
    [
        (Verdict.OK, "delivered"),
        (Verdict.DUPLICATE, "delivered"),
        (Verdict.SUPERSEDED, "superseded"),
        (Verdict.PERMANENT, "dead"),
        (Verdict.AMBIGUOUS, "held"),
    ],
)
def test_an_answer_that_says_it_all_is_the_end_at_any_age(verdict: Verdict, fate: str) -> None:
    assert next_of(verdict, hours=1).fate == next_of(verdict, hours=1000).fate == fate
