"""The machine under the figures, its disk, and what processes hold of its memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any


def describe(folder: Path) -> dict[str, Any]:
    """Cores, kernel, Python, and how long an fdatasync of 1 KiB takes in the folder (median and 99th percentile)."""
    taken = fsync_microseconds(folder)
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "fdatasync_p50_us": round(statistics.median(taken)),
        "fdatasync_p99_us": round(sorted(taken)[int(len(taken) * 0.99)]),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def fsync_microseconds(folder: Path, times: int = 400) -> list[float]:
    """Microseconds of single writes with fdatasync into a file that has its size already, as the journal does it."""
    path = folder / "fsync-probe"
    taken = []
    with path.open("wb") as file:
        file.write(bytes(1024 * times))
        file.flush()
        os.fsync(file.fileno())
        for number in range(times):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 1024, number * 1024)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e6)
    path.unlink()
    return taken


def processes_of(root: int, mentioning: str) -> dict[int, str]:
    """The process `root`, all below it, and those whose command line names a folder: pid and what it is."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        titles[int(entry.name)] = title
    found = {pid for pid, title in titles.items() if pid == root or mentioning in title}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: titles[pid] for pid in sorted(found)}


def memory(pids: Collection[int]) -> dict[str, float]:
    """Megabytes (10^6 bytes): `pss` counts a shared page once over all processes, `rss` in each of them."""
    sums = {"Pss": 0, "Rss": 0}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
        except OSError:
            continue  # it has ended
        for line in text.splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += int(rest.split()[0]) * 1024
    return {"pss_mb": round(sums["Pss"] / 1e6, 1), "rss_mb": round(sums["Rss"] / 1e6, 1), "processes": len(pids)}


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
