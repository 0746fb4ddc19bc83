"""bridge.yaml in, typed values or all problems out."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from config_fakes import connectors
from jsonschema import Draft202012Validator

from bridge.config.configuration import Reading, load_configuration, read_configuration
from bridge.config.schema import bridge_schema, editor_schema
from bridge.core.errors import ConfigurationError, Problem
from bridge.core.manifest import Rate
from bridge.main import registry

ENVIRON = {"EXAM_SECRET": "s3cret-of-the-exam", "CLIENT_SECRET": "client-hush", "CRM_TOKEN": "token-hush"}

GOOD = """\
version: 1
sources:
  exams:
    connector: exam
    secrets: ["${EXAM_SECRET}"]
    window_seconds: 5
    api:
      client_id: abc
      client_secret: ${CLIENT_SECRET}
targets:
  crm: {connector: crm, url: "https://crm.example.org", token: "${CRM_TOKEN}"}
"""


def read(folder: Path, text: str, environ: dict[str, str] | None = None) -> Reading:
    (folder / "bridge.yaml").write_text(text, "utf-8")
    sources, targets = connectors(folder)
    return read_configuration(
        folder / "bridge.yaml", sources=sources, targets=targets, environ=ENVIRON if environ is None else environ
    )


def only(reading: Reading) -> Problem:
    assert len(reading.problems) == 1, [str(problem) for problem in reading.problems]
    return reading.problems[0]


def test_a_good_file_becomes_typed_values_with_every_default_filled_in(tmp_path: Path) -> None:
    reading = read(tmp_path, GOOD)
    assert reading.problems == ()
    assert reading.warnings == ()
    configuration = reading.configuration
    assert configuration is not None
    exams = configuration.sources["exams"]
    assert exams.connector == "exam"
    assert exams.enabled
    assert exams.deadline == timedelta(seconds=600)
    assert exams.settings.name == "exams"
    assert exams.settings.secrets == ("s3cret-of-the-exam",)
    assert exams.settings.options == {
        "mode": "hmac",
        "url_token": None,
        "window_seconds": 5,
        "aliases": {},
        "limits": {"pages": 10},
    }
    assert exams.settings.api == {
        "base_url": "https://api.exam.example",
        "client_id": "abc",
        "client_secret": "client-hush",
    }
    crm = configuration.targets["crm"]
    assert crm.settings.options == {"url": "https://crm.example.org", "token": "token-hush", "region": "eu"}
    assert (crm.concurrency, crm.retry) == (3, configuration.retry)
    assert configuration.retry.max_age == timedelta(hours=72)
    assert configuration.storage.database == f"sqlite:///{tmp_path}/data/bridge.db"
    assert configuration.storage.redis == "embedded"
    assert (configuration.data, configuration.mappings) == (tmp_path / "data", tmp_path / "mappings")
    assert (configuration.accept, configuration.web.host, configuration.web.port) == ("journal", "127.0.0.1", 8080)
    assert (configuration.web.max_body_bytes, configuration.web.console) == (262144, "local")
    assert not configuration.network.allow_private


def test_a_source_without_api_settings_is_not_given_any(tmp_path: Path) -> None:
    text = 'version: 1\nsources:\n  e: {connector: exam, secrets: ["${EXAM_SECRET}"]}\n'
    configuration = read(tmp_path, text).configuration
    assert configuration is not None
    assert configuration.sources["e"].settings.api is None


def test_no_secret_is_in_the_repr_of_a_configuration(tmp_path: Path) -> None:
    text = (
        GOOD + "storage: {database: 'postgresql://u:${CRM_TOKEN}@db/bridge', redis: 'redis://:${CRM_TOKEN}@r:6379'}\n"
    )
    reading = read(tmp_path, text)
    assert reading.configuration is not None
    for hidden in ("hush", "s3cret"):
        assert hidden not in repr(reading)


def test_every_kind_of_mistake_is_told_at_once_and_in_its_own_line(tmp_path: Path) -> None:
    reading = read(
        tmp_path,
        """\
version: 2
sources:
  exams:
    connector: exam
    secretz: ["${EXAM_SECRET}"]
    secrets: ["${NOT_SET}"]
    window_seconds: -1
    limits:
      pages: many
    api:
      client_id: 5
  other:
    connector: exm
    secrets: [x]
