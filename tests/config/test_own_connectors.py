"""Connectors of an admin's own: one file each beside bridge.yaml, used, checked and tested without any Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from referencing.exceptions import Unresolvable

from bridge.cli.app import campusbridge
from bridge.cli.context import Context
from bridge.config.documents import parse_document, read_document
from bridge.config.own_connectors import own_connectors, schema_of_tests
from bridge.config.validation import problems_of
from bridge.core.target import Verdict
from bridge.engine.talk import talk
from bridge.main import registry, web_app
from bridge.outbound.guard import NetworkPolicy
from bridge.outbound.target import target_sender
from bridge.testing.target_cases import messages_of
from bridge.testing.target_server import serve_target

EXAMPLE = resources.files("bridge.config").joinpath("starter_files", "connector.yaml").read_text("utf-8")
BRIDGE = """\
version: 1
sources: {wise: {connector: wise, secrets: [abcdefghijklmnop]}}
targets:
  alumni:
    connector: alumni
    base_url: https://alumni.example.org/api
    auth: {kind: header, value: k3y}
"""
MAPPING = """\
version: 1
description: Persons to the alumni office
events: [submission.*]
target: alumni
operation: save_person
with: {key: "{{ event.subject }}", name: Ada}
tests:
  - event: {type: submission.submitted, subject: submission/1, data: {submission: {status: submitted}}}
    expect: {key: submission/1, name: Ada}
