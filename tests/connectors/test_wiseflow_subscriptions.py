"""Webhooks are listed, made and deleted over the API."""

from __future__ import annotations

from dataclasses import replace

import pytest
from wiseflow_parts import SETTINGS, bridge

from bridge.core.errors import SourceRefused, SourceUnavailable
from bridge.core.source import Subscription
from connectors.wiseflow import source

URL = "https://bridge.example.test/hooks/wiseflow-main"


def test_a_webhook_is_made_with_the_first_secret_listed_and_deleted() -> None:
    parts = bridge()
    api = parts.client()
    assert source.subscriptions(api) == []
    made = source.subscribe(api, URL)
    assert (made.url, made.active, len(made.kinds)) == (URL, True, 8)
    assert source.subscriptions(api) == [made]
    assert parts.platform.webhooks.secrets[int(made.id)] == SETTINGS.secrets[0]
    source.unsubscribe(api, made)
    source.unsubscribe(api, made)
    assert source.subscriptions(api) == []


def test_a_new_webhook_stands_beside_the_old_one_until_that_is_deleted() -> None:
    api = bridge().client()
    old, new = source.subscribe(api, URL), source.subscribe(api, URL)
    source.unsubscribe(api, old)
    assert [entry.id for entry in source.subscriptions(api)] == [new.id]


def test_what_the_platform_refuses_is_said() -> None:
    parts = bridge()
    with pytest.raises(SourceUnavailable, match="400"):
        source.subscribe(parts.client(), "http://bridge.example.test/hooks/wiseflow-main")
    parts.platform.webhooks.limit = 0
    with pytest.raises(SourceUnavailable, match="400"):
        source.subscribe(parts.client(), URL)
    api = replace(parts.shared, settings=replace(SETTINGS, secrets=())).client()
    with pytest.raises(SourceRefused, match="secret"):
        source.subscribe(api, URL)
    assert parts.platform.webhooks.hooks == {}


def test_an_unknown_webhook_is_gone_already() -> None:
    source.unsubscribe(bridge().client(), Subscription(id="77", url=URL, active=True))
