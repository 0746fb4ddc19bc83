"""From a mapping's document to decisions and parameters, and what is said about documents with mistakes."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing.exceptions import Unresolvable

from bridge.core.errors import MappingError
from bridge.core.events import Json, event_from_json
from bridge.core.vocabulary import TYPES
from bridge.flow.blank import inline_event
from bridge.flow.mapping import Mapping, MappingSyntax, compile_mapping, order_key, run_tests
from bridge.testing.target_server import serve_target

DOCUMENT: Json = {
    "version": 1,
    "description": "The newest grade on the contact",
    "events": ["grade.published", "grade.updated"],
    "target": "crm",
    "operation": "request",
    "with": {
        "method": "PUT",
        "path": "/contacts/{{ event.data.person.key | urlseg }}",
        "json": {
            "email": "{{ event.data.person.email }}",
            "grade": "{{ event.data.grade.label }}",
            "score": "{{ event.data.grade.scoreGiven }}",
            "name": "{{ event.data.person.givenName }} {{ event.data.person.familyName }}",
            "tags": ["campus", "{{ source }}", 7, None, True],
            "message": "{{ delivery.key }}",
        },
    },
}


def grade(**person: Any) -> Json:
    return inline_event(
        {
            "type": "grade.published",
            "data": {
                "person": {"key": "wiseflow:1", "email": "ada@example.test"} | person,
                "grade": {"label": "10", "scoreGiven": 83.5},
            },
        }
    )


def mapping(**changes: Any) -> Mapping:
    return compile_mapping("grades", copy.deepcopy(DOCUMENT) | changes)


def why(decided: Mapping, event: Json, source: str = "wiseflow-main") -> str:
    decision = decided.consider(event, source)
    assert not decision.matches
    return decision.why


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_parameters_keep_types_and_every_key() -> None:
    params = mapping().render(grade(), "wiseflow-main", {"key": "k-1"})
    assert params == {
        "method": "PUT",
        "path": "/contacts/wiseflow%3A1",
        "json": {
            "email": "ada@example.test",
            "grade": "10",
            "score": 83.5,
            "name": " ",
            "tags": ["campus", "wiseflow-main", 7, None, True],
            "message": "k-1",
        },
    }


def test_a_thin_event_gives_null_and_keeps_the_key() -> None:
    event = inline_event({"type": "grade.published"})
    rendered = mapping(**{"with": {"email": "{{ event.data.person.email }}"}}).render(event, "s", {"key": "k"})
    assert rendered == {"email": None}


def test_keys_are_no_templates() -> None:
    rendered = mapping(**{"with": {"{{ x }}": "{{ source }}"}}).render(grade(), "s", {"key": "k"})
    assert rendered == {"{{ x }}": "s"}


def test_rendering_changes_neither_the_event_nor_the_mapping() -> None:
    event = grade()
    before = json.dumps(event)
    made = mapping(**{"with": {"person": "{{ event.data.person }}", "fixed": {"a": [1]}}})
    first = made.render(event, "s", {"key": "k"})
    first["person"]["email"] = "x"
    first["fixed"]["a"].append(2)
    assert json.dumps(event) == before
    assert made.render(event, "s", {"key": "k"})["fixed"] == {"a": [1]}


def test_a_mapping_without_parameters_sends_none() -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "with"}
    assert compile_mapping("all", document).render(grade(), "s", {"key": "k"}) == {}


def test_one_mapping_renders_in_many_threads() -> None:
    made = mapping()
    events = [grade(key=f"wiseflow:{number}") for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        rendered = list(pool.map(lambda event: made.render(event, "s", {"key": "k"}), events))
    assert [params["path"] for params in rendered] == [f"/contacts/wiseflow%3A{number}" for number in range(200)]


def test_a_failing_leaf_is_named_and_its_value_is_not() -> None:
    made = mapping(**{"with": {"json": {"a": 1, "list": [0, "{{ event.data.person.email | int }}"]}}})
    with pytest.raises(MappingError) as failure:
        made.render(grade(), "s", {"key": "k"})
    assert failure.value.mapping == "grades"
    assert failure.value.field == "with.json.list[1]"
    assert failure.value.reason == "expected a number"
    assert "ada" not in str(failure.value)


def test_all_leaves_of_a_message_share_one_budget() -> None:
    costly = "{% for i in range(3000) %}{{ i }}{% endfor %}"
    mapping(**{"with": {"a": costly, "b": costly}}).render(grade(), "s", {"key": "k"})
    with pytest.raises(MappingError) as failure:
        mapping(**{"with": dict.fromkeys("abcd", costly)}).render(grade(), "s", {"key": "k"})
    assert failure.value.field == "with.d"


# --- what is wanted ---------------------------------------------------------------------------------------------------


def test_an_event_of_the_right_type_matches() -> None:
    assert mapping().consider(grade(), "anything").matches


def test_the_reason_names_the_condition_that_failed() -> None:
    event = grade()
    submitted = inline_event({"type": "submission.submitted"})
    assert why(mapping(events=["grade.*"]), submitted) == "events: grade.* does not match submission.submitted"
    assert why(mapping(sources=["a", "b"]), event) == "sources: a, b does not name wiseflow-main"
    assert why(mapping(when="event.data.person.email is none"), event) == "when: is false"
    assert (
        why(mapping(requires="full"), event | {"enrichment": "partial"}) == "requires: full, and enrichment is partial"
    )


def test_a_condition_that_fails_is_an_error_and_no_no() -> None:
    with pytest.raises(MappingError) as failure:
        mapping(when="event.data.person.email < 3").consider(grade(), "s")
    assert failure.value.field == "when"
    assert "ada" not in str(failure.value)


def test_sources_and_conditions_let_through_what_fits() -> None:
    made = mapping(sources=["wiseflow-main"], when="event.data.grade.scoreGiven >= 50", requires="full")
    assert made.consider(grade(), "wiseflow-main").matches


@pytest.mark.parametrize("pattern", ["*", "s*", "*.*", "*e*"])
def test_internal_types_are_not_caught_by_globs(pattern: str) -> None:
    made = mapping(events=[pattern, "grade.published"])
    assert not made.consider(inline_event({"type": "source.tick"}), "s").matches


@pytest.mark.parametrize("pattern", ["source.tick", "source.*"])
def test_internal_types_match_when_they_are_named(pattern: str) -> None:
    assert mapping(events=[pattern]).consider(inline_event({"type": "source.tick"}), "s").matches


def test_a_star_means_every_type_that_is_not_internal() -> None:
    assert mapping(events=["*"]).types == {name for name, type in TYPES.items() if not type.internal}


def test_an_event_of_a_type_from_the_future_is_skipped() -> None:
    event = grade() | {"type": "edu.grade.sung.v1"}
    assert "does not match grade.sung" in why(mapping(events=["grade.*"]), event)


def test_the_order_key_tells_mappings_targets_and_states_apart() -> None:
    event = event_from_json(grade())
    other = event_from_json(grade(key="wiseflow:2"))
    keys = {
        order_key(mapping(), event),
        order_key(mapping(), other),
        order_key(mapping(target="other"), event),
        order_key(compile_mapping("second", DOCUMENT), event),
    }
    assert len(keys) == 4
    assert None not in keys
    assert order_key(mapping(order="none"), event) is None


def test_the_version_follows_the_document_and_not_the_order_of_its_keys() -> None:
    backwards = dict(reversed(list(DOCUMENT.items())))
    assert compile_mapping("grades", backwards).version == mapping().version
    assert mapping(description="other").version != mapping().version


# --- documents with mistakes ------------------------------------------------------------------------------------------

MISTAKES: list[tuple[Json, str, str, str]] = [
    ({"evnts": ["grade.*"]}, "evnts", "is not a key of a mapping", "did you mean events?"),
    ({"version": 2}, "version", "expected 1", ""),
    ({"version": True}, "version", "expected a whole number", ""),
    ({"events": "grade.*"}, "events", "expected a list", ""),
    ({"events": []}, "events", "expected at least one", ""),
    ({"events": [7]}, "events[0]", "expected text", ""),
    ({"events": ["grade.published", "grade.publishd"]}, "events[1]", "matches no", "did you mean grade.published?"),
    ({"events": ["edu.grade.published.v1"]}, "events[0]", "matches no", "did you mean grade.published?"),
    ({"sources": "wiseflow"}, "sources", "expected a list", ""),
    ({"order": "newest"}, "order", "expected strict, latest, none", ""),
    ({"requires": "ful"}, "requires", "expected any, full", "did you mean full?"),
    ({"when": True}, "when", "expected text", ""),
    ({"when": "event.data.persn"}, "when", "there is no event.data.persn", "person"),
    ({"when": "{{ true }}"}, "when", "bare expression", "leave out"),
    ({"target": 5}, "target", "expected text", ""),
    ({"allow_destructive": "yes"}, "allow_destructive", "expected true or false", ""),
    ({"with": ["a"]}, "with", "expected keys and values", ""),
    ({"with": {"a": {"b": ["{{ x"]}}}, "with.a.b[0]", "no valid Jinja", ""),
    ({"with": {"a": {"b": "{{ event.data.person.emial }}"}}}, "with.a.b", "there is no event.data", "email"),
    ({"with": {"a": {3: "x"}}}, "with.a.3", "expected a key that is text", ""),
    (
        {"with": {"a": {"b": ["\ud83d\ude00 handed in"]}}},
        "with.a.b[0]",
        "expected whole characters",
        "character itself",
    ),
    ({"with": {"a": "{{ event.subject }} \udc00"}}, "with.a", "expected whole characters", "character itself"),
    ({"with": {"a": {"\ud83d": 1}}}, "with.a", "expected whole characters", "character itself"),
    ({"with": {"a": float("nan")}}, "with.a", "a number that JSON has", ""),
    ({"with": {"a": {1, 2}}}, "with.a", "expected text, a number", ""),
    ({"tests": [{"event": "a/b"}]}, "tests[0]", "either expect or expect_error", ""),
    ({"tests": [{"expect": "skipped"}]}, "tests[0].event", "connector/fixture", ""),
    ({"tests": [{"event": "a/b", "expect": "skip"}]}, "tests[0].expect", "or skipped", ""),
    ({"tests": [{"event": "a/b", "expct": {}, "expect": {}}]}, "tests[0].expct", "not a key of a test", "expect"),
]


@pytest.mark.parametrize(("change", "where", "message", "hint"), MISTAKES)
def test_a_mistake_is_named_with_its_place(change: Json, where: str, message: str, hint: str) -> None:
    with pytest.raises(MappingSyntax) as syntax:
        mapping(**change)
    (problem,) = syntax.value.problems
    assert problem.where == where
    assert message in problem.message
    assert hint in problem.hint


def test_all_mistakes_come_at_once() -> None:
    with pytest.raises(MappingSyntax) as syntax:
        mapping(events=["grde.*"], when="nope", **{"with": {"a": "{{ x }}", "b": "{% for %}"}})
    assert [problem.where for problem in syntax.value.problems] == ["events[0]", "when", "with.a", "with.b"]


@pytest.mark.parametrize("key", ["version", "events", "target", "operation"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(MappingSyntax, match=f"{key} is missing"):
        compile_mapping("x", {name: value for name, value in DOCUMENT.items() if name != key})


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_of_another_kind_is_refused(document: object) -> None:
    with pytest.raises(MappingSyntax, match="expected keys and values"):
        compile_mapping("x", document)


def _schema() -> Draft202012Validator:
    schema = json.loads(resources.files("bridge.config").joinpath("mapping.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_editors_schema_knows_the_same_keys_and_choices() -> None:
    schema = _schema()
    assert schema.is_valid(DOCUMENT)
    beyond_json_schema = ("events[0]", "events[1]", "when", "with.a.b[0]", "with.a.b", "with.a.3", "with.a")
    for change, where, _, _ in MISTAKES:
        if where not in beyond_json_schema:
            assert not schema.is_valid(DOCUMENT | change), where
    tested = {"tests": [{"about": "x", "event": {"type": "grade.published"}, "source": "s", "expect": [{}]}]}
    assert schema.is_valid(DOCUMENT | tested)
    assert mapping(**tested).tests


# --- the tests inside -------------------------------------------------------------------------------------------------


def fixtures(name: str) -> Sequence[Json]:
    return {"wiseflow/final-mark": [grade()], "wise/list": [grade(key="a:1"), grade(key="a:2")]}[name]


def checked(*tests: Json, schema: Json | None = None, **changes: Any) -> list[str]:
    changes.setdefault("with", {"key": "{{ event.data.person.key }}", "n": "{{ event.data.grade.label | int }}"})
    found = run_tests(mapping(tests=list(tests), **changes), fixtures, schema)
    return [f"{problem.where}: {problem.message}" for problem in found]


INLINE = {"type": "grade.published", "data": {"person": {"key": "x:1"}, "grade": {"label": "7"}}}


@pytest.mark.filterwarnings("ignore:Automatically retrieving remote references:DeprecationWarning")
def test_a_schema_elsewhere_is_not_fetched() -> None:
    test = {"event": INLINE, "expect": {"key": "x:1", "n": 7}}
    with serve_target() as server:
        with pytest.raises(Unresolvable):
            checked(test, schema={"$ref": f"{server.url}/latest/meta-data"})
        assert server.state()["requests"] == 0


def test_right_expectations_find_nothing() -> None:
    assert not checked(
        {"event": "wiseflow/final-mark", "expect": {"key": "wiseflow:1", "n": 10}},
        {"event": "wise/list", "expect": [{"key": "a:1", "n": 10}, {"key": "a:2", "n": 10}]},
        {"event": INLINE, "expect": {"key": "x:1", "n": 7}},
        {"event": {"type": "submission.submitted"}, "expect": "skipped"},
        {"event": {"type": "grade.updated", "data": {"grade": {"label": "A"}}}, "expect_error": "expected a number"},
    )


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        ({"event": INLINE, "expect": {"key": "x:1", "n": 8}}, "tests[0].expect.n: expected 8, got 7"),
        ({"event": INLINE, "expect": {"key": "x:1", "n": "7"}}, 'tests[0].expect.n: expected "7", got 7'),
        ({"event": INLINE, "expect": {"key": "x:1"}}, "tests[0].expect: n came out too: 7"),
        ({"event": INLINE, "expect": {"key": "x:1", "n": 7, "z": 1}}, "tests[0].expect.z: is not in what came out"),
        ({"event": INLINE, "expect": "skipped"}, "tests[0].expect: expected the event to be skipped"),
        ({"event": INLINE, "expect_error": "number"}, "tests[0].expect_error: no error came"),
        ({"event": {"type": "person.created"}, "expect": {}}, "tests[0].expect: the event does not match (events: "),
        ({"event": "no/such", "expect": {}}, "tests[0].event: there is no fixture no/such"),
        ({"event": {"type": "grade.sung"}, "expect": {}}, "tests[0].event: type: expected a canonical type"),
        ({"event": {"type": "person.created", "data": {"persn": {}}}, "expect": {}}, "tests[0].event: data.persn"),
        ({"event": INLINE | {"tim": 1}, "expect": {}}, "tests[0].event: tim"),
        ({"event": INLINE | {"time": "soon"}, "expect": {}}, "tests[0].event: a value has another shape"),
        (
            {"event": {"type": "grade.updated", "data": {"grade": {"label": "A"}}}, "expect": {}},
            "tests[0].expect: failed at with.n: expected a number",
        ),
    ],
)
def test_a_wrong_expectation_is_found(test: Json, problem: str) -> None:
    assert any(found.startswith(problem) for found in checked(test)), checked(test)


def test_parameters_are_checked_against_the_operation() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "string"}}, "additionalProperties": True}
    test = {"event": INLINE, "expect": {"key": "x:1", "n": 7}}
    assert checked(test, schema=schema) == ["with.n: 7 is not of type 'string'"]


def test_a_test_can_name_its_source() -> None:
    test = {"event": INLINE, "expect": {"from": "b"}, "source": "b"}
    other = {"event": INLINE, "expect": "skipped", "source": "c"}
    assert not checked(test, other, sources=["a", "b"], **{"with": {"from": "{{ source }}"}})


def test_true_is_not_one() -> None:
    test = {"event": INLINE, "expect": {"flag": 1}}
    assert checked(test, **{"with": {"flag": "{{ 1 == 1 }}"}}) == ["tests[0].expect.flag: expected 1, got true"]