targets:
  CRM: {connector: crm}
accept: both
web:
  bind: 8080
""",
    )
    assert reading.configuration is None
    assert [(problem.line, problem.where, problem.message) for problem in reading.problems] == [
        (1, "version", "expected 1"),
        (5, "sources.exams.secretz", "unknown key 'secretz'"),
        (6, "sources.exams.secrets[0]", "the environment variable NOT_SET is not set"),
        (7, "sources.exams.window_seconds", "expected at least 0"),
        (9, "sources.exams.limits.pages", "expected a whole number, found a text"),
        (10, "sources.exams.api", "the key 'client_secret' is missing"),
        (11, "sources.exams.api.client_id", "expected a text, found a number"),
        (13, "sources.other.connector", "there is no source connector of this name"),
        (16, "targets.CRM", "does not have the expected form"),
        (16, "targets.CRM", "the key 'url' is missing"),
        (17, "accept", "expected one of journal, ledger"),
        (19, "web.bind", "expected a text, found a number"),
    ]
    hints = {problem.where: problem.hint for problem in reading.problems}
    assert hints["sources.exams.secretz"] == "did you mean secrets?"
    assert hints["sources.other.connector"] == "did you mean exam?"
    assert hints["sources.exams.api"] == "The client's secret"


def test_loading_raises_all_problems_in_one_error(tmp_path: Path) -> None:
    (tmp_path / "bridge.yaml").write_text("version: 1\nsorces: {}\naccept: maybe\n", "utf-8")
    sources, targets = connectors(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(tmp_path / "bridge.yaml", sources=sources, targets=targets, environ={})
    assert len(caught.value.problems) == 3
    assert "unknown key 'sorces' (did you mean sources?)" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("version: 1\n", "version: 1\nversion: 1\n"), 2, "this key is there twice"),
        (("    window_seconds: 5", "\twindow_seconds: 5"), 6, "not YAML: a tab"),
        (("connector: exam", "connector: *exam"), 4, "an alias without its anchor"),
        (("window_seconds: 5", "window_seconds: !float 5"), 6, "a tag (!…) has no meaning here"),
        (("connector: crm", "connector: crm, token: x"), 11, "this key is there twice"),
        (("version: 1\n", "version: 1\naccept: ledger\n"), 2, "ledger needs PostgreSQL"),
        (("version: 1\n", "version: 1\nweb: {bind: '127.0.0.1:70000'}\n"), 2, "expected a port up to 65535"),
        (("version: 1\n", "version: 1\nstorage:\n"), 2, "expected a mapping of keys to values, found nothing"),
        (("version: 1\n", "version: 1\nstorage: {database: 'mysql://h/d'}\n"), 2, "does not have the expected form"),
        (("version: 1\n", "version: 1\nstorage: {database: 'sqlite:///:memory:'}\n"), 2, "does not have the"),
        (("version: 1\n", "version: 1\nstorage: {redis: 'redis://h:x/0'}\n"), 2, "not a URL"),
        (("version: 1\n", "version: 1\nnetwork: {allow_hosts: ['http://x/']}\n"), 2, "does not have the expected form"),
        (("version: 1\n", "version: 1\nretry: {max_delay_seconds: 2}\n"), 2, "first_delay_seconds is longer"),
        (('secrets: ["${EXAM_SECRET}"]', "enabled: true"), 3, "a source needs at least one secret"),
        (('secrets: ["${EXAM_SECRET}"]', "secrets: ['']"), 5, "must not be empty"),
        (('secrets: ["${EXAM_SECRET}"]', "secrets: ['  ']"), 5, "a secret must not be empty"),
        (('secrets: ["${EXAM_SECRET}"]', "secrets: []"), 5, "must not be empty"),
        (('secrets: ["${EXAM_SECRET}"]', "mode: url_token"), 5, "the mode url_token needs a url_token"),
        (("https://crm.example.org", "crm.example.org"), 11, "expected an http or https URL"),
        (("window_seconds: 5", "mode: hmca"), 6, "expected one of hmac, url_token"),
        (("exams:", "exams.main:"), 3, "does not have the expected form"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_in_its_line(tmp_path: Path, change: tuple[str, str], line: int, message: str) -> None:
    assert change[0] in GOOD
    problem = only(read(tmp_path, GOOD.replace(*change, 1)))
    assert problem.line == line
    assert problem.message.startswith(message)
    assert problem.file == str(tmp_path / "bridge.yaml")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "expected a mapping of keys to values, found a list"),
        (b"version: 1\nname: \xe9\n", "is not UTF-8"),
        (b"version: 1\n---\nversion: 1\n", "a second document"),
        (b"a: [" + b"[" * 5000, "nested deeper than"),
        (b"#" * 1_100_000, "is larger than 1024 KiB"),
        (b"a: \x00\n", "not YAML: a control character"),
    ],
)
def test_a_file_that_is_no_configuration_is_a_problem_and_no_crash(tmp_path: Path, raw: bytes, message: str) -> None:
    (tmp_path / "bridge.yaml").write_bytes(raw)
    reading = read_configuration(tmp_path / "bridge.yaml", sources={}, targets={}, environ={})
    assert only(reading).message.startswith(message)


def test_a_missing_file_and_a_folder_are_problems(tmp_path: Path) -> None:
    missing = read_configuration(tmp_path / "bridge.yaml", sources={}, targets={}, environ={})
    assert only(missing).message == "there is no such file"
    folder = read_configuration(tmp_path, sources={}, targets={}, environ={})
    assert only(folder).message.startswith("cannot be read")


def test_aliases_that_multiply_are_stopped(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    (tmp_path / "bridge.yaml").write_text("\n".join(lines), "utf-8")
    reading = read_configuration(tmp_path / "bridge.yaml", sources={}, targets={}, environ={})
    assert any("more than 50000 values" in problem.message for problem in reading.problems)


def test_anchors_and_merges_serve_sources_that_are_alike(tmp_path: Path) -> None:
    text = """\
