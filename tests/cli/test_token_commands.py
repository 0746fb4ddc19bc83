"""`tokens create|list|revoke`: made once, shown once, ended at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.ledger.api_tokens import permission_of
from bridge.ledger.database import Ledger
from bridge.main import registry, web_app

CREATE = ("tokens", "create", "warehouse", "--scope", "events:read")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = {"connector": "wiseflow", "secrets": ["a-secret-of-the-tests-4711"]}
    (tmp_path / "bridge.yaml").write_text(json.dumps({"version": 1, "sources": {"exams": source}}), "utf-8")
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    context = Context(registry=registry(), web_app=web_app)
    return CliRunner().invoke(campusbridge, ["--config", str(folder / "bridge.yaml"), *arguments], obj=context)


def permission(folder: Path, token: str) -> object:
    ledger = Ledger(f"sqlite:///{folder}/data/bridge.db")
    try:
        return permission_of(ledger, token)
    finally:
        ledger.close()


def test_a_token_is_printed_once_and_is_good(folder: Path) -> None:
    made = run(folder, *CREATE)
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert token.startswith("cb_")
    assert permission(folder, token)
    listed = run(folder, "tokens", "list", "--json")
    assert token not in listed.output
    [row] = json.loads(listed.stdout)
    assert (row["name"], row["scopes"], row["expires"], row["revoked"]) == ("warehouse", ["events:read"], None, None)


def test_its_limits_are_listed(folder: Path) -> None:
    limits = ("--source", "exams", "--type", "grade.*", "--expires", "90")
    token = json.loads(run(folder, *CREATE, *limits, "--json").stdout)["token"]
    assert permission(folder, token)
    [row] = json.loads(run(folder, "tokens", "list", "--json").stdout)
    assert (row["sources"], row["types"]) == (["exams"], ["grade.*"])
    assert row["expires"] > row["created"]
    assert "grade.*" in run(folder, "tokens", "list").output


def test_a_revoked_token_is_good_for_nothing_and_its_name_is_not_used_again(folder: Path) -> None:
    token = run(folder, *CREATE).stdout.strip()
    assert run(folder, "tokens", "revoke", "warehouse").exit_code == 0
    assert permission(folder, token) is None
    assert run(folder, "tokens", "revoke", "warehouse").exit_code == 1
    assert run(folder, *CREATE).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tokens", "create", "warehouse"), "--scope"),
        (("tokens", "create", "warehouse", "--scope", "everything"), "events:read"),
        ((*CREATE, "--source", "nobody"), "no source nobody in bridge.yaml"),
        ((*CREATE, "--type", "grades.*"), "matches no canonical type"),
        ((*CREATE, "--expires", "0"), "--expires"),
        (("tokens", "revoke", "nobody"), "no token nobody"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    refused = run(folder, *arguments)
    assert refused.exit_code != 0
    assert told in refused.output
