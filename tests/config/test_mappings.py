"""Mapping files against bridge.yaml, the target's operations and their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_fakes import connectors

from bridge.config.check import CheckReport, check
from bridge.config.configuration import load_configuration
from bridge.config.mappings import Loaded, fixture_events, load_mapping, load_mappings
from bridge.config.values import Configuration

BRIDGE = """\
version: 1
sources:
  exams: {connector: exam, secrets: ["${SECRET}"]}
targets:
  crm: {connector: crm, url: "https://crm.example.org"}
"""

GRADES = """\
version: 1
description: The newest grade on the contact
events: [grade.published]
sources: [exams]
target: crm
operation: upsert_contact
with:
  key: "{{ event.data.person.key }}"
  properties:
    last_grade: "{{ event.data.grade.label }}"
  score: "{{ event.data.grade.scoreGiven }}"
  list: students
tests:
  - event: exam/graded#2
    expect: {key: "exam:2", properties: {last_grade: "10"}, score: 10.0, list: students}
"""


def configured(folder: Path) -> Configuration:
    (folder / "bridge.yaml").write_text(BRIDGE, "utf-8")
    sources, targets = connectors(folder)
    return load_configuration(folder / "bridge.yaml", sources=sources, targets=targets, environ={"SECRET": "s"})


def load(folder: Path, text: str, name: str = "grades") -> Loaded:
    sources, targets = connectors(folder)
    configuration = configured(folder)
    return load_mapping(
        name, text.encode(), file=f"{name}.yaml", configuration=configuration, sources=sources, targets=targets
    )


def checked(folder: Path, **mappings: str) -> CheckReport:
    configured(folder)
    (folder / "mappings").mkdir(exist_ok=True)
    for name, text in mappings.items():
        (folder / "mappings" / f"{name}.yaml").write_text(text, "utf-8")
    sources, targets = connectors(folder)
    return check(folder / "bridge.yaml", sources=sources, targets=targets, environ={"SECRET": "s"})


def test_a_mapping_that_fits_is_compiled_and_its_tests_pass(tmp_path: Path) -> None:
    loaded = load(tmp_path, GRADES)
    assert loaded.problems == ()
    assert loaded.tests == 1
    assert loaded.mapping is not None
    assert (loaded.mapping.name, loaded.mapping.target, loaded.mapping.order) == ("grades", "crm", "strict")


@pytest.mark.parametrize(
    ("change", "line", "where", "message"),
    [
        (("target: crm", "target: crn"), 5, "target", "there is no target of this name in bridge.yaml"),
        (("sources: [exams]", "sources: [exam]"), 4, "sources[0]", "there is no source of this name in bridge.yaml"),
        (("upsert_contact", "upsert_contacts"), 6, "operation", "A CRM has no operation of this name"),
        (('  key: "{{ event.data.person.key }}"\n', ""), 7, "with", "the key 'key' is missing"),
        (("list: students", "lists: students"), 12, "with.lists", "unknown key 'lists'"),
        (("list: students", "list: student"), 12, "with.list", "expected one of students, staff"),
        (('"{{ event.data.grade.scoreGiven }}"', "ten"), 11, "with.score", "expected a number, found a text"),
        (('"{{ event.data.grade.scoreGiven }}"', '"{{ event.id }} points"'), 11, "with.score", "expected a number"),
        (('"{{ event.data.grade.label }}"', "[1]"), 10, "with.properties.last_grade", "expected a text or a number or"),
        (("grade.label", "grade.lable"), 10, "with.properties.last_grade", "there is no event.data.grade.lable"),
        (("grade.published", "grade.publishd"), 3, "events[0]", "matches no canonical type"),
        (("exam/graded#2", "exam/graded#3"), 14, "tests[0].event", "there is no fixture exam/graded#3"),
        (("exam/graded#2", "exam/../../x"), 14, "tests[0].event", "there is no fixture"),
        (('"exam:2"', '"exam:3"'), 15, "tests[0].expect.key", 'expected "exam:3", got "exam:2"'),
        (('"{{ event.data.grade.label }}"', r'"\ud83d\ude00 10"'), 10, "with.properties.last_grade", "expected whole"),
        (("last_grade:", r'"\ud83d\ude00":'), 9, "with.properties", "expected whole"),
        (("version: 1\n", "version: 1\nversion: 1\n"), 2, "version", "this key is there twice"),
        (("version: 1\n", "version: 1\n\tx: 2\n"), 2, "", "not YAML"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_in_its_line(
    tmp_path: Path, change: tuple[str, str], line: int, where: str, message: str
) -> None:
    assert change[0] in GRADES
    loaded = load(tmp_path, GRADES.replace(*change, 1))
    assert loaded.mapping is None
    assert [(problem.line, problem.where) for problem in loaded.problems] == [(line, where)]
    assert loaded.problems[0].message.startswith(message)


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = GRADES.replace("target: crm", "target: crm\nordr: strict").replace("list: students", "list: none")
    text = text.replace("person.key", "persn.key").replace("[exams]", "[exams, others]")
    assert [problem.line for problem in load(tmp_path, text).problems] == [4, 6, 9, 13]


def test_a_value_that_is_a_template_is_not_judged_before_it_is_rendered(tmp_path: Path) -> None:
    text = GRADES.replace("list: students", "list: \"{{ 'staff' if event.data.grade.passed else 'x' }}\"", 1)
    loaded = load(tmp_path, text)
    assert [problem.where for problem in loaded.problems] == ["tests[0].expect.list"]


def test_what_a_test_renders_is_held_against_the_operation(tmp_path: Path) -> None:
    text = GRADES.replace("list: students", 'list: "{{ event.data.grade.kind }}"', 1)
    loaded = load(tmp_path, text.replace("score: 10.0, list: students", "score: 10.0, list: final"))
    assert [(problem.line, problem.where) for problem in loaded.problems] == [(12, "with.list")]


def test_an_operation_that_removes_something_has_to_be_allowed(tmp_path: Path) -> None:
    text = (
        "version: 1\nevents: [person.deleted]\ntarget: crm\noperation: delete_contact\nwith: {key: '{{ event.id }}'}\n"
    )
    loaded = load(tmp_path, text)
    assert [problem.where for problem in loaded.problems] == ["operation"]
    assert "allow_destructive: true" in loaded.problems[0].hint
    assert load(tmp_path, text + "allow_destructive: true\n").mapping is not None


def test_a_broken_file_does_not_stop_the_others(tmp_path: Path) -> None:
    configuration = configured(tmp_path)
    folder = tmp_path / "mappings"
    folder.mkdir()
    (folder / "good.yaml").write_text(GRADES, "utf-8")
    (folder / "broken.yaml").write_text("version: 1\n", "utf-8")
    (folder / "latin.yaml").write_bytes(b"\xff")
    (folder / "Upper Case.yaml").write_text(GRADES, "utf-8")
    (folder / "ending.yml").write_text(GRADES, "utf-8")
    (folder / ".good.yaml.swp").write_text("x", "utf-8")
    (folder / "notes.txt").write_text("x", "utf-8")
    sources, targets = connectors(tmp_path)
    mappings, problems = load_mappings(configuration, sources, targets)
    assert list(mappings) == ["good"]
    assert {Path(problem.file).name for problem in problems} == {
        "broken.yaml", "latin.yaml", "Upper Case.yaml", "ending.yml",
    }  # fmt: skip


def test_fixtures_give_all_their_events_or_the_one_that_is_asked_for(tmp_path: Path) -> None:
    sources, _ = connectors(tmp_path)
    assert [event["data"]["person"]["key"] for event in fixture_events("exam/graded", sources)] == ["exam:1", "exam:2"]
    assert fixture_events("exam/graded#1", sources)[0]["data"]["person"]["key"] == "exam:1"
    for missing in ("exam/graded#9", "exam/none", "other/graded", "exam/..", "exam", ""):
        with pytest.raises(LookupError):
            fixture_events(missing, sources)


def test_check_reports_bridge_mappings_and_tests_together(tmp_path: Path) -> None:
    report = checked(tmp_path, good=GRADES, bad=GRADES.replace('"exam:2"', '"exam:9"'), worse="[]")
    assert report.configuration is not None
    assert not report.ok
    assert [(mapping.name, mapping.tests, len(mapping.problems)) for mapping in report.mappings] == [
        ("bad", 1, 1),
        ("good", 1, 0),
        ("worse", 0, 1),
    ]
    assert len(report.all_problems) == 2


def test_check_of_a_broken_bridge_says_only_what_it_can_know(tmp_path: Path) -> None:
    checked(tmp_path, good=GRADES)
    sources, targets = connectors(tmp_path)
    report = check(tmp_path / "bridge.yaml", sources=sources, targets=targets, environ={})
    assert (report.configuration, report.mappings) == (None, ())
    assert "SECRET" in report.problems[0].message


def test_check_warns_of_targets_that_nothing_is_delivered_to(tmp_path: Path) -> None:
    inline = "version: 1\nsources: {e: {connector: exam, secrets: [x]}}\n"
    report = checked(tmp_path, good=GRADES)
    assert report.ok
    assert report.warnings == ()
    (tmp_path / "bridge.yaml").write_text(BRIDGE + '  spare: {connector: crm, url: "https://a.example"}\n', "utf-8")
    sources, targets = connectors(tmp_path)
    again = check(tmp_path / "bridge.yaml", sources=sources, targets=targets, environ={"SECRET": "s"})
    assert [(warning.line, warning.where) for warning in again.warnings] == [(6, "targets.spare")]
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    (empty / "bridge.yaml").write_text(inline, "utf-8")
    lonely = check(empty / "bridge.yaml", sources=sources, targets=targets, environ={})
    assert [warning.where for warning in lonely.warnings] == ["sources.e.secrets[0]", "mappings"]
