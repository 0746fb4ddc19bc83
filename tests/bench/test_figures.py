"""What the READMEs say about speed is what the last measurement found."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
RESULTS = {"ratio": 0.5849, "speed": 1234.56, "machine": {"cores": 2}, "rounds": [1, 2], "date": "2026-01-02"}


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bench_figures", BENCH / "figures.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_readmes_quote_the_last_measurement(figures: ModuleType) -> None:
    results = figures.measured()
    wrong = {file.name: figures.disagreements(file.read_text("utf-8"), results) for file in figures.FILES}
    assert all(not lines for lines in wrong.values()), wrong


def test_the_benchmark_s_readme_quotes_figures_at_all(figures: ModuleType) -> None:
    assert (BENCH / "README.md").read_text("utf-8").count("<!-- figure:") >= 20


def test_the_quoted_ratio_is_the_median_of_all_rounds() -> None:
    results = json.loads((BENCH / "results" / "latest.json").read_text("utf-8"))
    arms = results["accept"]["arms"]
    for name in ("journal", "postgresql", "journal_with_shipper"):
        pairs = zip(arms[name]["rounds"], arms["bare"]["rounds"], strict=True)
        ratios = sorted(own["per_second"] / bare["per_second"] for own, bare in pairs)
        middle = (ratios[(len(ratios) - 1) // 2] + ratios[len(ratios) // 2]) / 2
        assert results[f"accept_ratio_{name}"] == pytest.approx(middle, abs=0.002)


def test_every_request_of_the_last_measurement_was_answered_and_delivered() -> None:
    results = json.loads((BENCH / "results" / "latest.json").read_text("utf-8"))
    burst, ledger = results["end_to_end"]["burst"], results["end_to_end"]["ledger"]
    assert results["not_2xx"] == 0
    assert burst["delivered"] == burst["accepted"]
    assert ledger["messages"] == {"delivered": ledger["deliveries"]}
    assert results["accept"]["postgresql_kept"] >= results["accept"]["postgresql_answered"]
    assert all(arm["began_again"] == 0 for name, arm in results["accept"]["arms"].items() if name != "bare")


@pytest.mark.parametrize(
    ("name", "right"),
    [("ratio|2", "0.58"), ("ratio|%", "58%"), ("speed|0", "1,235"), ("machine.cores", "2"), ("date", "2026-01-02")],
)
def test_a_figure_is_written_as_asked(figures: ModuleType, name: str, right: str) -> None:
    assert figures.written(RESULTS, name) == right


def test_a_wrong_figure_is_found_and_put_right(figures: ModuleType) -> None:
    text = "Half: <!-- figure:ratio|2 -->0.91<!-- /figure --> on <!-- figure:machine.cores --><!-- /figure --> cores"
    assert len(figures.disagreements(text, RESULTS)) == 2
    fresh = figures.corrected(text, RESULTS)
    assert fresh == text.replace("0.91", "0.58").replace("--><!-- /figure --> cores", "-->2<!-- /figure --> cores")
    assert figures.disagreements(fresh, RESULTS) == []


@pytest.mark.parametrize("name", ["nothing", "machine", "rounds", "machine.cores.more", "ratio|7", "date|2"])
def test_a_figure_that_was_not_measured_cannot_be_quoted(figures: ModuleType, name: str) -> None:
    text = f"<!-- figure:{name} -->1<!-- /figure -->"
    assert figures.disagreements(text, RESULTS)
    with pytest.raises(figures.UnknownFigure):
        figures.corrected(text, RESULTS)


@pytest.mark.parametrize("text", ["<!-- figure:ratio -->0.5849", "0.5849<!-- /figure -->", "<!-- figure: ratio -->1"])
def test_a_mark_without_its_counterpart_is_found(figures: ModuleType, text: str) -> None:
    assert figures.disagreements(text, RESULTS) == ["a figure's mark stands alone"]
