"""Checks every figure that the READMEs quote against bench/results/*.json; with --write puts them in.

A quoted figure stands as `<!-- figure:NAME -->0.58<!-- /figure -->`. NAME is a path into latest.json, its parts divided
by dots (`machine.cores`), or into another file by that one's name (`delivering.one_worker.per_second`). It may end in
`|` and how it is written: `|0`, `|1`, `|2` decimals, `|%` as a percentage.
Without that it is written as it stands there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
FILES: Final = (ROOT / "README.md", ROOT / "bench" / "README.md")
RESULTS: Final = ROOT / "bench" / "results"
OTHERS: Final = ("delivering", "enriching", "reconciling")
_QUOTED: Final = re.compile(r"<!-- figure:(?P<name>[^ ]+) -->(?P<said>.*?)<!-- /figure -->", re.DOTALL)
_MARK: Final = re.compile(r"<!-- /?figure")


class UnknownFigure(Exception):
    """A name that is not in the results, or cannot be written as asked."""


def measured() -> dict[str, Any]:
    """All results: those of latest.json with what follows from them, and the others below their names."""
    results: dict[str, Any] = json.loads((RESULTS / "latest.json").read_text("utf-8"))
    results["end_to_end_ratio"] = results["end_to_end_per_second"] / results["accept_bare_per_second"]
    return results | {name: json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in OTHERS}


def written(results: Mapping[str, Any], name: str) -> str:
    """How a figure reads. Raises UnknownFigure."""
    path, _, form = name.partition("|")
    value: Any = results
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UnknownFigure(f"{path} is not in the results")
        value = value[part]
    if not form and isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, str | bool) or not isinstance(value, int | float):
        raise UnknownFigure(f"{path} is not a number")
    if form == "%":
        return f"{value:.0%}"
    if form in ("0", "1", "2"):
        return f"{value:,.{form}f}"
    raise UnknownFigure(f"{name}: |{form} is not known")


def disagreements(text: str, results: Mapping[str, Any]) -> list[str]:
    """What is wrong in a text, one line each: wrong figures, unknown ones, marks without their counterpart."""
    found = []
    for quoted in _QUOTED.finditer(text):
        try:
            right = written(results, quoted["name"])
        except UnknownFigure as error:
            found.append(str(error))
            continue
        if quoted["said"] != right:
            found.append(f"{quoted['name']} is {right}, and the text says {quoted['said'] or 'nothing'}")
    if 2 * len(_QUOTED.findall(text)) != len(_MARK.findall(text)):
        found.append("a figure's mark stands alone")
    return found


def corrected(text: str, results: Mapping[str, Any]) -> str:
    """The text with the right figures. Raises UnknownFigure."""
    return _QUOTED.sub(
        lambda quoted: f"<!-- figure:{quoted['name']} -->{written(results, quoted['name'])}<!-- /figure -->", text
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 when all figures agree."""
    parser = argparse.ArgumentParser(description="Check the figures that the READMEs quote.")
    parser.add_argument("--write", action="store_true", help="put the right figures in")
    write = parser.parse_args(arguments).write
    results = measured()
    wrong = 0
    for file in FILES:
        text = file.read_text("utf-8") if file.exists() else ""
        if write:
            try:
                fresh = corrected(text, results)
            except UnknownFigure as error:
                sys.stderr.write(f"{file.relative_to(ROOT)}: {error}\n")
                return 1
            if fresh != text:
                file.write_text(fresh, "utf-8")
                text = fresh
        for line in disagreements(text, results):
            sys.stderr.write(f"{file.relative_to(ROOT)}: {line}\n")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
