"""`make bench`: accepting, end to end and memory, in one run of less than six minutes; --quick takes about one.

The raw figures go to bench/results/latest.json (with --quick to quick.json), from where figures.py quotes them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import accepting
import end_to_end
import load
import machine

_HERE = Path(__file__).parent
RESULTS = _HERE / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured. Times are seconds."""

    requests: int
    rounds: int
    seconds: int
    warm_seconds: int
    burst_seconds: int
    rate_seconds: int


FULL = Extent(requests=80_000, rounds=6, seconds=4, warm_seconds=3, burst_seconds=12, rate_seconds=20)
QUICK = Extent(requests=20_000, rounds=2, seconds=2, warm_seconds=1, burst_seconds=3, rate_seconds=4)
_RATE = 200.0


def main() -> None:
    """Measure, print and write down. Ends with status 1 when a request was not answered 200."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough measurement in about a minute")
    quick = parser.parse_args().quick
    signal.signal(signal.SIGTERM, _end)  # so that what was started is ended
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: run `make setup` as root, or install the package wrk")
    folder = Path(tempfile.mkdtemp(prefix="cb-bench-", dir="/var/tmp"))
    try:
        result = measure(folder, QUICK if quick else FULL)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / ("quick.json" if quick else "latest.json")
    file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    _print(result)
    sys.stdout.write(f"\nAll figures: {file.relative_to(_HERE.parent)}\n")
    if result["not_2xx"]:
        sys.exit(f"{result['not_2xx']} requests were not answered 200")


def measure(folder: Path, extent: Extent) -> dict[str, Any]:
    """The whole result: what is quoted at the top, everything else below."""
    sys.stdout.write("Signing webhooks …\n")
    about = machine.describe(folder)
    source = load.calls(seed=1)
    body_bytes = load.write(folder / "requests", extent.requests, source)
    sys.stdout.write("Accepting, in turns …\n")
    accept = accepting.measure(
        folder,
        folder / "requests",
        rounds=extent.rounds,
        seconds=extent.seconds,
        warm_seconds=extent.warm_seconds,
    )
    sys.stdout.write("End to end …\n")
    sys.stdout.flush()
    whole = end_to_end.measure(
        folder,
        source,
        requests=folder / "requests",
        burst_seconds=extent.burst_seconds,
        rate=_RATE,
        rate_seconds=extent.rate_seconds,
    )
    arms = accept["arms"]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _commit(),
        "machine": about,
        "body_bytes": body_bytes,
        "accept_bare_per_second": arms["bare"]["per_second"],
        "accept_per_second": arms["journal"]["per_second"],
        "accept_ratio_journal": accept["ratios"]["journal"]["median"],
        "accept_ratio_journal_with_shipper": accept["ratios"]["journal_with_shipper"]["median"],
        "accept_ratio_postgresql": accept["ratios"]["postgresql"]["median"],
        "accept_p99_ms": arms["journal"]["p99_ms"],
        "end_to_end_per_second": whole["burst"]["per_second"],
        "latency_p50_ms": whole["latency"]["p50_ms"],
        "latency_p99_ms": whole["latency"]["p99_ms"],
        "memory_pss_mb": whole["memory_at_rest"]["pss_mb"],
        "memory_after_pss_mb": whole["memory_after"]["pss_mb"],
        "not_2xx": sum(arm["not_2xx"] for arm in arms.values()) + whole["burst"]["not_2xx"],
        "accept": accept,
        "end_to_end": whole,
    }


def _print(result: dict[str, Any]) -> None:
    lines = [
        f"\n{'accepting':<24}{'per second':>12}{'of bare':>10}{'lowest':>8}{'highest':>9}{'p50 ms':>9}{'p99 ms':>9}"
    ]
    ratios = result["accept"]["ratios"]
    for name, arm in result["accept"]["arms"].items():
        ratio = ratios.get(name, {"median": 1.0, "lowest": 1.0, "highest": 1.0})
        lines.append(
            f"{name:<24}{arm['per_second']:>12.0f}{ratio['median']:>10.2f}{ratio['lowest']:>8.2f}"
            f"{ratio['highest']:>9.2f}{arm['p50_ms']:>9.1f}{arm['p99_ms']:>9.1f}"
        )
    whole = result["end_to_end"]
    burst, latency = whole["burst"], whole["latency"]
    lines += [
        f"\nend to end               {burst['per_second']:.0f} messages a second "
        f"({burst['delivered']} of {burst['accepted']} accepted, in {burst['seconds']} s)",
        f"at {latency['rate']:.0f} a second          p50 {latency['p50_ms']} ms, p99 {latency['p99_ms']} ms",
        f"memory at rest           {result['memory_pss_mb']} MB PSS ({whole['memory_at_rest']['rss_mb']} MB RSS), "
        f"after the burst {result['memory_after_pss_mb']} MB",
        f"not answered 2xx         {result['not_2xx']}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _commit() -> str | None:
    """The commit that was measured, with + when files were changed; None outside of a clone."""
    try:
        asked = ["git", "describe", "--always", "--abbrev=10", "--dirty=+", "--exclude=*"]
        said = subprocess.run(asked, cwd=_HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit("ended by a signal")


if __name__ == "__main__":
    main()