version: 1
sources:
  first: &exam
    connector: exam
    secrets: ["${EXAM_SECRET}"]
    window_seconds: 9
  second:
    <<: *exam
    window_seconds: 1
"""
    configuration = read(tmp_path, text).configuration
    assert configuration is not None
    assert configuration.sources["second"].settings.options["window_seconds"] == 1
    assert configuration.sources["second"].settings.secrets == ("s3cret-of-the-exam",)


def test_a_target_overrides_only_what_it_names_of_the_general_retry(tmp_path: Path) -> None:
    text = GOOD.replace('"${CRM_TOKEN}"}', '"${CRM_TOKEN}", retry: {max_hours: 1}, concurrency: 1}')
    text += "retry: {first_delay_seconds: 7}\n"
    configuration = read(tmp_path, text).configuration
    assert configuration is not None
    crm = configuration.targets["crm"]
    assert (crm.retry.max_age, crm.retry.first_delay) == (timedelta(hours=1), timedelta(seconds=7))
    assert crm.concurrency == 1


@pytest.mark.parametrize(
    ("said", "also"),
    [("", 1), ("budget: {calls: 9}", 1), ("budget: {also: []}", 0), ("budget: {also: [{calls: 9, seconds: 2}]}", 1)],
)
def test_a_source_overrides_only_what_it_names_of_the_connectors_budget(tmp_path: Path, said: str, also: int) -> None:
    (tmp_path / "bridge.yaml").write_text(f"""version: 1
sources:
  exams:
    connector: wiseflow
    secrets: ["${{EXAM_SECRET}}"]
    {said}
""")
    known = registry()
    exams = load_configuration(tmp_path / "bridge.yaml", sources=known.sources, targets={}, environ=ENVIRON).sources[
        "exams"
    ]
    assert len(exams.budget.also) == also
    assert all(isinstance(rate, Rate) for rate in exams.budget.also)
    assert exams.budget.calls == (9 if "{calls: 9}" in said and "also" not in said else 5000)


@pytest.mark.parametrize("connector", ["edusign", "wise"])
@pytest.mark.parametrize(("seconds", "problems"), [("31536000", 0), ("31536001", 1), ("1.0e300", 1)])
def test_copies_are_known_for_a_year_at_most(tmp_path: Path, connector: str, seconds: str, problems: int) -> None:
    (tmp_path / "bridge.yaml").write_text(f"""version: 1
