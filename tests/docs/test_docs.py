"""The pages say what is true: generated ones are fresh, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from bridge.cli.app import campusbridge
from bridge.core.manifest import SourceConnector
from bridge.main import registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(text: str) -> Iterator[str]:
    """Lines that a reader is shown to type: all of a `sh` block, and those with a $ in a transcript."""
    for kind, block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if kind == "sh":
                yield line.strip()
            elif line.strip().startswith("$ "):
                yield line.strip().removeprefix("$ ")
    outside = BLOCK.sub("", text)
    yield from re.findall(r"`((?:campusbridge|make|\.venv/bin/campusbridge) [^`]*)`", outside)


def commands(page: Path, program: str) -> list[list[str]]:
    found = []
    for line in shell_lines(page.read_text("utf-8")):
        words = shlex.split(line.replace("`", "").replace("'", ""), comments=True)
        if words and words[0].rpartition("/")[2] == program:
            found.append(words[1:])
    return found


def complaint(words: list[str]) -> str | None:
    """What is wrong with a command line of `campusbridge`: an unknown verb or option. Its values are not looked at."""
    command: click.Command = campusbridge
    context = click.Context(command)
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("-"):
            known = {flag: option for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            flag = word.partition("=")[0]
            if flag not in known and flag not in ("--help", "-h"):
                return f"{command.name} has no option {flag}"
            option = known.get(flag)
            if isinstance(option, click.Option) and not option.is_flag and "=" not in word and left:
                left.pop(0)
        elif isinstance(command, click.Group):
            inner = command.get_command(context, word)
            if inner is None:
                return f"there is no {' '.join(words)}"
            command = inner
    return None


def test_generated_pages_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate-docs"), "--check"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}{done.stderr}.venv/bin/python scripts/generate-docs writes them anew"


@pytest.mark.parametrize("source", registry().sources.values(), ids=lambda source: source.name)
def test_the_page_about_enrichment_has_every_kind_and_every_call_with_its_fields(source: SourceConnector) -> None:
    page = (ROOT / "docs" / "enrichment.md").read_text("utf-8")
    rows = page.partition(f"\n## {source.title}\n")[2].partition("\n## ")[0].splitlines()
    table: dict[str, list[str]] = {}
    for row in rows:
        if found := re.match(r"\| `(\w[^`]*)`", row):
            table[found[1]] = [row]
        elif row.startswith("|  |"):
            table[list(table)[-1]].append(row)
    silent = {word for row in rows if row.startswith("Nothing behind it") for word in re.findall(r"`([^`]+)`", row)}

    for kind in source.manifest.kinds.values():
        assert (kind.name in silent) == (not kind.calls)
        assert len(table.get(kind.name, [])) == len(kind.calls)
        for call, row in zip(kind.calls, table.get(kind.name, []), strict=True):
            assert f"| `{call.call}` |" in row
            assert row.endswith(f"| `{call.failing}` |")
            assert all(path.rpartition(".")[2] in row for path in call.fills)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    made = set(TARGET.findall((ROOT / "Makefile").read_text("utf-8")))
    wrong = [found for words in commands(page, "campusbridge") if (found := complaint(words)) is not None]
    wrong += [f"make {words[0]}" for words in commands(page, "make") if words and words[0] not in made]

    assert wrong == []


def test_the_readme_shows_commands_at_all() -> None:
    readme = ROOT / "README.md"

    assert len(commands(readme, "campusbridge")) > 8
    assert ["run"] in commands(readme, "make")
    assert ["test"] in commands(readme, "make")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("events show 17a98029", False),
        ("-c data/demo/bridge.yaml events list --json", False),
        ("demo --events 300 --json", False),
        ("events vanish", True),
        ("reconcile wiseflow-main", False),
        ("reconciliate wiseflow-main", True),
        ("deliveries list --state dead", True),
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(line: str, wrong: bool) -> None:
    assert (complaint(line.split()) is not None) == wrong


def test_the_readme_has_a_place_for_each_figure() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    figures = re.findall(r"<!-- figure:(\w+) -->[^<]+<!-- /figure -->", text)

    assert sorted(figures) == [
        "accept_p99_ms", "accept_ratio_journal", "accept_ratio_postgresql", "end_to_end_per_second", "memory_pss_mb",
    ]  # fmt: skip


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = set(LINK.findall((folder / "README.md").read_text("utf-8")))

    assert {file.name for file in folder.glob("[0-9]*.md")} == listed
