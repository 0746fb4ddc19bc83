"""Secrets from the environment and from files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.config.documents import parse_document
from bridge.config.references import Resolved, resolve


def resolved(text: str, environ: dict[str, str], folder: Path) -> Resolved:
    document, _ = parse_document(text.encode(), file="bridge.yaml")
    assert document is not None
    return resolve(document, environ, folder)


def test_references_are_filled_in_wherever_text_is(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("from a file\r\n", "utf-8")
    text = "a: ${A}\nb: ['x-${A}-${B}', {c: '${file:pass}'}]\nd: ${file:" + str(tmp_path / "pass") + "}\ne: 5\n"
    result = resolved(text, {"A": "1", "B": "${A}"}, tmp_path)
    assert result.problems == ()
    assert result.value == {"a": "1", "b": ["x-1-${A}", {"c": "from a file"}], "d": "from a file", "e": 5}
    assert result.referred == {("a",), ("b", 0), ("b", 1, "c"), ("d",)}


def test_a_doubled_dollar_is_a_plain_one(tmp_path: Path) -> None:
    assert resolved("a: $${A} $5 ${A}\n", {"A": "x"}, tmp_path).value == {"a": "${A} $5 x"}


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("${EMPTY}", "the environment variable EMPTY is empty"),
        ("${BLANK}", "the environment variable BLANK is empty"),
        ("${A:-default}", "not a reference"),
        ("${}", "not a reference"),
        ("${A", "a reference without its closing }"),
        ("${file:none}", "the file {folder}/none cannot be read: No such file or directory"),
        ("${file:}", "the file {folder} cannot be read: Is a directory"),
        ("${file:empty}", "the file {folder}/empty is empty"),
        ("${file:latin}", "the file {folder}/latin is not UTF-8"),
        ("${file:huge}", "the file {folder}/huge is larger than 64 KiB"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named_with_its_line(tmp_path: Path, reference: str, message: str) -> None:
    (tmp_path / "empty").write_text("\n", "utf-8")
    (tmp_path / "latin").write_bytes(b"\xe9")
    (tmp_path / "huge").write_bytes(b"x" * 70_000)
    result = resolved(f'a: 1\nb:\n  - "{reference}"\n', {"A": "x", "EMPTY": "", "BLANK": " \n"}, tmp_path)
    assert [(problem.line, problem.where) for problem in result.problems] == [(3, "b[0]")]
    assert result.problems[0].message == message.replace("{folder}", str(tmp_path))
    assert result.unknown == {("b", 0)}


def test_an_old_secret_that_is_unset_stops_the_start_too(tmp_path: Path) -> None:
    result = resolved('secrets: ["${NEW}", "${OLD}"]\n', {"NEW": "n"}, tmp_path)
    assert "OLD" in result.problems[0].message
    assert "take this entry out" in result.problems[0].hint
