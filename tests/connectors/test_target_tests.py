"""Every target's own `tests.yaml`: requests byte for byte, and each answer of its table judged as written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bridge.main import registry
from bridge.testing.target_cases import answer_problems, case_problems, cases

TARGETS = registry().targets
TESTS = {name: cases(connector) for name, connector in TARGETS.items()}
CASES = [(name, case) for name, tests in TESTS.items() for case in tests.get("cases", ())]
ANSWERS = [(name, number, row) for name, tests in TESTS.items() for number, row in enumerate(tests.get("answers", ()))]


@pytest.mark.parametrize(("target", "case"), CASES, ids=[f"{name}: {case['name']}" for name, case in CASES])
def test_a_conversation_is_as_the_case_says(target: str, case: Mapping[str, Any]) -> None:
    assert case_problems(TARGETS[target], case, TESTS[target]) == []


@pytest.mark.parametrize(
    ("target", "row"),
    [(name, row) for name, _, row in ANSWERS],
    ids=[f"{name}-{row['operation']}-{row['status']}-{row['as']}-{number}" for name, number, row in ANSWERS],
)
def test_an_answer_means_what_the_table_says(target: str, row: Mapping[str, Any]) -> None:
    assert answer_problems(TARGETS[target], row, TESTS[target]) == []


def test_every_operation_has_a_case() -> None:
    told = {(name, case["operation"]) for name, case in CASES}
    with_tests = [name for name, tests in TESTS.items() if tests]
    missing = {(name, operation) for name in with_tests for operation in TARGETS[name].manifest.operations} - told
    assert missing == set()
