"""The watch over a real client and a ledger: what is dropped is made anew, what is silent is told, each thing once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from bridge.config.configuration import load_configuration
from bridge.core.errors import PayloadError
from bridge.core.manifest import SourceConnector, source_manifest
from bridge.core.settings import Settings
from bridge.core.simulation import ApiCall, ApiReply, Simulator
from bridge.core.source import Accepted, ApiAccess, Inbound, Source, SourceApi, Subscription, Verified
from bridge.engine.assembly import sources_of
from bridge.engine.line import SourceLine
from bridge.engine.subscriptions import carry_out, desk_of, listed, plan_for, remove_ours
from bridge.engine.watch import Watching, watch_once, watch_silence, watch_subscriptions, watching_duties
from bridge.flow.reconcile import PROOF
from bridge.flow.silence import hour_of
from bridge.flow.subscribing import hook_url
from bridge.ledger.accepting import Arrival, accept
from bridge.ledger.alerts import open_alerts
from bridge.ledger.database import Ledger
from bridge.ledger.duties import enrol, reconciling
from bridge.ledger.silence import count_arrivals, habit
from bridge.ledger.tables import alerts, arrivals, audit, duties
from bridge.main import registry
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.kept import KeptAnswers
from bridge.outbound.source_api import platform_of
from bridge.outbound.tokens import TokenCache
from bridge.testing.platform_server import PlatformServer, serve_platform

PUBLIC = "https://bridge.example.edu"
NAME = "exams"
URL = hook_url(PUBLIC, NAME)
MONDAY = datetime(2026, 6, 1, 8, 0, tzinfo=UTC)


@dataclass(slots=True)
class Office:
    """A platform that has hooks and nothing else; it can be told to refuse new ones, or never to list them."""

    hooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuses: bool = False
    forgets: bool = False
    made: int = 0

    def answer(self, call: ApiCall) -> ApiReply:
        if call.method == "GET":
            return ApiReply(json=list(self.hooks.values()))
        if call.method == "DELETE":
            return ApiReply(json=self.hooks.pop(call.path.rpartition("/")[2], {}))
        if self.refuses:
            return ApiReply(status=400, json={"error": "the address did not answer"})
        self.made += 1
        hook = {"id": str(self.made), "url": call.json["url"], "active": True, "kinds": ["A", "B"]}
        if not self.forgets:
            self.hooks[hook["id"]] = hook
        return ApiReply(json=hook)


def _subscription(entry: Any) -> Subscription:
    value = entry.value
    return Subscription(id=value["id"], url=value["url"], active=value["active"], kinds=tuple(value["kinds"]))


def _subscriptions(api: SourceApi) -> list[Subscription]:
    answer = api.get("/hooks")
    if answer is None or not isinstance(answer.value, list):
        raise PayloadError("$", "a list")
    return [_subscription(entry) for entry in answer.items()]


def _subscribe(api: SourceApi, url: str) -> Subscription:
    answer = api.change("POST", "/hooks", {"url": url})
    assert answer is not None
    return _subscription(answer)


def _unsubscribe(api: SourceApi, subscription: Subscription) -> None:
    api.change("DELETE", f"/hooks/{subscription.id}")


@dataclass(slots=True, kw_only=True)
class Post:
    """One source whose platform is the office, and a clock that the test turns."""

    ledger: Ledger
    office: Office
    server: PlatformServer
    source: SourceLine
    now: datetime = MONDAY
    public_url: str | None = PUBLIC

    @property
    def watching(self) -> Watching:
        return Watching(
            ledger=self.ledger, sources={NAME: self.source}, public_url=self.public_url, now=lambda: self.now
        )

    def subscribe(self) -> None:
        """What `sync` does, and the watch has seen it."""
        self.office.answer(ApiCall(method="POST", path="/hooks", query={}, headers={}, form={}, json={"url": URL}))
        assert watch_subscriptions(self.watching) == []

    def later(self, **span: float) -> list[str]:
        """A round after that time: the details of what it found."""
        self.now += timedelta(**span)
        return [alert.detail for alert in watch_subscriptions(self.watching)]

    def rows(self, table: Any) -> Sequence[Any]:
        with self.ledger.read() as connection:
            return connection.execute(select(table)).all()

    def standing(self) -> list[str]:
        return [entry.alert.about for entry in open_alerts(self.ledger)]


@pytest.fixture
def post(ledger: Ledger) -> Iterator[Post]:
    office = Office()
    with serve_platform(cast(Any, office)) as server:
        access = ApiAccess(base_url=server.url)
        code = SimpleNamespace(
            access=lambda _settings: access,
            subscriptions=_subscriptions,
            subscribe=_subscribe,
            unsubscribe=_unsubscribe,
        )
        connector = SourceConnector(
            name="office",
            title="Office",
            about="A platform that has hooks and nothing else",
            folder=Path(__file__).parent,
            manifest=source_manifest({"proof": "", "dedupe": {"rule": "", "reason": ""}, "kinds": {}}),
            code=cast(Source, code),
            simulator=cast(Simulator, None),
        )
        settings = Settings(name=NAME, secrets=("a-secret",), api={"base_url": server.url})
        policy = NetworkPolicy(allow_hosts=frozenset({"127.0.0.1"}))
        platform = platform_of(settings, access, policy, TokenCache(None), KeptAnswers())
        source = SourceLine(
            name=NAME,
            connector=connector,
            settings=settings,
            deadline=timedelta(hours=1),
            needed_only=False,
            api=platform.client,
        )
        yield Post(ledger=ledger, office=office, server=server, source=source)


# --- subscriptions ----------------------------------------------------------------------------------------------------


def test_a_dropped_subscription_is_made_anew_within_the_hour_and_told_once(post: Post) -> None:
    post.subscribe()
    enrol(post.ledger, reconciling(NAME), due_ms=10**15)
    post.office.hooks.clear()
    with capture_logs() as logs:
        found = post.later(minutes=15)
        again = post.later(minutes=15)
    assert [hook["url"] for hook in post.office.hooks.values()] == [URL]
    assert "not in the platform's list" in found[0]
    assert "made anew" in found[0]
    assert again == []
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("alert", "error"), ("alert_over", "info")]
    assert [(row.who, row.action, row.object) for row in post.rows(audit)] == [("watch", "subscriptions.create", NAME)]
    assert [row.due_ms for row in post.rows(duties)] == [0], "what happened meanwhile has to be looked for"


def test_one_that_was_switched_off_is_replaced_and_the_old_one_goes(post: Post) -> None:
    post.subscribe()
    next(iter(post.office.hooks.values()))["active"] = False
    assert len(post.later(minutes=15)) == 1
    assert {id_: hook["active"] for id_, hook in post.office.hooks.items()} == {"2": True}


def test_one_that_lost_kinds_is_replaced(post: Post) -> None:
    post.subscribe()
    post.office.hooks["1"]["kinds"] = ["A"]
    assert "lacks kinds that it had: B" in post.later(minutes=15)[0]
    assert {id_: hook["kinds"] for id_, hook in post.office.hooks.items()} == {"2": ["A", "B"]}


def test_where_none_was_ever_made_over_the_api_none_is_made(post: Post) -> None:
    """A person may have made it without the API: a second one would send everything twice."""
    assert post.later(minutes=15) == []
    assert post.office.made == 0


def test_what_a_person_removed_is_not_made_again(post: Post) -> None:
    post.subscribe()
    desk = desk_of(post.source, URL)
    assert desk is not None
    assert remove_ours(post.ledger, desk, listed(desk), who="ada", now=post.now) == 1
    assert post.later(minutes=15) == []
    assert post.office.hooks == {}


def test_an_alert_stands_while_the_platform_refuses_and_ends_when_it_takes_the_subscription(post: Post) -> None:
    post.subscribe()
    post.office.hooks.clear()
    post.office.refuses = True
    assert "could not be made anew" in post.later(minutes=15)[0]
    assert post.standing() == ["subscription"]
    post.office.refuses = False
    post.later(minutes=15)
    assert list(post.office.hooks) == ["2"]
    post.later(minutes=15)
    assert post.standing() == []
    assert len(post.rows(alerts)) == 1, "it was one alert all the time"


def test_a_platform_that_never_lists_what_it_took_is_not_filled_with_subscriptions(post: Post) -> None:
    post.subscribe()
    post.office.hooks.clear()
    post.office.forgets = True
    for _ in range(4 * 24):
        post.later(minutes=15)
    assert post.office.made <= 1 + 8
    assert post.standing() == ["subscription"]


def test_two_machines_that_look_at_once_make_one(post: Post) -> None:
    post.subscribe()
    post.office.hooks.clear()
    post.server.latency = 0.05
    post.now += timedelta(minutes=15)
    looks = [threading.Thread(target=watch_subscriptions, args=(post.watching,)) for _ in range(4)]
    for look in looks:
        look.start()
    for look in looks:
        look.join(30)
    assert len(post.office.hooks) == 1
    assert len(post.rows(alerts)) == 1


def test_an_api_that_is_away_for_a_moment_is_no_alert_and_ends_none(post: Post) -> None:
    post.subscribe()
    post.server.fail(503)
    assert post.later(minutes=15) == []
    post.server.heal()
    post.office.hooks.clear()
    post.office.refuses = True
    post.later(minutes=15)
    post.server.fail(503)
    post.later(minutes=10)
    assert post.standing() == ["subscription"]


def test_a_list_that_cannot_be_read_for_an_hour_is_told(post: Post) -> None:
    post.subscribe()
    post.server.fail(503)
    assert post.later(minutes=45) == []
    assert "cannot be read" in post.later(minutes=30)[0]
    post.server.heal()
    assert post.later(minutes=15) == []
    assert post.standing() == []


def test_missing_rights_are_told_at_once_if_there_is_a_subscription_to_lose(post: Post) -> None:
    post.server.fail(403)
    assert post.later(minutes=15) == []
    post.server.heal()
    post.subscribe()
    post.server.fail(403)
    assert "check credentials and rights" in post.later(minutes=15)[0]


def test_after_a_change_of_the_public_url_a_person_is_asked(post: Post) -> None:
    post.subscribe()
    post.public_url = "https://new.example.edu"
    assert "run campusbridge subscriptions sync exams" in post.later(minutes=15)[0]
    assert post.office.made == 1


def test_a_bug_in_a_connector_is_told_without_values_and_stops_nothing(post: Post) -> None:
    post.subscribe()
    post.office.hooks["1"]["url"] = {"a": "secret value"}
    found = post.later(minutes=15)
    assert len(found) == 1
    assert "secret value" not in found[0]


def test_alerts_of_a_source_that_is_no_more_are_over(post: Post) -> None:
    post.subscribe()
    post.server.fail(403)
    post.later(minutes=15)
    assert watch_once(replace(post.watching, sources={})) == []
    assert post.standing() == []


@pytest.mark.parametrize("name", ["wiseflow", "inspera"])
def test_what_is_deleted_at_a_real_platforms_api_is_there_again(name: str, tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.upgrade()
    known = registry()
    connector = known.sources[name]
    with serve_platform(connector.simulator.platform()) as server:
        entry = connector.simulator.settings("a-secret", server.url) | {"budget": {"calls": 1000, "seconds": 1}}
        document = {"version": 1, "sources": {NAME: entry}, "network": {"allow_hosts": ["127.0.0.1"]}}
        file = tmp_path / "bridge.yaml"
        file.write_text(json.dumps(document), "utf-8")
        configuration = load_configuration(file, sources=known.sources, targets=known.targets, environ={})
        source = sources_of(configuration, known, None)[NAME]
        desk = desk_of(source, URL)
        assert desk is not None
        carry_out(ledger, desk, plan_for(desk, None, listed(desk)), who="ada", now=MONDAY)
        watching = Watching(ledger=ledger, sources={NAME: source}, public_url=PUBLIC, now=lambda: MONDAY)
        assert watch_subscriptions(watching) == []
        [first] = listed(desk)
        desk.code.unsubscribe(desk.api, first)
        assert listed(desk) == []
        assert len(watch_subscriptions(watching)) == 1
        [again] = listed(desk)
        assert (again.url, again.active, again.kinds) == (URL, True, first.kinds)
        assert again.id != first.id
        assert watch_subscriptions(watching) == []
        plan = plan_for(desk, None, listed(desk), rotate=True)
        [rotated] = carry_out(ledger, desk, plan, who="ada", now=MONDAY)
        assert rotated.id != again.id
    ledger.close()


# --- verification calls -----------------------------------------------------------------------------------------------


def arrive(
    ledger: Ledger, moments: Sequence[datetime], *, ignored: bool = False, proof: str = "secret 1", first: int = 0
) -> None:
    """Deliveries of the source at these moments."""
    found = []
    for number, moment in enumerate(moments, first):
        id_ = f"{'check' if ignored else proof}-{number:06d}"
        inbound = Inbound(id=id_, source=NAME, received_at=moment, headers={}, query={}, body=b"{}")
        verified = Verified(inbound=inbound, proof=proof, dedupe_key=id_, dedupe_window=timedelta(seconds=1))
        accepted = Accepted(verified=verified, ignored=ignored)
        found.append(Arrival(accepted=accepted, lane="process:exams:0", order_key=id_))
    accept(ledger, found)


def test_verification_calls_that_stay_away_are_told_after_nine_hours_while_the_api_cannot_be_asked(post: Post) -> None:
    arrive(post.ledger, [MONDAY - timedelta(hours=8 * number) for number in range(6)], ignored=True)
    post.subscribe()
    post.server.fail(503)
    post.later(hours=8.9)
    assert post.standing() == ["subscription"]
    post.later(hours=0.2)
    assert post.standing() == ["subscription", "verification"]
    arrive(post.ledger, [post.now], ignored=True, first=100)
    post.later(minutes=15)
    assert post.standing() == ["subscription"]


def test_while_the_platform_lists_our_subscription_its_verification_calls_do_not_matter(post: Post) -> None:
    arrive(post.ledger, [MONDAY - timedelta(hours=8 * number) for number in range(6)], ignored=True)
    post.subscribe()
    assert post.later(hours=30) == []


def test_without_an_api_the_verification_calls_are_all_there_is(post: Post) -> None:
    arrive(post.ledger, [MONDAY - timedelta(hours=8 * number) for number in range(6)], ignored=True)
    post.source = replace(post.source, api=None)
    assert post.later(hours=8.9) == []
    assert "every 8.0 hours" in post.later(hours=0.2)[0]


def test_a_source_that_never_had_verification_calls_misses_none(post: Post) -> None:
    post.source = replace(post.source, api=None)
    assert post.later(hours=1000) == []


# --- silence ----------------------------------------------------------------------------------------------------------


def teaching(weeks: int) -> list[datetime]:
    """One delivery every half hour from 8 to 17 o'clock, Monday to Friday, until Monday 8 o'clock."""
    halves = [MONDAY - timedelta(minutes=30 * number) for number in range(weeks * 336 + 1)]
    return sorted(at for at in halves if at.weekday() < 5 and 8 <= at.hour < 17)


def test_a_silent_source_is_told_once_and_over_when_something_comes(post: Post) -> None:
    arrive(post.ledger, teaching(4))
    found = []
    with capture_logs() as logs:
        for _ in range(12 * 7):
            found.append(watch_silence(post.watching))
            post.now += timedelta(minutes=5)
    hours = sum(1 for entry in found if not entry) / 12
    assert 3 < hours < 5
    assert [entry["about"] for entry in logs if entry["event"] == "alert"] == ["silence"]
    arrive(post.ledger, [post.now], first=100_000)
    post.now += timedelta(minutes=5)
    assert watch_silence(post.watching) == []
    assert post.standing() == []


def test_what_reconciliation_made_does_not_hide_that_webhooks_stay_away(post: Post) -> None:
    arrive(post.ledger, teaching(4))
    post.now += timedelta(hours=5)
    arrive(post.ledger, [MONDAY + timedelta(hours=hour) for hour in range(5)], proof=PROOF)
    assert [alert.about for alert in watch_silence(post.watching)] == ["silence"]


def test_verification_calls_do_not_hide_a_silence(post: Post) -> None:
    arrive(post.ledger, teaching(4))
    post.now += timedelta(hours=5)
    arrive(post.ledger, [MONDAY + timedelta(hours=hour) for hour in range(5)], ignored=True)
    assert [alert.about for alert in watch_silence(post.watching)] == ["silence"]


def test_a_source_without_history_is_silent_in_peace(post: Post) -> None:
    assert watch_silence(post.watching) == []
    arrive(post.ledger, teaching(1))
    post.now += timedelta(days=3)
    assert watch_silence(post.watching) == []


def test_every_delivery_is_counted_once_whoever_counts_and_the_newest_later(post: Post) -> None:
    moments = teaching(8)
    arrive(post.ledger, moments)
    counting = [threading.Thread(target=count_arrivals, args=(post.ledger, post.now)) for _ in range(4)]
    for thread in counting:
        thread.start()
    for thread in counting:
        thread.join(30)
    settled = [moment for moment in moments if moment <= post.now - timedelta(minutes=1)]
    assert sum(row.count for row in post.rows(arrivals)) == len(settled) == len(moments) - 1
    count_arrivals(post.ledger, post.now + timedelta(minutes=5))
    assert sum(row.count for row in post.rows(arrivals)) == len(moments)
    known = habit(post.ledger, NAME)
    assert known is not None
    assert known.last == moments[-1]


def test_a_delivery_that_is_stamped_in_the_future_does_not_stop_the_counting(post: Post) -> None:
    arrive(post.ledger, [MONDAY - timedelta(hours=3), MONDAY + timedelta(days=365)])
    later = [MONDAY - timedelta(hours=2) + timedelta(minutes=10 * number) for number in range(5)]
    arrive(post.ledger, later, first=2)
    count_arrivals(post.ledger, post.now)
    counted = post.rows(arrivals)
    count_arrivals(post.ledger, post.now)
    assert post.rows(arrivals) == counted
    known = habit(post.ledger, NAME)
    assert known is not None
    assert known.hours >= {hour_of(MONDAY - timedelta(hours=hours)) for hours in (3, 2)}
    assert known.last <= post.now


def test_a_delivery_that_is_stamped_in_the_future_does_not_hide_a_silence(post: Post) -> None:
    known = teaching(4)
    arrive(post.ledger, known[:-3])
    arrive(post.ledger, [MONDAY + timedelta(days=365)], first=10_000)
    arrive(post.ledger, known[-3:], first=20_000)
    assert watch_silence(post.watching) == []
    post.now += timedelta(hours=7)
    assert [alert.about for alert in watch_silence(post.watching)] == ["silence"]


def test_a_late_journal_counts_in_the_hours_in_which_it_was_received(post: Post) -> None:
    arrive(post.ledger, [MONDAY - timedelta(hours=1)])
    count_arrivals(post.ledger, post.now)
    arrive(post.ledger, [MONDAY - timedelta(hours=9)], first=1)
    count_arrivals(post.ledger, post.now)
    known = habit(post.ledger, NAME)
    assert known is not None
    assert len(known.hours) == 2
    assert known.last == MONDAY - timedelta(hours=1)


def test_counts_older_than_ten_weeks_go_once_something_newer_is_there(post: Post) -> None:
    arrive(post.ledger, teaching(3))
    count_arrivals(post.ledger, post.now + timedelta(minutes=5))
    before = len(post.rows(arrivals))
    count_arrivals(post.ledger, post.now + timedelta(weeks=9))
    assert len(post.rows(arrivals)) == before
    arrive(post.ledger, [post.now + timedelta(weeks=9)], first=100_000)
    count_arrivals(post.ledger, post.now + timedelta(weeks=9, minutes=5))
    assert 0 < len(post.rows(arrivals)) < before


def test_a_silence_of_months_stays_one_alert_and_ends_with_the_first_delivery(post: Post) -> None:
    arrive(post.ledger, teaching(4))
    for _ in range(20):
        post.now += timedelta(weeks=1)
        assert len(watch_silence(post.watching)) == 1
    assert len(post.rows(alerts)) == 1
    arrive(post.ledger, [post.now], first=100_000)
    post.now += timedelta(minutes=5)
    assert watch_silence(post.watching) == []
    assert post.standing() == []


def test_both_looks_are_duties_that_come_round_in_minutes(post: Post) -> None:
    found = {duty.name: duty for duty in watching_duties(post.watching)}
    assert {name: duty.every for name, duty in found.items()} == {
        "watch:subscriptions": timedelta(minutes=15),
        "watch:silence": timedelta(minutes=5),
    }
    post.subscribe()
    post.office.hooks.clear()
    found["watch:subscriptions"].work(threading.Event())
    assert len(post.office.hooks) == 1
