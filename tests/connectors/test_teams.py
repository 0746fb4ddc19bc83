"""Addresses of Teams' retired webhooks are refused where they are written down, with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.configuration import read_configuration
from bridge.main import registry

SOURCES = "version: 1\nsources:\n  s: {connector: wiseflow, secrets: [a-secret-of-sixteen]}\n"
WORKFLOW = "https://default0a.1b.environment.api.powerplatform.com/workflows/2c/triggers/manual/paths/invoke?sig=s"


def problems(tmp_path: Path, url: str) -> str:
    file = tmp_path / "bridge.yaml"
    file.write_text(f"{SOURCES}targets:\n  teams: {{connector: teams, url: '{url}'}}\n")
    reading = read_configuration(file, sources=registry().sources, targets=registry().targets)
    return "\n".join(map(str, reading.problems))


@pytest.mark.parametrize(
    "url",
    [
        "https://contoso.webhook.office.com/webhookb2/1@2/IncomingWebhook/3/4",
        "https://CONTOSO.webhook.office.com/webhookb2/1/IncomingWebhook/3/4",
        "https://webhook.office.com/webhookb2/1",
        "https://webhook.office.com:443/webhookb2/1",
        "https://outlook.office.com/webhook/1",
    ],
)
def test_a_retired_webhook_is_refused_with_what_to_do_instead(tmp_path: Path, url: str) -> None:
    said = problems(tmp_path, url)

    assert "make a workflow" in said
    assert url not in said


@pytest.mark.parametrize(
    "url",
    [
        WORKFLOW,
        "https://prod-1.westeurope.logic.azure.com:443/workflows/1/triggers/manual/paths/invoke?sig=s",
        "https://webhook.office.com.example.org/x",
        "https://proxy.example.org/webhook.office.com/x",
    ],
)
def test_every_other_address_is_fine(tmp_path: Path, url: str) -> None:
    assert problems(tmp_path, url) == ""
