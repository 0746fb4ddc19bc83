"""YAML 1.2 into plain values with their lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.config.documents import Document, parse_document


def parsed(text: str) -> Document:
    document, problems = parse_document(text.encode(), file="f.yaml")
    assert document is not None
    assert problems == []
    return document


def test_words_stay_words_and_numbers_become_numbers() -> None:
    document = parsed(
        "a: no\nb: on\nc: 2026-01-01\nd: 10\ne: 1.5\nf: ~\ng: true\nh: '10'\n"
        "i: 0x1F\nj: 1_000\nk: 12:30\nl: !!str 7\nm: =\n"
    )
    assert document.value == {
        "a": "no", "b": "on", "c": "2026-01-01", "d": 10, "e": 1.5, "f": None, "g": True, "h": "10", "i": 31,
        "j": "1_000", "k": "12:30", "l": "7", "m": "=",
    }  # fmt: skip


def test_folded_and_literal_texts_hold_what_is_written_and_nothing_else() -> None:
    document = parsed("a: >-\n  one\n  two  # kept\n\n  three\nb: |  # not kept\n  x\n   y\nc: one\n  two\n")
    assert document.value == {"a": "one two  # kept\nthree", "b": "x\n y\n", "c": "one two"}


def test_an_id_with_leading_zeros_is_no_number() -> None:
    assert parsed("id: 00123\nnumber: 0\n").value == {"id": "00123", "number": 0}


def test_numbers_that_json_cannot_hold_stay_text() -> None:
    assert parsed("a: .inf\nb: .nan\nc: 1e999\n").value == {"a": ".inf", "b": ".nan", "c": "1e999"}


def test_a_directive_of_an_older_yaml_changes_nothing() -> None:
    assert parsed("%YAML 1.1\n---\na: no\nb: 010\n").value == {"a": "no", "b": "010"}


def test_keys_are_text_as_they_are_written() -> None:
    assert parsed("1: a\nno: b\n~: c\n2.50: d\n").value == {"1": "a", "no": "b", "~": "c", "2.50": "d"}


def test_every_value_knows_its_line_and_a_missing_one_that_of_what_is_around_it() -> None:
    document = parsed("a:\n  - x: 1\n    y:\n      z: 2\n  - w\nb: {c: 3,\n  d: 4}\n")
    assert document.line(("a",)) == 1
    assert document.line(("a", 0, "x")) == 2
    assert document.line(("a", 0, "y", "z")) == 4
    assert document.line(("a", 0, "y", "missing", "deeper")) == 3
    assert document.line(("a", 1)) == 5
    assert document.line(("b", "d")) == 7
    assert document.line(("nowhere",)) == 1
    assert document.problem(("a", 0, "y"), "m").where == "a[0].y"


def test_all_keys_that_are_there_twice_are_named() -> None:
    document, problems = parse_document(b"a: 1\na: 2\nb: {c: 1, c: 2}\n", file="f.yaml")
    assert document is not None
    assert [str(problem) for problem in problems] == [
        "f.yaml:2: a: this key is there twice (first in line 1)",
        "f.yaml:3: b.c: this key is there twice (first in line 3)",
    ]


def test_merged_mappings_give_way_to_keys_of_their_own() -> None:
    document = parsed("x: &x {p: 1, q: 2}\ny: &y {q: 3, r: 4}\nz:\n  <<: [*x, *y]\n  p: 5\n")
    assert document.value["z"] == {"p": 5, "q": 2, "r": 4}
    assert document.line(("z", "p")) == 5


def test_an_alias_that_holds_itself_is_a_problem() -> None:
    _, problems = parse_document(b"a: &a [*a]\nb: &b {c: *b}\n", file="f.yaml")
    assert [problem.message for problem in problems] == ["an alias that holds itself"] * 2


SECRET = "sEcr3tValue"


@pytest.mark.parametrize(
    "text",
    [
        f"token: !{SECRET}!b", f"token: !{SECRET}", f"token: *{SECRET}", f"token: @{SECRET}", f"token: |{SECRET}",
        f"token: !<{SECRET}", f'token: "\\{SECRET}"', f'token: "\\x{SECRET}"', f"token: {SECRET}: x",
        f"%TAG !{SECRET}! x\n%TAG !{SECRET}! y\n---\na: 1", f"%TAG {SECRET} x\n---\na: 1", f"token: '{SECRET}",
        f"token: [{SECRET}", f"token: &{SECRET} &x a",
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_not_quoted(text: str) -> None:
    _, problems = parse_document(text.encode(), file="f.yaml")
    [said] = map(str, problems)
    assert SECRET not in said
    assert "'s'" not in said  # nor its first letter


def test_a_secret_that_looks_like_a_tag_is_told_how_to_be_written() -> None:
    _, problems = parse_document(f"a: 1\ntoken: !{SECRET}!b\n".encode(), file="f.yaml")
    assert [str(problem) for problem in problems] == [
        "f.yaml:2: a tag (!…) has no meaning here (a text that begins with ! needs quotes)"
    ]


def test_an_anchor_whose_name_is_used_again_is_the_later_one_and_no_line_is_printed() -> None:
    document = parsed(f"a: &k {SECRET}\nb: *k\nc: &k later\nd: *k\n")  # a warning would be an error here
    assert document.value == {"a": SECRET, "b": SECRET, "c": "later", "d": "later"}


@pytest.mark.parametrize("escape", ["UFFFFFFFF", "U00110000"])
def test_an_escape_beyond_unicode_is_a_problem(escape: str) -> None:
    document, problems = parse_document(f'a: "\\{escape}"'.encode(), file="f.yaml")
    assert document is None
    assert [problem.message for problem in problems] == ["not YAML: cannot be read"]


@given(st.text(max_size=60) | st.text(alphabet="ab:-{}[]&*!|>'\"%@#?,\n\t ~<0", max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_document_or_a_problem(text: str) -> None:
    document, problems = parse_document(text.encode("utf-8", "surrogatepass"), file="f.yaml")
    assert document is not None or problems
