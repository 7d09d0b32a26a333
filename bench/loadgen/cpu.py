"""CPU of the processes under test, from /proc (Linux), before and after a run."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from pathlib import Path

import msgspec

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process(msgspec.Struct, frozen=True):
    """One process at one moment."""

    pid: int
    parent: int
    started: int
    """Ticks since boot: with the pid, unlike any other process's."""
    name: str
    cpu_s: float
    kernel_s: float = 0.0
    """Of `cpu_s`, for system calls."""


class CpuUse(msgspec.Struct, frozen=True):
    """What the processes of one name used during a run."""

    name: str
    processes: int
    cpu_s: float
    us_per_token: float
    us_per_request: float


def parse_stat(text: str, command: list[str]) -> Process:
    """Read `/proc/<pid>/stat`. A Python process is named after what it runs."""
    # The name stands in parentheses and may itself contain some.
    head, _, tail = text.rpartition(")")
    pid, _, name = head.partition(" (")
    fields = tail.split()
    if name.startswith("python"):
        name = _script(command) or name
    user, kernel = int(fields[11]), int(fields[12])
    cpu_s, kernel_s = (user + kernel) / _TICKS_PER_S, kernel / _TICKS_PER_S
    return Process(int(pid), int(fields[1]), int(fields[19]), name, cpu_s, kernel_s)


def _script(command: list[str]) -> str:
    for flag, value in itertools.pairwise(command[1:]):
        if flag == "-m":
            return value
    scripts = [part for part in command[1:] if part and not part.startswith("-")]
    return Path(scripts[0]).name if scripts else ""


def all_processes() -> list[Process]:
    """Every process of this host that can be read."""
    processes = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            processes.append(parse_stat((folder / "stat").read_text(), command))
        except OSError:
            continue  # it ended while we looked
    return processes


def select(processes: list[Process], wanted: list[str]) -> list[Process]:
    """Those named by pid or by a part of their name, and all their descendants."""
    children = defaultdict(list)
    for process in processes:
        children[process.parent].append(process)
    chosen: dict[int, Process] = {}
    queue = [
        process
        for process in processes
        if any(
            process.pid == int(want) if want.isdigit() else want in process.name for want in wanted
        )
    ]
    while queue:
        process = queue.pop()
        if process.pid not in chosen:
            chosen[process.pid] = process
            queue += children[process.pid]
    return [process for pid, process in chosen.items() if pid != os.getpid()]


def used(
    before: list[Process], after: list[Process], *, tokens: int, requests: int
) -> list[CpuUse]:
    """CPU between two readings, by name. A process that ended in between is not counted."""
    earlier = {(process.pid, process.started): process.cpu_s for process in before}
    totals: dict[str, list[float]] = defaultdict(list)
    for process in after:
        since = earlier.get((process.pid, process.started), 0.0)
        totals[process.name].append(process.cpu_s - since)
    return [
        CpuUse(
            name,
            len(spent),
            sum(spent),
            sum(spent) * 1e6 / max(1, tokens),
            sum(spent) * 1e6 / max(1, requests),
        )
        for name, spent in sorted(totals.items(), key=lambda item: -sum(item[1]))
    ]
