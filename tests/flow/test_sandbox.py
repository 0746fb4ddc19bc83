"""Templates come from people who can be wrong or wicked: what they may do, and that nothing costs a second."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

import jinja2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.flow.blank import inline_event
from bridge.flow.guard import BadTemplate
from bridge.flow.templates import MAX_SOURCE, compile_condition, compile_template, scope_of
from bridge.flow.values import MAX_TEXT, Fault

EVENT = inline_event(
    {
        "type": "grade.published",
        "time": "2026-06-05T09:30:00.125Z",
        "data": {
            "person": {
                "key": "wiseflow:813879",
                "email": "ada@example.test",
                "givenName": "Ada",
                "identifiers": [
                    {"scheme": "wiseflow.userId", "value": "813879"},
                    {"scheme": "sis.studentNumber", "value": "0012"},
                ],
            },
            "grade": {"value": "10", "label": "10", "scoreGiven": 83.5, "passed": True},
            "payment": {"amountMinor": 12345, "currency": "EUR"},
        },
    }
)


def render(source: str) -> Any:
    template = compile_template(source)
    assert template is not None
    return template.render(scope_of(EVENT, source="wiseflow-main", delivery="key-1"))


def condition(source: str) -> Any:
    return compile_condition(source).render(scope_of(EVENT, source="wiseflow-main", delivery="key-1"))


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ event.data.grade.scoreGiven }}", 83.5),
        ("{{ event.data.grade.passed }}", True),
        ("{{ event.data.grade.value }}", "10"),
        ("{{ ids(event.data.person, 'sis.studentNumber') }}", "0012"),
        ("{{ event.data.payment.amountMinor }}", 12345),
        ("{{ event.data.course }}", None),
        ("{{ event.data.person.identifiers | map(attribute='value') }}", ["813879", "0012"]),
        ("{{ {'a': [1, none, event.data.grade.passed]} }}", {"a": [1, None, True]}),
        ("\n  {{ event.data.grade.scoreGiven }}\n", 83.5),
        ("{# why #}{{ event.data.grade.scoreGiven }}", 83.5),
        ("{{ delivery.key }}", "key-1"),
        ("{{ source }}", "wiseflow-main"),
        ("{{ ev.data.grade.label }}", "10"),
    ],
)
def test_a_lone_expression_keeps_its_type(source: str, value: object) -> None:
    result = render(source)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<{{ event.data.grade.scoreGiven }}>", "<83.5>"),
        ("<{{ event.data.course.title }}>", "<>"),
        ("passed: {{ event.data.grade.passed }}", "passed: true"),
        ("{{ event.data.person.givenName }} {{ event.data.person.familyName }}", "Ada "),
        ("{% if event.data.grade.passed %}yes{% else %}no{% endif %}", "yes"),
        ("{% for i in event.data.person.identifiers %}{{ loop.index }}{{ i.value }};{% endfor %}", "1813879;20012;"),
        ("{% for i in event.data.actor.identifiers %}{{ i.value }}{% else %}none{% endfor %}", "none"),
        ("{% set n = event.data.person.givenName %}{{ n }} {{ n | lower }}\n", "Ada ada\n"),
        ("{{ '<b>' }} & more", "<b> & more"),
    ],
)
def test_anything_around_an_expression_makes_text(source: str, text: str) -> None:
    assert render(source) == text


def test_text_without_jinja_is_no_template() -> None:
    assert compile_template("100 % { of } it") is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.data.actor.email }}",
        "{{ event.data.actor.email.lower() }}",
        "{{ event.data.actor.email | upper }}",
        "{{ event.data.actor.identifiers[0].value }}",
        "{{ event.data.person.identifiers[7].value }}",
        "{{ ids(event.data.actor, 'x') }}",
        "{{ event.data.grade.scoreMaximum / 2 }}",
        "{{ money(event.data.payment.instalment, 'EUR') }}",
        "{{ event.sequence }}",
        "{{ event.data.actor.identifiers[:2] }}",
        "{{ 'x' if false }}",
    ],
)
def test_null_stays_null_on_the_way_through(source: str) -> None:
    assert render(source) is None


@pytest.mark.parametrize(
    ("source", "truth"),
    [
        ("event.data.person.email is not none", True),
        ("event.data.grade.scoreGiven > 50", True),
        ("event.data.grade.scoreMaximum > 50", False),
        ("event.data.grade.scoreMaximum <= 50", False),
        ("1 < event.data.grade.scoreGiven < 84", True),
        ("event.data.grade.kind in ['final', none]", True),
        ("event.data.grade.kind not in ['final']", True),
        ("'ada' in event.data.person.email", True),
        ("'x' in event.data.actor.email", False),
        ("event.data.person.identifiers | selectattr('scheme', 'eq', 'sis.studentNumber') | length == 1", True),
        ("not event.data.course", True),
    ],
)
def test_conditions_know_null(source: str, truth: bool) -> None:
    assert condition(source) is truth


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ 'a b/ä' | urlseg }}", "a%20b%2F%C3%A4"),
        ("{{ event.time | iso }}", "2026-06-05T09:30:00.125Z"),
        ("{{ '2026-06-05T11:30:00+02:00' | iso }}", "2026-06-05T09:30:00.000Z"),
        ("{{ 1780651800 | iso }}", "2026-06-05T09:30:00.000Z"),
        ("{{ event.time | epoch_ms }}", 1780651800125),
        ("{{ event.time | date }}", "2026-06-05"),
        ('{{ "O\'Hara" | odata_str }}', "'O''Hara'"),
        ("{{ '<@U1> & co' | slack_escape }}", "&lt;@U1&gt; &amp; co"),
        ("{{ 'wiseflow:lic-7:paper.submission:123:created' | uuid5 }}", "6019ce76-b63e-52e2-a450-dc7b4dacb101"),
        ("{{ 'a' | uuid5('44d932c6-4c8b-5559-aa0a-ce902bf2d538') }}", "261ad73e-bc02-57d7-9153-6ccaf22e787e"),
        ("{{ event.data.person | ids('none.such') }}", None),
        ("{{ money(12345, 'EUR') }}", "123.45"),
        ("{{ money(12345, 'JPY') }}", "12345"),
        ("{{ money(12345, 'KWD') }}", "12.345"),
        ("{{ money(-5, 'EUR') }}", "-0.05"),
        ("{{ money(0, 'EUR') }}", "0.00"),
        ("{{ event.type | short }}", "grade.published"),
        ("{{ money(100000000, 'EUR') }}", "1000000.00"),
        ("{{ event.data.payment.amountMinor | money('DKK') }}", "123.45"),
        ("{{ {'a': '<ä>', 'b': none} | tojson }}", '{"a":"<ä>","b":null}'),
        ("{{ none | tojson }}", "null"),
        ("{{ event.data.course.title | default('no course') }}", "no course"),
        ("{{ '' | default('x', true) }}", "x"),
        ("{{ '' | default('x') }}", ""),
        ("{{ '10' | int + 1 }}", 11),
        ("{{ 'A' | int(-1) }}", -1),
        ("{{ '7.5' | float }}", 7.5),
        ("{{ 2.5 | round }}", 3.0),
        ("{{ 2.345 | round(2) }}", 2.35),
        ("{{ 'hello wide world' | truncate(11) }}", "hello..."),
        ("{{ [3, none, 1] | sort }}", [None, 1, 3]),
        ("{{ ['b', 'A', 'b'] | unique | sort | join(', ') }}", "A, b"),
        ("{{ [1, 2, none] | sum }}", 3),
        ("{{ [[1, 2], [3]] | map('length') }}", [2, 1]),
        ("{{ range(3) | list }}", [0, 1, 2]),
        ("{{ 'a-b'.split('-') | last }}", "b"),
        ("{{ 'x' ~ 1 ~ none ~ true }}", "x1true"),
        ("{{ [1] + [2] }}", [1, 2]),
        ("{{ {'k': 1}.get('z', 0) }}", 0),
        ("{{ 7 // 2 }}", 3),
        ("{{ -event.data.grade.scoreGiven }}", -83.5),
        ("{{ 'wiseflow:1'.removeprefix('wiseflow:') }}", "1"),
    ],
)
def test_filters_functions_and_methods(source: str, value: object) -> None:
    assert render(source) == value


def test_keys_come_before_the_methods_of_objects() -> None:
    assert render("{{ {'items': 3, 'keys': 4}.items }}") == 3
    assert render("{{ {'items': 3}.items() }}") == [["items", 3]]


# --- mistakes that are found early ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("{{ event.data.persn.email }}", "there is no event.data.persn", "did you mean person?"),
        ("{{ event.data.person['emial'] }}", "there is no event.data.person.emial", "did you mean email?"),
        ("{{ event.data.person.identifiers[0].val }}", "there is no event.data.person.identifiers[0].val", "value"),
        ("{{ event.subjct }}", "there is no event.subjct", "subject"),
        ("{{ delivery.id }}", "there is no delivery.id", "delivery.key"),
        ("{{ evnt.data }}", "there is no variable evnt", "event"),
        ("{{ 'x' | uper }}", "there is no filter uper", "upper"),
        ("{{ x.lowr() }}", "there is no method lowr", "lower"),
        ("{{ monie(1) }}", "there is no function monie", "money"),
        ("{{ ids }}", "ids is a function", "call it"),
        ("{{ event.time is defined }}", "every key of an event is always there", "is none"),
        ("{{ event.time is strng }}", "there is no test strng", "string"),
        ("{{ event.data.person", "no valid Jinja", ""),
        ("{{ }}", "no valid Jinja", ""),
        ("{% set event = 1 %}", "event cannot be set", ""),
    ],
)
def test_mistakes_are_named_while_compiling(source: str, message: str, hint: str) -> None:
    with pytest.raises(BadTemplate) as bad:
        compile_template(source)
    assert message in bad.value.message
    assert hint in bad.value.hint


def test_a_condition_takes_no_braces() -> None:
    with pytest.raises(BadTemplate, match="bare expression"):
        compile_condition("{{ true }}")
    with pytest.raises(BadTemplate):
        compile_condition("true }} and {{ false")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ {'email': 1}.emial }}", "there is no key emial (did you mean email?)"),
        ("{{ event.data.person.email.lower().x }}", "text has no key x"),
        ("{{ {'email': 1}[event.data.person.email] }}", "there is no such key"),
        ("{{ 5[event.data.person.email] }}", "there is no such key"),
        (
            "{{ [{'a': 1}] | map(attribute=event.data.person.email) | list }}",
            "name of the attribute",
        ),
        ("see {{ event.data.person }}", "an object cannot be put into text"),
        ("{% if false %}{% set x = 1 %}{% endif %}{{ x }}", "a name that has no value here"),
        ("{{ [y] }}{% if false %}{% set y = 1 %}{% endif %}", "a name that has no value here"),
        ("{{ 'A' | int }}", "expected a number"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' < 1 }}", "text cannot be compared with a number"),
        ("{{ 'a' + 1 }}", "text and a number cannot be added"),
        ("{{ '%9d' % 2 }}", "text and a number cannot be divided"),
        ("{{ 'a' * 2 }}", "text and a number cannot be multiplied"),
        ("{{ '%9d' is odd }}", "text is neither odd nor even"),
        ("{{ true is even }}", "true or false is neither odd nor even"),
        ("{{ [2, '%9d'] | select('even') }}", "text is neither odd nor even"),
        ("{{ [{'a': '%9d'}] | rejectattr('a', 'odd') }}", "text is neither odd nor even"),
        ("/x/{{ event.data.course.key | urlseg }}", "urlseg"),
        ("/x/{{ '..' | urlseg }}", "urlseg"),
        ("{{ money(5, none) }}", "ISO 4217"),
        ("{{ 9e18 * 10 }}", "too large"),
        ("{{ event.data.person.email | iso }}", "expected a time"),
        ("{{ {1: 2} }}", "the keys of an object must be text"),
    ],
)
def test_mistakes_that_show_while_rendering_are_faults(source: str, reason: str) -> None:
    with pytest.raises(Fault) as fault:
        render(source)
    assert reason in fault.value.reason


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.data.person.email | int }}",
        "{{ event.data.person.email | iso }}",
        "{{ event.data.person.email.lower().x }}",
        "{{ event.data.person.email[{}] }}",
        "{{ event.data.person.email - 1 }}",
        "{{ event.data.person.email | round }}",
        "{{ event.data.person.email | money('EUR') }}",
        "{{ event.data.person.email.split(1) }}",
        "{{ event.data.person | join(3) }}",
        "{{ {event.data.person.email: 1}.y }}",
        "{{ range(event.data.person.email) }}",
        "{{ event.data.person.email.split('') }}",
        "{{ [event.data.person.email] | map(event.data.person.email) }}",
    ],
)
def test_a_fault_never_quotes_a_value(source: str) -> None:
    with pytest.raises(Fault) as fault:
        render(source)
    assert "ada" not in str(fault.value)
    assert fault.value.__cause__ is None


# --- wicked templates -------------------------------------------------------------------------------------------------

ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ event['__class__'] }}",
    "{{ event.__class__ }}",
    "{{ event | attr('__class__') }}",
    "{{ '{0.__class__}'.format(event) }}",
    "{{ '{0.__class__}'.format_map(event) }}",
    "{{ ('{0.__class__}' | format)(event) }}",
    "{{ '%s' | format(event) }}",
    "{{ '%s' % 'x' }}",
    "{{ '%99999999d' % 1 }}",
    "{{ cycler }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner() }}",
    "{{ namespace(a=1) }}",
    "{{ lipsum() }}",
    "{{ dict(a=1) }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ caller() }}",
    "{{ _budget }}",
    "{{ _budget.steps }}",
    "{{ event.get.__self__ }}",
    "{{ event.update({'id': 1}) }}",
    "{{ event.data.pop('person') }}",
    "{{ [].append(1) }}",
    "{{ event.clear() }}",
    "{{ event | _looped(1) }}",
    "{{ 1 | _built }}",
    "{{ [1] | map('attr', '__class__') }}",
    "{{ [1] | map('_built') }}",
    "{{ [event] | map(attribute='__class__') }}",
    "{{ [event] | selectattr('__class__') }}",
    "{{ [event] | sum(attribute='__class__') }}",
    "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% for x in [1] %}{{ loop.cycle(1) }}{% endfor %}",
    "{% for x in [1] %}{{ loop([2]) }}{% endfor %}",
    "{% for x in [1] %}{{ [loop] }}{% endfor %}",
    "{% for x in [1] recursive %}{{ loop(x) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block b %}{% endblock %}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% set x %}y{% endset %}",
    "{% set event.data = 1 %}",
    "{% set ns.x = 1 %}",
    "{% with a = 1 %}{{ a }}{% endwith %}",
    "{% autoescape true %}x{% endautoescape %}",
    "{% do 1 %}",
    "{{ [1, 2] | random }}",
    "{{ ids(*[1, 2]) }}",
    "{{ 'x' | replace(**{'old': 'x'}) }}",
    "{{ (1).bit_length() }}",
    "{{ 'x'.encode() }}",
    "{{ 'x'.join(['y']) }}",
    "{{ event.data.person.email.format.__globals__ }}",
    "{{ ''.join.__self__ }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_the_known_ways_out_are_closed(source: str) -> None:
    before = json.dumps(EVENT)
    with pytest.raises((BadTemplate, Fault)):
        render(source)
    assert json.dumps(EVENT) == before


BIG = "{% set a = 'aaaaaaaaaaaaaaaa' %}"
COSTLY = [
    "{% for i in range(10000) %}{% for j in range(10000) %}{{ i }}{% endfor %}{% endfor %}",
    "{% for i in range(9999999999) %}{% endfor %}",
    "{{ range(10 ** 18) | list }}",
    "{{ range(10000) | list + range(10000) | list + range(10000) | list }}",
    "{{ 'a' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 2 ** 64 ** 64 }}",
    "{{ 99999 ** 99999 }}",
    "{{ 1e300 ** 64 }}",
    "{{ " + " * ".join(["4611686018427387904"] * 12) + " }}",
    "{{ " + "9" * 5000 + " }}",
    BIG + "{% set a = a ~ a ~ a ~ a ~ a ~ a ~ a ~ a %}" * 12 + "{{ a }}",
    BIG + "{% set a = a + a + a + a + a + a %}" * 12 + "{{ a }}",
    BIG + "{% set a = a.replace('a', a) %}" * 12 + "{{ a }}",
    BIG + "{% set a = a | replace('a', a) | replace('a', a) %}" * 6 + "{{ a }}",
    BIG + "{% set a = a.replace('', a) %}" * 6 + "{{ a }}",
    BIG + "{% set a = a | replace('', a) %}" * 6 + "{{ a }}",
    BIG + "{% set a = [a, a, a, a] | join(a) %}" * 12 + "{{ a }}",
    "{% set a = [1] %}" + "{% set a = [a, a, a, a] %}" * 200 + "{{ a == a }}",
    "{% set a = {'x': 1} %}" + "{% set a = {'x': a, 'y': a} %}" * 60 + "{{ a | tojson }}",
    "{% set a = [1] %}" + "{% set a = a + a %}" * 40 + "{{ a | sum }}",
    "{% set a = 'x' * 1 %}{% for i in range(10000) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{% set a = range(10000) | list %}{% for i in a %}{% if i in a %}{% endif %}{% endfor %}",
    "{% set a = range(10000) | list %}{% for i in a %}{{ a | sort | first }}{% endfor %}",
    "{% set a = range(10000) | list %}{{ a | select('in', a) }}",
    "{% set a = range(10000) | list %}{{ [a, a, a] | map('tojson') }}",
    "{% set a = range(9000) | map('string') | join('x') %}{% for i in range(5000) %}{{ a == a ~ '' }}{% endfor %}",
    "{% set a = range(9000) | map('string') | join('x') %}{% for i in range(5000) %}{{ a.upper()[:1] }}{% endfor %}",
    "{% for i in range(10000) %}" + "{% if i == 1 %}x{% endif %}" * 150 + "{% endfor %}",
    "{{ 'x' | truncate(999999999999, true, 'y') ~ ('y' | default('a')) }}{% for i in range(99999) %}{% endfor %}",
    "{{ 1.5 | round(-99999999) }}",
    "{{ '" + "1" * 4000 + "' | int }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ " + "[" * 200 + "]" * 200 + " }}",
    "{{ 1" + " + 1" * 3000 + " }}",
    "{{ a" + ".b" * 3000 + " }}",
    "{{ event" + "['x']" * 2000 + " }}",
    "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "{% for i in [1] %}" * 30 + "{% endfor %}" * 30,
    "{{ 1 if 1 else " * 300 + "1" + " }}" * 1,
    "{{" + " " * 20000 + "}}",
    "{{ '" + "a" * 20000 + "' }}",
    "{# " + "{# " * 4000,
    "{{ " + "'" * 9999,
    "{% raw %}" * 900,
]


@pytest.mark.parametrize("source", COSTLY, ids=range(len(COSTLY)))
def test_no_template_costs_a_second(source: str) -> None:
    started = time.process_time()
    with pytest.raises((BadTemplate, Fault)):
        render(source)
    assert time.process_time() - started < 0.9


@pytest.mark.parametrize(
    "source",
    [
        "{{ event.subject | trim(event.type) }}",
        "{{ event.subject.strip(event.type) }}",
        "{{ event.subject.lstrip(event.type) }}",
        "{{ event.subject.rstrip(event.type) }}",
        "{{ event.data | map(attribute=event.type) }}",
        "{{ event.data | join('', event.type) }}",
        "{{ event.data | sort(attribute=event.type) }}",
        "{{ event.data | unique(event.type) }}",
        "{{ event.data | sum(attribute=event.type) }}",
        "{{ event.data | selectattr(event.type) }}",
        "{{ event.data | rejectattr(event.type) }}",
    ],
)
def test_what_every_character_or_entry_is_held_against_is_short(source: str) -> None:
    template = compile_template(source)
    assert template is not None
    event = {"type": "x." * 400, "subject": "y" * 20_000, "data": [None] * 2_000}
    with pytest.raises(Fault, match="expected at most"):
        template.render(scope_of(event, source="s", delivery="k"))


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(9000) %}{{ i ~ 'x' }}{% endfor %}",
        "{% for i in range(90) %}{% for j in range(90) %}{{ i * j }}{% endfor %}{% endfor %}",
        "{{ range(9000) | map('string') | join(',') }}",
        "{% set a = range(9000) | map('string') | sort | reverse | unique | list %}{{ a | first }}",
    ],
)
def test_work_within_the_bounds_is_done_and_is_quick(source: str) -> None:
    started = time.process_time()
    assert render(source)
    assert time.process_time() - started < 0.9


def test_nothing_is_computed_while_compiling() -> None:
    started = time.process_time()
    compile_template("{{ range(10000) | list | map('string') | join('x') }}" * 100)
    compile_template("{{ 999 ** 64 ** 64 }} x")
    assert time.process_time() - started < 0.9


def test_the_text_of_one_message_is_bounded_as_a_whole() -> None:
    template = compile_template("{{ range(10000) | map('string') | join('xxxxxxxxxx') }}")
    assert template is not None
    scope = scope_of(EVENT, source="s", delivery="k")
    assert len(template.render(scope)) < MAX_TEXT
    with pytest.raises(Fault, match="longer than"):
        template.render(scope)


def test_a_template_has_a_longest_source() -> None:
    with pytest.raises(BadTemplate, match="longer than"):
        compile_template("{{ 1 }}" + "x" * MAX_SOURCE)


def test_renders_at_the_same_time_have_budgets_of_their_own() -> None:
    template = compile_template("{% for i in range(6000) %}{{ i % 10 }}{% endfor %}")
    assert template is not None
    results: list[object] = []

    def work() -> None:
        for _ in range(3):
            try:
                results.append(template.render(scope_of(EVENT, source="s", delivery="k")))
            except Fault as fault:
                results.append(fault)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["0123456789" * 600] * 18


def test_one_template_sees_no_names_that_another_one_set() -> None:
    scope = scope_of(EVENT, source="s", delivery="k")
    first = compile_template("{% set secret = 5 %}{{ secret }}!")
    second = compile_template("{% if false %}{% set secret = 1 %}{% endif %}{{ secret }}!")
    assert first is not None
    assert second is not None
    assert first.render(scope) == "5!"
    with pytest.raises(Fault):
        second.render(scope)


WORDS = [
    "event", "ev", "delivery", ".", "data", "person", "grade", "identifiers", "[0]", "['x']", "|", "list", "join(",
    "map(attribute='value')", ")", "(", "'", "1", "0", "-1", "1e9", "+", "-", "*", "**", "/", "//", "%", "~", "==",
    "<", "in", "not", "is", "none", "and", "or", "if", "else", "[", "]", "{", "}", ":", ",", "{{", "}}", "{%", "%}",
    "for", "i", "endfor", "set", "=", "range(99)", "loop.index", "tojson", "sort", "upper", ".upper()", "default",
    ".split('a')", ".items()", "__class__", "endif", "int", "urlseg",
]  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(WORDS), max_size=14))
def test_whatever_is_written_ends_in_a_value_or_in_one_of_two_errors(words: list[str]) -> None:
    for source in ("{{ " + " ".join(words) + " }}", " ".join(words)):
        with contextlib.suppress(BadTemplate, Fault):
            template = compile_template(source)
            if template is not None:
                json.dumps(template.render(scope_of(EVENT, source="s", delivery="k")), allow_nan=False)


AS_IN_JINJA = [
    "{{ event.data.person.givenName }}: {{ event.data.grade.label | int + 1 }}",
    "{% for i in event.data.person.identifiers if i.scheme != 'x' %}{{ loop.index }}{{ i.value }}{% endfor %}",
    "{% for i in range(3) %}{% for j in range(i) %}{{ i * 10 + j }},{% endfor %}{% endfor %}",
    "{% set a, b = 1, 2 %}{{ a ~ b }}{% if a < b <= 2 and not a == b %}!{% elif a %}?{% endif %}",
    "{% for k, v in {'x': 1, 'y': 2}.items() %}{{ k }}={{ v }};{% else %}none{% endfor %}",
    "{%- for x in ['b', 'A', 'c'] | sort -%}  {{ x }}  {%- endfor %} end\n",
    "{{ 'a b c'.split() | join('-') }} {{ 'hello world' | title }} {{ ' x ' | trim }}",
    "{{ [1, 2, 3][1:] | sum }} {{ [3, 1, 2] | max }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ 7 / 2 }}",
    "{{ 'yes' if 'a' in ['a'] else 'no' }}{% if 5 is odd and none is none %} and yes{% endif %}",
    "{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'gt', 1) | map(attribute='a') | join }}",
    "{{ 'abcabc' | replace('a', 'x', 1) }} {{ 'abc' | reverse }} {{ 'abc'[-1] }} {{ 'abc'[::2] }}",
    "{{ 'one two three' | truncate(7) }} {{ 'x' | upper | lower | capitalize }} {{ [1, [2]] | length }}",
    "{# note #}{% raw %}{{ untouched }}{% endraw %} {{ '{{' }} {{ 'a' 'b' }}",
]


@pytest.mark.parametrize("source", AS_IN_JINJA)
def test_what_jinja_and_mappings_share_means_the_same(source: str) -> None:
    theirs = jinja2.Template(source + "|", keep_trailing_newline=True).render(event=EVENT)
    assert render(source + "|") == theirs
