"""How a target's answers decide whether anything is sent to it: pauses that grow, a breaker, patience that ends."""

from __future__ import annotations

import pytest

from bridge.core.target import Outcome, Verdict
from bridge.flow.standing import FAILURES, FINE, FOREVER, Standing, State, after_answer, after_patience

NOW = 1_780_000_000.0


def outcome(verdict: Verdict, retry_after: float | None = None) -> Outcome:
    return Outcome(verdict=verdict, reason="because", retry_after=retry_after)


def after(*verdicts: Verdict, standing: Standing = FINE, now: float = NOW) -> Standing:
    for verdict in verdicts:
        standing = after_answer(standing, outcome(verdict), now)
    return standing


def test_failures_in_a_row_open_the_breaker_and_one_success_closes_it() -> None:
    nearly = after(*[Verdict.RETRY] * (FAILURES - 1))
    assert (nearly.state, nearly.until) == (State.FINE, 0.0)
    opened = after(Verdict.RETRY, standing=nearly)
    assert (opened.state, opened.until - NOW, opened.probing) == (State.FAILING, 10.0, True)
    assert after(Verdict.OK, standing=opened) == FINE
    assert after(*[Verdict.RETRY] * (FAILURES - 1), Verdict.OK, *[Verdict.RETRY] * (FAILURES - 1)).state is State.FINE


def test_a_probe_that_fails_makes_the_next_pause_longer_up_to_a_bound() -> None:
    standing = after(*[Verdict.AMBIGUOUS] * FAILURES)
    pauses = []
    for _ in range(10):
        now = standing.until
        standing = after(Verdict.RETRY, standing=standing, now=now)
        pauses.append(standing.until - now)
    assert pauses == [20, 40, 80, 160, 320, 600, 600, 600, 600, 600]


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.DUPLICATE, Verdict.SUPERSEDED, Verdict.PERMANENT])
def test_an_answer_about_the_message_itself_is_a_sign_of_life(verdict: Verdict) -> None:
    assert after(Verdict.RETRY, Verdict.RETRY, verdict) == FINE


def test_a_target_that_throttles_is_left_alone_as_long_as_it_asks() -> None:
    standing = after_answer(FINE, outcome(Verdict.THROTTLED, 30.0), NOW)
    assert (standing.state, standing.until, standing.probing) == (State.THROTTLED, NOW + 30, False)
    shorter = after_answer(standing, outcome(Verdict.THROTTLED, 5.0), NOW + 1)
    assert shorter.until == NOW + 30, "what was asked for first still holds"


def test_one_that_does_not_say_how_long_is_given_more_time_each_time() -> None:
    standing, pauses = FINE, []
    for _ in range(4):
        now = max(standing.until, NOW)
        standing = after(Verdict.THROTTLED, standing=standing, now=now)
        pauses.append(standing.until - now)
    assert pauses == [5, 10, 20, 40]


def test_refused_credentials_and_a_gone_address_wait_for_a_person() -> None:
    refused = after(Verdict.AUTH)
    assert (refused.state, refused.until - NOW, refused.probing) == (State.REFUSED, 60, True)
    gone = after(Verdict.GONE)
    assert (gone.state, gone.until, gone.probing) == (State.GONE, FOREVER, False)


def test_patience_ends_when_nothing_went_well_for_long_enough() -> None:
    tried = Outcome(verdict=Verdict.RETRY, reason="not registered", patience=3600, finally_=Verdict.GONE)
    standing = after_answer(FINE, tried, NOW)
    assert after_patience(tried, standing, NOW + 3600).verdict is Verdict.RETRY
    assert after_patience(tried, standing, NOW + 3601).verdict is Verdict.GONE
    assert after_patience(tried, FINE, NOW + 9999).verdict is Verdict.RETRY, "something went well meanwhile"
    plain = outcome(Verdict.RETRY)
    assert after_patience(plain, standing, NOW + 1e6) == plain


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("answers", [1, FAILURES])
def test_no_answer_to_what_was_sent_before_a_pause_makes_the_pause_shorter(verdict: Verdict, answers: int) -> None:
    throttled = after_answer(FINE, outcome(Verdict.THROTTLED, 900.0), NOW)
    standing = after(*[verdict] * answers, standing=throttled, now=NOW + 1)
    assert standing.until >= NOW + 900


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.DUPLICATE, Verdict.PERMANENT])
def test_when_the_time_that_a_target_asked_for_is_over_the_next_answer_opens_it(verdict: Verdict) -> None:
    throttled = after_answer(FINE, outcome(Verdict.THROTTLED, 900.0), NOW)
    assert after(verdict, standing=throttled, now=NOW + 901) == FINE


@pytest.mark.parametrize("verdict", list(Verdict))
def test_no_answer_ends_what_a_person_began(verdict: Verdict) -> None:
    paused = Standing(state=State.PAUSED, until=FOREVER, reason="wrong grades", since=NOW)
    assert after(*[verdict] * FAILURES, standing=paused, now=NOW + 1) == paused