"""
SMALL: dict[str, Any] = {
    "title": "Small",
    "about": "Takes anything.",
    "target": {
        "operations": {
            "send": {
                "about": "Send it.",
                "idempotent": True,
                "params": {"type": "object"},
                "request": {"method": "POST", "url": "https://small.example.org/"},
            }
        }
    },
}


@dataclass
class Place:
    folder: Path

    def write(self, name: str, text: str | Mapping[str, Any]) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if isinstance(text, str) else json.dumps(text, indent=1))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(
            campusbridge,
            ["--config", str(self.folder / "bridge.yaml"), *arguments],
            obj=Context(registry=registry(), web_app=web_app),
        )

    def problems(self) -> list[str]:
        found = own_connectors(self.folder / "bridge.yaml", taken=registry().targets).problems
        return [str(problem).replace(f"{self.folder}/", "") for problem in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("bridge.yaml", BRIDGE)
    made.write("mappings/persons.yaml", MAPPING)
    return made


def changed(**target: Any) -> dict[str, Any]:
    """The small connector with parts of its operation changed."""
    document: dict[str, Any] = json.loads(json.dumps(SMALL))
    document["target"]["operations"]["send"] |= target
    return document


def deep(schema: dict[str, Any]) -> dict[str, Any]:
    """Parameters with one, `a`, of this schema."""
    return {"type": "object", "properties": {"a": schema}}


LOOP = {"$defs": {"b": {"if": {"$ref": "#/$defs/c"}}, "c": {"not": {"$ref": "#/$defs/b"}}}}


def test_a_file_beside_bridge_yaml_is_a_connector(place: Place) -> None:
    place.write("connectors/alumni.yaml", EXAMPLE)

    result = place.run("check")

    assert result.exit_code == 0, result.output
    assert "1 mappings, 1 connectors, 10 tests passed" in result.output
    document = json.loads(place.run("check", "--json").stdout)
    assert document["connectors"] == {"alumni": {"tests": 9, "ok": True}}


def test_without_it_bridge_yaml_cannot_be_used(place: Place) -> None:
    result = place.run("check")

    assert result.exit_code == 1
    assert "bridge.yaml:5: targets.alumni.connector: there is no target connector of this name" in result.output


def test_it_sends_as_a_built_in_one_does(place: Place, tmp_path: Path) -> None:
    place.write("connectors/alumni.yaml", EXAMPLE)
    context = Context(registry=registry(), web_app=web_app, file=place.folder / "bridge.yaml")
    connector = context.registry.targets["alumni"]
    with serve_target() as server:
        host = server.url.removeprefix("http://")
        allowed = f"network: {{allow_hosts: ['{host}']}}\n"
        place.write("bridge.yaml", BRIDGE.replace("https://alumni.example.org", server.url) + allowed)
        context = Context(registry=registry(), web_app=web_app, file=place.folder / "bridge.yaml")
        target = context.configuration.targets["alumni"]
        policy = NetworkPolicy(allow_hosts=frozenset({host}))
        case = {"operation": "save_person", "with": {"key": "p1", "name": "Ada"}}
        [message] = messages_of(case, {})
        said = talk(connector, [message], target.settings, target_sender(target.settings, policy))

        assert [outcome.verdict for outcome in said.outcomes] == [Verdict.OK]
        assert json.loads(server.body(message.key) or b"") == {"name": "Ada", "email": None}
    assert (target.concurrency, connector.manifest.rate is not None) == (2, True)


def test_the_folder_can_be_named(place: Place) -> None:
    place.write("bridge.yaml", f"{BRIDGE}connectors: ./own/targets\n")
    assert place.problems() == ["bridge.yaml:8: connectors: there is no such folder"]
    assert "there is no such folder" in place.run("check").output

    place.write("own/targets/alumni.yaml", EXAMPLE)
    assert place.run("check").exit_code == 0


@pytest.mark.parametrize("file", ["http.yaml", "zapier.yaml"])
def test_a_built_in_connector_cannot_be_hidden(place: Place, file: str) -> None:
    place.write(f"connectors/{file}", SMALL)

    assert place.problems() == [
        f"connectors/{file}: there is a connector of this name already (call the file otherwise)"
    ]
    assert registry().targets["http"].title == "HTTP"


@pytest.mark.parametrize("file", ["My.yaml", "my-crm.yaml", "crm.yml", "1.yaml"])
def test_a_name_that_bridge_yaml_could_not_use_is_refused(place: Place, file: str) -> None:
    place.write(f"connectors/{file}", SMALL)

    assert "a connector's file is called <name>.yaml" in place.problems()[0]


def test_other_files_and_folders_are_left_alone(place: Place) -> None:
    for name in ("notes.txt", ".hidden.yaml", "python/manifest.yaml", "__init__.py"):
        place.write(f"connectors/{name}", "nonsense: [")

    assert place.problems() == []


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({**SMALL, "name": "large"}, "name: expected the file's name, small"),
        ({**SMALL, "nonsense": 1}, "unknown key 'nonsense'"),
        ({**SMALL, "source": {}}, "unknown key 'source'"),
        ({key: SMALL[key] for key in ("title", "about")}, "the key 'target' is missing"),
        (changed(request=None) | {}, "request: expected a mapping"),
        (changed(request={"method": "POST", "url": "{{ params.x"}), "request.url: not a template"),
        (changed(request={"method": "POST", "url": "{{ params.x | nonsense }}"}), "nonsense"),
        (changed(answers=[{"as": "perfect"}]), "answers[0].as: expected one of"),
        (changed(answers=[{"body_regex": "(", "as": "ok"}]), "body_regex: not a regular expression"),
        (changed(request={"method": "POST", "url": "{{ parms.x }}"}), "no variable parms (did you mean params?)"),
        (changed(params={"type": "nonsense"}), "params.type: not valid JSON Schema"),
        (changed(params=deep({"$ref": "http://127.0.0.1:9/x"})), "a.$ref: expected a reference that begins with #"),
        (changed(params=deep({"$ref": "file:///etc/passwd"})), "a.$ref: expected a reference that begins with #"),
        (changed(params=deep({"$dynamicRef": "x#y"})), "a.$dynamicRef: expected a reference that begins with #"),
        (changed(params=deep({"$id": "https://a.example/"})), "a.$id: only a whole schema can have an $id"),
        (changed(params=deep({"$ref": "#/$defs/gone"})), "a.$ref: refers to nothing that is a schema"),
        (changed(params=deep({"$ref": "#/properties/a/$ref"})), "a.$ref: refers to nothing that is a schema"),
        (changed(params=deep({"$ref": "#/allOf/x"}) | {"allOf": [{}]}), "a.$ref: refers to nothing that is a schema"),
        (changed(params=deep({"allOf": [{"$ref": "#/properties/a"}]})), "a.allOf[0].$ref: refers to itself"),
        (changed(params=deep({"anyOf": [{"$ref": "#/$defs/b"}]}) | LOOP), "$defs.c.not.$ref: refers to itself"),
        (
            {**SMALL, "target": {**SMALL["target"], "options": {"url": {"description": "x", "$ref": "#/$defs/x"}}}},
            "options.url.$ref: the schema of a setting cannot refer to another one",
        ),
        (changed(idempotent=False, batch={"most": 5}), "only an idempotent operation can have a batch"),
        (
            changed(steps=[{"name": "a", "request": SMALL["target"]["operations"]["send"]["request"], "when": "a ("}]),
            "when",
        ),
        ({**SMALL, "tests": {"cases": []}}, "tests.cases: must not be empty"),
        ({**SMALL, "tests": {"cases": [{"name": "x", "operation": "send", "exchange": []}]}}, "tests.cases[0]"),
        ({**SMALL, "target": {**SMALL["target"], "options": {"connector": {"description": "x"}}}}, "the hub's own"),
        ({**SMALL, "target": {**SMALL["target"], "auth": ["telepathy"]}}, "target.auth[0]"),
        ({**SMALL, "target": {**SMALL["target"], "auth": ["basic", "basic"]}}, "offered twice"),
    ],
)
def test_mistakes_are_named_with_file_and_line(place: Place, document: dict[str, Any], words: str) -> None:
    place.write("connectors/small.yaml", document)

    problems = place.problems()

    assert any(words in problem for problem in problems), problems
    assert all(problem.startswith("connectors/small.yaml:") for problem in problems)
    result = place.run("events", "list")
    assert result.exit_code == 2
    assert words in result.output.replace("\n", " ")


def test_a_schema_can_refer_to_its_own_parts(place: Place) -> None:
    text = {"$anchor": "text", "type": "string"}
    tree = {"type": "array", "items": {"$ref": "#/properties/tree"}}
    params = {
        "$id": "https://a.example/params",
        "properties": {"key": {"$ref": "#/$defs/text"}, "name": {"$ref": "#text"}, "tree": tree},
        "$defs": {"text": text},
    }
    place.write("connectors/alumni.yaml", changed(params=params))
    bridge = "version: 1\nsources: {wise: {connector: wise, secrets: [abcdefghijklmnop]}}\n"
    place.write("bridge.yaml", bridge + "targets: {alumni: {connector: alumni}}\n")
    mapping = MAPPING.replace("save_person", "send").partition("with:")[0]
    place.write("mappings/persons.yaml", mapping + "with: {key: a, name: 5, tree: [[], [[7]]]}\n")

    result = place.run("check")

    assert place.problems() == []
    assert "with.name: expected a text, found a number" in result.output
    assert "with.tree[1][0][0]: expected a list, found a number" in result.output


@pytest.mark.filterwarnings("ignore:Automatically retrieving remote references:DeprecationWarning")
def test_no_schema_is_fetched() -> None:
    document, _ = parse_document(b"a: 1\n", file="m.yaml")
    assert document is not None
    with serve_target() as server:
        schema = {"$ref": f"{server.url}/latest/meta-data"}
        with pytest.raises(Unresolvable):
            problems_of(schema, document.value, document)
        assert server.state()["requests"] == 0


def test_an_operation_needs_something_to_send(place: Place) -> None:
    document = changed()
    del document["target"]["operations"]["send"]["request"]
    place.write("connectors/small.yaml", document)

    assert place.problems() == [
        "connectors/small.yaml:6: target.operations.send: expected a request, steps, or a batch with a request"
    ]


def test_a_file_that_is_no_yaml_is_named(place: Place) -> None:
    place.write("connectors/small.yaml", "title: [")

    assert "connectors/small.yaml:1: not YAML" in place.problems()[0]


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("people/p%201", "people/p1x", "a person is saved: request 1: url", "expected https"),
        ("target_id: \"7\"", "target_id: \"8\"", "a person is saved: outcome 1: target_id 7", "expected 8"),
        ("busy}, as: throttled, retry_after: 20", "busy}, as: retry", "answers[0]", "throttled"),
        ("with: {key: p 1, name: Ada Lovelace}", "with: {key: p 1}", "cases[0].with", "the key 'name' is missing"),
        ("operation: add_remark", "operation: add_remarks", "cases[1].operation", "did you mean add_remark?"),
        ("auth: {kind: header, value: k3y}}", "auth: {kind: header}}", "tests.settings.auth", "'value' is missing"),
    ],
)  # fmt: skip
def test_a_failed_test_is_named_with_its_line(place: Place, before: str, after: str, line: str, words: str) -> None:
    text = EXAMPLE.replace(before, after, 1) if "operation" not in before else _last_replaced(before, after)
    assert text != EXAMPLE
    place.write("connectors/alumni.yaml", text)

    result = place.run("check")

    assert result.exit_code == 1
    told = [entry for entry in result.output.splitlines() if line in entry and words in entry]
    assert told, result.output
    assert told[0].startswith(f"{place.folder}/connectors/alumni.yaml:")
    if line.startswith("a person is saved"):
        number = text.splitlines().index("    - name: a person is saved") + 1
        assert f"alumni.yaml:{number}:" in told[0]


def _last_replaced(before: str, after: str) -> str:
    """Changed in the first case that has it, not in a comment above."""
    head, found, rest = EXAMPLE.partition("tests:\n")
    return head + found + rest.replace(before, after, 1)


def test_an_operation_without_a_test_is_warned_of(place: Place) -> None:
    place.write("connectors/small.yaml", SMALL)
    place.write("connectors/alumni.yaml", EXAMPLE)

    result = place.run("check")

    assert result.exit_code == 0, result.output
    assert "small.yaml:6: target.operations.send: no test speaks of this operation" in result.output


def test_new_writes_one_that_passes(place: Place) -> None:
    assert place.run("new", "connector", "alumni", "--target").exit_code == 0
    assert "connector: alumni" in (place.folder / "connectors" / "alumni.yaml").read_text()
    assert place.run("check").exit_code == 0

    again = place.run("new", "connector", "alumni", "--target")
    assert (again.exit_code, "already" in again.output) == (1, True)
    for name in ("zapier", "My-CRM"):
        assert place.run("new", "connector", name, "--target").exit_code == 1
    assert [file.name for file in (place.folder / "connectors").iterdir()] == ["alumni.yaml"]


def test_the_schema_for_editors_knows_it(place: Place) -> None:
    place.write("connectors/alumni.yaml", EXAMPLE)
    assert place.run("init", str(place.folder)).exit_code == 0

    schema = (place.folder / "schemas" / "bridge.schema.json").read_text()
    assert "The address book of our alumni office." in schema


@pytest.mark.parametrize("name", sorted(registry().targets))
def test_the_tests_of_built_in_connectors_have_the_form_that_is_asked_of_others(name: str) -> None:
    document, problems = read_document(registry().targets[name].folder / "tests.yaml")

    assert document is not None
    assert [*problems, *problems_of(schema_of_tests(), document.value, document)] == []
