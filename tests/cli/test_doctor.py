"""`doctor` before anything runs: what `init` wrote is enough for it to speak."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.main import registry, web_app

VARIABLES = {
    "WISEFLOW_SECRET": "a-secret",
    "WISEFLOW_CLIENT_ID": "id",
    "WISEFLOW_CLIENT_SECRET": "client-secret",
    "TARGET_URL": "https://crm.example.org/api",
    "TARGET_TOKEN": "token",
}


@pytest.mark.parametrize(
    ("redis", "status", "says"),
    [("embedded", 0, "embedded, starts with the worker"), ("redis://127.0.0.1:1/0", 1, "PROBLEM")],
)
def test_a_redis_that_does_not_run_is_a_finding_and_no_crash(
    tmp_path: Path, redis: str, status: int, says: str
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        obj = Context(registry=registry(), web_app=web_app)
        result = CliRunner().invoke(campusbridge, list(arguments), obj=obj, env=VARIABLES)
        return result.exit_code, result.output

    assert run("init", str(tmp_path))[0] == 0
    file = tmp_path / "bridge.yaml"
    file.write_text(file.read_text("utf-8") + f"\nstorage: {{redis: '{redis}'}}\n", "utf-8")

    code, output = run("-c", str(file), "doctor")

    assert (code, says in output) == (status, True), output
    assert "/hooks/wiseflow-main" in output
    assert "a-secret" not in output
