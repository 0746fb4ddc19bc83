"""What has to be made and removed, whatever a platform lists."""

from __future__ import annotations

import pytest

from bridge.core.source import Subscription
from bridge.flow.subscribing import hook_url, is_at, planned

URL = "https://bridge.example.edu/hooks/exams"


def one(id_: str, *kinds: str, url: str = URL, active: bool = True) -> Subscription:
    return Subscription(id=id_, url=url, active=active, kinds=kinds)


def removed(*listed: Subscription, **how: object) -> list[str]:
    return [entry.id for entry in planned(listed, URL, **how).remove]  # type: ignore[arg-type]


def test_the_address_of_a_hook_has_one_slash_wherever_the_public_url_ends() -> None:
    assert hook_url("https://bridge.example.edu/", "exams") == hook_url("https://bridge.example.edu", "exams") == URL


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        (URL, True),
        ("HTTPS://Bridge.Example.edu:443/hooks/exams/", True),
        (f"{URL}?token=t", True),
        ("http://bridge.example.edu/hooks/exams", False),
        ("https://bridge.example.edu/hooks/exams2", False),
        ("https://bridge.example.edu/hooks/Exams", False),
        ("https://bridge.example.edu:8443/hooks/exams", False),
        ("https://[broken/hooks/exams", False),
        ("", False),
    ],
)
def test_ours_is_what_sends_to_our_address(url: str, ours: bool) -> None:
    assert is_at(one("1", url=url), URL) is ours


def test_one_that_is_there_and_active_is_left_alone() -> None:
    assert planned([one("1")], URL).nothing


def test_what_is_not_listed_is_made_and_those_of_others_stay() -> None:
    plan = planned([one("1", url="https://other.example.edu/in")], URL)
    assert plan.because is not None
    assert plan.remove == ()


def test_one_that_was_switched_off_is_replaced() -> None:
    plan = planned([one("1", active=False)], URL)
    assert plan.because is not None
    assert [entry.id for entry in plan.remove] == ["1"]


def test_of_duplicates_the_newest_stays() -> None:
    assert planned([one("1"), one("2")], URL).because is None
    assert removed(one("1"), one("2")) == ["1"]
    assert removed(one("1"), one("2"), one("3", active=False)) == ["1", "3"]


def test_a_subscription_for_each_kind_is_no_duplicate() -> None:
    assert planned([one("1", "A"), one("2", "B")], URL).nothing
    assert removed(one("1", "A"), one("2", "B"), one("3", "A")) == ["1"]
    assert removed(one("1", "A", "B"), one("2", "B"), one("3", "A")) == ["1"]
    assert removed(one("1", "A", "B"), one("2", "B")) == ["2"]
    assert removed(one("1", "A"), one("2"), one("3", "B")) == ["1", "3"]
    assert removed(one("1", "A", "C", "D"), one("2", "B", "C"), one("3", "A", "B")) == ["3"]


def test_kinds_that_were_there_and_are_lost_make_a_new_one_necessary() -> None:
    plan = planned([one("1", "A")], URL, kinds={"A", "B"})
    assert plan.because == "it lacks kinds that it had: B"
    assert [entry.id for entry in plan.remove] == ["1"]
    assert planned([one("1")], URL, kinds={"A", "B"}).nothing  # one for all kinds lacks none


def test_rotating_makes_a_new_one_before_the_old_ones_go() -> None:
    plan = planned([one("1"), one("2")], URL, rotate=True)
    assert plan.because is not None
    assert [entry.id for entry in plan.remove] == ["1", "2"]


def test_after_a_move_the_one_at_the_former_address_goes_too() -> None:
    former = "https://old.example.edu/hooks/exams"
    plan = planned([one("1", url=former), one("2", url="https://other.example.edu/in")], URL, former_url=former)
    assert plan.because is not None
    assert [entry.id for entry in plan.remove] == ["1"]