sources:
  lessons:
    connector: {connector}
    secrets: ["${{EXAM_SECRET}}"]
    dedupe_window_seconds: {seconds}
""")
    known = registry()
    reading = read_configuration(tmp_path / "bridge.yaml", sources=known.sources, targets={}, environ=ENVIRON)
    assert [(found.line, found.where) for found in reading.problems] == [
        (6, "sources.lessons.dedupe_window_seconds")
    ] * problems


def test_a_secret_that_is_written_out_is_a_warning_and_never_shown(tmp_path: Path) -> None:
    text = GOOD.replace('"${EXAM_SECRET}"', "plainly-written").replace("${CLIENT_SECRET}", "also-plain")
    text += "storage: {redis: 'redis://:plain-too@host:6379/0'}\n"
    reading = read(tmp_path, text)
    assert reading.configuration is not None
    assert [(warning.line, warning.where) for warning in reading.warnings] == [
        (5, "sources.exams.secrets[0]"),
        (9, "sources.exams.api.client_secret"),
        (12, "storage.redis"),
    ]
    assert not any("plain" in str(warning) for warning in reading.warnings)


def test_an_address_on_this_host_needs_to_be_allowed(tmp_path: Path) -> None:
    local = GOOD.replace("https://crm.example.org", "http://127.0.0.1:9000/hook")
    problem = only(read(tmp_path, local))
    assert (problem.line, problem.where) == (11, "targets.crm.url")
    assert "127.0.0.1" not in str(problem)
    assert "network.allow_hosts" in problem.hint
    for allowed in ("127.0.0.1", "127.0.0.1:9000"):
        reading = read(tmp_path, local + f"network: {{allow_hosts: ['{allowed}']}}\n")
        assert (reading.problems, reading.warnings) == ((), ())
    assert read(tmp_path, local + "network: {allow_private: true}\n").problems != ()
    campus = GOOD.replace("https://crm.example.org", "http://10.1.2.3/hook")
    assert "network.allow_private" in only(read(tmp_path, campus)).hint
    reading = read(tmp_path, campus + "network: {allow_private: true}\n")
    assert (reading.problems, reading.warnings) == ((), ())


def test_no_message_ever_holds_the_value_that_is_wrong(tmp_path: Path) -> None:
    text = GOOD.replace("window_seconds: 5", "window_seconds: hidden-a\n    mode: hidden-b\n    aliases: [hidden-c]")
    text = text.replace("https://crm.example.org", "hidden-d").replace("version: 1", "version: hidden-e")
    text += "web: {bind: hidden-f, console: hidden-g}\nstorage: {database: 'mysql://hidden-h'}\n"
    reading = read(tmp_path, text)
    assert len(reading.problems) == 8
    assert not any("hidden" in str(problem) for problem in reading.problems)


def test_the_shipped_schema_is_valid_and_describes_every_key() -> None:
    schema = bridge_schema()
    Draft202012Validator.check_schema(schema)

    def undescribed(value: object, place: str) -> list[str]:
        if not isinstance(value, dict):
            return []
        found = []
        for key, entry in value.get("properties", {}).items():
            found += [] if entry.get("description") else [f"{place}.{key}"]
            found += undescribed(entry, f"{place}.{key}")
        return found + undescribed(value.get("additionalProperties"), f"{place}.*")

    assert undescribed(schema, "") == []


def test_the_schema_for_editors_takes_a_good_file_with_its_references_and_refuses_a_typo(tmp_path: Path) -> None:
    sources, targets = connectors(tmp_path)
    schema = editor_schema(sources, targets)
    Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    api = {"client_id": "x", "client_secret": "${B}", "base_url": "${URL}"}
    good: dict[str, Any] = {
        "version": 1,
        "sources": {"e": {"connector": "exam", "secrets": ["${A}"], "mode": "${MODE}", "api": api}},
        "targets": {"c": {"connector": "crm", "url": "${CRM_URL}"}},
        "storage": {"database": "${DATABASE}"},
    }
    editor = Draft202012Validator(schema)
    assert list(editor.iter_errors(good)) == []
    good["sources"]["e"]["secretz"] = []
    assert len(list(editor.iter_errors(good))) == 1
