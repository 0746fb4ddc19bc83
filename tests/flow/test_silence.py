"""When a silence is improbable: judged by a source's own weeks, with little history, bursts, ends of term, holidays."""

from __future__ import annotations

import random
from bisect import bisect_left
from datetime import UTC, datetime, timedelta

import pytest

from bridge.flow.silence import hour_of, rhythm_seconds, silence

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
OFFICE = range(8, 17)


def teaching(weeks: int, *, until: datetime = MONDAY, share: float = 1.0, seed: int = 1) -> set[int]:
    """The busy hours of so many weeks before a moment: Monday to Friday, 8 to 17 o'clock, a share of them."""
    chance = random.Random(seed)
    hours = (until - timedelta(hours=hour) for hour in range(1, weeks * 168 + 1))
    return {hour_of(at) for at in hours if at.weekday() < 5 and at.hour in OFFICE and chance.random() < share}


def noticed(busy: set[int], last: datetime, *, within: timedelta = timedelta(days=14)) -> timedelta | None:
    """After how long a silence is told, looking every 5 minutes (it only ever becomes less probable: see below)."""

    def told(number: int) -> bool:
        found = silence(busy, last, last + timedelta(minutes=5 * number))
        return found is not None and found.improbable

    end = int(within / timedelta(minutes=5))
    first = bisect_left(range(end), True, key=told)
    return None if first == end else timedelta(minutes=5 * first)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize("weeks", [0, 1])
def test_a_new_source_raises_nothing_however_long_it_is_silent(weeks: int) -> None:
    assert noticed(teaching(weeks) | {hour_of(at(0, 9))}, at(0, 9)) is None


@pytest.mark.parametrize(("weeks", "hours"), [(2, 6.5), (4, 4.5), (8, 3.5), (30, 3.5)])
def test_a_source_that_is_busy_every_hour_is_noticed_within_hours_and_sooner_with_more_weeks(
    weeks: int, hours: float
) -> None:
    took = noticed(teaching(weeks) | {hour_of(at(0, 8))}, at(0, 8, 5))
    assert took is not None
    assert took <= timedelta(hours=hours)


def test_nights_and_weekends_are_no_silence() -> None:
    busy = teaching(8, until=at(5, 0))
    friday_evening, monday_morning = at(4, 16, 55), at(7, 8, 5)
    found = silence(busy, friday_evening, monday_morning)
    assert found is not None
    assert found.probability > 0.5


def test_a_source_with_few_events_is_given_days() -> None:
    """One hour in ten is busy: half a day of nothing is everyday life, two weeks of nothing are not."""
    busy = teaching(8, share=0.1) | {hour_of(at(0, 9))}
    took = noticed(busy, at(0, 9), within=timedelta(days=40))
    assert took is not None
    assert timedelta(days=5) < took < timedelta(days=25)


def test_one_exam_with_thousands_of_papers_weighs_one_hour() -> None:
    """Eight weeks with nothing but one big exam: that the same hour is quiet now says almost nothing."""
    exam = hour_of(MONDAY - timedelta(days=14) + timedelta(hours=9))
    first = hour_of(MONDAY - timedelta(weeks=8))
    assert noticed({exam, first, hour_of(at(0, 8))}, at(0, 8)) is None


def test_a_week_of_holidays_in_the_past_hides_no_later_outage() -> None:
    holidays = {hour_of(MONDAY - timedelta(days=21) + timedelta(hours=hour)) for hour in range(168)}
    busy = (teaching(8) - holidays) | {hour_of(at(0, 8))}
    took = noticed(busy, at(0, 8, 5))
    assert took is not None
    assert took < timedelta(hours=5)


def test_in_the_holidays_a_stray_event_does_not_begin_a_new_alarm_every_day() -> None:
    """After a week in which something came twice a day, two quiet days are what is to be expected."""
    strays = {hour_of(at(day, hour)) for day in range(5) for hour in (9, 14)}
    busy = teaching(8) | strays
    took = noticed(busy, at(4, 14, 30))
    assert took is None or took > timedelta(days=4)


def test_an_exam_week_before_makes_the_usual_week_no_silence() -> None:
    """Day and night busy for a week, as never before: the next evening is quiet as always."""
    exams = {hour_of(MONDAY - timedelta(hours=hour)) for hour in range(1, 169)}
    found = silence(teaching(8) | exams, at(0, 17), at(1, 8))
    assert found is not None
    assert not found.improbable


def test_when_clocks_change_nothing_is_told() -> None:
    """In local time nothing changed, in UTC everything comes an hour earlier: for an hour each day nothing comes."""
    busy = teaching(8)
    found = silence(busy | {hour_of(at(0, hour)) for hour in range(7, 16)}, at(0, 15, 59), at(1, 7, 5))
    assert found is not None
    assert found.probability > 0.05


def test_a_longer_silence_is_never_more_probable() -> None:
    busy = teaching(5, share=0.6) | {hour_of(at(0, 8))}
    chances = [
        found.probability
        for hours in range(400)
        if (found := silence(busy, at(0, 8), at(0, 8) + timedelta(hours=hours))) is not None
    ]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == 1.0


def test_the_rhythm_of_verification_calls_is_not_shifted_by_one_outage() -> None:
    moments = [MONDAY + timedelta(hours=8 * number) for number in range(10) if number not in (4, 5)]
    assert rhythm_seconds(moments) == 8 * 3600
    assert rhythm_seconds(moments[:3]) is None
